"""A queue between the browser's events and what they set off: what is stale is never worked off."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from ..task import Owner


class EventQueue:
    """Runs actions in the order of their arrival on the thread that owns the state.

    Of consecutive events of one kind only the newest is kept: a mouse sends them faster than a map
    can follow. After each action the loop gets a quarter of the time that the action took, so that
    waiting messages come in and replace each other. Without an event loop (scripts, tests) an
    action runs at once.
    """

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._pending: deque[tuple[str, Callable[[], object]]] = deque()
        self._rest_until = 0.0

    def post(self, action: Callable[[], object], newest: str = "") -> None:
        """Queue an action; one of the same kind ``newest`` that still waits is replaced.

        Nothing is moved past an event without a kind: a move before a click stays before it.
        """
        if not self._owner.is_here:
            self._owner.post(lambda: self.post(action, newest))
            return
        if newest:
            for index in range(len(self._pending) - 1, -1, -1):
                kind = self._pending[index][0]
                if kind == newest:
                    self._pending[index] = (newest, action)
                    return
                if not kind:
                    break
        self._pending.append((newest, action))
        self._owner.soon(self._run, max(0.0, self._rest_until - time.perf_counter()))

    def _run(self) -> None:
        if not self._pending:
            return
        _, action = self._pending.popleft()
        start = time.perf_counter()
        try:
            action()
        finally:
            rest = 0.25 * (time.perf_counter() - start)
            self._rest_until = time.perf_counter() + rest
            if self._pending:
                self._owner.soon(self._run, rest)
