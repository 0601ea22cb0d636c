"""One key of the configuration as an input, one line of a form, and a part of it that folds."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import ipywidgets as widgets
from traitlets import Unicode, observe

from ..core.errors import ConfigError
from ..core.fields import Field
from ..session import Session
from . import lean
from .lean import mark, show
from .style import escape, row, text

_AXES = "datasets.geom.axes"
CAPTIONS = {
    "datasets.stack": "stack",
    f"{_AXES}.energy.nbins": "bins",
    f"{_AXES}.energy_true.nbins": "bins",
}
PLACEHOLDERS = {
    "observations.obs_ids": "all runs of the index",
    "observations.obs_file": "list of runs",
    "observations.obs_cone.lon": "lon",
    "observations.obs_cone.lat": "lat",
    "observations.obs_cone.radius": "radius",
    "observations.obs_time.start": "start",
    "observations.obs_time.stop": "stop",
    "general.models_file": "models.yaml",
    "general.datasets_file": "datasets.yaml",
    "general.log.filename": "the screen",
    "general.log.filemode": "w or a",
    "datasets.background.exclusion": "FITS mask or DS9 regions",
    "datasets.safe_mask.parameters.fixed_offset": "that of the position",
    "datasets.safe_mask.parameters.position.lon": "lon",
    "datasets.safe_mask.parameters.position.lat": "lat",
    "datasets.background.parameters.r_in": "0.7 deg",
    "datasets.background.parameters.width": "0.3 deg",
    "datasets.background.parameters.r_out_max": "the ring is fixed",
}


class Chips(lean.HBox):
    """Words to switch on and off; ``value`` is those that are on, as text."""

    value = Unicode()

    def __init__(self, words: Sequence[str], tooltip: str) -> None:
        self.chips = {
            word: lean.ToggleButton(description=word, tooltip=tooltip, classes="imgfit-chip")
            for word in words
        }
        self._showing = False
        super().__init__(list(self.chips.values()), classes="imgfit-chips")
        for chip in self.chips.values():
            chip.observe(self._pressed, "value")

    def _on(self) -> list[str]:
        return [word.strip() for word in self.value.split(",") if word.strip()]

    @observe("value")
    def _show(self, change: object = None) -> None:
        self._showing = True
        for word, chip in self.chips.items():
            chip.value = word in self._on()
        self._showing = False

    def _pressed(self, change: Any) -> None:
        if self._showing:
            return
        # Those that are on keep their order; a new one goes to the end, as one writes a list.
        on = [word for word in self._on() if word in self.chips and self.chips[word].value]
        on += [word for word, chip in self.chips.items() if chip.value and word not in on]
        self.value = ", ".join(on)


class FieldEditor(lean.VBox):
    """One key of the configuration: an input that is linked with it, and its error.

    Parameters
    ----------
    session : Session
    field : Field

    ``apply`` takes an input over: sets the key, unless someone has more to do with it.
    """

    message = Unicode()
    """Why the last input was refused; empty when it is right."""

    def __init__(self, session: Session, field: Field) -> None:
        self.session, self.field = session, field
        self.apply = field.set
        self.refused = False
        self.input = self._make_input()
        super().__init__([self.input], classes=f"imgfit-field imgfit-kind-{field.kind}")
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
        field, tooltip = self.field, self.help_text()
        if field.kind == "choice":
            empty = [("–", "")] if field.optional else []
            options = [*empty, *((word, word) for word in field.choices)]
            return lean.Dropdown(options=options, value=self.text, tooltip=tooltip)
        if field.kind == "bool":
            caption = CAPTIONS.get(field.path, "")
            return lean.Checkbox(
                value=self.text, description=caption, indent=False, tooltip=tooltip
            )
        if field.kind == "choices":
            return Chips(field.choices, tooltip)
        placeholder = PLACEHOLDERS.get(field.path, field.default_text)
        return lean.Text(
            self.text, continuous_update=False, placeholder=placeholder, tooltip=tooltip
        )

    @property
    def text(self) -> Any:
        """The value of the key as the input shows it."""
        return self.field.value if self.field.kind == "bool" else self.field.text

    @observe("message")
    def _mark(self, change: Any) -> None:
        mark(self.input, "imgfit-invalid", change.new)

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
            with self.session.history.gesture():
                self.apply(value)
        except ConfigError as error:
            reason = str(error).removeprefix(f"{self.field.path}: ")
            kept = self.field.text or "empty"
            self.refused, self.message = True, f"{reason}. Still {kept}."
            return
        self.show()


class FormRow(lean.VBox):
    """A label, one to three inputs, and their errors underneath."""

    def __init__(self, session: Session, label: str, fields: list[Field]) -> None:
        self.label = label
        self.editors = [FieldEditor(session, field) for field in fields]
        title = "\n\n".join(editor.help_text() for editor in self.editors)
        self._error = text(classes="imgfit-field-error")
        head = text(f'<span title="{escape(title)}">{escape(label)}</span>', "imgfit-label")
        inputs = row(*self.editors, classes="imgfit-inputs")
        super().__init__(
            [row(head, inputs, classes="imgfit-form-row"), self._error],
            classes=f"imgfit-inputs-{len(fields)} imgfit-kinds-{fields[-1].kind}",
        )
        for editor in self.editors:
            editor.observe(self._show_errors, "message")
        self._show_errors()

    def _show_errors(self, change: object = None) -> None:
        self._error.value = "<br>".join(escape(e.message) for e in self.editors if e.message)
        show(self._error, bool(self._error.value))


class Fold(lean.VBox):
    """A part of a form behind its title, which tells how many keys in it are not at default.

    It opens by itself while an input in it is refused.
    """

    def __init__(self, session: Session, title: str, lines: Sequence[widgets.Widget]) -> None:
        self.title, self.lines = title, lines
        self.head = lean.ToggleButton(value=False, description=title, classes="imgfit-fold-head")
        self.body = lean.VBox(list(lines), classes="imgfit-fold-body")
        super().__init__([self.head, self.body], classes="imgfit-fold-part")
        self.head.observe(self._turn, "value")
        self.editors = [editor for line in lines for editor in getattr(line, "editors", [])]
        for editor in self.editors:
            editor.observe(self._open, "message")
        session.observe(self._count, "revision")
        self._turn()
        self._count()

    def _turn(self, change: object = None) -> None:
        show(self.body, self.head.value)

    def _open(self, change: Any) -> None:
        if change.new:
            self.head.value = True

    def _count(self, change: object = None) -> None:
        n = sum(editor.field.text != editor.field.default_text for editor in self.editors)
        self.head.description = f"{self.title} · {n} set" if n else self.title
