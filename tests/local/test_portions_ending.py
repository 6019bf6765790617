"""Calls in portions that fail, are cancelled or closed, and many such calls at once."""

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest

from onelogit import InputError, OnelogitError, Reranker
from support.portions import DOCUMENTS, PATIENCE_S, QUERY, Watch, wait

# Failing, cancelled, closed


def test_a_query_that_leaves_no_room_is_an_error_before_anything_is_computed(
    portioned: Reranker, watch: Watch, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError, match="leaves no room for a document in max_tokens=2048"):
        portioned._scorer.logits([("long " * 5000, document) for document in DOCUMENTS], progress=True)

    assert (watch.submitted, watch.passes) == ([], 0)
    assert capfd.readouterr().err == ""


def becomes_idle(reranker: Reranker) -> bool:
    """Whether no work is left, at once or soon: an answer arrives just before the thread looks for more work."""
    (worker,) = reranker._scorer._scheduler._workers.values()
    for _ in range(1000):
        if not (worker.requests or worker.retries or worker.unread):
            return True
        time.sleep(0.001)
    return False


def test_a_portion_that_cannot_be_tokenised_cancels_those_before_it(portioned: Reranker, watch: Watch):
    """A portion that waits is not computed; one that is being computed stops after its current batch."""

    def before_tokenising(number: int) -> None:
        if number == 1:
            wait(is_computing)

    def before_computing(number: int) -> None:
        is_computing.set()
        if number == 0:
            wait(is_left)

    is_computing, is_left = threading.Event(), threading.Event()
    watch.before_tokenising, watch.before_computing = before_tokenising, before_computing
    with pytest.raises(InputError, match="leaves no room"):
        portioned.pair_logits([*((QUERY, document) for document in DOCUMENTS), ("long " * 5000, "last")])
    is_left.set()
    portioned.logits(QUERY, ["one"])

    assert watch.passes == 2
    assert becomes_idle(portioned)


def test_a_portion_that_cannot_be_computed_ends_the_call(portioned: Reranker, watch: Watch):
    def before_tokenising(number: int) -> None:
        if number == 2:
            wait(has_failed)

    def before_computing(number: int) -> None:
        if number == 0:
            has_failed.set()
            raise ArithmeticError("broken")

    has_failed = threading.Event()
    watch.before_tokenising, watch.before_computing = before_tokenising, before_computing
    with pytest.raises(ArithmeticError, match="broken"):
        portioned.logits(QUERY, DOCUMENTS)
    tokenised = watch.tokenised

    assert len(portioned.logits(QUERY, DOCUMENTS)) == 40
    assert tokenised < watch.tokenised - tokenised  # the second call tokenised all portions
    assert becomes_idle(portioned)


async def test_a_call_cancelled_while_it_is_tokenised_submits_no_more(portioned: Reranker, watch: Watch):
    def before_tokenising(number: int) -> None:
        if number == 1:
            loop.call_soon_threadsafe(is_tokenising.set)
            wait(is_cancelled)
            ended.append(threading.current_thread())

    loop, ended = asyncio.get_running_loop(), list[threading.Thread]()
    is_tokenising, is_cancelled = asyncio.Event(), threading.Event()
    watch.before_tokenising = before_tokenising
    call = asyncio.create_task(portioned.arank(QUERY, DOCUMENTS))
    await is_tokenising.wait()
    call.cancel()
    await asyncio.wait([call])
    is_cancelled.set()
    while not ended:
        await asyncio.sleep(0.001)
    await portioned.arank(QUERY, ["other"])

    assert call.cancelled()
    assert [len(rows) for rows in watch.submitted[1:]] == [1]
    assert watch.tokenised == 3
    assert becomes_idle(portioned)


async def test_a_call_cancelled_while_it_is_computed_leaves_no_work(portioned: Reranker, watch: Watch):
    def before_computing(number: int) -> None:
        if number == 0:
            wait(is_cancelled)

    is_cancelled = threading.Event()
    watch.before_computing = before_computing
    call = asyncio.create_task(portioned.arank(QUERY, DOCUMENTS))
    while len(watch.submitted) < 4:
        await asyncio.sleep(0.001)
    call.cancel()
    await asyncio.wait([call])
    is_cancelled.set()
    await portioned.arank(QUERY, ["other"])

    assert watch.passes == 2
    assert becomes_idle(portioned)


@pytest.mark.parametrize("state", ["tokenised", "computed"])
@pytest.mark.parametrize("is_async", [False, True])
def test_a_close_ends_a_call_in_portions(state: str, is_async: bool, portioned: Reranker, watch: Watch):
    def hold(number: int) -> None:
        if number == 1:
            is_held.set()
            wait(is_closed)

    is_held, is_closed = threading.Event(), threading.Event()
    setattr(watch, {"tokenised": "before_tokenising", "computed": "before_computing"}[state], hold)
    pairs = [(QUERY, document) for document in DOCUMENTS]
    portioned._scorer._scheduler._max_batch_cost = 1  # else all portions may be computed in one pass
    with ThreadPoolExecutor(2) as pool:
        if is_async:
            call = pool.submit(asyncio.run, portioned._scorer.alogits(pairs))
        else:
            call = pool.submit(portioned._scorer.logits, pairs)
        wait(is_held)
        closing = pool.submit(portioned.close)
        while not portioned._scorer._scheduler.is_closed:
            time.sleep(0.001)
        is_closed.set()
        closing.result(PATIENCE_S)
        with pytest.raises(OnelogitError, match="this reranker is closed"):
            call.result(PATIENCE_S)


# Many at once


def test_many_callers_get_their_own_answers_although_others_fail_or_leave(portioned: Reranker, watch: Watch):
    def ask_aloud(number: int) -> None:
        documents = DOCUMENTS[number % 20 :][: 1 + 3 * number]
        for query in QUERIES:
            if number % 5 == 4:
                with pytest.raises(InputError):
                    portioned.pair_logits([*((query, document) for document in documents), ("long " * 5000, "last")])
            else:
                assert portioned.logits(query, documents) == pytest.approx(
                    alone[query][number % 20 :][: len(documents)], abs=1e-4
                )

    async def ask_asynchronously(number: int) -> None:
        for query in QUERIES:
            with suppress(TimeoutError):
                async with asyncio.timeout(0.003 * (number % 4) if number % 3 else None):
                    ranking = await portioned.arank(query, DOCUMENTS[: 2 * number + 1])
                    for ranked in ranking:
                        assert ranked.logit == pytest.approx(alone[query][ranked.index], abs=1e-4)
                    answered.append(number)

    async def ask_all() -> None:
        await asyncio.gather(*map(ask_asynchronously, range(20)))

    answered: list[int] = []
    QUERIES = ["which one?", QUERY, "서울?"]
    alone = {query: portioned.logits(query, DOCUMENTS) for query in QUERIES}
    with ThreadPoolExecutor(26) as pool:
        calls = [pool.submit(ask_aloud, number) for number in range(25)]
        calls.append(pool.submit(asyncio.run, ask_all()))
        for call in calls:
            call.result(60)

    assert len(answered) >= 3 * 7
    assert becomes_idle(portioned)
