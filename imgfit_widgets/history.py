"""Undo and redo by comparing states: one step a gesture, whatever the gesture was.

Nobody records commands. After a gesture the history takes the state anew; if it differs from the
one before, that is a step. A drag with hundreds of moves is one gesture, and an edit that ends
where it began is none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, TypeVar

from .task import Owner

State = TypeVar("State")

MAX_STEPS = 200


@dataclass(frozen=True)
class Step(Generic[State]):
    """A state and a text that is equal for equal states."""

    token: str
    state: State


class History(Generic[State]):
    """Past and future of a state.

    Parameters
    ----------
    take : callable
        Returns the present state as a `Step`.
    restore : callable
        Puts a state back.
    committed : callable
        Called after every step, undo and redo.
    owner : Owner
        Coalesces edits that are made outside of gestures, such as by a linked widget.
    """

    def __init__(
        self,
        take: Callable[[], Step[State]],
        restore: Callable[[State], None],
        committed: Callable[[], None],
        owner: Owner,
    ) -> None:
        self._take, self._restore, self._committed, self._owner = take, restore, committed, owner
        self._past: list[Step[State]] = []
        self._future: list[Step[State]] = []
        self._depth = 0
        self._present = take()

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._past)

    @property
    def can_redo(self) -> bool:
        """Whether an undone step can be done again."""
        return bool(self._future)

    @property
    def busy(self) -> bool:
        """Whether a gesture goes on."""
        return self._depth > 0

    def begin(self) -> None:
        """Start a gesture; until its `end` nothing is recorded. Gestures may be nested."""
        self._depth += 1

    def end(self) -> None:
        """End a gesture and record it if it changed anything."""
        self._depth = max(self._depth - 1, 0)
        self.commit()

    def abandon(self) -> None:
        """End a gesture and take back what it changed: no step is left of it."""
        try:
            if self._depth == 1 and self._take().token != self._present.token:
                self._restore(self._present.state)
        finally:
            self._depth = max(self._depth - 1, 0)
        self._committed()

    @contextmanager
    def gesture(self) -> Iterator[None]:
        """A gesture that lasts as long as the block; what failed leaves no step."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def changed(self, change: object = None) -> None:
        """Something was edited outside of a gesture: record it at the next turn of the loop."""
        if not self._depth:
            self._owner.soon(self.commit)

    def commit(self) -> None:
        """Record the present state if it differs from the last one, unless a gesture goes on."""
        if self._depth:
            return
        step = self._take()
        if step.token == self._present.token:
            return
        self._past = [*self._past, self._present][-MAX_STEPS:]
        self._future = []
        self._present = step
        self._committed()

    def undo(self) -> bool:
        """Go one step back; False if there is none."""
        return self._move(self._past, self._future)

    def redo(self) -> bool:
        """Go one step forward again; False if there is none."""
        return self._move(self._future, self._past)

    def absorb(self) -> None:
        """Take the present state for the last step's, so that undo does not stop here."""
        self._present = self._take()

    def clear(self) -> None:
        """Forget all steps; the present state is where undo ends from now on."""
        self._past, self._future = [], []
        self._present = self._take()
        self._committed()

    def _move(self, origin: list[Step[State]], other: list[Step[State]]) -> bool:
        self.commit()
        if not origin:
            return False
        other.append(self._present)
        self._present = origin.pop()
        self._depth += 1
        try:
            self._restore(self._present.state)
        finally:
            self._depth -= 1
        self._committed()
        return True
