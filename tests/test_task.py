"""The background task: threads, progress, cancel and errors, with and without an event loop."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from imgfit_widgets.core.errors import DataError, ImgfitError
from imgfit_widgets.task import Owner, Task, duration_words, remaining_words


def test_result_is_delivered_on_the_thread_that_owns_the_state():
    task, seen = Task(), []

    def work(progress):
        progress(0.5, "half")
        return threading.current_thread()

    task.start(work, lambda worker: seen.append((worker, threading.current_thread())), "reduce")
    assert task.status == "running" and task.kind == "reduce"
    task.wait(5)
    worker, applied = seen[0]
    assert task.status == "done" and task.fraction == 1.0
    assert worker is not threading.main_thread() and applied is threading.current_thread()


def test_a_worker_never_sets_a_trait():
    task, threads = Task(), set()
    task.observe(lambda change: threads.add(threading.current_thread()))

    def work(progress):
        for step in range(200):
            progress(step / 200, f"step {step}")
            task.send(step)
            time.sleep(0.002)

    task.start(work)
    task.wait(5)
    assert threads == {threading.current_thread()}


def test_progress_is_throttled_and_cancel_takes_effect_at_the_next_call():
    task, fractions = Task(), []
    task.observe(lambda change: fractions.append(change.new), "fraction")

    def work(progress):
        for step in range(100_000):
            progress(step / 100_000, "counting")
            time.sleep(0.001)

    async def main():
        task.owner = Owner()
        task.start(work, kind="fit")
        await asyncio.sleep(0.6)
        before = time.monotonic()
        task.cancel()
        assert task.message == "cancelling…"
        while task.running:
            await asyncio.sleep(0.005)
        return time.monotonic() - before

    assert asyncio.run(main()) < 0.3
    assert task.status == "cancelled" and task.message == "cancelled"
    assert 3 <= len(fractions) <= 9


def test_a_cancelled_result_is_thrown_away_even_if_the_work_did_not_notice():
    task, results = Task(), []
    release = threading.Event()
    task.start(lambda progress: release.wait(5), results.append)
    task.cancel()
    release.set()
    task.wait(5)
    assert task.status == "cancelled" and results == []


def test_errors_for_the_user_are_shown_as_they_are_and_others_in_one_line(caplog):
    def missing(progress):
        raise DataError("events.fits: no such file")

    def bug(progress):
        raise KeyError("x")

    task = Task()
    task.start(missing)
    assert task.wait(5).error == "events.fits: no such file"
    assert task.status == "failed" and task.traceback == ""

    task.start(bug)
    task.wait(5)
    assert task.status == "failed" and "KeyError" in task.error and "\n" not in task.error
    assert "Traceback" in task.traceback and "Traceback" in caplog.text


def test_an_error_while_applying_the_result_is_a_failure_too():
    def apply(result):
        raise DataError("result does not fit the models")

    task = Task()
    task.start(lambda progress: 1, apply)
    assert task.wait(5).status == "failed" and "does not fit" in task.error


def test_one_task_at_a_time_and_the_next_one_starts_clean():
    task, release = Task(), threading.Event()
    task.start(lambda progress: release.wait(5), kind="reduce")
    with pytest.raises(ImgfitError, match="reduce is still running"):
        task.start(lambda progress: None)
    release.set()
    task.wait(5)
    task.start(lambda progress: None)
    assert (task.error, task.live) == ("", None)
    task.wait(5)


def test_wait_says_when_it_gives_up():
    task, release = Task(), threading.Event()
    task.start(lambda progress: release.wait(5), kind="fit")
    with pytest.raises(TimeoutError, match=r"fit still runs after 0\.2 s"):
        task.wait(0.2)
    release.set()
    task.wait(5)


def test_calls_from_other_threads_reach_the_owner_through_its_loop():
    async def main():
        owner, seen = Owner(), []
        other = threading.Thread(target=owner, args=(lambda: seen.append(owner.is_here),))
        other.start()
        other.join()
        assert seen == []
        await asyncio.sleep(0.01)
        return seen

    assert asyncio.run(main()) == [True]


def test_soon_coalesces_on_a_loop_and_runs_at_once_without_one():
    calls = []

    def call():
        calls.append(1)

    Owner().soon(call)
    assert calls == [1]

    async def main():
        owner = Owner()
        for _ in range(10):
            owner.soon(call)
        await asyncio.sleep(0.01)

    asyncio.run(main())
    assert calls == [1, 1]


@pytest.mark.parametrize(
    ("elapsed", "fraction", "words"),
    [(0.5, 0.5, ""), (10, 0.01, ""), (12, 0.5, "12 s left"), (100, 0.25, "5 min left")],
)
def test_remaining_time_in_words(elapsed, fraction, words):
    assert remaining_words(elapsed, fraction) == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.004, "4 ms"), (0.83, "0.8 s"), (75, "1 min 15 s"), (59.7, "1 min 0 s")],
)
def test_durations_in_words(seconds, words):
    assert duration_words(seconds) == words
