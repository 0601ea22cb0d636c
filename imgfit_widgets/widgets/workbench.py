"""The whole workbench: configuration, maps, models, fit and results around one session."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from ..core.config import AnalysisConfig
from ..core.dataset import Datasets, MapDataset
from ..core.errors import InputError
from ..reducing import REMEDY_MARK
from ..session import Session
from . import lean
from .config_editor import ConfigEditor
from .fit_panel import FitPanel
from .inference_panel import InferencePanel
from .lean import mark, show
from .map_viewer import MapViewer
from .model_editor import ModelEditor
from .numbers import count_text
from .results import Results
from .search_panel import SearchPanel
from .style import Panel, button, download_link, escape, on_upload, text, upload_button

# A page waits four seconds for all widgets and stays blank if the kernel has not answered by then.
# So the kernel does nothing else until the page is there; the form of the configuration, half of
# all widgets, is made these seconds later, if nobody has opened it.
LATER = 4.0
UNSEEN = 20.0
"""Seconds after which work begins though no page has told that it shows the workbench."""
PREHEATED = "VOILA_PREHEAT"
"""Set to ``True`` by Voila in a kernel that it keeps ready: one without a page waits for its own,
however long, rather than work beside those in use and be busy just when a visitor comes."""


class Workbench(Panel):
    """All panels, laid out in three columns that wrap where there is less room.

    The maps get the room of the configuration while there are data or a reduction runs: then it is
    folded away behind its button in the header. A first reduction that fails opens it.

    Parameters
    ----------
    source : path, YAML text, AnalysisConfig, MapDataset, Datasets or Session, optional
        What to work on.
    session : Session, optional
        Instead of ``source``.
    about : str
        One or two sentences on what one sees; they stand in the header.
    begin : callable, optional
        What to start as soon as a page shows the workbench, such as a first reduction.
    """

    def __init__(
        self,
        source: Any = None,
        session: Session | None = None,
        about: str = "",
        begin: Callable[[], object] | None = None,
    ) -> None:
        session = _as_session(source) if session is None else session
        if not session.selected and session.models.sky_models:
            # Its parameters are in the table, so it is also what questions are about.
            session.select(session.models.sky_models[0].name)
        self.map_viewer = MapViewer(session)
        self.model_editor = ModelEditor(session)
        self.fit_panel = FitPanel(session)
        self.inference_panel = InferencePanel(session)
        self.search_panel = SearchPanel(session)
        self.results = Results(session)
        self._left = _column("left")
        self._config_editor: ConfigEditor | None = None
        centre = _column("centre", self.map_viewer, self.results)
        right = _column(
            "right", self.model_editor, self.fit_panel, self.inference_panel, self.search_panel
        )
        self.columns = lean.Box([self._left, centre, right], classes="imgfit-columns")
        self.header = Header(session)
        self.error_bar = ErrorBar(session)
        errors = lean.Box([self.error_bar], classes="imgfit-errors")
        parts = [self.header, errors, *([About(about)] if about else []), self.columns]
        super().__init__(session, parts, "imgfit-workbench")
        self.header.configuration.observe(lambda _: session.owner(self._fold), "value")
        self._begin = begin
        idle = begin is None and not session.task.running
        self.header.configuration.value = session.datasets is None and idle
        self._fold()
        session.observe(self._data_came, "datasets")
        session.task.observe(self._task_ended, "status")
        self._view_count = 0  # from now on a page that shows this counts it up
        self.observe(self._shown, "_view_count")
        if os.environ.get(PREHEATED) != "True":
            session.owner.soon(self._start, UNSEEN)

    def _shown(self, change: Any) -> None:
        if change.new:
            self._start()

    def _start(self) -> None:
        self.session.owner.soon(self._show_configuration, LATER)
        begin, self._begin = self._begin, None
        if begin is None:
            return
        begin()
        if not self.session.task.running and self.session.datasets is None:
            self.header.configuration.value = True

    def _data_came(self, change: Any) -> None:
        """Give the maps the room of the configuration when there is something to show."""
        if change.old is None and change.new is not None:
            self.header.configuration.value = False

    def _task_ended(self, change: Any) -> None:
        """Open the configuration where there is nothing else to go on with."""
        if change.new in ("failed", "cancelled") and self.session.datasets is None:
            self.header.configuration.value = True

    @property
    def config_editor(self) -> ConfigEditor:
        """The configuration; its form is made when it is first needed, or a bit after the page."""
        self._show_configuration()
        assert self._config_editor is not None
        return self._config_editor

    def _show_configuration(self) -> None:
        if self._config_editor is None:
            self._config_editor = ConfigEditor(self.session)
            self._left.children = [self._config_editor]

    def _fold(self) -> None:
        """Give the maps the room of the configuration, or take it back."""
        if self.header.configuration.value:
            self._show_configuration()
        mark(self.columns, "imgfit-folded", not self.header.configuration.value)


class ErrorBar(lean.HBox):
    """What went wrong last, until it is dismissed or something else works."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.message = text()
        self.without = button("", "Take the run out of the selection", "imgfit-without-run")
        self.dismiss = button("✕", "Dismiss", "imgfit-quiet")
        super().__init__([self.message, self.without, self.dismiss], classes="imgfit-error")
        self.without.on_click(
            lambda _: session.attempt(session.reduce_without, session.failed_run or 0)
        )
        session.task.observe(self._show, "status")
        self.dismiss.on_click(lambda _: session.set_trait("error", ""))
        session.observe(self._show, "error")
        self._show()

    def _show(self, change: object = None) -> None:
        self.message.value = f'<span role="alert">{escape(self._session.error)}</span>'
        run = self._session.failed_run if REMEDY_MARK in self._session.error else None
        self.without.description = f"Reduce without run {run}"
        show(self.without, run is not None)
        show(self, bool(self._session.error))


class About(lean.HBox):
    """What one sees, until it is dismissed."""

    def __init__(self, words: str) -> None:
        self.dismiss = button("✕", "Dismiss", "imgfit-quiet")
        super().__init__([text(escape(words)), self.dismiss], classes="imgfit-about")
        self.dismiss.on_click(lambda _: show(self, False))


class Header(lean.HBox):
    """Name, configuration on or off, what is displayed, and the session as a file."""

    def __init__(self, session: Session) -> None:
        self._session = session
        name = text('<b class="imgfit-brand">imgfit</b>')
        self.configuration = lean.ToggleButton(
            value=True,
            description="Configuration",
            tooltip="Show or hide the configuration",
            classes="imgfit-fold",
        )
        self.summary = text(classes="imgfit-summary imgfit-muted")
        self.link = text()
        self.upload = upload_button("Open session…", ".imgfit")
        super().__init__(
            [name, self.configuration, self.summary, self.upload, self.link],
            classes="imgfit-header",
        )
        on_upload(self.upload, session, session.open, binary=True)
        session.observe(self._update, ["revision", "datasets", "dataset_name"])
        self._update()

    def _update(self, change: object = None) -> None:
        self.summary.value = _summary(self._session)
        name, content = self._session.export_session()
        self.link.value = download_link(name, content, "Save session", "application/zip")


def _summary(session: Session) -> str:
    """The displayed dataset in one line."""
    dataset = session.dataset
    if dataset is None:
        return ""
    energy = dataset.energy_axis.edges
    parts = [
        f"<b>{escape(dataset.name)}</b>",
        f"{count_text(float(dataset.counts.data.sum()))} counts",
        f"{energy[0].value:g} – {energy[-1].value:g} {energy.unit}",
    ]
    if dataset.runs:
        parts.insert(1, f"{len(dataset.runs)} run{'s' if len(dataset.runs) > 1 else ''}")
    return " · ".join(parts)


def _column(name: str, *panels: widgets.Widget) -> widgets.VBox:
    return lean.VBox(panels, classes=f"imgfit-column imgfit-{name}")


def _as_session(source: Any) -> Session:
    """A session for whatever a user has at hand."""
    if isinstance(source, Session):
        return source
    if source is None or isinstance(source, AnalysisConfig):
        return Session(source)
    if isinstance(source, (MapDataset, Datasets)):
        session = Session()
        session.set_datasets(source)
        return session
    if isinstance(source, Path) or (isinstance(source, str) and "\n" not in source):
        return _begun(Session(AnalysisConfig.read(source)))
    if isinstance(source, str):
        return Session(AnalysisConfig.from_yaml(source))
    raise InputError(
        f"Workbench: {type(source).__name__} cannot be worked on; expected a configuration (path, "
        "YAML text or object), a MapDataset or a Session"
    )


def _begun(session: Session) -> Session:
    """A session with the models and datasets that its configuration names, as far as there are."""
    general = session.config.general
    if general.models_file is not None:
        session.attempt(session.read_models)
    if general.datasets_file is not None:
        session.attempt(session.read_datasets)
    return session
