"""The analysis configuration as a form and as YAML, and the button that reduces the data.

`FORM` says which keys stand in the form and how they are grouped; every other key of the
configuration is reached through the YAML view. Each field is linked with its trait: an edit sets
it, a change by any other hand is shown, a bad value is refused with the reason under the field.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import ipywidgets as widgets
from traitlets import Unicode, observe

from ..core.errors import ConfigError, ImgfitError
from ..core.fields import Field
from ..session import Session
from .progress import ProgressBar
from .style import (
    Panel,
    button,
    card_head,
    escape,
    row,
    show,
    switch,
    text,
)
from .yaml_view import YamlView

_WCS = "datasets.geom.wcs"
_AXES = "datasets.geom.axes"

FORM: tuple[tuple[str, tuple[tuple[str, tuple[str, ...]], ...]], ...] = (
    (
        "Observations",
        (
            ("Data store", ("observations.datastore",)),
            ("Runs", ("observations.obs_ids",)),
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
    ),
    (
        "Energy axes",
        (
            ("Reco", tuple(f"{_AXES}.energy.{key}" for key in ("min", "max", "nbins"))),
            ("True", tuple(f"{_AXES}.energy_true.{key}" for key in ("min", "max", "nbins"))),
        ),
    ),
    (
        "Background",
        (
            ("Method", ("datasets.background.method",)),
            ("Exclusion", ("datasets.background.exclusion",)),
            ("Options", ("datasets.background.parameters",)),
        ),
    ),
    (
        "Safe mask",
        (
            ("Methods", ("datasets.safe_mask.methods",)),
            ("Options", ("datasets.safe_mask.parameters",)),
        ),
    ),
    ("Fit", (("Energy", ("fit.fit_range.min", "fit.fit_range.max")),)),
)

_CAPTIONS = {
    "datasets.stack": "stack",
    f"{_AXES}.energy.nbins": "bins",
    f"{_AXES}.energy_true.nbins": "bins",
}
_PLACEHOLDERS = {"observations.obs_ids": "all runs of the index"}


class FieldEditor(widgets.VBox):
    """One key of the configuration: an input that is linked with it, and its error.

    Parameters
    ----------
    session : Session
    field : Field
    """

    message = Unicode()
    """Why the last input was refused; empty when it is right."""

    def __init__(self, session: Session, field: Field) -> None:
        self.session, self.field = session, field
        self.refused = False
        self.input = self._make_input()
        self.input.tooltip = self.help_text()
        super().__init__([self.input])
        self.add_class("imgfit-field")
        self.add_class(f"imgfit-kind-{field.kind}")
        field.section.observe(self.show, field.name)
        self.input.observe(self._edited, "value")
        self.show()

    def help_text(self) -> str:
        """What the tooltip says: meaning, unit, default, key."""
        field = self.field
        parts = [field.help]
        if field.unit:
            parts.append(f"Unit: {field.unit}, or any that converts to it.")
        if field.choices and field.kind == "choices":
            parts.append(f"Any of: {', '.join(field.choices)}.")
        parts.append(f"Default: {field.default_text or 'empty'}.")
        parts.append(f"Key: {field.path}")
        return "\n".join(parts)

    def _make_input(self) -> Any:
        field = self.field
        if field.kind == "choice":
            empty = [("–", "")] if field.optional else []
            return widgets.Dropdown(options=[*empty, *((word, word) for word in field.choices)])
        if field.kind == "bool":
            caption = _CAPTIONS.get(field.path, "")
            return widgets.Checkbox(description=caption, indent=False)
        placeholder = _PLACEHOLDERS.get(field.path, field.default_text)
        return widgets.Text(continuous_update=False, placeholder=placeholder)

    @property
    def text(self) -> Any:
        """The value of the key as the input shows it."""
        return self.field.value if self.field.kind == "bool" else self.field.text

    @observe("message")
    def _mark(self, change: Any) -> None:
        (self.input.add_class if change.new else self.input.remove_class)("imgfit-invalid")

    def show(self, change: object = None) -> None:
        """Show the value of the key in place of any input that was refused."""
        self.refused, self.message = False, ""
        self.input.value = self.text

    def _edited(self, change: Any) -> None:
        self.session.owner(functools.partial(self._apply, change.new))

    def _apply(self, value: Any) -> None:
        if value == self.text:
            self.refused, self.message = False, ""
            return
        try:
            self.field.set(value)
        except ConfigError as error:
            reason = str(error).removeprefix(f"{self.field.path}: ")
            kept = self.field.text or "empty"
            self.refused, self.message = True, f"{reason}. Still {kept}."
            return
        self.show()


class FormRow(widgets.VBox):
    """A label, one to three inputs, and their errors underneath."""

    def __init__(self, session: Session, label: str, fields: list[Field]) -> None:
        self.label = label
        self.editors = [FieldEditor(session, field) for field in fields]
        title = "\n\n".join(editor.help_text() for editor in self.editors)
        self._error = text(classes="imgfit-field-error")
        head = text(f'<span title="{escape(title)}">{escape(label)}</span>', "imgfit-label")
        inputs = row(*self.editors, classes="imgfit-inputs")
        super().__init__([row(head, inputs, classes="imgfit-form-row"), self._error])
        self.add_class(f"imgfit-inputs-{len(fields)}")
        for editor in self.editors:
            editor.observe(self._show_errors, "message")
        self._show_errors()

    def _show_errors(self, change: object = None) -> None:
        self._error.value = "<br>".join(escape(e.message) for e in self.editors if e.message)
        show(self._error, bool(self._error.value))


class ConfigEditor(Panel):
    """Form, YAML view and Reduce button; see the module's docstring."""

    def __init__(self, session: Session) -> None:
        self.rows: list[FormRow] = []
        self.form = widgets.VBox(list(self._groups(session))).add_class("imgfit-form")
        self.yaml = YamlView(session, session.export_config, self._take)
        self.view = switch(["Form", "YAML"], ["Edit fields", "Edit, load and save as YAML"])
        self.reset = button("Reset", "Back to the defaults", "imgfit-quiet")
        self.reduce_button = button("Reduce", classes="imgfit-primary imgfit-reduce-button")
        self.cancel_button = button("Cancel", "Stop the reduction", "imgfit-reduce-cancel")
        self.reason = text(classes="imgfit-reason")
        self.progress = ProgressBar(session.task, ["reduce"]).add_class("imgfit-reduce-progress")
        actions = row(self.reduce_button, self.cancel_button, self.reset)
        foot = widgets.VBox([actions, self.reason, self.progress]).add_class("imgfit-card-foot")
        head = card_head("Configuration", self.view)
        super().__init__(session, [head, self.form, self.yaml, foot], "imgfit-card imgfit-config")
        self.reduce_button.on_click(lambda _: session.attempt(session.reduce))
        self.cancel_button.on_click(lambda _: session.cancel())
        self.reset.on_click(lambda _: session.attempt(self._take, type(session.config)()))
        session.drafts["reduce"].append(self._hand_over)
        for editor in self.editors.values():
            editor.observe(self._update, "message")
        self.view.observe(self._switch, "value")
        session.task.observe(self._update, "status")
        session.observe(self._update, ["revision", "datasets"])
        session.observe(self._point_out, "error")
        self._switch()
        self._update()

    def _groups(self, session: Session) -> Iterator[widgets.Widget]:
        for title, lines in FORM:
            yield text(f"<h4>{escape(title)}</h4>")
            for label, paths in lines:
                fields = [session.config.field(path) for path in paths]
                line = FormRow(session, label, fields)
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
        return ""

    def _take(self, config: Any) -> None:
        self.session.set_config(config)
        for editor in self.editors.values():
            editor.show()

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
        reducing = session.task.running and session.task.kind == "reduce"
        self.reduce_button.disabled = bool(reason)
        show(self.cancel_button, reducing)
        if reason:
            words = "" if reducing else escape(reason)
        elif session.datasets is not None and not session.data_are_current:
            words = '<span class="imgfit-stale">Changed since the last reduction</span>'
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
