"""Halves of characters: replaced in documents, with one warning; an error in queries and instructions."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onelogit import InputError, RemoteReranker, Reranker
from onelogit.cli.main import main
from onelogit.evaluation.data.query_rows import read_query_rows
from onelogit.io.bad_lines import BadLines
from onelogit.io.beir import read_corpus
from onelogit.io.text_files import read_text_collection
from onelogit.validation import with_whole_characters
from support.servers import PROTOCOL_OPTIONS, FakeServer, serving
from support.text_files import texts_in
from support.tiny import Tiny

QUERY = "What is the capital of China?"
HALVES = ["a \ud83d half", "\ude00\ud83d", "a \ud83d\ude00 pair", "nothing \ufffd", "a\0b"]
WHOLE = ["a \ufffd half", "\ufffd\ufffd", "a \U0001f600 pair", "nothing \ufffd", "a\0b"]
WARNING = "3 lone surrogates (halves of characters) in 2 of 5 documents were replaced by U+FFFD"


@pytest.fixture(params=[None, *PROTOCOL_OPTIONS], ids=str, scope="module")
def reranker(request: pytest.FixtureRequest, tiny_qwen: Tiny) -> Iterator[Reranker | RemoteReranker]:
    options: dict[str, Any] | None = request.param
    with Reranker.load(tiny_qwen.folder) as local:
        if options is None:
            yield local
            return
        has_template = options.get("template") != "client"
        server = FakeServer(reranker=local, protocol=options["protocol"], has_template=has_template)
        with serving(server) as running, RemoteReranker(running.url, str(tiny_qwen.folder), **options) as remote:
            yield remote


def test_a_ranking_is_that_of_whole_characters_with_one_warning(
    reranker: Reranker | RemoteReranker, caplog: pytest.LogCaptureFixture
):
    expected = reranker.rank(QUERY, WHOLE)
    assert not caplog.messages

    assert reranker.rank(QUERY, HALVES) == expected
    assert caplog.messages == [WARNING]


async def test_pairs_and_asynchronous_calls_warn_too(
    reranker: Reranker | RemoteReranker, caplog: pytest.LogCaptureFixture
):
    expected = reranker.logits(QUERY, WHOLE)

    assert reranker.pair_logits([(QUERY, document) for document in HALVES]) == pytest.approx(expected, abs=1e-5)
    assert [each.index for each in await reranker.arank(QUERY, HALVES)] == [
        each.index for each in reranker.rank(QUERY, WHOLE)
    ]
    assert caplog.messages == [WARNING, WARNING]


def test_a_half_in_a_query_or_an_instruction_is_an_error(reranker: Reranker | RemoteReranker):
    with pytest.raises(InputError, match=r"the query contains half a character \(a lone surrogate\) at position 2"):
        reranker.rank("a \ud83d", ["a document"])
    with pytest.raises(InputError, match="the query of pair 0 contains half a character"):
        reranker.pair_logits([("a \ude00", "a document")])
    with pytest.raises(InputError, match="the instruction contains half a character"):
        reranker.rank(QUERY, ["a document"], instruction="a \ude00")


def test_two_halves_that_belong_together_are_one_character_in_a_query(reranker: Reranker | RemoteReranker):
    assert reranker.logits("a \ud83d\ude00", ["a"]) == reranker.logits("a \U0001f600", ["a"])
    assert reranker.pair_logits([("a \ud83d\ude00", "a")]) == reranker.pair_logits([("a \U0001f600", "a")])


@given(st.lists(st.text(st.characters() | st.characters(categories=["Cs"]))))
def test_only_halves_are_replaced(documents: list[str]):
    whole = with_whole_characters(documents)

    expected = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in documents]
    assert whole == expected
    assert with_whole_characters(whole) == whole


def write(path: Path, objects: list[Any]) -> Path:
    path.write_text("\n".join(map(json.dumps, objects)), "utf-8")
    return path


def test_files_of_documents_are_read_with_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    corpus = [{"_id": str(index), "text": text} for index, text in enumerate(HALVES)]
    titled = write(tmp_path / "titled.jsonl", [{"title": HALVES[0], "text": "text"}])
    write(tmp_path / "corpus.jsonl", corpus)
    data = write(tmp_path / "data.jsonl", [{"query": QUERY, "documents": HALVES, "labels": [1, 0, 0, 0, 0]}])

    with caplog.at_level(logging.WARNING):
        assert texts_in(titled) == [f"{WHOLE[0]} text"]
        caplog.clear()
        assert texts_in(write(tmp_path / "documents.jsonl", HALVES)) == WHOLE
        assert read_text_collection(data).documents == WHOLE
        assert [*read_corpus(tmp_path, BadLines()).values()] == WHOLE
        assert [*read_query_rows(data, BadLines()).documents.values()] == WHOLE

    assert caplog.messages == [WARNING] * 4


@pytest.mark.parametrize("command", ["bulk", "evaluate", "rank"])
def test_commands_read_documents_with_one_warning(
    command: str, tiny_qwen: Tiny, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    row = {"query": QUERY, "documents": [*HALVES, QUERY], "labels": [1, 0, 0, 0, 0, 0]}
    data = write(tmp_path / "data.jsonl", [{"query_id": str(number), **row} for number in range(2)])
    arguments = {
        "bulk": [data, tmp_path / "out", "--model", tiny_qwen.folder],
        "evaluate": [tiny_qwen.folder, "--data", data],
        "rank": [QUERY, *HALVES, "--model", tiny_qwen.folder],
    }

    assert main([command, *map(str, arguments[command])]) == 0

    warnings = [message for message in caplog.messages if "surrogate" in message]
    documents = 5 if command == "rank" else 12
    halves = (3, 2) if command == "rank" else (6, 4)
    expected = "%d lone surrogates (halves of characters) in %d of %d documents were replaced by U+FFFD"
    assert warnings == [expected % (*halves, documents)]


@pytest.mark.parametrize(
    ("documents", "message"),
    [
        (["\ud83d"], "1 lone surrogate (half of a character) in 1 of 1 document was replaced by U+FFFD"),
        (["\ud83d", "a"], "1 lone surrogate (half of a character) in 1 of 2 documents was replaced by U+FFFD"),
        (["\ud83d\ud83d"], "2 lone surrogates (halves of characters) in 1 of 1 document were replaced by U+FFFD"),
    ],
)
def test_a_single_half_is_counted_as_one(documents: list[str], message: str, caplog: pytest.LogCaptureFixture):
    with_whole_characters(documents)

    assert caplog.messages == [message]
