"""The analysis configuration as a form and as YAML, and the button that reduces the data.

`FORM` says which keys stand in the form, how they are grouped and which are folded away; the few
others, of spectra and light curves, are reached through the YAML view. Each field is linked with
its trait: an edit sets it, a change by any other hand is shown, a bad value is refused with the
reason under the field. Options of methods, which are a free mapping in the file, are typed fields
too (options_form.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import ipywidgets as widgets

from ..core.errors import ImgfitError
from ..session import Session
from . import lean
from .config_fields import FieldEditor, Fold, FormRow
from .lean import show
from .numbers import count_text
from .options_form import BackgroundOptions, ProjectionRow, SafeMaskOptionsForm
from .progress import ProgressBar
from .style import Panel, button, card_head, escape, row, switch, text
from .yaml_view import YamlView

_WCS = "datasets.geom.wcs"
_AXES = "datasets.geom.axes"

_CONE, _TIME = "observations.obs_cone", "observations.obs_time"
_EXCESS, _EDGES = "excess_map", "excess_map.energy_edges"

Lines = tuple[tuple[str, tuple[str, ...]], ...]

FORM: tuple[tuple[str, Lines, tuple[str, Lines] | None], ...] = (
    (
        "Observations",
        (("Data store", ("observations.datastore",)), ("Runs", ("observations.obs_ids",))),
        (
            "Select runs",
            (
                ("List file", ("observations.obs_file",)),
                ("Cone", tuple(f"{_CONE}.{key}" for key in ("frame", "lon", "lat", "radius"))),
                ("Time", (f"{_TIME}.start", f"{_TIME}.stop")),
                ("Responses needed", ("observations.required_irf",)),
            ),
        ),
    ),
    (
        "Geometry",
        (
            ("Type", ("datasets.type", "datasets.stack")),
            ("Frame", (f"{_WCS}.skydir.frame",)),
            ("Centre", (f"{_WCS}.skydir.lon", f"{_WCS}.skydir.lat")),
            ("Size", (f"{_WCS}.width.width", f"{_WCS}.width.height")),
            ("Pixel", (f"{_WCS}.binsize",)),
            ("IRF pixel", (f"{_WCS}.binsize_irf",)),
            ("Max. offset", ("datasets.geom.selection.offset_max",)),
        ),
        ("Maps to make", (("Maps", ("datasets.map_selection",)),)),
    ),
    (
        "Energy axes",
        (
            ("Reco", tuple(f"{_AXES}.energy.{key}" for key in ("min", "max", "nbins"))),
            ("True", tuple(f"{_AXES}.energy_true.{key}" for key in ("min", "max", "nbins"))),
        ),
        None,
    ),
    (
        "Background",
        (
            ("Method", ("datasets.background.method",)),
            ("Exclusion", ("datasets.background.exclusion",)),
        ),
        None,
    ),
    ("Safe mask", (("Methods", ("datasets.safe_mask.methods",)),), None),
    (
        "Fit",
        (("Energy", ("fit.fit_range.min", "fit.fit_range.max")),),
        (
            "Excess maps",
            (
                ("Radius", (f"{_EXCESS}.correlation_radius",)),
                (
                    "Bands",
                    tuple(f"{_EXCESS}.energy_edges.{key}" for key in ("min", "max", "nbins")),
                ),
                ("Options", (f"{_EXCESS}.parameters",)),
            ),
        ),
    ),
    (
        "Files and computing",
        (),
        (
            "Files and processes",
            (
                ("Models", ("general.models_file",)),
                ("Results", ("general.outdir",)),
                ("Processes", ("general.n_jobs",)),
                ("Datasets", ("general.datasets_file",)),
            ),
        ),
    ),
    (
        "",
        (),
        (
            "Log",
            (
                ("Level", ("general.log.level",)),
                ("File, mode", ("general.log.filename", "general.log.filemode")),
                ("Format", ("general.log.format",)),
                ("Dates", ("general.log.datefmt",)),
            ),
        ),
    ),
)
"""Groups: title, lines that are always seen, and a part that is folded: its title and lines."""


class ConfigEditor(Panel):
    """Form, YAML view and Reduce button; see the module's docstring."""

    def __init__(self, session: Session) -> None:
        self.rows: list[FormRow] = []
        self.projection = ProjectionRow(session)
        self.skip = lean.Checkbox(
            description="Go on without runs that fail",
            indent=False,
            value=session.skip_failed,
            tooltip="Runs that cannot be used are left out and listed with their reasons",
            classes="imgfit-skip-failed",
        )
        self.read = button("Read these datasets", "Instead of a reduction", "imgfit-read-datasets")
        self.form = lean.VBox(list(self._groups(session)), classes="imgfit-form")
        self.yaml = YamlView(session, session.export_config, self._take)
        self.view = switch(["Form", "YAML"], ["Edit fields", "Edit, load and save as YAML"])
        self.reset = button("Reset", "Back to the defaults", "imgfit-quiet")
        self.reduce_button = button("Reduce", classes="imgfit-primary imgfit-reduce-button")
        self.cancel_button = button("Cancel", "Stop the reduction", "imgfit-reduce-cancel")
        self.reason = text(classes="imgfit-reason")
        self.progress = ProgressBar(session.task, ["reduce", "read"], "imgfit-reduce-progress")
        actions = row(self.reduce_button, self.cancel_button, self.reset)
        self.left_out = text(classes="imgfit-left-out imgfit-note")
        foot = lean.VBox(
            [actions, self.reason, self.left_out, self.progress], classes="imgfit-card-foot"
        )
        head = card_head("Configuration", self.view)
        super().__init__(session, [head, self.form, self.yaml, foot], "imgfit-card imgfit-config")
        self.reduce_button.on_click(lambda _: session.attempt(session.reduce))
        self.read.on_click(lambda _: session.attempt(session.read_datasets))
        self.skip.observe(
            lambda change: session.owner(lambda: session.set_trait("skip_failed", change.new)),
            "value",
        )
        session.observe(lambda change: self.skip.set_trait("value", change.new), "skip_failed")
        self.cancel_button.on_click(lambda _: session.cancel())
        self.reset.on_click(lambda _: session.attempt(self._take, type(session.config)()))
        session.drafts["reduce"].append(self._hand_over)
        editors: list[widgets.Widget] = [*self.editors.values(), self.projection]
        for editor in editors:
            editor.observe(self._update, "message")
        self.view.observe(self._switch, "value")
        session.task.observe(self._update, "status")
        session.observe(self._update, ["revision", "datasets"])
        session.observe(self._point_out, "error")
        self._switch()
        self._update()

    def _groups(self, session: Session) -> Iterator[widgets.Widget]:
        background, safe_mask = BackgroundOptions(session), SafeMaskOptionsForm(session)
        self.options = background, safe_mask
        extra: dict[str, list[widgets.Widget]] = {
            "Geometry": [self.projection],
            "Background": [background],
            "Safe mask": [safe_mask],
        }
        inside: dict[str, list[widgets.Widget]] = {
            "Select runs": [self.skip],
            "Files and processes": [self.read],
        }
        for title, lines, folded in FORM:
            if title:
                yield text(f"<h4>{escape(title)}</h4>")
            # Options stand under the method that they belong to.
            first = 1 if title in ("Background", "Safe mask") else len(lines)
            yield from self._lines(session, lines[:first])
            yield from extra.get(title, [])
            yield from self._lines(session, lines[first:])
            if folded is not None:
                part = [*self._lines(session, folded[1]), *inside.get(folded[0], [])]
                yield Fold(session, folded[0], part)
        for options in self.options:
            self.rows += options.rows
        background.watch(self.editors["datasets.background.method"])

    def _lines(self, session: Session, lines: Lines) -> Iterator[FormRow]:
        for label, paths in lines:
            line = FormRow(session, label, [session.config.field(path) for path in paths])
            self.rows.append(line)
            yield line

    @property
    def editors(self) -> dict[str, FieldEditor]:
        """The field editors by YAML path."""
        return {e.field.path: e for line in self.rows for e in line.editors}

    @property
    def refusal(self) -> str:
        """Which input of the form cannot be used, and why; empty if all can."""
        for line in self.rows:
            for editor in line.editors:
                if editor.refused:
                    return f"{line.label}: {editor.message}"
        return f"Projection: {self.projection.message}" if self.projection.message else ""

    def _take(self, config: Any) -> None:
        self.session.set_config(config)
        for line in self.rows:
            for editor in line.editors:
                editor.show()
        for options in self.options:
            options.show_mapping()
        self.projection.show()

    def _hand_over(self) -> None:
        """Before a reduction: nothing that was typed may be passed over."""
        if self.refusal:
            raise ImgfitError(self.refusal)
        self.yaml.hand_over()

    def _switch(self, change: object = None) -> None:
        show(self.form, self.view.value == "Form")
        show(self.yaml, self.view.value == "YAML")

    def _update(self, change: object = None) -> None:
        session = self.session
        reason = session.why_not("reduce") or self.refusal
        reducing = session.task.running and session.task.kind in ("reduce", "read")
        unread = session.why_not("read_datasets")
        self.read.disabled, self.read.tooltip = bool(unread), unread or "Instead of a reduction"
        self.left_out.value = left_out_words(session.failed)
        show(self.left_out, bool(session.failed))
        self.reduce_button.disabled = bool(reason)
        show(self.cancel_button, reducing)
        if reason:
            words = "" if reducing else escape(reason)
        elif session.task.status == "failed" and session.task.kind in ("reduce", "read"):
            error = escape(session.task.error)
            words = f'<span class="imgfit-failed imgfit-reduce-error">{error}</span>'
        elif session.datasets is not None and not session.data_are_current:
            words = '<span class="imgfit-stale">Changed since the last reduction</span>'
        elif session.dataset is not None and session.data_are_reduced:
            counts = count_text(float(session.dataset.counts.data.sum()))
            words = f"The maps are of this configuration: {counts} counts"
        else:
            words = ""
        self.reason.value = words
        show(self.reason, bool(words))

    def _point_out(self, change: Any) -> None:
        """Show an error of the reduction at the field that it names."""
        path, _, reason = str(change.new).partition(": ")
        editor = self.editors.get(path)
        if editor is not None and reason:
            editor.message = reason


def left_out_words(failed: Mapping[int, str]) -> str:
    """The runs that a reduction went without, with their reasons."""
    if not failed:
        return ""
    lines = "".join(
        f"<li><b>{run}</b> {escape(reason.removeprefix(f'observation {run}: '))}</li>"
        for run, reason in failed.items()
    )
    runs = "1 run is" if len(failed) == 1 else f"{len(failed)} runs are"
    return f"{runs} left out:<ul>{lines}</ul>"
