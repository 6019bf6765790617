"""Names and documents of other libraries are refused by a sentence that says what is meant."""

import copy
import inspect
import pickle
from abc import ABC
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from haystack import Document as HaystackDocument
from langchain_core.documents import Document as LangChainDocument
from llama_index.core.schema import NodeWithScore, TextNode

from onelogit import DEMO_MODEL, InputError, RemoteReranker, Reranker, open_reranker
from onelogit.method_names import _MEANT

QUERY = "What is the capital of China?"


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return open_reranker(DEMO_MODEL)  # type: ignore[return-value]


@pytest.fixture
def remote() -> Iterator[RemoteReranker]:
    with RemoteReranker("http://127.0.0.1:9", DEMO_MODEL) as opened:
        yield opened


@pytest.mark.parametrize(
    ("name", "use"),
    [
        ("from_pretrained", r"Reranker\.load\(model\)"),
        ("rerank", r"Reranker\.rank\(query, documents\)"),
        ("arerank", r"await Reranker\.arank\(query, documents\)"),
        ("score", r"Reranker\.predict\(\[\(query, document\), \.\.\.\]\)"),
        ("compute_score", r"Reranker\.predict\("),
        ("predict_proba", r"Reranker\.predict\("),
        ("forward", r"Reranker\.logits\(query, documents\)"),
        ("save_pretrained", r"Reranker\.save\(path\)"),
        ("to", r"Reranker\.load\(model, device=\.\.\., dtype=\.\.\.\)"),
    ],
)
def test_a_method_of_another_library_is_named(reranker: Reranker, name: str, use: str):
    for subject in (Reranker, reranker):
        assert not hasattr(subject, name)
        with pytest.raises(AttributeError, match=f"has no attribute '{name}'; use {use}"):
            getattr(subject, name)


def test_only_methods_that_exist_are_named(reranker: Reranker, remote: RemoteReranker):
    with pytest.raises(AttributeError, match=r"'save_pretrained'$"):
        remote.save_pretrained("folder")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"; use RemoteReranker\(url, model\)$"):
        RemoteReranker.from_pretrained("http://127.0.0.1:9")  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match=r"^'Reranker' object has no attribute 'colour'$"):
        reranker.colour  # type: ignore[attr-defined]  # noqa: B018
    for meant in _MEANT:
        assert hasattr(Reranker, meant.removeprefix("await ").partition("(")[0])


@pytest.mark.parametrize("arguments", [("a/b",), (Path("a/b"),), ("a/b", "cpu")])
def test_the_constructor_with_a_name_says_how_to_load(arguments: Any):
    with pytest.raises(InputError, match=r"to load a model, use Reranker\.load\('a/b'\)"):
        Reranker(*arguments)
    with pytest.raises(InputError, match=r"use Reranker\.load\('a/b'\)"):
        Reranker(model=arguments[0], device="cpu")  # type: ignore[call-arg]


def test_a_reranker_is_made_copied_and_pickled_as_before(reranker: Reranker):
    class Mine(Reranker, ABC):
        def __init__(self, path: str) -> None:
            self.path = path

    assert Mine("a/b").path == "a/b"
    assert [*inspect.signature(Reranker).parameters] == ["classifier", "tokenizer", "recipe", "name", "options"]
    with Reranker(reranker.classifier, reranker._scorer.tokenizer, reranker.recipe) as same:
        assert same.logits(QUERY, ["Beijing."]) == reranker.logits(QUERY, ["Beijing."])
    assert copy.copy(reranker) is reranker
    pickle.loads(pickle.dumps(reranker)).close()


@pytest.mark.parametrize(
    ("document", "hint"),
    [
        ({"text": "Beijing."}, r"not dict: pass its text, document\['text'\]"),
        ({"id": 1, "content": "Beijing."}, r"not dict: pass its text, document\['content'\]"),
        ({"id": 1}, "not dict$"),
        (LangChainDocument("Beijing."), "not Document: pass its text, document.page_content, or rank with langchain-"),
        (NodeWithScore(node=TextNode(text="Beijing.")), r"not NodeWithScore: pass its text, document\.get_content\(\)"),
        (TextNode(text="Beijing."), r"not TextNode: pass its text, document\.get_content\(\)"),
        (
            HaystackDocument(content="Beijing."),
            "not Document: pass its text, document.content, or rank with onelogit-hay",
        ),
        ((QUERY, "Beijing."), "not tuple; for pairs of a query and a document, use predict or pair_logits"),
        (None, "not NoneType$"),
        (b"Beijing.", "not bytes$"),
    ],
)
async def test_a_document_that_is_no_text_says_where_its_text_is(reranker: Reranker, document: Any, hint: str):
    with pytest.raises(InputError, match=f"document 1 must be a string, {hint}"):
        reranker.rank(QUERY, ["Paris.", document])
    with pytest.raises(InputError, match=f"document 1 must be a string, {hint}"):
        await reranker.arank(QUERY, ["Paris.", document], return_documents=True)
    with pytest.raises(InputError, match=f"the document of pair 0 must be a string, {hint}"):
        reranker.pair_logits([(QUERY, document)])


def test_a_query_after_its_documents_is_noticed(reranker: Reranker):
    with pytest.raises(InputError, match="pass the query first"):
        reranker.rank(["Beijing."], QUERY)  # type: ignore[arg-type]
