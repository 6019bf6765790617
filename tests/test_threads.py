"""Threads that Ctrl-C cannot lock up, and the outcomes that others wait for."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from onelogit.threads import JobThread, Outcome, in_temporary_thread, start_thread
from support.faults import interrupted_after
from support.served import wait_until

PATIENCE_S = 20


class Owner:
    """What a job thread ends with."""


@pytest.fixture
def owner() -> Owner:
    return Owner()


@pytest.fixture
def thread() -> Iterator[JobThread]:
    thread = JobThread("jobs")
    yield thread
    thread.stop()


def refuse(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


# Outcomes


async def test_all_threads_and_event_loops_get_an_outcome():
    outcome: Outcome[int] = Outcome()
    with ThreadPoolExecutor(4) as pool:
        threads = [pool.submit(outcome.result) for _ in range(4)]
        tasks = [asyncio.create_task(outcome.aresult()) for _ in range(3)]
        cancelled = asyncio.create_task(outcome.aresult())
        await asyncio.sleep(0.01)
        cancelled.cancel()
        assert not outcome.is_set
        assert not any(future.done() for future in (*threads, *tasks))
        outcome.set_result(7)
        assert [thread.result(PATIENCE_S) for thread in threads] == [7] * 4
    assert await asyncio.gather(*tasks) == [7, 7, 7]
    assert cancelled.cancelled()
    assert outcome.result() == await outcome.aresult() == 7


async def test_an_outcome_raises_the_error_for_everyone():
    outcome: Outcome[int] = Outcome()
    outcome.set_by(lambda: 1 // 0)

    assert outcome.is_set
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            outcome.result()
        with pytest.raises(ZeroDivisionError):
            await outcome.aresult()


async def test_an_outcome_is_set_even_if_an_event_loop_that_waited_is_closed():
    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(outcome.aresult(), 0.001)

    outcome: Outcome[str] = Outcome()
    await asyncio.to_thread(asyncio.run, give_up())
    waiting = asyncio.create_task(outcome.aresult())
    await asyncio.sleep(0)
    await asyncio.to_thread(outcome.set_result, "there")

    assert await waiting == "there"


def test_the_frames_of_an_error_are_freed_with_it():
    def fail() -> None:
        held = Owner()
        freed.append(weakref.ref(held))
        raise ValueError("no")

    freed: list[weakref.ref[Owner]] = []
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no"):
            in_temporary_thread(fail)
        assert [each() for each in freed] == [None]
    finally:
        gc.enable()


# Starting threads


def test_a_thread_starts_or_says_why_not(monkeypatch: pytest.MonkeyPatch):
    ran: list[str] = []
    thread = threading.Thread(target=lambda: ran.append(threading.current_thread().name), name="named")
    start_thread(thread)
    thread.join(PATIENCE_S)
    assert ran == ["named"]

    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(RuntimeError, match="can't start new thread"):
        start_thread(threading.Thread())


def test_a_temporary_thread_has_ended_when_its_work_returns_or_fails():
    def fail() -> None:
        threads.append(threading.current_thread())
        raise ValueError("no")

    threads: list[threading.Thread] = []
    in_temporary_thread(lambda: threads.append(threading.current_thread()))
    with pytest.raises(ValueError, match="no"):
        in_temporary_thread(fail)

    assert len({*threads, threading.current_thread()}) == 3
    assert not any(thread.is_alive() for thread in threads)


# Threads that run jobs


def test_jobs_run_in_their_order_in_one_thread_however_many_start_it(thread: JobThread, owner: Owner):
    ran: list[tuple[int, int]] = []
    with ThreadPoolExecutor(16) as pool:
        for _ in range(16):
            pool.submit(thread.start, owner)
    for number in range(100):
        thread.jobs.put(lambda number=number: ran.append((number, threading.get_ident())))
    wait_until(lambda: len(ran) == 100)

    assert ran == [(number, thread.id) for number in range(100)]
    wait_until(lambda: [each.name for each in threading.enumerate()].count("jobs") == 1)


def test_a_thread_that_could_not_start_can_start_later(
    thread: JobThread, owner: Owner, monkeypatch: pytest.MonkeyPatch
):
    ran = threading.Event()
    thread.jobs.put(ran.set)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            thread.start(owner)
    assert thread.id is None
    thread.start(owner)

    assert ran.wait(PATIENCE_S)


def test_stopping_waits_for_the_jobs_that_were_put_before(thread: JobThread, owner: Owner):
    ran: list[int] = []
    thread.start(owner)
    thread.jobs.put(lambda: time.sleep(0.05))
    thread.jobs.put(lambda: ran.append(1))
    thread.stop()
    thread.stop()

    assert thread.is_over
    assert ran == [1]
    assert "jobs" not in [each.name for each in threading.enumerate()]


def test_a_job_can_stop_its_thread(thread: JobThread, owner: Owner):
    stopped = threading.Event()
    thread.jobs.put(lambda: (thread.stop(), stopped.set()))
    thread.start(owner)

    assert stopped.wait(PATIENCE_S)
    wait_until(lambda: "jobs" not in [each.name for each in threading.enumerate()])


def test_a_job_that_fails_is_logged_and_the_next_one_runs(
    thread: JobThread, owner: Owner, caplog: pytest.LogCaptureFixture
):
    ran = threading.Event()
    thread.jobs.put(lambda: 1 // 0)
    thread.jobs.put(ran.set)
    thread.start(owner)

    assert ran.wait(PATIENCE_S)
    assert "a job of the thread 'jobs' failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_a_thread_ends_with_its_owner_but_not_before_its_jobs():
    class Counter:
        def add(self) -> None:
            counts.append(1)

    counts: list[int] = []
    thread, counter = JobThread("jobs"), Counter()
    gone = weakref.ref(counter)
    for _ in range(3):
        thread.jobs.put(counter.add)
    thread.start(counter)
    del counter

    wait_until(lambda: gone() is None)
    wait_until(lambda: "jobs" not in [each.name for each in threading.enumerate()])
    assert len(counts) == 3


@pytest.mark.parametrize("ending", ["", "sys.exit(0)", "raise KeyboardInterrupt", "os.fork() or sys.exit(0)"])
def test_the_interpreter_waits_for_the_running_job_and_ends(ending: str):
    if "fork" in ending and not hasattr(os, "fork"):
        pytest.skip("this system does not fork")
    program = f"""
import os, sys, time, warnings
from onelogit.threads import JobThread
warnings.simplefilter("ignore")  # of a fork with threads
thread = JobThread("jobs")
thread.start(thread)
thread.jobs.put(lambda: (time.sleep(0.2), print("done", flush=True)))
time.sleep(0.05)
{ending}
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, check=False, timeout=60, capture_output=True, text=True
    )

    assert ran.stdout == "done\n"
    assert ("KeyboardInterrupt" in ran.stderr) == ("Keyboard" in ending)
    assert "Error" not in ran.stderr


def test_a_stop_after_an_interrupted_one_waits_too(thread: JobThread, owner: Owner):
    ran = threading.Event()
    thread.start(owner)
    thread.jobs.put(lambda: (time.sleep(0.5), ran.set()))
    assert interrupted_after(0.1, thread.stop) is None
    assert not ran.is_set()
    thread.stop()

    assert ran.is_set()
