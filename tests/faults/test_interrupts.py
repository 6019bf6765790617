"""Ctrl-C at random moments of a call, and callers' threads that die: the next call gives the right results."""

import ctypes
import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from onelogit import RemoteReranker, Reranker, open_reranker
from onelogit.serving import app
from support.faults import (
    DOCUMENTS,
    QUERY,
    answer_of,
    chosen,
    interrupted_after,
    interrupted_at,
    moments,
    seconds_of,
    steps_of,
)
from support.served import served, wait_until
from support.terminal import in_terminal
from support.tiny import Tiny

AnyReranker = Reranker | RemoteReranker

BARS = """
import threading
from onelogit.io import progress
from support.faults import answer_of, chosen, interrupted_at, steps_of

def draw():
    rows = progress.RowProgress(is_shown=True)
    with rows.shown(3):
        rows(1)
        rows(2)
    return True

for step in chosen(steps_of(draw), few=10, many=400):
    interrupted_at(step, draw)
    assert answer_of(draw), step
display = progress._row_bars._display
print(f"bars: {0 if display is None else len(display.task_ids)}, threads: {threading.active_count()}")
"""


@contextmanager
def plain(tiny: Tiny) -> Iterator[AnyReranker]:
    with Reranker.load(tiny.folder) as reranker:
        yield reranker


@contextmanager
def cached(tiny: Tiny) -> Iterator[AnyReranker]:
    with Reranker.load(tiny.folder, document_cache_bytes=200_000, max_waiting=1) as reranker:
        yield reranker


@contextmanager
def portioned(tiny: Tiny) -> Iterator[AnyReranker]:
    """In small batches, of which some are computed while others are tokenised."""
    with Reranker.load(tiny.folder, batch_tokens=100) as reranker:
        reranker.scorer._portion_tokens = 100
        yield reranker


@contextmanager
def remote(tiny: Tiny) -> Iterator[AnyReranker]:
    with Reranker.load(tiny.folder) as behind, served(app(behind)) as url:
        with RemoteReranker(url, str(tiny.folder), pairs_a_request=4) as reranker:
            yield reranker


def is_idle(reranker: AnyReranker) -> bool:
    if isinstance(reranker, RemoteReranker):
        return True
    workers = reranker.scorer._scheduler._workers.values()
    return not any(worker.requests or worker.retries or worker.unread for worker in workers)


@pytest.mark.parametrize("kind", [plain, cached, portioned, remote])
def test_ctrl_c_at_a_random_moment_harms_no_later_call(kind: Callable[[Tiny], object], tiny_qwen: Tiny):
    chance = random.Random(7)
    with kind(tiny_qwen) as reranker:  # type: ignore[attr-defined]
        expected = reranker.logits(QUERY, DOCUMENTS)
        threads = threading.active_count()
        length_s = max(seconds_of(lambda: reranker.logits(QUERY, DOCUMENTS)) for _ in range(5))
        outcomes = []
        for _ in moments(few=6, many=100):
            answer = interrupted_after(chance.uniform(0, 1.2 * length_s), lambda: reranker.logits(QUERY, DOCUMENTS))
            outcomes.append(answer is None)
            assert answer is None or answer == pytest.approx(expected, abs=2e-5)
            assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5)
        wait_until(lambda: is_idle(reranker))
        # A client and its server tokenise in pools, which start threads as needed, but never more than these.
        assert threading.active_count() <= threads + (1 if isinstance(reranker, Reranker) else 80)
    assert any(outcomes)


@pytest.mark.parametrize("kind", [plain, cached, portioned, remote])
def test_ctrl_c_at_each_step_of_a_call_harms_no_later_call(kind: Callable[[Tiny], object], tiny_qwen: Tiny):
    """Also where it is least likely: between taking a lock and entering the block that releases it."""
    with kind(tiny_qwen) as reranker:  # type: ignore[attr-defined]

        def call() -> list[float]:
            return reranker.logits(QUERY, DOCUMENTS)

        expected = call()
        for step in chosen(steps_of(call), few=10, many=400):
            interrupted_at(step, call)
            assert answer_of(call) == pytest.approx(expected, abs=2e-5), step


def test_ctrl_c_at_each_step_of_the_first_call_harms_no_later_call(tiny_qwen: Tiny):
    """The first call starts the thread that computes, and the client's event loop."""
    for number, new in enumerate((plain, remote)):
        with new(tiny_qwen) as reranker:
            steps = chosen(steps_of(lambda: reranker.logits(QUERY, DOCUMENTS)), few=4, many=100, seed=number)
            expected = reranker.logits(QUERY, DOCUMENTS)
        for step in steps:
            with new(tiny_qwen) as reranker:
                interrupted_at(step, lambda: reranker.logits(QUERY, DOCUMENTS))
                assert answer_of(lambda: reranker.logits(QUERY, DOCUMENTS)) == pytest.approx(expected, abs=2e-5), step


def test_ctrl_c_at_each_step_of_opening_or_closing_a_model_keeps_nobody_waiting(tiny_qwen: Tiny):
    def opened_and_closed() -> bool:
        reranker = open_reranker(str(tiny_qwen.folder))
        reranker.close()
        return reranker.is_closed

    def loaded_and_closed() -> bool:
        with Reranker.load(tiny_qwen.folder) as reranker:
            reranker.logits(QUERY, DOCUMENTS[:1])
        return reranker.is_closed

    for call in (opened_and_closed, loaded_and_closed):
        for step in chosen(steps_of(call), few=5, many=100):
            interrupted_at(step, call)
            assert answer_of(call), step


def test_ctrl_c_at_each_step_of_a_progress_bar_in_a_terminal_spoils_no_later_bar():
    ran = in_terminal(["-c", BARS], environment={"PYTHONPATH": os.pathsep.join(sys.path)})

    assert ran.code == 0, ran.screen
    assert ran.screen.endswith("bars: 0, threads: 1\r\n")


def test_ctrl_c_at_a_random_moment_of_the_first_call_leaves_one_computing_thread(tiny_qwen: Tiny):
    """The first call starts the thread that computes; an interrupt then must not lead to a second one."""
    chance = random.Random(8)
    computing: set[int] = set()
    most: list[int] = []

    def enter(*_: object) -> None:
        computing.add(threading.get_ident())
        most.append(len(computing))

    for _ in moments(few=4, many=100):
        with Reranker.load(tiny_qwen.folder) as reranker:
            layer = reranker.classifier.get_submodule("model.layers.0")
            layer.register_forward_pre_hook(enter)
            layer.register_forward_hook(lambda *_: computing.discard(threading.get_ident()))
            interrupted_after(chance.uniform(0, 0.003), lambda: reranker.logits(QUERY, DOCUMENTS))
            with ThreadPoolExecutor(4) as pool:
                calls = [pool.submit(reranker.logits, QUERY, DOCUMENTS) for _ in range(4)]
                answers = [call.result(60) for call in calls]
            assert all(answer == pytest.approx(answers[0], abs=2e-5) for answer in answers)
    assert max(most) == 1


# Ctrl-C may come while Python's own code lists a folder, which is then closed by the garbage collector.
@pytest.mark.filterwarnings("ignore:.*ScandirIterator:pytest.PytestUnraisableExceptionWarning")
def test_ctrl_c_while_a_shared_model_is_opened_keeps_nobody_waiting(tiny_qwen: Tiny):
    chance = random.Random(9)
    with open_reranker(str(tiny_qwen.folder)) as reranker:
        expected = reranker.logits(QUERY, DOCUMENTS)
    length_s = seconds_of(lambda: open_reranker(str(tiny_qwen.folder)).close())
    for _ in moments(few=5, many=100):
        interrupted_after(chance.uniform(0, length_s), lambda: open_reranker(str(tiny_qwen.folder)))
        with ThreadPoolExecutor(1) as pool:
            opened = pool.submit(open_reranker, str(tiny_qwen.folder)).result(60)
        assert opened.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=2e-5)
        opened.close()


def test_a_model_for_which_no_thread_can_start_can_be_opened_later(tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            open_reranker(str(tiny_qwen.folder), max_tokens=777)

    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(open_reranker, str(tiny_qwen.folder), max_tokens=777).result(60)
    assert opened.max_tokens == 777
    opened.close()


class Killed(BaseException):
    """Raised in a thread from outside."""


@pytest.mark.skipif(
    "COVERAGE_RUN" in os.environ, reason="Python 3.11 hangs if a thread gets an exception while threads are traced"
)
def test_callers_threads_that_die_harm_no_other_caller(tiny_qwen: Tiny):
    """Threads are killed at random moments, between two instructions of Python, while others call."""
    chance = random.Random(10)
    stopped = threading.Event()
    wrong: list[object] = []
    died: list[str] = []

    def call_until_stopped(queries: list[str]) -> None:
        try:
            while not stopped.is_set():
                for query in queries:
                    if reranker.logits(query, DOCUMENTS) != pytest.approx(expected[query], abs=2e-5):
                        wrong.append(query)
        except Killed:
            died.append(threading.current_thread().name)

    with Reranker.load(tiny_qwen.folder, document_cache_bytes=300_000) as reranker:
        queries = [QUERY, "Which fruit is yellow?", "서울?"]
        expected = {query: reranker.logits(query, DOCUMENTS) for query in queries}
        for _ in moments(few=2, many=25):
            threads = [threading.Thread(target=call_until_stopped, args=(queries,)) for _ in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads[:4]:
                time.sleep(chance.uniform(0, 0.02))
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Killed))
                thread.join(30)
                assert not thread.is_alive()
            stopped.set()
            for thread in threads:
                thread.join(30)
                assert not thread.is_alive()
            stopped.clear()
        assert len(died) == 4 * len(moments(few=2, many=25))
        assert not wrong
        assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected[QUERY], abs=2e-5)
        wait_until(lambda: is_idle(reranker))
