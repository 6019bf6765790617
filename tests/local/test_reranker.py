"""What a reranker guarantees: order, values, errors, lifetime."""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from onelogit import InputError, OnelogitError, Ranked, Reranker
from onelogit.ranking import to_score
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "No.", "yes " * 40]


def test_rank_orders_by_logit_and_reports_both_values(reranker: Reranker):
    logits = reranker.logits(QUERY, DOCUMENTS)

    ranking = reranker.rank(QUERY, DOCUMENTS)

    assert [ranked.logit for ranked in ranking] == sorted(logits, reverse=True)
    assert all(ranked == Ranked(ranked.index, logits[ranked.index], ranked.score) for ranked in ranking)
    assert all(ranked.score == to_score(ranked.logit, "sigmoid") for ranked in ranking)
    assert all(type(value) is float for ranked in ranking for value in ranked[1:])


def test_arank_gives_what_rank_gives(reranker: Reranker):
    assert asyncio.run(reranker.arank(QUERY, DOCUMENTS, top_n=2)) == reranker.rank(QUERY, DOCUMENTS, top_n=2)


async def test_arank_does_not_block_the_event_loop(reranker: Reranker):
    task = asyncio.ensure_future(reranker.arank(QUERY, DOCUMENTS * 20))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0)
        ticks += 1

    assert ticks > 1


def test_pair_logits_keep_the_order_of_pairs(reranker: Reranker):
    pairs = [("first", "a"), ("second", "b"), ("first", "a"), ("third", "c " * 50)]

    logits = reranker.pair_logits(pairs)

    expected = [reranker.logits(query, [document])[0] for query, document in pairs]
    assert logits == pytest.approx(expected, abs=1e-5)


def test_pair_logits_show_progress_on_request(reranker: Reranker, capfd: pytest.CaptureFixture[str]):
    reranker.pair_logits([("q", "d")])
    assert capfd.readouterr().err == ""

    reranker.pair_logits([("q", "d")], progress=True)
    assert "1/1" in capfd.readouterr().err


def test_no_documents_give_an_empty_ranking(reranker: Reranker):
    assert reranker.rank(QUERY, []) == []
    assert reranker.pair_logits([]) == []


def test_documents_may_be_any_iterable(reranker: Reranker):
    assert reranker.logits(QUERY, iter(DOCUMENTS)) == reranker.logits(QUERY, tuple(DOCUMENTS))


def test_an_instruction_changes_the_logits_and_none_means_the_recipes(reranker: Reranker):
    default = reranker.logits(QUERY, DOCUMENTS)

    assert reranker.logits(QUERY, DOCUMENTS, instruction=reranker.recipe.default_instruction) == default
    assert reranker.logits(QUERY, DOCUMENTS, instruction="Find lies.") != default


def test_an_instruction_can_be_set_at_loading(tiny_qwen: Tiny, reranker: Reranker):
    mine = Reranker.load(tiny_qwen.folder, instruction="Find lies.")

    assert mine.logits(QUERY, DOCUMENTS) == reranker.logits(QUERY, DOCUMENTS, instruction="Find lies.")


def test_an_instruction_that_would_be_ignored_is_an_error(tiny_qwen: Tiny, template: str, reranker: Reranker):
    recipe = type(reranker.recipe)(
        family="terse", chat_template=template, read_out=reranker.recipe.read_out, source="this test"
    )
    terse = Reranker(reranker.classifier, tiny_qwen.tokenizer, recipe)

    with pytest.raises(InputError, match="terse takes no instruction"):
        terse.rank(QUERY, DOCUMENTS, instruction="Find lies.")


@pytest.mark.parametrize(
    ("query", "documents", "complaint"),
    [
        ("", DOCUMENTS, "the query is empty"),
        (" \n", DOCUMENTS, "the query is empty"),
        (None, DOCUMENTS, "the query must be a string, not NoneType"),
        (QUERY, ["fine", {"text": "a dict"}], "document 1 must be a string, not dict"),
        (QUERY, "one string", "must be a list of strings, not one string"),
        (QUERY, {"a document": 1}, "must be a list of strings, not a dict"),
        (QUERY, {"a document"}, "must be a list of strings, not a set"),
        (QUERY, None, "must be a list of strings, not a NoneType"),
        (QUERY, b"bytes", "must be a list of strings, not a bytes"),
        ("half \ud83d", DOCUMENTS, "the query contains half a character"),
        ("long " * 5000, DOCUMENTS, "leaves no room for a document in max_tokens=2048"),
    ],
)
def test_bad_input_is_one_clear_error(query: object, documents: object, complaint: str, reranker: Reranker):
    with pytest.raises(InputError, match=complaint):
        reranker.rank(query, documents)  # type: ignore[arg-type]


@pytest.mark.parametrize("pair", [("query",), ("a", "b", "c"), "ab", None, {"query": "q", "document": "d"}])
def test_anything_but_a_pair_is_refused(pair: object, reranker: Reranker):
    with pytest.raises(InputError, match="pair 1 must be a tuple of a query and a document"):
        reranker.pair_logits([("q", "d"), pair])  # type: ignore[list-item]


@pytest.mark.parametrize("top_n", [0, -3, "two", 1.5])
def test_a_top_n_below_one_is_refused(top_n: object, reranker: Reranker):
    with pytest.raises(InputError, match=f"top_n must be a whole number from 1 up, or None for all, not {top_n!r}"):
        reranker.rank(QUERY, DOCUMENTS, top_n=top_n)  # type: ignore[arg-type]


def test_cut_documents_are_counted_once_a_call(reranker: Reranker, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        reranker.rank(QUERY, ["short", "long " * 3000, "longer " * 3000])

    assert caplog.messages == ["2 of 3 documents were truncated to fit max_tokens=2048"]


def test_a_long_document_scores_as_its_beginning(tiny_qwen: Tiny):
    reranker = Reranker.load(tiny_qwen.folder, max_tokens=400)
    beginning = "the beginning of a long document. " * 60

    one, other = reranker.logits(QUERY, [beginning + "One end.", beginning + "Quite another end."])

    assert one == other


def test_threads_share_a_reranker(reranker: Reranker):
    queries = [f"question {n}?" for n in range(16)]
    expected = [reranker.rank(query, DOCUMENTS) for query in queries]

    with ThreadPoolExecutor(8) as pool:
        rankings = list(pool.map(lambda query: reranker.rank(query, DOCUMENTS), queries))

    for ranking, correct in zip(rankings, expected, strict=True):
        assert [ranked.index for ranked in ranking] == [ranked.index for ranked in correct]
        assert [ranked.logit for ranked in ranking] == pytest.approx([ranked.logit for ranked in correct], abs=1e-5)


def test_the_activation_can_be_chosen(tiny_qwen: Tiny):
    ranking = Reranker.load(tiny_qwen.folder, activation="identity").rank(QUERY, DOCUMENTS)

    assert all(ranked.score == ranked.logit for ranked in ranking)


def test_a_reranker_describes_itself(reranker: Reranker):
    assert repr(reranker) == (
        f"Reranker(model={reranker.name!r}, family='qwen3-reranker', device='cpu', dtype='float32', max_tokens=2048, "
        f"batch_tokens={reranker.scorer.batch_tokens}, licence='apache-2.0')"
    )
    assert (reranker.device, reranker.max_tokens, reranker.licence) == ("cpu", 2048, "apache-2.0")


def test_a_closed_reranker_says_so(tiny_qwen: Tiny):
    with Reranker.load(tiny_qwen.folder) as reranker:
        reranker.warm_up()
    reranker.close()

    assert reranker.is_closed
    assert "is_closed=True" in repr(reranker)
    with pytest.raises(OnelogitError, match="is closed"):
        reranker.rank(QUERY, DOCUMENTS)


def test_numpy_numbers_are_accepted(reranker: Reranker):
    ranking = reranker.rank(QUERY, np.array(DOCUMENTS, dtype=object), top_n=np.int64(2), score_threshold=np.float32(0))

    assert ranking == reranker.rank(QUERY, DOCUMENTS, top_n=2, score_threshold=0)


def test_no_documents_need_no_query(reranker: Reranker):
    assert reranker.rank("", []) == []
