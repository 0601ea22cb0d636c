"""The whole workbench: configuration, maps, models, fit and results around one session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ipywidgets as widgets

from ..core.config import AnalysisConfig
from ..core.dataset import Datasets, MapDataset
from ..core.errors import InputError
from ..session import Session
from .config_editor import ConfigEditor
from .fit_panel import FitPanel
from .map_viewer import MapViewer
from .model_editor import ModelEditor
from .results import Results
from .style import Panel, button, download_link, escape, show, text, upload_bytes


class Workbench(Panel):
    """All panels, laid out in three columns that wrap where there is less room.

    Parameters
    ----------
    source : path, YAML text, AnalysisConfig, MapDataset, Datasets or Session, optional
        What to work on.
    session : Session, optional
        Instead of ``source``.
    about : str
        One or two sentences on what one sees; they stand in the header.
    """

    def __init__(
        self, source: Any = None, session: Session | None = None, about: str = ""
    ) -> None:
        session = _as_session(source) if session is None else session
        self.config_editor = ConfigEditor(session)
        self.map_viewer = MapViewer(session)
        self.model_editor = ModelEditor(session)
        self.fit_panel = FitPanel(session)
        self.results = Results(session)
        columns = widgets.Box(
            [
                _column("left", self.config_editor),
                _column("centre", self.map_viewer),
                _column("right", self.model_editor, self.fit_panel, self.results),
            ]
        ).add_class("imgfit-columns")
        super().__init__(
            session, [_Header(session, about), ErrorBar(session), columns], "imgfit-workbench"
        )


class ErrorBar(widgets.HBox):
    """What went wrong last, until it is dismissed or something else works."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.message = text()
        self.dismiss = button("✕", "Dismiss", "imgfit-quiet")
        super().__init__([self.message, self.dismiss])
        self.add_class("imgfit-error")
        self.dismiss.on_click(lambda _: session.set_trait("error", ""))
        session.observe(self._show, "error")
        self._show()

    def _show(self, change: object = None) -> None:
        self.message.value = f'<span role="alert">{escape(self._session.error)}</span>'
        show(self, bool(self._session.error))


class _Header(widgets.HBox):
    """Name, what one sees, and the session as a file."""

    def __init__(self, session: Session, about: str) -> None:
        self._session = session
        name = text('<b class="imgfit-brand">imgfit</b>')
        self.about = text(escape(about), "imgfit-about imgfit-muted")
        self.link = text()
        self.upload = widgets.FileUpload(accept=".imgfit", description="Open session…")
        self.upload.add_class("imgfit-button")
        self.upload.tooltip = "Open a session file that was saved here"
        super().__init__([name, self.about, self.upload, self.link])
        self.add_class("imgfit-header")
        self.upload.observe(self._open, "value")
        session.observe(self._update, "revision")
        self._update()

    def _update(self, change: object = None) -> None:
        name, content = self._session.export_session()
        self.link.value = download_link(name, content, "Save session", "application/zip")

    def _open(self, change: Any) -> None:
        content = upload_bytes(change)
        if content is not None:
            self._session.attempt(self._session.open, content)


def _column(name: str, *panels: widgets.Widget) -> widgets.VBox:
    return widgets.VBox(panels).add_class("imgfit-column").add_class(f"imgfit-{name}")


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
        return Session(AnalysisConfig.read(source))
    if isinstance(source, str):
        return Session(AnalysisConfig.from_yaml(source))
    raise InputError(
        f"Workbench: {type(source).__name__} cannot be worked on; expected a configuration (path, "
        "YAML text or object), a MapDataset or a Session"
    )
