"""Independent work side by side: here, in processes, or on a Dask cluster, through one interface.

Anything that computes in parallel takes a `concurrent.futures.Executor`, or None for one after the
other; results always come in the order of the items, so numbers do not depend on the workers.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from typing import TypeVar

from .errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

# Items handed out ahead of the one that is awaited: keeps workers busy and memory bounded.
AHEAD = 8
# Seconds between two looks at whether to stop.
WATCH = 0.1


def imap(
    function: Callable[[Item], Result],
    items: Iterable[Item],
    executor: Executor | None = None,
    watch: Callable[[], None] | None = None,
) -> Iterator[Result]:
    """Results of a function over items, in order, at most `AHEAD` of them in the making.

    ``watch`` is called every `WATCH` seconds while a result is awaited; it may raise (`Cancelled`),
    and what has not begun is then dropped.
    """
    if executor is None:
        yield from map(function, items)
        return
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(executor.submit(function, item))
            if len(waiting) >= AHEAD:
                yield _result(waiting.popleft(), watch)
        while waiting:
            yield _result(waiting.popleft(), watch)
    finally:
        for future in waiting:
            future.cancel()


def _result(future: Future[Result], watch: Callable[[], None] | None) -> Result:
    while watch is not None and not future.done():
        watch()
        with suppress(TimeoutError):
            return future.result(timeout=WATCH)
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
        If the scheduler does not answer, Dask is not installed or ``n_jobs`` is not positive.
    """
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
        try:
            yield pool
        finally:
            # What is still waiting is not begun when the work was cancelled, and what is being
            # worked at is not waited for: its result goes nowhere.
            pool.shutdown(wait=False, cancel_futures=True)
