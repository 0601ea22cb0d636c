"""The progress protocol: long work reports how far it is, and is cancelled through the same call.

Long-running functions take ``progress``, any callable ``progress(fraction, message)``. It may raise
`Cancelled`; the work then unwinds and leaves nothing half done behind.
"""

from __future__ import annotations

from typing import Protocol


class Cancelled(Exception):
    """Raised by a progress callable to stop the work that calls it."""


class Progress(Protocol):
    """How far the work is (0 to 1) and what it is doing, in words."""

    def __call__(self, fraction: float, message: str) -> None: ...


def silent(fraction: float, message: str) -> None:
    """Progress that nobody watches."""


def part(progress: Progress, start: float, stop: float) -> Progress:
    """The share of ``progress`` from ``start`` to ``stop``, seen by a step as its own 0 to 1."""

    def report(fraction: float, message: str) -> None:
        progress(start + (stop - start) * fraction, message)

    return report
