"""What runs in the background, for the eye: a bar, what it does, how long is left."""

from __future__ import annotations

from collections.abc import Collection

from ..task import Task
from . import lean
from .lean import show
from .style import escape, text


class ProgressBar(lean.VBox):
    """The progress of a task; hidden while it does nothing of the wanted ``kinds``."""

    def __init__(self, task: Task, kinds: Collection[str] = (), classes: str = "") -> None:
        self._task, self._kinds = task, tuple(kinds)
        self._bar = text()
        super().__init__([self._bar], classes=classes)
        task.observe(self._update, ["status", "fraction", "message", "remaining"])
        self._update()

    def _update(self, change: object = None) -> None:
        task = self._task
        visible = task.running and (not self._kinds or task.kind in self._kinds)
        show(self, visible)
        if visible:
            percent = 100 * task.fraction
            self._bar.value = (
                f'<div class="imgfit-bar" role="progressbar" aria-valuenow="{percent:.0f}">'
                f'<i style="width:{percent:.1f}%"></i></div><div class="imgfit-bar-words">'
                f"<span>{escape(task.message or 'starting…')}</span>"
                f"<span>{escape(task.remaining)}</span></div>"
            )
