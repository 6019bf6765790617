"""A scorer of pairs -> the methods that every reranker has: `rank`, `arank`, `logits`, `pair_logits`."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Never, Protocol, Self, TypeVar, cast

from onelogit.contents import NO_LOCAL_IMAGES, is_document, refuse_images
from onelogit.errors import InputError, counted_of
from onelogit.method_names import NamedMethods, unknown_name
from onelogit.model_spec import ModelSpec
from onelogit.option_names import unknown_option
from onelogit.options import API_KEY_VARIABLE, TOKEN_VARIABLE, OpenOptions, is_secret_header
from onelogit.ranking import Ranked, check_logit, rank_logits, to_score, with_texts
from onelogit.recipes.recipe import Activation
from onelogit.validation import (
    Document,
    checked_documents,
    checked_pairs,
    checked_score_threshold,
    checked_text,
    checked_top_n,
)

if TYPE_CHECKING:
    import numpy as np

logger = logging.getLogger(__name__)

_ARGUMENTS = ("query", "documents", "top_n", "score_threshold", "instruction", "progress", "return_documents")

Pairs = Sequence[tuple[str, str]]


class PairLogits(NamedTuple):
    """The logits of some pairs.

    Attributes:
        logits: one for each pair, in the given order: float32, unbounded.
        truncated_count: how many documents were truncated to fit `max_tokens`.
    """

    logits: list[float]
    truncated_count: int


class PairScorer(Protocol):
    """Computes the logits of pairs, with a local model or by a server."""

    @property
    def is_closed(self) -> bool: ...

    @property
    def max_tokens(self) -> int | None: ...

    def logits(self, pairs: Pairs, instruction: str | None = None, *, progress: bool = False) -> PairLogits: ...

    async def alogits(self, pairs: Pairs, instruction: str | None = None, *, progress: bool = False) -> PairLogits: ...

    def close(self) -> None: ...


AnyScorer = TypeVar("AnyScorer", bound=PairScorer)


class BaseReranker(Generic[AnyScorer], metaclass=NamedMethods):
    """The methods of a reranker, the same for a local model and for a server.

    A pickle contains the spec only, and is opened where it is read: there, the model or server must exist, and the
    environment's hub token and API key are used. It never contains a secret, so pickling raises InputError if one was
    passed as an option; so it does if the reranker is closed, or was created from objects.

    Its `activation` turns the scorer's logits into scores.
    """

    def __init__(self, scorer: AnyScorer, activation: Activation, spec: ModelSpec | None = None) -> None:
        self._scorer = scorer
        self._spec = spec
        self.activation = activation
        self._opened_activation = activation

    @property
    def spec(self) -> ModelSpec | None:
        """The model or server with its options, secrets included; None for a reranker created from objects."""
        return self._spec

    @property
    def is_described_by_spec(self) -> bool:
        """Whether a reranker that is opened from `spec` gives the same scores."""
        return self._spec is not None and self.activation == self._opened_activation

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._scorer.is_closed

    def rank(
        self,
        query: str,
        documents: Iterable[Any],
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        *,
        progress: bool = False,
        return_documents: bool = False,
        **unknown: Never,
    ) -> list[Ranked]:
        """The documents from most to least relevant.

        Args:
            query: not blank.
            documents: texts, in any order; `long_documents` in `ScoringOptions` says what happens to long ones. For a
                server that reads images, also content lists; see `ContentDocument`.
            top_n: return at most this many documents; None for all.
            score_threshold: return only documents with at least this score; None for all.
            instruction: what "relevant" means; None for the reranker's default, "" for none.
            progress: show a progress bar.
            return_documents: return `RankedDocument`s, which have the text, too.
            **unknown: refused, with the name that is meant.

        Returns:
            Sorted by logit, highest first; equal logits keep the given order. Empty for no documents.

        Raises:
            InputError: an argument is invalid, or the query is too long for `max_tokens`.
            LogitError: a logit is NaN or infinite.
            OverloadError, DeviceMemoryError: too many calls wait, or a prompt does not fit into the memory.
            ServerError: the server cannot be reached, or gives an unexpected response.
        """
        _refuse(unknown, _ARGUMENTS)
        top_n, score_threshold = checked_top_n(top_n), checked_score_threshold(score_threshold)
        documents = checked_documents(documents) if return_documents else documents
        logits = self.logits(query, documents, instruction, progress=progress)
        ranking = rank_logits(logits, self.activation, top_n, score_threshold)
        return with_texts(ranking, [*documents]) if return_documents else ranking

    async def arank(
        self,
        query: str,
        documents: Iterable[Any],
        top_n: int | None = None,
        score_threshold: float | None = None,
        instruction: str | None = None,
        *,
        progress: bool = False,
        return_documents: bool = False,
        **unknown: Never,
    ) -> list[Ranked]:
        """`rank` without blocking the event loop. Cancelling it does not affect other callers."""
        _refuse(unknown, _ARGUMENTS)
        top_n, score_threshold = checked_top_n(top_n), checked_score_threshold(score_threshold)
        documents = checked_documents(documents) if return_documents else documents
        computed = await self._scorer.alogits(self._pairs(query, documents), instruction, progress=progress)
        ranking = rank_logits(self._with_warning(computed), self.activation, top_n, score_threshold)
        return with_texts(ranking, [*documents]) if return_documents else ranking

    def logits(
        self, query: str, documents: Iterable[Any], instruction: str | None = None, *, progress: bool = False
    ) -> list[float]:
        """The raw logit of each document, in the given order: float32, unbounded. Raises as `rank` does."""
        return self._with_warning(self._scorer.logits(self._pairs(query, documents), instruction, progress=progress))

    def logits_and_truncation(self, query: str, documents: Iterable[Any], instruction: str | None = None) -> PairLogits:
        """`logits`, and the number of truncated documents instead of a warning in the log."""
        return self._scorer.logits(self._pairs(query, documents), instruction)

    def pair_logits(
        self, pairs: Iterable[tuple[str, Any]], instruction: str | None = None, progress: bool = False
    ) -> list[float]:
        """The raw logit of each (query, document), in the given order. Raises as `rank` does.

        Args:
            pairs: any queries and documents; they are batched together.
            instruction: as in `rank`, for all pairs.
            progress: show a progress bar.
        """
        return self._with_warning(
            self._scorer.logits(self._readable(checked_pairs(pairs)), instruction, progress=progress)
        )

    def predict(
        self,
        pairs: Iterable[tuple[str, Any]] | tuple[str, Any],
        instruction: str | None = None,
        *,
        progress: bool = False,
        **unknown: Never,
    ) -> "np.ndarray[Any, Any] | np.float64":
        """The scores of pairs in the given order, as `CrossEncoder.predict` of Sentence Transformers returns them.

        Args:
            pairs: (query, document), in a list; or a single pair. An array of texts of shape (pairs, 2) is one, too.
            instruction: as in `rank`, for all pairs.
            progress: show a progress bar.
            **unknown: refused, with the name that is meant.

        Returns:
            Scores on the scale of `Ranked.score`: float64 of shape (pairs,), or a number for a single pair.
        """
        import numpy as np  # noqa: PLC0415  not needed to rank

        _refuse(unknown, ("pairs", "instruction", "progress"))
        given = pairs.tolist() if isinstance(pairs, np.ndarray) else pairs
        is_single = isinstance(given, tuple | list) and len(given) == 2 and all(map(is_document, given))
        logits = self.pair_logits(cast("Any", [given] if is_single else given), instruction, progress)
        for index, logit in enumerate(logits):
            check_logit(logit, index)
        scores = np.array([to_score(logit, self.activation) for logit in logits], dtype=np.float64)
        return cast("np.float64", scores[0]) if is_single else scores

    def warm_up(self) -> None:
        """Score one short pair, so that the first real call is not slower."""
        self.logits("warm up", ["warm up"])

    async def awarm_up(self) -> None:
        """`warm_up` without blocking the event loop."""
        await self.arank("warm up", ["warm up"])

    def close(self) -> None:
        """Release the model or the connections. Closing twice is allowed; scoring afterwards raises OnelogitError."""
        self._scorer.close()

    @property
    def _why_no_images(self) -> str | None:
        """Why documents with images cannot be ranked, as the rest of a sentence; None if they can."""
        return NO_LOCAL_IMAGES

    def _pairs(self, query: str, documents: Iterable[Any]) -> Pairs:
        """The query with each document. The query is checked only if there are documents."""
        if isinstance(documents, str) and isinstance(query, list | tuple):
            raise InputError("the query must be a string, and documents a list of strings; pass the query first")
        checked = checked_documents(documents)
        if checked:
            query = checked_text(query, "the query", is_blank_allowed=False)
        return self._readable([(query, document) for document in checked])

    def _readable(self, pairs: Sequence[tuple[str, Document]]) -> Pairs:
        """The pairs; raises InputError if one has images, and the scorer reads none."""
        if self._why_no_images is not None and any(not isinstance(document, str) for _, document in pairs):
            refuse_images((document for _, document in pairs), self._why_no_images)
        return cast("Pairs", pairs)

    def _with_warning(self, computed: PairLogits) -> list[float]:
        """The logits; logs a warning if documents were truncated."""
        logits, truncated_count = computed
        if truncated_count:
            truncated = counted_of(truncated_count, len(logits), "document")
            logger.warning("%s truncated to fit max_tokens=%d", truncated, self._scorer.max_tokens)
        return logits

    if not TYPE_CHECKING:  # type checkers would accept any name

        def __getattr__(self, name: str) -> object:
            raise unknown_name(type(self), name, f"{type(self).__name__!r} object")

    def _described(self, **shown: object) -> str:
        """A line for people: the class with the properties that are known, and whether it is closed."""
        all_shown = {**shown, "is_closed": self.is_closed or None}
        known = ", ".join(f"{name}={value!r}" for name, value in all_shown.items() if value is not None)
        return f"{type(self).__name__}({known})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        """Return the reranker itself: it is immutable, and its model or connections cannot be copied."""
        return self

    def _spec_to_pickle(self) -> ModelSpec:
        if self.is_closed:
            raise InputError("a closed reranker cannot be pickled; load it again")
        if self._spec is None:
            raise InputError(
                "a reranker that was created from objects cannot be pickled; save it to a folder, and load that folder "
                "in each process"
            )
        options = self._spec.options
        headers = [name for name, value in (options.get("headers") or {}).items() if is_secret_header(name, value)]
        secrets = [name for name in ("token", "api_key") if isinstance(options.get(name), str)]
        if given := [*secrets, *(f"the header {name}" for name in headers)]:
            raise InputError(
                f"a pickle would contain {', '.join(given)} in plain text; set {TOKEN_VARIABLE} or {API_KEY_VARIABLE} "
                "in the environment of each process instead, or open the reranker in each of them"
            )
        return self._spec


def _refuse(unknown: Mapping[str, object], known: Sequence[str]) -> None:
    """Raise InputError for an argument that a method lacks; Python would not say what is meant."""
    for name in unknown:
        raise unknown_option(name, known, {"{name} is set when the reranker is opened": OpenOptions.__annotations__})
