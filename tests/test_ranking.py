"""Logits -> a ranking."""

import copy
import json
import math
import pickle
import re
from html import unescape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import InputError, LogitError, Ranked, RankedDocument
from onelogit.ranking import Ranking, best_logits, rank_logits, to_score, with_texts
from onelogit.validation import check_score_threshold, check_top_n

LOGITS = st.lists(st.floats(-1e4, 1e4, width=32))


@given(logits=LOGITS)
def test_a_ranking_contains_every_document_once_best_first(logits: list[float]):
    ranking = rank_logits(logits, "sigmoid")

    assert sorted(ranked.index for ranked in ranking) == list(range(len(logits)))
    assert [ranked.logit for ranked in ranking] == sorted(logits, reverse=True)
    assert all(0 <= ranked.score <= 1 for ranked in ranking)


def test_equal_logits_keep_their_order():
    assert [ranked.index for ranked in rank_logits([1.0, 2.0, 1.0, 2.0, 1.0], "identity")] == [1, 3, 0, 2, 4]


def test_a_saturated_sigmoid_does_not_cause_ties():
    assert [ranked.index for ranked in rank_logits([50.0, 51.0, 800.0], "sigmoid")] == [2, 1, 0]


@pytest.mark.parametrize(("logit", "score"), [(0.0, 0.5), (math.log(3), 0.75), (-1000.0, 0.0), (1000.0, 1.0)])
def test_the_score_is_the_sigmoid(logit: float, score: float):
    assert to_score(logit, "sigmoid") == pytest.approx(score)


def test_the_threshold_applies_to_the_score_and_before_top_n():
    logits = [0.0, 3.0, -3.0, 1.0]

    assert [ranked.index for ranked in rank_logits(logits, "sigmoid", score_threshold=0.5)] == [1, 3, 0]
    assert [ranked.index for ranked in rank_logits(logits, "sigmoid", 2, 0.5)] == [1, 3]
    assert [ranked.index for ranked in rank_logits(logits, "identity", score_threshold=0.0)] == [1, 3, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_logit_that_is_not_finite_is_an_error_that_names_the_document(bad: float):
    with pytest.raises(LogitError, match="document 2"):
        rank_logits([1.0, 2.0, bad], "identity")


@pytest.mark.parametrize("top_n", [0, -1, 1.5, True, "3"])
def test_a_top_n_that_is_not_a_positive_integer_is_refused(top_n: object):
    with pytest.raises(InputError, match="top_k must be a whole number from 1 up"):
        check_top_n(top_n, "top_k")


@pytest.mark.parametrize("threshold", [math.nan, "0.5", True])
def test_a_threshold_that_is_not_a_number_is_refused(threshold: object):
    with pytest.raises(InputError, match="score_threshold must be a number"):
        check_score_threshold(threshold)


@given(chunks=st.lists(st.lists(st.floats(-50, 50), min_size=1, max_size=4), max_size=5))
def test_the_logit_of_a_document_is_the_highest_of_its_rows(chunks: list[list[float]]):
    owners = [owner for owner, logits in enumerate(chunks) for _ in logits]

    assert best_logits([logit for logits in chunks for logit in logits], owners) == [max(logits) for logits in chunks]


@pytest.mark.parametrize("order", [1, -1])
def test_a_row_that_is_not_finite_is_an_error_that_names_the_document(order: int):
    with pytest.raises(LogitError, match="document 1 is nan"):
        best_logits([0.0, *[math.nan, 1.0][::order]], [0, 1, 1])


def test_a_ranking_is_a_list():
    ranking = rank_logits([1.0, 3.0, 2.0], "identity")
    plain = [Ranked(1, 3.0, 3.0), Ranked(2, 2.0, 2.0), Ranked(0, 1.0, 1.0)]

    assert isinstance(ranking, list)
    assert ranking == plain
    assert plain == ranking
    assert (ranking[0], ranking[-1], ranking[1:], ranking[::-1]) == (plain[0], plain[-1], plain[1:], plain[::-1])
    assert isinstance(ranking[:2], Ranking)
    assert json.dumps(ranking) == json.dumps(plain)
    assert [*ranking, *plain] == ranking + plain == plain + ranking
    for copied in (pickle.loads(pickle.dumps(ranking)), copy.copy(ranking), copy.deepcopy(ranking)):
        assert copied == plain
        assert type(copied) is Ranking


def test_a_ranking_prints_one_document_a_line():
    ranking = rank_logits([-0.30000001192092896, 18.03125], "sigmoid")

    assert repr(ranking).splitlines() == [
        "[Ranked(index=1, logit=18.0312, score=1),",
        " Ranked(index=0, logit=-0.3, score=0.425557)]",
    ]
    assert repr(rank_logits([], "sigmoid")) == "[]"
    assert repr(Ranked(0, 1, None)) == "Ranked(index=0, logit=1, score=None)"  # type: ignore[arg-type]


def test_a_long_ranking_says_how_much_of_it_is_not_printed():
    ranking = with_texts(rank_logits([float(index) for index in range(1000)], "identity"), ["word " * 1000] * 1000)

    lines = repr(ranking).splitlines()

    assert len(lines) == 21
    assert lines[-1] == " ... 980 more]"
    assert max(map(len, lines)) < 150
    assert "and 900 more" in ranking._repr_html_()
    assert len(ranking._repr_html_()) < 70_000


def test_a_ranking_is_a_table_in_a_notebook():
    html = with_texts(rank_logits([0.0, 3.0], "sigmoid"), ["a", "b"])._repr_html_()

    rows = [re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", row) for row in html.split("</tr>")]
    assert rows[0] == ["rank", "index", "score", "logit", "text"]
    assert rows[1:3] == [["1", "1", "0.952574", "3", "b"], ["2", "0", "0.5", "0", "a"]]
    assert "text" not in rank_logits([0.0], "sigmoid")._repr_html_().replace("text-align", "")


@given(text=st.text(max_size=400))
def test_no_text_of_a_ranking_becomes_markup(text: str):
    (cell,) = re.findall(
        r"left\">(.*?)</td>", with_texts(rank_logits([0.0], "identity"), [text])._repr_html_(), re.DOTALL
    )

    assert not set(cell) & set("<>\"'")
    assert unescape(cell) == (text if len(text) <= 300 else text[:297] + "...")
    assert repr(RankedDocument.of(Ranked(0, 0.0, 0.0), text)).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 to $10.",
        "\\(x\\)",
        "\\href{javascript:alert(1)}{x}",
        "a\nb\r\nc\td",
        "\x1b[31m\x00\x9b",
        "\u202eabc\u202c",
        "مرحبا",
    ],
    ids=ascii,
)
def test_a_text_changes_nothing_but_its_own_cell(text: str):
    ranking = with_texts(rank_logits([3.0, 0.0], "sigmoid"), [text, "plain"])

    html = ranking._repr_html_()
    table, cells = re.findall(r"<(table|td) ([^>]*)>", html)[0], re.findall(r"<td ([^>]*)>([^<]*)</td>", html)

    assert table == ("table", 'class="tex2jax_ignore mathjax_ignore"')  # MathJax 2 and 3 leave it alone
    assert unescape(cells[4][1]) == unescape(text)
    assert ['dir="auto"' in style for style, _ in cells] == [False] * 4 + [True] + [False] * 4 + [True]
    assert repr(ranking).count("\n") == 1
    assert repr(ranking).replace("\n", "").isprintable()


def test_an_empty_ranking_says_so_in_a_notebook():
    assert "no documents" in rank_logits([], "sigmoid")._repr_html_()
    assert "no documents" not in rank_logits([0.0], "sigmoid")._repr_html_()


def test_a_ranked_document_keeps_its_text_when_it_is_replaced():
    document = RankedDocument.of(Ranked(0, 2.0, 0.9), "a text")

    for replaced in (document._replace(score=0.5), document.__replace__(score=0.5)):  # the latter is copy.replace
        assert (replaced, replaced.text) == (Ranked(0, 2.0, 0.5), "a text")
