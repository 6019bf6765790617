"""A call in portions: tokenised while the device computes, with the same results as a call in one piece."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from math import nan

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onelogit import Reranker
from onelogit.engine.device_transfer import PendingLogits
from onelogit.errors import LogitError
from onelogit.local.scorer import split_into_portions
from onelogit.prompts.token_rows import TokenRow
from support.portions import DOCUMENTS, FAMILIES, QUERY, Watch, in_small_portions, wait
from support.tiny import Tiny, causal_checkpoint

Pairs = list[tuple[str, str]]


# Where portions end


def portions_of(
    pairs: Sequence[tuple[str, str]], batch_tokens: int, is_document_first: bool = False
) -> list[list[int]]:
    return [*split_into_portions(pairs, batch_tokens, 10**6, is_document_first=is_document_first)]


@given(
    pairs=st.lists(st.tuples(st.sampled_from("abc"), st.text("de", max_size=9)), max_size=40),
    batch_tokens=st.integers(1, 30),
    is_document_first=st.booleans(),
)
def test_every_pair_is_in_one_portion_and_identical_pairs_in_the_same(
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


def test_texts_are_counted_in_bytes_up_to_the_longest_row():
    long = [("q", f"{number:04}" * 9999) for number in range(8)]
    korean = [("q", f"{number:04}" + "서" * 340) for number in range(65)]

    assert [*map(len, split_into_portions(long, 400, 100, is_document_first=False))] == [1, 2, 5]
    assert [*map(len, portions_of(korean, 32768))] == [32, 33]


@pytest.mark.parametrize("is_document_first", [False, True])
def test_pairs_that_share_their_first_text_are_counted_and_kept_together(is_document_first: bool):
    pairs = [(first * 400, f"{number:03}-") for number in range(100) for first in "abc"]
    if is_document_first:
        pairs = [(second, first) for first, second in pairs]

    portions = portions_of(pairs, 200, is_document_first)

    assert [len(portion) for portion in portions] == [1, 100, 199]
    firsts = [[pairs[place][is_document_first][0] for place in portion] for portion in portions]
    assert firsts == [["a"], ["a"] * 99 + ["b"], ["b"] * 99 + ["c"] * 100]


# The same call


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[Reranker, Reranker]]:
    """A reranker that computes calls in one piece, and one that computes them in portions."""
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
def test_the_prompt_tells_whether_the_document_comes_first(
    family: str, twins: Callable[..., tuple[Reranker, Reranker]]
):
    assert twins(family, None)[0]._scorer._encoder.is_document_first == (family == "ctxl-rerank-v2-1b")


def test_on_a_cpu_a_call_is_one_portion(reranker: Reranker):
    assert [*reranker._scorer._portions([(QUERY, document) for document in DOCUMENTS * 99])] == [range(40 * 99)]


def test_a_portion_is_tokenised_while_the_one_before_it_is_computed(portioned: Reranker, watch: Watch):
    """Computing the first portion waits for tokenising the second, and that waits for computing the first."""

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
    assert watch.tokenised == len(watch.submitted) > 3


async def test_portions_of_an_async_call_are_tokenised_without_blocking_the_event_loop(
    portioned: Reranker, watch: Watch
):
    def before_tokenising(number: int) -> None:
        if number == 1:
            loop.call_soon_threadsafe(has_ticked.set)
            wait(has_ticked)

    loop, has_ticked = asyncio.get_running_loop(), threading.Event()
    watch.before_tokenising = before_tokenising

    assert len(await portioned.arank(QUERY, DOCUMENTS)) == len(DOCUMENTS)
    assert watch.tokenised > 3


def test_identical_pairs_are_computed_once(portioned: Reranker, watch: Watch):
    logits = portioned.logits(QUERY, [*DOCUMENTS, *reversed(DOCUMENTS)])

    assert logits == [*logits[:40], *logits[39::-1]]
    assert len(watch.submitted) > 3
    assert sum(len({row.ids for row in rows}) for rows in watch.submitted) == 40


def test_cut_documents_are_counted_once_a_call(tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    portioned = in_small_portions(Reranker.load(tiny_qwen.folder, max_tokens=500))
    with caplog.at_level(logging.WARNING):
        portioned.logits(QUERY, ["a long " * 300, *DOCUMENTS, "0 long " * 300, "a long " * 300])

    assert caplog.messages == ["3 of 43 documents were truncated to fit max_tokens=500"]


@pytest.mark.parametrize("is_portioned", [False, True])
def test_the_first_document_without_a_finite_logit_is_named(reranker: Reranker, tiny_qwen: Tiny, is_portioned: bool):
    if is_portioned:
        in_small_portions(reranker)
    compute = reranker._scorer._scheduler._compute
    spoiling = tiny_qwen.tokenizer.encode("ж", add_special_tokens=False)[0]

    def spoiled(rows: Sequence[TokenRow]) -> Iterator[PendingLogits]:
        for pending in compute(rows):
            indices, logits = zip(*pending.logits(), strict=True)
            spoilt = [nan if spoiling in rows[index].ids else logits[at] for at, index in enumerate(indices)]
            yield PendingLogits([[index] for index in indices], torch.tensor(spoilt))

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

    count = sum(map(len, watch.submitted))
    assert len(watch.submitted) > 3
    assert (count > 81) == (long_documents is not None)
    assert f"{count}/{count} " in capfd.readouterr().err


def test_a_progress_bar_appears_once_its_length_is_known_with_the_rows_done_so_far(
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
