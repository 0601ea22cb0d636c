"""Something of the session as YAML text: edit and apply, open a file, download.

Text that is not applied yet is never overwritten: it is marked, and stays until it is applied,
reverted or replaced by a file. Verbs that need it call `YamlView.hand_over` first.
"""

from __future__ import annotations

from collections.abc import Callable

from ..core.errors import ImgfitError
from ..session import Session
from . import lean
from .lean import show
from .style import button, download_link, escape, on_upload, row, text, upload_button


class YamlView(lean.VBox):
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
        self._shown = self._refusal = ""
        # Every key is told, so that nothing is written over text that is still being typed.
        self.area = lean.Textarea(classes="imgfit-yaml")
        self.apply = button("Apply", "Take the text over", "imgfit-apply")
        self.revert = button("Revert", "Drop the text that is not applied", "imgfit-quiet")
        self.mark = text(classes="imgfit-unapplied")
        self.upload = upload_button("Open file…", ".yaml,.yml")
        self.link = text()
        super().__init__(
            [self.area, row(self.apply, self.revert, self.upload, self.link, self.mark)],
            classes="imgfit-yaml-view",
        )
        self.apply.on_click(lambda _: session.owner(self._apply))
        self.revert.on_click(lambda _: session.owner(self._dropped))
        self.area.observe(self._typed, "value")
        on_upload(self.upload, session, self._open)
        session.observe(self._show, "revision")
        self._show_anew()

    @property
    def unapplied(self) -> bool:
        """Whether the text was edited and not applied yet."""
        return bool(self.area.value != self._shown)

    def hand_over(self) -> None:
        """Apply text that is not applied yet.

        Raises
        ------
        ImgfitError
            The text cannot be used, or what it was made from has changed; it stays as it is.
        """
        if not self.unapplied:
            return
        try:
            if self._export()[1].decode() != self._shown:
                raise ImgfitError(
                    "The YAML text is not applied yet, and values were changed elsewhere since; "
                    "apply the text or revert it"
                )
            self._take(self.area.value)
        except ImgfitError as error:
            self._refusal = str(error)
            self._show_mark()
            raise
        self._show_anew()

    def _apply(self) -> None:
        self._shown = self._export()[1].decode()  # Apply wins over what was changed elsewhere
        self._session.attempt(self.hand_over)
        self._show_mark()

    def _typed(self, change: object = None) -> None:
        self._refusal = ""
        self._show_mark()

    def _dropped(self) -> None:
        if self._refusal and self._session.error == self._refusal:
            self._session.error = ""  # the text that it was about has gone
        self._show_anew()

    def _show_anew(self) -> None:
        self._shown = self.area.value
        self._show()

    def _show(self, change: object = None) -> None:
        name, content = self._export()
        self.link.value = download_link(name, content, "Download")
        if not self.unapplied:
            self._shown = content.decode()
            self.area.value = self._shown
        self._show_mark()

    def _show_mark(self) -> None:
        reason = f": {escape(self._refusal)}" if self._refusal else ""
        self.mark.value = f'<span class="imgfit-stale">not applied yet{reason}</span>'
        show(self.mark, self.unapplied)
        show(self.revert, self.unapplied)

    def _open(self, content: str) -> None:
        self._take(content)
        self._show_anew()
