"""A call in portions: tokenised while the device computes, and in all else the call that it was."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from math import nan

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onelogit import InputError, OnelogitError, Reranker
from onelogit.errors import LogitError
from onelogit.local.portions import in_portions
from onelogit.prompts.token_rows import TokenRow
from onelogit.ranking import Computed
from support.tiny import Tiny, causal_checkpoint

PATIENCE_S = 20
QUERY = "What is the capital of China?"
DOCUMENTS = [f"{number} is a number, and {number * number} its square. " * (1 + number % 3) for number in range(40)]
FAMILIES = ["Qwen3-Reranker-tiny", "ctxl-rerank-v2-1b"]  # the query stands first; the document does

Pairs = list[tuple[str, str]]


# Where portions end


def portions_of(
    pairs: Sequence[tuple[str, str]], batch_tokens: int, is_document_first: bool = False
) -> list[list[int]]:
    return [*in_portions(pairs, batch_tokens, 10**6, is_document_first=is_document_first)]


@given(
    pairs=st.lists(st.tuples(st.sampled_from("abc"), st.text("de", max_size=9)), max_size=40),
    batch_tokens=st.integers(1, 30),
    is_document_first=st.booleans(),
)
def test_every_pair_stands_in_one_portion_and_pairs_that_are_alike_in_the_same(
    pairs: Pairs, batch_tokens: int, is_document_first: bool
):
    portions = portions_of(pairs, batch_tokens, is_document_first)

    assert sorted(place for portion in portions for place in portion) == [*range(len(pairs))]
    assert sum(len({pairs[place] for place in portion}) for portion in portions) == len(set(pairs))
    assert all(portions) or portions == [[]]


def test_a_portion_is_a_quarter_of_a_batch_and_then_twice_the_one_before_up_to_a_batch():
    pairs = [("q", f"{number:04}" * 256) for number in range(1000)]  # some 256 tokens each

    counts = [len(portion) for portion in portions_of(pairs, 32768)]

    assert counts[:4] == [32, 64, 128, 128]
    assert 128 <= counts[-1] < 256
    assert sum(counts) == 1000


@pytest.mark.parametrize(("count", "counts"), [(0, [0]), (1, [1]), (63, [63]), (65, [32, 33]), (100, [32, 68])])
def test_no_portion_leaves_less_than_itself_behind(count: int, counts: list[int]):
    pairs = [("q" * 4, f"{number:04}" * 256) for number in range(count)]

    assert [len(portion) for portion in portions_of(pairs, 32768)] == counts


def test_a_text_counts_as_much_as_is_read_of_it_and_as_bytes():
    long = [("q", f"{number:04}" * 9999) for number in range(8)]
    korean = [("q", f"{number:04}" + "서" * 340) for number in range(65)]

    assert [*map(len, in_portions(long, 400, 100, is_document_first=False))] == [1, 2, 5]
    assert [*map(len, portions_of(korean, 32768))] == [32, 33]


@pytest.mark.parametrize("is_document_first", [False, True])
def test_pairs_that_share_what_stands_first_are_counted_and_kept_together(is_document_first: bool):
    pairs = [(first * 400, f"{number:03}-") for number in range(100) for first in "abc"]
    if is_document_first:
        pairs = [(second, first) for first, second in pairs]

    portions = portions_of(pairs, 200, is_document_first)

    assert [len(portion) for portion in portions] == [1, 100, 199]
    firsts = [[pairs[place][is_document_first][0] for place in portion] for portion in portions]
    assert firsts == [["a"], ["a"] * 99 + ["b"], ["b"] * 99 + ["c"] * 100]


# The same call


def in_small_portions(reranker: Reranker) -> Reranker:
    reranker._scorer._portion_tokens = 100
    return reranker


@pytest.fixture
def portioned(reranker: Reranker) -> Reranker:
    return in_small_portions(reranker)


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Reranker, Reranker]]:
    """A reranker that asks for all at once, and one that asks in portions."""
    folder = tmp_path_factory.mktemp("twins")
    made: dict[tuple[str, object], tuple[Reranker, Reranker]] = {}

    def make(family: str, long_documents: object) -> tuple[Reranker, Reranker]:
        if (family, long_documents) not in made:
            tiny = causal_checkpoint(folder / family)
            options = {"max_tokens": 300, "long_documents": long_documents}
            one, other = (Reranker.load(tiny.folder, **options) for _ in range(2))
            made[family, long_documents] = one, in_small_portions(other)
        return made[family, long_documents]

    return make


@pytest.mark.parametrize("long_documents", [None, "chunk_max"])
@pytest.mark.parametrize("family", FAMILIES)
@settings(max_examples=15)
@given(data=st.data())
def test_portions_change_neither_logits_nor_their_order(
    family: str, long_documents: object, twins: Callable[..., tuple[Reranker, Reranker]], data: st.DataObject
):
    queries, documents = ["which?", QUERY], st.sampled_from([*DOCUMENTS, "", "서울 " * 90, "long " * 400])
    pairs = data.draw(st.lists(st.tuples(st.sampled_from(queries), documents), max_size=30))
    whole, portioned = twins(family, long_documents)

    expected = whole.pair_logits(pairs)

    assert portioned.pair_logits(pairs) == pytest.approx(expected, abs=1e-4)
    assert asyncio.run(portioned._scorer.alogits(pairs)).logits == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_whether_the_document_stands_first_is_read_off_the_prompt(
    family: str, twins: Callable[..., tuple[Reranker, Reranker]]
):
    assert twins(family, None)[0]._scorer._encoder.is_document_first == (family == "ctxl-rerank-v2-1b")


def test_on_a_cpu_a_call_is_one_portion(reranker: Reranker):
    assert [*reranker._scorer._portions([(QUERY, document) for document in DOCUMENTS * 99])] == [range(40 * 99)]


class Watch:
    """What a reranker tokenises, asks for and computes; each may be held up."""

    def __init__(self, reranker: Reranker) -> None:
        scorer = reranker._scorer
        self.rows, self.submit = scorer._encoder.rows, scorer._scheduler.submit
        scorer._encoder.rows, scorer._scheduler.submit = self.read, self.ask
        self.tokenised = self.passes = 0
        self.asked: list[list[TokenRow]] = []
        self.before_tokenising: Callable[[int], object] = lambda number: None
        self.before_computing: Callable[[int], object] = lambda number: None
        embeddings = reranker.classifier.get_submodule("model.embed_tokens")
        embeddings.register_forward_pre_hook(lambda *_: self.compute())

    def read(self, *args: object) -> object:
        self.before_tokenising(self.tokenised)
        self.tokenised += 1
        return self.rows(*args)

    def ask(self, items: list[TokenRow], *arguments: object) -> None:
        self.asked.append(items)
        self.submit(items, *arguments)

    def compute(self) -> None:
        self.passes += 1
        self.before_computing(self.passes - 1)


@pytest.fixture
def watch(portioned: Reranker) -> Watch:
    return Watch(portioned)


def wait(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S)


def test_a_portion_is_tokenised_while_the_one_before_it_is_computed(portioned: Reranker, watch: Watch):
    """Computing the first waits until the second begins to be tokenised, and that until the first is computed."""

    def before_tokenising(number: int) -> None:
        if number == 1:
            wait(is_computing)
            is_tokenising.set()

    def before_computing(number: int) -> None:
        if number == 0:
            is_computing.set()
            wait(is_tokenising)

    is_computing, is_tokenising = threading.Event(), threading.Event()
    watch.before_tokenising, watch.before_computing = before_tokenising, before_computing

    portioned.logits(QUERY, DOCUMENTS)

    assert is_tokenising.is_set()
    assert watch.tokenised == len(watch.asked) > 3


async def test_so_it_is_behind_an_event_loop_which_goes_on_meanwhile(portioned: Reranker, watch: Watch):
    def before_tokenising(number: int) -> None:
        if number == 1:
            loop.call_soon_threadsafe(has_ticked.set)
            wait(has_ticked)

    loop, has_ticked = asyncio.get_running_loop(), threading.Event()
    watch.before_tokenising = before_tokenising

    assert len(await portioned.arank(QUERY, DOCUMENTS)) == len(DOCUMENTS)
    assert watch.tokenised > 3


def test_pairs_that_are_alike_are_computed_once(portioned: Reranker, watch: Watch):
    logits = portioned.logits(QUERY, [*DOCUMENTS, *reversed(DOCUMENTS)])

    assert logits == [*logits[:40], *logits[39::-1]]
    assert len(watch.asked) > 3
    assert sum(len({row.ids for row in rows}) for rows in watch.asked) == 40


def test_cut_documents_are_counted_once_a_call(tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    portioned = in_small_portions(Reranker.load(tiny_qwen.folder, max_tokens=500))
    with caplog.at_level(logging.WARNING):
        portioned.logits(QUERY, ["a long " * 300, *DOCUMENTS, "0 long " * 300, "a long " * 300])

    assert caplog.messages == ["3 of 43 documents were cut at their end to fit max_tokens=500"]


@pytest.mark.parametrize("is_portioned", [False, True])
def test_the_first_document_without_a_finite_logit_is_named(reranker: Reranker, tiny_qwen: Tiny, is_portioned: bool):
    if is_portioned:
        in_small_portions(reranker)
    compute = reranker._scorer._scheduler._compute
    spoiling = tiny_qwen.tokenizer.encode("ж", add_special_tokens=False)[0]

    def spoiled(rows: Sequence[TokenRow]) -> Iterator[Computed]:
        for batch in compute(rows):
            indices, logits = batch.computed()
            are_spoiled = [spoiling in rows[index].ids for index in indices]
            yield Computed(indices, [nan if is_so else logit for is_so, logit in zip(are_spoiled, logits, strict=True)])

    reranker._scorer._scheduler._compute = spoiled

    with pytest.raises(LogitError, match="the logit of document 7 is nan"):
        reranker.logits(QUERY, [*DOCUMENTS[:7], "9 ж", *DOCUMENTS[7:], "0 ж"])
    with pytest.raises(LogitError, match="the logit of document 41 is nan"):
        reranker.logits(QUERY, [*DOCUMENTS, "fine", "0 ж"])


@pytest.mark.parametrize("long_documents", [None, "chunk_max"])
def test_a_progress_bar_counts_all_rows_of_a_call(
    long_documents: object, tiny_qwen: Tiny, capfd: pytest.CaptureFixture[str]
):
    portioned = in_small_portions(Reranker.load(tiny_qwen.folder, max_tokens=300, long_documents=long_documents))
    watch = Watch(portioned)
    pairs = [(QUERY, document) for document in [*DOCUMENTS, "long " * 300, *DOCUMENTS]]
    portioned.pair_logits(pairs, progress=True)

    count = sum(map(len, watch.asked))
    assert len(watch.asked) > 3
    assert (count > 81) == (long_documents is not None)
    assert f"{count}/{count} " in capfd.readouterr().err


def test_a_progress_bar_comes_once_its_length_is_known_with_what_is_done_by_then(
    portioned: Reranker, watch: Watch, capfd: pytest.CaptureFixture[str]
):
    def before_tokenising(number: int) -> None:
        if number == 2:
            wait(is_computed)
            assert capfd.readouterr().err == ""

    def before_computing(number: int) -> None:
        if number == 1:
            is_computed.set()  # the first portion, or more

    is_computed = threading.Event()
    watch.before_tokenising, watch.before_computing = before_tokenising, before_computing
    portioned.pair_logits([(QUERY, document) for document in DOCUMENTS], progress=True)

    assert "40/40 " in capfd.readouterr().err


# Failing, cancelled, closed


def test_a_query_that_leaves_no_room_is_an_error_before_anything_is_computed(
    portioned: Reranker, watch: Watch, capfd: pytest.CaptureFixture[str]
):
    with pytest.raises(InputError, match="leaves no room for a document in max_tokens=2048"):
        portioned._scorer.logits([("long " * 5000, document) for document in DOCUMENTS], progress=True)

    assert (watch.asked, watch.passes) == ([], 0)
    assert capfd.readouterr().err == ""


def becomes_idle(reranker: Reranker) -> bool:
    """Whether nothing waits, or soon nothing does: an answer comes just before the thread looks for more."""
    (line,) = reranker._scorer._scheduler._lines.values()
    for _ in range(1000):
        if not (line.jobs or line.again or line.coming):
            return True
        time.sleep(0.001)
    return False


def test_a_portion_that_cannot_be_tokenised_ends_those_before_it(portioned: Reranker, watch: Watch):
    """One that waits is not computed; one that is computed gets no further than its batch."""

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


async def test_a_call_cancelled_while_it_is_tokenised_asks_for_no_more(portioned: Reranker, watch: Watch):
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
    assert [len(rows) for rows in watch.asked[1:]] == [1]
    assert watch.tokenised == 3
    assert becomes_idle(portioned)


async def test_a_call_cancelled_while_it_is_computed_leaves_nothing_running(portioned: Reranker, watch: Watch):
    def before_computing(number: int) -> None:
        if number == 0:
            wait(is_cancelled)

    is_cancelled = threading.Event()
    watch.before_computing = before_computing
    call = asyncio.create_task(portioned.arank(QUERY, DOCUMENTS))
    while len(watch.asked) < 4:
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
    portioned._scorer._scheduler._most_weight = 1  # else all portions may be one group, in one pass
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


def test_many_callers_of_all_sizes_get_their_own_answers_whoever_fails_or_leaves(portioned: Reranker, watch: Watch):
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
