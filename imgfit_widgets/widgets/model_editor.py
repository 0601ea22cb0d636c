"""The models: a list of sources and backgrounds, and the parameters of the selected one.

Every cell of the parameter table is a trait of a `Parameter`: an edit sets it, a change by the map,
the fit or a script is shown. The shapes to choose from are those of `SPATIAL_MODELS`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from ..core.errors import ModelError
from ..core.models import SPATIAL_MODELS, Component, Parameter, SkyModel
from ..session import Session
from .numbers import error_text, limit_text, unit_text, value_text
from .style import (
    Panel,
    button,
    card_head,
    escape,
    row,
    show,
    source_colour,
    switch,
    text,
)
from .yaml_view import YamlView

REFRESH = 0.08  # seconds: while a source is dragged, numbers need not follow every step


class NumberField(widgets.Text):
    """A text input that is linked with one number of a parameter: value, min or max.

    It shows the number as short as its error allows and takes any number, or one with a unit; the
    tooltip has all digits. What is refused stays in the input, marked, with the reason in
    ``message``.
    """

    def __init__(
        self, session: Session, parameter: Parameter, name: str, report: Callable[[str], None]
    ) -> None:
        self.session, self.parameter, self._name, self._report = session, parameter, name, report
        super().__init__(continuous_update=False, placeholder="" if name == "value" else name)
        self.add_class(f"imgfit-cell-{name}")
        parameter.observe(self._changed, [name, "error"] if name == "value" else name)
        self.observe(self._edited, "value")
        self._show()

    def detach(self) -> None:
        """Stop following the parameter."""
        self.parameter.unobserve(
            self._changed, [self._name, "error"] if self._name == "value" else self._name
        )

    @property
    def shown(self) -> str:
        """The number as text."""
        number = getattr(self.parameter, self._name)
        if self._name == "value":
            return value_text(number, self.parameter.error)
        return limit_text(number)

    def _changed(self, change: object = None) -> None:
        self.session.owner.soon(self._show, REFRESH)

    def _show(self) -> None:
        self.remove_class("imgfit-invalid")
        self._report("")
        number = getattr(self.parameter, self._name)
        self.value = self.shown
        self.tooltip = f"{self.parameter.label} {self._name}: {number!r}"

    def _edited(self, change: Any) -> None:
        self.session.owner(functools.partial(self._apply, change.new))

    def _apply(self, content: str) -> None:
        if content.strip() == self.shown:
            self._show()
            return
        empty = not content.strip() and self._name != "value"
        try:
            setattr(self.parameter, self._name, float("nan") if empty else content.strip())
        except ModelError as error:
            self.add_class("imgfit-invalid")
            self._report(str(error))
            return
        self._show()


class ParameterRow(widgets.VBox):
    """One parameter: name and unit, value, error, frozen, min, max, and why an edit was refused."""

    def __init__(self, session: Session, parameter: Parameter, tooltip: str) -> None:
        self.parameter = parameter
        self._session = session
        self._refusal = text(classes="imgfit-field-error")
        self.value = NumberField(session, parameter, "value", self._refuse)
        self.min = NumberField(session, parameter, "min", self._refuse)
        self.max = NumberField(session, parameter, "max", self._refuse)
        self.frozen = widgets.Checkbox(indent=False, tooltip="A frozen parameter is not fitted")
        self.frozen.add_class("imgfit-cell-frozen")
        self.error = text(classes="imgfit-cell-error")
        self._link = widgets.link((parameter, "frozen"), (self.frozen, "value"))
        unit = escape(unit_text(parameter.unit_text))
        name = text(
            f'<span title="{escape(tooltip)}">{escape(parameter.name)}<small>{unit}</small></span>',
            "imgfit-cell-name",
        )
        line = row(name, self.value, self.error, self.frozen, self.min, self.max)
        line.add_class("imgfit-parameter-row")
        super().__init__([line, self._refusal])
        parameter.observe(self._changed, ["error", "frozen"])
        self._show()
        self._refuse("")

    def detach(self) -> None:
        """Stop following the parameter."""
        for cell in (self.value, self.min, self.max):
            cell.detach()
        self._link.unlink()
        self.parameter.unobserve(self._changed, ["error", "frozen"])
        self.close()

    def _changed(self, change: object = None) -> None:
        self._session.owner.soon(self._show, REFRESH)

    def _show(self) -> None:
        parameter = self.parameter
        words = error_text(parameter.error, parameter.value)
        self.error.value = f"± {words}" if words else ""
        (self.add_class if parameter.frozen else self.remove_class)("imgfit-is-frozen")

    def _refuse(self, reason: str) -> None:
        self._refusal.value = escape(reason)
        show(self._refusal, bool(reason))


class NameField(widgets.VBox):
    """The name of the source in the table, to be edited.

    A name that is refused stays in the input, marked, with the reason below.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._name = session, ""
        self.input = widgets.Text(continuous_update=False, tooltip="Rename the source")
        self.refusal = text(classes="imgfit-field-error")
        label = text("name", "imgfit-cell-name")
        super().__init__([row(label, self.input, classes="imgfit-rename"), self.refusal])
        self.input.observe(self._edited, "value")

    def follow(self, model: Component | None) -> None:
        """Follow a model; only sources are renamed."""
        self._name = model.name if isinstance(model, SkyModel) else ""
        show(self, bool(self._name))
        self.input.value = self._name
        self._refuse("")

    def _edited(self, change: Any) -> None:
        if change.new != self._name:
            self._session.owner(functools.partial(self._apply, change.new))

    def _apply(self, name: str) -> None:
        session = self._session
        session.attempt(session.rename, self._name, name)
        self._refuse(session.error)
        if not session.error:
            self.input.value = self._name

    def _refuse(self, reason: str) -> None:
        (self.add_class if reason else self.remove_class)("imgfit-invalid")
        self.refusal.value = escape(reason)
        show(self.refusal, bool(reason))


class ModelEditor(Panel):
    """List of models, parameter table, YAML view, undo and redo."""

    def __init__(self, session: Session) -> None:
        self.list = widgets.VBox().add_class("imgfit-model-list")
        self.table = widgets.VBox().add_class("imgfit-parameter-table")
        self.rows: list[ParameterRow] = []
        self._listed: list[str] = []
        self.undo_button = button("↶", "Undo (Ctrl-Z)", "imgfit-quiet imgfit-undo")
        self.redo_button = button("↷", "Redo (Ctrl-Shift-Z)", "imgfit-quiet imgfit-redo")
        self.view = switch(["Form", "YAML"], ["Edit parameters", "Edit, load and save as YAML"])
        self.name_field = NameField(session)
        self.form = widgets.VBox([self.list, self.name_field, self.table])
        self.yaml = YamlView(session, session.export_models, session.set_models)
        session.drafts["fit"].append(self.yaml.hand_over)
        head = card_head("Models", self.undo_button, self.redo_button, self.view)
        super().__init__(session, [head, self.form, self.yaml], "imgfit-card imgfit-models")
        self.undo_button.on_click(lambda _: session.owner(session.undo))
        self.redo_button.on_click(lambda _: session.owner(session.redo))
        self.view.observe(self._switch, "value")
        session.models.observe(self._list_changed, "components")
        session.observe(self._select, "selected")
        session.observe(self._update, "revision")
        self._switch()
        self._list_changed()
        self._update()

    @property
    def shown(self) -> Component | None:
        """The model whose parameters are in the table: the selected one, or else the first."""
        models = self.session.models
        if self.session.selected in models.names:
            model: Component = models[self.session.selected]
            return model
        return models[0] if len(models) else None

    def _switch(self, change: object = None) -> None:
        show(self.form, self.view.value == "Form")
        show(self.yaml, self.view.value == "YAML")

    def _update(self, change: object = None) -> None:
        self.undo_button.disabled = bool(self.session.why_not("undo"))
        self.redo_button.disabled = bool(self.session.why_not("redo"))
        if self._listed != self.session.models.names:  # one was renamed
            self._list_changed()

    def _list_changed(self, change: object = None) -> None:
        for item in self.list.children:
            item.close()
        self._listed = self.session.models.names
        if len(self.session.models):
            self.list.children = [self._item(model) for model in self.session.models]
        else:
            hint = "No model yet: reduce the data, then add a source on the map."
            self.list.children = [text(hint, "imgfit-muted imgfit-empty")]
        self._select()

    def _item(self, model: Component) -> widgets.HBox:
        """One line of the list: colour, name, shape, remove."""
        session, name = self.session, model.name
        colour = source_colour(session.models, name)
        dot = text(f'<i class="imgfit-dot" style="background:{colour}"></i>')
        select = button(name, f"Select {name}", "imgfit-quiet imgfit-model-name")
        select.on_click(lambda _: session.owner(lambda: session.select(name)))
        parts: list[widgets.Widget] = [dot, select]
        if isinstance(model, SkyModel):
            shapes = [
                (cls.tag[-1], cls.tag[0])
                for cls in SPATIAL_MODELS
                if not cls.needs_file or isinstance(model.spatial_model, cls)
            ]
            shape = widgets.Dropdown(
                options=shapes, value=model.spatial_model.tag[0], tooltip="Shape on the sky"
            ).add_class("imgfit-shape")
            shape.observe(lambda c: session.attempt(session.set_shape, name, c.new), "value")
            remove = button(
                "✕", f"Remove {name} (Delete, on the map)", "imgfit-quiet imgfit-remove"
            )
            remove.on_click(lambda _: session.attempt(session.remove_source, name))
            parts += [shape, remove]
        else:
            parts.append(text("background", "imgfit-muted imgfit-kind"))
        return row(*parts, classes="imgfit-model")

    def _select(self, change: object = None) -> None:
        model = self.shown
        for component, item in zip(self.session.models, self.list.children, strict=False):
            (item.add_class if component is model else item.remove_class)("imgfit-selected")
        self.name_field.follow(model)
        for line in self.rows:
            line.detach()
        self.rows = []
        if model is not None:
            self.rows = [
                ParameterRow(self.session, parameter, _help(model, parameter))
                for parameter in model.parameters
            ]
        titles = ("parameter", "value", "error", "frozen", "min", "max")
        cells = "".join(f"<span>{title}</span>" for title in titles)
        head = text(f'<div class="imgfit-parameter-row">{cells}</div>', "imgfit-parameter-head")
        self.table.children = [head, *self.rows] if self.rows else []


def _help(model: Component, parameter: Parameter) -> str:
    """What a parameter means, for its tooltip."""
    parts = [model.spectral_model]
    if isinstance(model, SkyModel):
        parts.append(model.spatial_model)
    for part in parts:
        if parameter in list(part.parameters):
            return part.fields()[parameter.name].help or parameter.label
    return parameter.label
