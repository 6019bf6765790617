"""Calls on the client's event loop: what they keep in memory, and how they end if threads or patience run out."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Iterator

import httpx2
import pytest

from onelogit import DEMO_MODEL, RemoteReranker, Reranker, ServerError
from onelogit.remote.event_loop import LoopCall, LoopThread
from onelogit.serving import app
from support.faults import chosen, interrupted_at, steps_of
from support.served import served

PATIENCE_S = 20


class Text(str):
    """A text that weak references can refer to."""


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("is_async", [False, True])
def test_a_call_that_fails_keeps_nothing_in_memory(is_async: bool):
    async def fail(number: int) -> "weakref.ref[Text]":
        document = Text(number)
        with pytest.raises(ServerError, match="no server answers"):
            if is_async:
                await reranker.arank("q", [document])
            else:
                reranker.rank("q", [document])
        return weakref.ref(document)

    async def fail_often() -> "list[weakref.ref[Text]]":
        return [await fail(number) for number in range(3)]

    with RemoteReranker("http://127.0.0.1:9", str(DEMO_MODEL), attempts=1) as reranker:
        texts = asyncio.run(fail_often())
        end = time.monotonic() + PATIENCE_S
        while any(text() for text in texts) and time.monotonic() < end:
            time.sleep(0.01)

        assert [text() for text in texts] == [None] * 3


def test_closing_ends_although_no_thread_can_start(monkeypatch: pytest.MonkeyPatch):
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    def close() -> None:
        assert may_close.wait(PATIENCE_S)
        loop_thread.close()

    loop_thread, may_close = LoopThread(None, 1.0, 1), threading.Event()
    call = LoopCall(lambda: asyncio.to_thread(int))  # now the loop has an executor, which a thread shuts down
    call.start(loop_thread.loop)
    assert call.outcome.result() == 0
    closing = threading.Thread(target=close, daemon=True)
    closing.start()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    may_close.set()
    closing.join(PATIENCE_S)

    assert not closing.is_alive()


def test_ctrl_c_in_the_first_call_leaves_the_callers_http_client_open():
    with Reranker.load(DEMO_MODEL, device="cpu", dtype="float32") as behind, served(app(behind)) as url:

        def new() -> RemoteReranker:
            return RemoteReranker(url, str(DEMO_MODEL), client=httpx2.AsyncClient(trust_env=False))

        with new() as reranker:
            steps = steps_of(lambda: reranker.logits("q", ["a"]))
            expected = reranker.logits("q", ["a"])
        for step in chosen(steps, few=25, many=200):
            with new() as reranker:
                interrupted_at(step, lambda: reranker.logits("q", ["a"]))
                assert reranker.logits("q", ["a"]) == pytest.approx(expected, abs=1e-5), step
