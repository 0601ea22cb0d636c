"""Something of the session as YAML text: edit and apply, open a file, download."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as widgets

from ..session import Session
from .style import button, download_link, row, text, upload_button, upload_text


class YamlView(widgets.VBox):
    """YAML text that follows the session and is handed to it by Apply.

    Parameters
    ----------
    session : Session
    export : callable
        Returns (file name, content).
    take : callable
        The verb that takes the text over.
    """

    def __init__(
        self,
        session: Session,
        export: Callable[[], tuple[str, bytes]],
        take: Callable[[str], object],
    ) -> None:
        self._session, self._export, self._take = session, export, take
        self.area = widgets.Textarea(continuous_update=False).add_class("imgfit-yaml")
        self.apply = button("Apply", "Take the text over", "imgfit-apply")
        self.upload = upload_button("Open file…", ".yaml,.yml")
        self.link = text()
        super().__init__([self.area, row(self.apply, self.upload, self.link)])
        self.add_class("imgfit-yaml-view")
        self.apply.on_click(lambda _: session.attempt(take, self.area.value))
        self.upload.observe(self._uploaded, "value")
        session.observe(self._show, "revision")
        self._show()

    def _show(self, change: object = None) -> None:
        name, content = self._export()
        self.area.value = content.decode()
        self.link.value = download_link(name, content, "Download")

    def _uploaded(self, change: Any) -> None:
        content = upload_text(change)
        if content is not None:
            self._session.attempt(self._take, content)
