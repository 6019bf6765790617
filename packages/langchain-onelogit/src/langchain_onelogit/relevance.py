"""What `rerank` takes and returns, as other LangChain compressors do: texts, documents or dictionaries -> relevance."""

from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import yaml
from typing_extensions import TypedDict

from onelogit import InputError, Ranked
from onelogit.adapters import Kept, MetadataDict, check_names, plain


class Relevance(TypedDict):
    """The relevance of one document.

    Attributes:
        index: the document's position in the caller's list, from 0.
        relevance_score: on the scale of the model's card; None after an error that `on_error` tolerates.
    """

    index: int
    relevance_score: float | None


def relevance_of(ranked: Ranked | Kept) -> Relevance:
    """The relevance of a ranked document."""
    return {"index": ranked.index, "relevance_score": None if isinstance(ranked, Kept) else ranked.score}


def check_call(own_model: str, model: str | None, max_tokens_per_doc: int | None, unknown: dict[str, Any]) -> None:
    """Check the arguments of `rerank` that other compressors have, and that this one cannot follow.

    Raises:
        InputError: the model is another than the compressor's own, the length is limited, or a name is unknown.
    """
    limit = {} if max_tokens_per_doc is None else {"max_tokens_per_doc": max_tokens_per_doc}
    check_names({**unknown, **limit}, ("documents", "query", "rank_fields", "top_n"), is_call=True)
    if model is not None and model != own_model:
        raise InputError(
            f"the compressor has one model, {own_model!r}; leave model={model!r} out, or create a compressor for it"
        )


def text_of(document: Any, rank_fields: Sequence[str] | None) -> Any:
    """The text to read of a dictionary, as YAML; anything else is returned as it is.

    Args:
        document: a text, or a dictionary.
        rank_fields: keys of a dictionary to read; None for all.
    """
    if isinstance(document, dict):
        read = document if rank_fields is None else {key: document[key] for key in rank_fields if key in document}
        return yaml.safe_dump(_readable(read), sort_keys=False, allow_unicode=True)
    return document


def _readable(value: Any) -> Any:
    """A dictionary, as of a row of a database, as YAML can write it."""
    if isinstance(value, Mapping):
        return {_readable(key): _readable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_readable(inner) for inner in value]
    if type(value) in (date, datetime):
        return value.replace()  # another object, because YAML writes the same one only once, and then refers to it
    return str(value) if isinstance(value, date | Decimal | UUID) else plain(value, "the document")


class ScoredMetadata(MetadataDict):  # noqa: PLW1641  like any dictionary
    """Metadata that is equal to the same metadata with other scores, or without.

    Retrievers that merge several queries, such as MultiQueryRetriever, keep one of the documents that are equal.
    """

    def __eq__(self, other: object) -> bool:
        return isinstance(other, dict) and _without_scores(self) == _without_scores(other)

    def __ne__(self, other: object) -> bool:
        return not self == other


def _without_scores(metadata: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in metadata.items() if name not in ("relevance_score", "relevance_logit")}
