"""Long work in the background: one `Task` at a time, with progress, cancel and errors in words.

The only file with threads. Two rules keep state free of locks:

- a worker thread never sets a trait: it leaves its newest progress where the owner looks for it ten
  times a second, and queues its result,
- an `Owner` does both on the thread that owns the state: through the event loop when it has one
  (Voila, JupyterLab), inside `Task.wait` when it has none (scripts, tests).

JupyterLab with ipykernel 7 delivers widget events on threads of their own ("subshells"), so verbs
that change state are sent to their owner too: see `Owner.__call__`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import queue
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from traitlets import Any as AnyTrait
from traitlets import Enum, Float, HasTraits, Unicode

from .core.errors import ImgfitError
from .core.progress import Cancelled, Progress

log = logging.getLogger(__name__)

UPDATE_INTERVAL = 0.1  # seconds between two updates of the page while a task runs
GRACE = 0.15  # seconds that cancelled work has to stop; after that nobody waits for it


class Owner:
    """The thread, and its event loop if it has one, on which state is changed."""

    def __init__(self) -> None:
        self._thread = threading.current_thread()
        self._queue: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._timers: dict[Callable[[], object], asyncio.TimerHandle] = {}
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None

    @property
    def has_loop(self) -> bool:
        """Whether an event loop runs on the owner's thread."""
        return self._loop is not None and self._loop.is_running()

    @property
    def is_here(self) -> bool:
        """Whether the caller runs on the owner's thread."""
        return threading.current_thread() is self._thread

    def __call__(self, function: Callable[[], object]) -> None:
        """Call ``function`` on the owner: at once if that is here, else as soon as it is free."""
        if self.is_here or (self._loop is None and not self._thread.is_alive()):
            function()
        else:
            self.post(function)

    def post(self, function: Callable[[], object]) -> None:
        """Queue ``function`` for the owner; may be called from any thread."""
        self._queue.put(function)
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.pump)

    def soon(self, function: Callable[[], object], delay: float = 0.0) -> None:
        """Call ``function`` once on the owner, however often asked; at once without a loop."""
        if self._loop is None or not self.has_loop:
            function()
        elif not self.is_here:
            self.post(lambda: self.soon(function, delay))
        elif function not in self._timers:

            def run() -> None:
                self._timers.pop(function, None)
                function()

            self._timers[function] = self._loop.call_later(delay, run)

    def pump(self, timeout: float = 0.0) -> None:
        """Run what is queued; wait up to ``timeout`` seconds for the first item."""
        try:
            item = self._queue.get(timeout=timeout) if timeout else self._queue.get_nowait()
            while True:
                item()
                item = self._queue.get_nowait()
        except queue.Empty:
            return


class Task(HasTraits):
    """One piece of work that runs in a worker thread.

    ``status`` is one of idle, running, done, failed, cancelled; ``kind`` says what the work is.
    ``fraction`` (0 to 1), ``message`` and ``remaining`` ("12 s left") follow the progress calls of
    the work, at most ten times a second; ``live`` holds the newest intermediate value that it sent.
    ``error`` is one line for the user; ``traceback`` is for developers.
    """

    status = Enum(["idle", "running", "done", "failed", "cancelled"], "idle")
    kind = Unicode()
    fraction = Float()
    message = Unicode()
    remaining = Unicode()
    error = Unicode()
    traceback = Unicode()
    live = AnyTrait(None, allow_none=True)

    def __init__(self, owner: Owner | None = None) -> None:
        super().__init__()
        self.owner = owner or Owner()
        self._run: _Run | None = None

    @property
    def running(self) -> bool:
        """Whether the work goes on."""
        return self.status == "running"

    def start(
        self,
        function: Callable[[Progress], Any],
        done: Callable[[Any], object] | None = None,
        kind: str = "",
        estimate: bool = True,
    ) -> None:
        """Run ``function(progress)`` in a worker, then ``done(result)`` on the owner's thread.

        ``estimate`` says whether the time left can be told from the fraction that is done.

        Raises
        ------
        ImgfitError
            If the previous work still goes on.
        """
        if self.running:
            raise ImgfitError(f"{self.kind or 'A task'} is still running: wait for it or cancel it")
        run = _Run(self, function, done, estimate)
        self._run = run
        with self.hold_trait_notifications():
            self.set(kind=kind, fraction=0.0, message="", remaining="", live=None)
            self.set(error="", traceback="", status="running")
        run.thread.start()
        self._follow()

    def _follow(self) -> None:
        if self.running and self._run is not None:
            self._run.show()
            if self.owner.has_loop:
                self.owner.soon(self._follow, UPDATE_INTERVAL)

    def cancel(self) -> None:
        """Ask the work to stop; it does so at its next progress call.

        One that is in the middle of a long step is left to itself after `GRACE`: the task is
        cancelled then, can start anew, and whatever that step still gives is dropped.
        """
        if self.running and self._run is not None:
            self._run.cancelled.set()
            self._run.cancelled_at = time.monotonic()
            self.message = "cancelling…"
            if self.owner.has_loop:
                self.owner.soon(self._leave, GRACE)

    def _leave(self) -> None:
        """Wait no longer for work that was cancelled."""
        run = self._run
        if self.running and run is not None and time.monotonic() - run.cancelled_at >= 0.9 * GRACE:
            run.finish("cancelled", message="cancelled")

    def send(self, value: object) -> None:
        """Offer an intermediate value for ``live``; called by the work, which this may cancel."""
        if self._run is not None:
            self._run.send(value)

    def wait(self, timeout: float = 600.0) -> Task:
        """Block until the work has ended and its result is applied.

        Raises
        ------
        TimeoutError
            If that takes longer than ``timeout`` seconds.
        """
        end = time.monotonic() + timeout
        while self.running:
            if time.monotonic() > end:
                raise TimeoutError(f"{self.kind or 'the task'} still runs after {timeout:g} s")
            if self.owner.is_here:
                self.owner.pump(timeout=UPDATE_INTERVAL / 2)
                self._follow()
                self._leave()
            else:
                time.sleep(0.02)
        return self

    def set(self, **values: Any) -> None:
        """Set several traits."""
        for name, value in values.items():
            setattr(self, name, value)


class _Run:
    """One start of a task: its thread, and the newest things that thread had to say."""

    def __init__(
        self,
        task: Task,
        function: Callable[[Progress], Any],
        done: Callable[[Any], object] | None,
        estimate: bool,
    ) -> None:
        self.task, self.function, self.done, self.estimate = task, function, done, estimate
        self.cancelled = threading.Event()
        self.cancelled_at = math.inf
        self.over = False
        self.started = time.monotonic()
        self.latest: tuple[float, str] = (0.0, "")
        self.value: object = None
        self.thread = threading.Thread(target=self._work, name="imgfit-task", daemon=True)

    # on the worker -------------------------------------------------------------------------------
    def _work(self) -> None:
        try:
            result = self.function(self.progress)
            if self.cancelled.is_set():
                raise Cancelled
        except Cancelled:
            self._end("cancelled", message="cancelled")
        except ImgfitError as error:
            self._end("failed", error=str(error))
        except MemoryError:
            self._end("failed", error="Not enough memory for this: try a smaller map")
        except Exception as error:
            text = traceback.format_exc()
            log.error("%s failed\n%s", self.task.kind or "task", text)
            words = str(error).strip().split("\n")[0] or "no details"
            message = f"An unexpected error stopped this ({type(error).__name__}: {words})"
            self._end("failed", error=message, traceback=text)
        else:
            self.task.owner.post(lambda: self._deliver(result))

    def progress(self, fraction: float, message: str) -> None:
        self.latest = (min(max(float(fraction), 0.0), 1.0), message)
        if self.cancelled.is_set():
            raise Cancelled

    def send(self, value: object) -> None:
        self.value = value
        if self.cancelled.is_set():
            raise Cancelled

    def _end(self, status: str, **traits: str) -> None:
        self.task.owner.post(lambda: self.finish(status, **traits))

    # on the owner --------------------------------------------------------------------------------
    def show(self) -> None:
        fraction, message = self.latest
        self.task.fraction = fraction
        if self.value is not self.task.live:
            self.task.live = self.value
        if self.estimate:
            self.task.remaining = remaining_words(time.monotonic() - self.started, fraction)
        if not self.cancelled.is_set():
            self.task.message = message

    def _deliver(self, result: Any) -> None:
        if self.over:
            return
        if self.cancelled.is_set():
            self.finish("cancelled", message="cancelled")
            return
        try:
            if self.done is not None:
                self.done(result)
        except ImgfitError as error:
            self.finish("failed", error=str(error))
        except Exception as error:
            log.exception("applying the result of %s failed", self.task.kind or "a task")
            text = traceback.format_exc()
            self.finish("failed", error=f"Unexpected error: {error}", traceback=text)
        else:
            seconds = time.monotonic() - self.started
            self.finish("done", message=f"done in {duration_words(seconds)}")

    def finish(self, status: str, message: str = "", error: str = "", traceback: str = "") -> None:
        """End the task; what a run says that is over already is not heard."""
        if self.over:
            return
        self.over = True
        self.show()
        self.task.set(fraction=1.0 if status == "done" else self.latest[0], remaining="")
        self.task.set(message=message, error=error, traceback=traceback, status=status)


def duration_words(seconds: float) -> str:
    """``0.8`` → "0.8 s", ``75`` → "1 min 15 s"."""
    if seconds < 0.1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def remaining_words(elapsed: float, fraction: float) -> str:
    """How long is left, in words; nothing while it is too early to tell (first second, 2 %)."""
    if elapsed < 1.0 or not 0.02 <= fraction < 1.0:
        return ""
    left = elapsed * (1 - fraction) / fraction
    if left > 90:
        return f"{round(left / 60)} min left"
    return f"{max(round(left), 1)} s left"
