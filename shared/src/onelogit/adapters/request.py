"""One call of an adapter -> the texts to rank, and the part of the ranking to return. Plain data; knows no reranker."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar, cast

from typing_extensions import TypedDict

from onelogit.adapters.parameters import check_names
from onelogit.contents import ContentDocument
from onelogit.errors import InputError
from onelogit.ranking import Ranked, select_top, to_score
from onelogit.recipes.recipe import Activation
from onelogit.validation import check_string, check_text, checked_choice, checked_score_threshold, checked_top_n

OnError = Literal["raise", "keep_order"]
Document = TypeVar("Document")


class Kept(NamedTuple):
    """A document that keeps its position because its list could not be ranked."""

    index: int  # type: ignore[assignment]  # hides tuple.index, as in Ranked


class RankOptions(TypedDict, total=False):
    """Options of a single call. Options that are missing or None keep the adapter's configuration.

    Attributes:
        top_n: return at most this many documents.
        score_threshold: return only documents with at least this score.
        instruction: what "relevant" means in this call; "" for none.
    """

    top_n: int | None
    score_threshold: float | None
    instruction: str | None


def rank_options(adapter: Any, overrides: Mapping[str, Any], allowed: type = RankOptions) -> RankOptions:
    """The options of a call: the overrides, and the adapter's own options for the rest.

    Args:
        adapter: with attributes of the same names.
        overrides: options of this call.
        allowed: a TypedDict whose keys the overrides may contain.

    Raises:
        InputError: an option is unknown.
    """
    if overrides.keys() - allowed.__annotations__:
        check_names(overrides, allowed.__annotations__, is_call=True)
    given = {name: overrides.get(name) for name in RankOptions.__annotations__}
    merged = {name: getattr(adapter, name) if value is None else value for name, value in given.items()}
    return cast("RankOptions", merged)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankRequest:
    """One call of an adapter.

    Attributes:
        query: the query.
        documents: of a framework, or texts.
        kind: the class of every document.
        text: reads the text of a document, and its images if it has some; None if the documents are texts.
        key: of documents with equal keys, only the best is returned. None to return all.
        top_n: return at most this many documents; None for all.
        score_threshold: return only documents with at least this score; None for all.
        instruction: what "relevant" means; None for the reranker's default, "" for none.
        activation: from logit to score; None for the reranker's own.
        on_error: "raise", or "keep_order" to log the error and return the first `top_n` documents unranked.
        progress: show a progress bar.

    Raises:
        InputError: an option is out of range.
    """

    query: str
    documents: Sequence[Any]
    kind: type = str
    text: Callable[[Any], str | ContentDocument] | None = None
    key: Callable[[Any], Hashable] | None = None
    top_n: int | None = None
    score_threshold: float | None = None
    instruction: str | None = None
    activation: Activation | None = None
    on_error: OnError = "raise"
    progress: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "top_n", checked_top_n(self.top_n))
        object.__setattr__(self, "score_threshold", checked_score_threshold(self.score_threshold))
        checked_choice("on_error", str(self.on_error), OnError)
        checked_choice("activation", self.activation, Activation)

    def texts(self) -> list[str | ContentDocument]:
        """The texts of the documents, with images for those that have some.

        Raises:
            InputError: the query is blank, or a document is not of the right class or has an image that cannot be sent.
        """
        check_text(self.query, "the query", is_blank_allowed=False)
        for index, document in enumerate(self.documents):
            if not isinstance(document, self.kind):
                raise InputError(f"document {index} must be a {self.kind.__name__}, not {_kind_of(document)}")
        return [document if self.text is None else self.text(document) for document in self.documents]

    def selected(self, ranking: Sequence[Ranked]) -> list[Ranked]:
        """The part of a ranking of all documents to return: without duplicates, rescaled and limited as requested."""
        keys, activation = self._keys(), self.activation
        if keys is not None:
            best = {keys[ranked.index]: ranked for ranked in reversed(ranking)}
            ranking = [ranked for ranked in ranking if best[keys[ranked.index]] is ranked]
        if activation is not None:
            ranking = [ranked._replace(score=to_score(ranked.logit, activation)) for ranked in ranking]
        return select_top(ranking, self.top_n, self.score_threshold)

    def in_given_order(self) -> list[Kept]:
        """The first `top_n` documents in the given order, without duplicates."""
        keys = self._keys() or range(len(self.documents))
        first = {key: index for index, key in reversed([*enumerate(keys)])}
        return [Kept(index) for index in sorted(first.values())[: self.top_n]]

    def _keys(self) -> list[Hashable] | None:
        if self.key is None:
            return None
        # What is no document has no key, and is kept if the list cannot be ranked.
        return [self.key(each) if isinstance(each, self.kind) else object() for each in self.documents]


def document_list(documents: Iterable[Document], kind: type[Document]) -> list[Document]:
    """The documents as a list; `RankRequest.texts` checks each of them.

    Raises:
        InputError: they have no order, or they are a single document, or text.
    """
    # A pydantic model can be iterated, too: over its fields.
    is_one = isinstance(documents, kind | str | bytes | Mapping | Set) or hasattr(type(documents), "model_fields")
    if is_one or not isinstance(documents, Iterable):
        raise InputError(f"documents must be a list of {kind.__name__}s, not {_kind_of(documents)}")
    return list(documents)


def _kind_of(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def text_with_metadata(text: str, metadata: Mapping[str, object], fields: Sequence[str], separator: str) -> str:
    """A document's text with some of its metadata in front.

    Args:
        text: of the document itself.
        metadata: all of its metadata.
        fields: names of the metadata to add, in order; missing ones and None are skipped.
        separator: between the values, and before the text.

    Raises:
        InputError: the text is not a string.
    """
    check_string(text, "the text of a document")
    values = [str(metadata[field]) for field in fields if metadata.get(field) is not None]
    return separator.join([*values, text])
