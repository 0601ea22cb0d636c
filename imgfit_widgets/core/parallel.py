"""Independent work side by side: here, in processes, or on a Dask cluster, through one interface.

Anything that computes in parallel takes a `concurrent.futures.Executor`, or None for one after the
other; results always come in the order of the items, so numbers do not depend on the workers.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import TypeVar

from .errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items handed out ahead of the one that is awaited: keeps workers busy and memory bounded.
AHEAD = 8


_GUARD = (
    "a script begins again in each process: its work has to stand below `if __name__ == "
    "'__main__':`, or n_jobs is to be 1"
)

# Seconds between two calls of ``while_waiting``, so that a cancelled wait ends within 0.2 s.
PATIENCE = 0.1


def imap(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    executor: Executor | None = None,
    while_waiting: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Results of a function over items, in order, at most `AHEAD` of them in the making.

    ``while_waiting`` is called every `PATIENCE` seconds in which an executor gives no result; it
    may raise `Cancelled`.
    """
    if executor is None:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= AHEAD:
                yield _result(waiting.popleft(), while_waiting)
        while waiting:
            yield _result(waiting.popleft(), while_waiting)
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[Result], while_waiting: Callable[[], None] | None) -> Result:
    while while_waiting is not None and not future.done():
        # TimeoutError could come from the work itself, so only the wait is timed.
        wait([future], PATIENCE)
        while_waiting()
    return future.result()


@contextmanager
def open_executor(n_jobs: int = 1, scheduler: str | None = None) -> Iterator[Executor | None]:
    """An executor for some processes, or for a Dask scheduler's workers; None for just here.

    Parameters
    ----------
    n_jobs : int
        Processes on this machine.
    scheduler : str, optional
        Address of a Dask scheduler (``tcp://host:8786``); needs the extra ``distributed``.

    Raises
    ------
    InputError
        If the scheduler does not answer, Dask is not installed or ``n_jobs`` is not positive; if
        a process ends before its work, as where a script has no guard of ``__main__``.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(f"n_jobs: {_GUARD}")  # in a process that has begun to run the script
    if n_jobs < 1:
        raise InputError(f"n_jobs: {n_jobs} is not a positive number of processes")
    if scheduler is not None:
        try:
            from distributed import Client
        except ImportError as error:
            raise InputError(
                f"scheduler: {scheduler!r} needs Dask: pip install 'imgfit_widgets[distributed]'"
            ) from error
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"scheduler: {scheduler!r} does not answer ({error})") from error
        with client:
            yield client.get_executor()
    elif n_jobs == 1:
        yield None
    else:
        # Not forked: the parent may run threads (a kernel, a fit).
        pool = ProcessPoolExecutor(n_jobs, multiprocessing.get_context("spawn"))
        done = False
        try:
            yield pool
            done = True
        except BrokenProcessPool as error:
            raise InputError(f"n_jobs: {n_jobs} processes ended before their work; {_GUARD}") from (
                error
            )
        finally:
            # When the work was cancelled, what waits is not begun and what runs is not awaited.
            pool.shutdown(wait=done, cancel_futures=True)
