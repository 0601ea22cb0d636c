"""The models: a list of sources and backgrounds, and the parameters of the selected one.

Above the parameters stand the choices of spectrum, shape, frame and datasets (model_parts.py); the
rows are those of parameter_table.py. Regions of DS9 come in as sources and go out again.
"""

from __future__ import annotations

import functools
from typing import Any

import ipywidgets as widgets

from ..core.models import Component, Parameter, SkyModel
from ..session import Session
from . import lean
from .lean import mark, show
from .model_parts import DatasetsChoice, ShapeChoice, SpectrumChoice
from .parameter_table import ParameterRow
from .style import (
    Panel,
    button,
    card_head,
    download_link,
    escape,
    on_upload,
    retire,
    row,
    source_colour,
    switch,
    text,
    upload_button,
)
from .yaml_view import YamlView


class NameField(lean.VBox):
    """The name of the source in the table, to be edited.

    A name that is refused stays in the input, marked, with the reason below.
    """

    def __init__(self, session: Session) -> None:
        self._session, self._name = session, ""
        self.input = lean.Text(continuous_update=False, tooltip="Rename the source")
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
        mark(self, "imgfit-invalid", reason)
        self.refusal.value = escape(reason)
        show(self.refusal, bool(reason))


class ModelEditor(Panel):
    """List of models, parameter table, YAML view, undo and redo."""

    def __init__(self, session: Session) -> None:
        self.list = lean.VBox(classes="imgfit-model-list")
        self.table = lean.VBox(classes="imgfit-parameter-table")
        self.rows: list[ParameterRow] = []
        self._listed: list[str] = []
        self.undo_button = button("↶", "Undo (Ctrl-Z)", "imgfit-quiet imgfit-undo")
        self.redo_button = button("↷", "Redo (Ctrl-Shift-Z)", "imgfit-quiet imgfit-redo")
        self.view = switch(["Form", "YAML"], ["Edit parameters", "Edit, load and save as YAML"])
        self.name_field = NameField(session)
        self.datasets = DatasetsChoice(session)
        self.spectrum, self.shape = SpectrumChoice(session), ShapeChoice(session)
        self.regions = upload_button("Add DS9 regions…", ".reg")
        self.regions_link = text(classes="imgfit-links")
        foot = row(self.regions, self.regions_link, classes="imgfit-regions")
        self.form = lean.VBox([self.list, self.name_field, self.datasets, self.table, foot])
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
        session.observe(lambda _: self.datasets.follow(self.shown), "datasets")
        on_upload(self.regions, session, session.add_regions)
        self._switch()
        self._list_changed()
        self._update()

    @property
    def shown(self) -> Component | None:
        """The selected model, whose parameters are in the table."""
        models = self.session.models
        return models[self.session.selected] if self.session.selected in models.names else None

    def _switch(self, change: object = None) -> None:
        show(self.form, self.view.value == "Form")
        show(self.yaml, self.view.value == "YAML")

    def _update(self, change: object = None) -> None:
        self.undo_button.disabled = bool(self.session.why_not("undo"))
        self.redo_button.disabled = bool(self.session.why_not("redo"))
        if self._listed != self.session.models.names:  # one was renamed
            self._list_changed()
        else:
            self.datasets.follow(self.shown)
        show(self.regions, not self.session.why_not("add_source"))
        sources = self.session.models.sky_models
        link = download_link(*self.session.export_regions(), "Save as regions") if sources else ""
        self.regions_link.value = link

    def _list_changed(self, change: object = None) -> None:
        old = self.list.children
        self._listed = self.session.models.names
        if len(self.session.models):
            self.list.children = [self._item(model) for model in self.session.models]
        else:
            hint = "No model yet: reduce the data, then add a source on the map."
            self.list.children = [text(hint, "imgfit-muted imgfit-empty")]
        retire(self.session.owner, old)
        self._select()

    def _item(self, model: Component) -> widgets.HBox:
        """One line of the list: colour, name, shape or background, remove."""
        session, name = self.session, model.name
        colour = source_colour(session.models, name)
        dot = text(f'<i class="imgfit-dot" style="background:{colour}"></i>')
        select = button(name, f"Select {name}", "imgfit-quiet imgfit-model-name")
        select.on_click(lambda _: session.owner(lambda: session.attempt(session.select, name)))
        parts: list[widgets.Widget] = [dot, select]
        if isinstance(model, SkyModel):
            kind = text(model.spatial_model.tag[-1], "imgfit-muted imgfit-kind")
            remove = button(
                "✕", f"Remove {name} (Delete, on the map)", "imgfit-quiet imgfit-remove"
            )
            remove.on_click(lambda _: session.attempt(session.remove_source, name))
            parts += [kind, remove]
        else:
            parts.append(text("background", "imgfit-muted imgfit-kind"))
        return row(*parts, classes="imgfit-model")

    def _select(self, change: object = None) -> None:
        model = self.shown
        for component, item in zip(self.session.models, self.list.children, strict=False):
            chosen = component.name == self.session.selected
            mark(item, "imgfit-selected", chosen)
        self.name_field.follow(model)
        self.datasets.follow(model)
        old, self.rows = self.rows, []
        for line in old:
            line.detach()
        if model is not None:
            self.rows = [
                ParameterRow(self.session, parameter, _help(model, parameter))
                for parameter in model.parameters
            ]
        if model is None and self._listed:
            hint = "Select a model here or on the map to edit it."
            self.table.children = [text(hint, "imgfit-muted imgfit-empty")]
        else:
            self.table.children = self._sections(model) if self.rows else []
        retire(self.session.owner, old)

    def _sections(self, model: Component | None) -> list[widgets.Widget]:
        """The head of the table and its rows, those of a source by spectrum and shape."""
        titles = ("parameter", "value", "error", "frozen", "min", "max", "")
        cells = "".join(f"<span>{title}</span>" for title in titles)
        head = text(f'<div class="imgfit-parameter-row">{cells}</div>', "imgfit-parameter-head")
        if not isinstance(model, SkyModel):
            return [head, *self.rows]
        for part in (self.spectrum, self.shape):
            part.follow(model)
        number = len(model.spectral_model.parameters)
        return [self.spectrum, head, *self.rows[:number], self.shape, *self.rows[number:]]


def _help(model: Component, parameter: Parameter) -> str:
    """What a parameter means, for its tooltip."""
    parts = [model.spectral_model]
    if isinstance(model, SkyModel):
        parts.append(model.spatial_model)
    for part in parts:
        if parameter in list(part.parameters):
            return part.fields()[parameter.name].help or parameter.label
    return parameter.label
