"""LangChain documents -> the same documents, reranked. Translates; the core scores."""

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any, Required, Self

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load.serializable import Serializable
from langchain_core.runnables import RunnableLambda
from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, SecretStr, model_validator
from typing_extensions import Unpack

from onelogit import (
    InputError,
    Kept,
    OnError,
    OpenOptions,
    Protocol,
    Ranked,
    RankOptions,
    RankRequest,
    RerankerHandle,
    adapter_options,
    check_options,
    fields_of,
    plain_options,
    rank_options,
    text_with_metadata,
)

if TYPE_CHECKING:
    from onelogit import RemoteReranker, Reranker


class RerankInput(RankOptions, total=False):
    """What the runnable form takes: a query, its documents, and whatever is said anew with this call."""

    query: Required[str]
    documents: Required[Sequence[Document]]


class OnelogitRerank(Serializable, BaseDocumentCompressor):
    """Reorders documents by a decoder language model's relevance logit.

    Each document that comes back is a copy, with its id, and with two more metadata entries: `relevance_score`, on
    the scale of the model's card, and `relevance_logit`, which the order is by.

    Attributes:
        model: hub id or path of a folder; loaded by `warm_up`, or when the first documents come.
        device, dtype, token: as in `onelogit.OpenOptions`; the token stands in no dump.
        url, protocol, api_key: of a server in place of a model in this process; the key stands in no dump.
        options: the other `onelogit.OpenOptions`.
        top_n, score_threshold, instruction: as in `onelogit.RankOptions`, for calls that say nothing else.
        metadata_fields: names of metadata to read in front of a document's text.
        metadata_separator: between these, and before the text.
        deduplicate: of documents with the same id, or without one and with the same text, keep the best.
        on_error: "raise", or "keep_order" to log the error and give the documents back in their order, without scores.
        progress: show a progress bar.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    model: str
    device: str | None = None
    dtype: str | None = None
    token: SecretStr | None = None
    url: str | None = None
    protocol: Protocol | None = None
    api_key: SecretStr | None = None
    options: Annotated[OpenOptions, AfterValidator(plain_options)] = Field(default_factory=OpenOptions)
    top_n: int | None = Field(default=None, ge=1, strict=True)
    score_threshold: float | None = Field(default=None, strict=True)
    instruction: str | None = None
    metadata_fields: Sequence[str] = ()
    metadata_separator: str = "\n"
    deduplicate: bool = False
    on_error: OnError = "raise"
    progress: bool = False
    _handle: RerankerHandle = PrivateAttr(default_factory=RerankerHandle)

    @classmethod
    def from_reranker(cls, reranker: "Reranker | RemoteReranker", **fields: Any) -> Self:
        """One that uses a reranker which is there already, and which whoever made it closes."""
        rerank = cls(**fields_of(reranker, fields))
        rerank._handle = RerankerHandle(reranker)
        return rerank

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        **anew: Unpack[RankOptions],
    ) -> list[Document]:
        """The most relevant documents first; none for none, without loading the model."""
        asked: RerankInput = {"query": query, "documents": list(documents), **anew}
        return self.as_runnable().invoke(asked, {"callbacks": callbacks})

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        **anew: Unpack[RankOptions],
    ) -> list[Document]:
        """`compress_documents`, while the event loop goes on, also while the model is loaded."""
        asked: RerankInput = {"query": query, "documents": list(documents), **anew}
        return await self.as_runnable().ainvoke(asked, {"callbacks": callbacks})

    def as_runnable(self) -> RunnableLambda[RerankInput, list[Document]]:
        """The same as a step of a chain; each call is a trace event of its own."""
        return RunnableLambda(self._rerank, self._arerank, name="OnelogitRerank")

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._handle = copy(self._handle)  # closing one, or setting its fields anew, is nothing to the other
        return copied

    def warm_up(self) -> None:
        """Load the model, if nobody has yet, and score once."""
        self._handle.warm_up(self.model, self._load_options, self.on_error)

    async def awarm_up(self) -> None:
        """`warm_up`, while the event loop goes on."""
        await self._handle.awarm_up(self.model, self._load_options, self.on_error)

    def close(self) -> None:
        """Let go of the model: its memory is free when no one else uses it. The next call loads it again."""
        self._handle.close()

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"token": "HF_TOKEN", "api_key": "ONELOGIT_API_KEY"}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._load_options()
        self._request([], {"query": "", "documents": []})
        return self

    def _load_options(self) -> OpenOptions:
        token, api_key = (None if each is None else each.get_secret_value() for each in (self.token, self.api_key))
        return adapter_options(self, token=token, api_key=api_key)

    def _rerank(self, asked: RerankInput) -> list[Document]:
        documents = _documents(asked)
        ranking = self._handle.rank(self.model, self._load_options, self._request(documents, asked))
        return [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]

    async def _arerank(self, asked: RerankInput) -> list[Document]:
        documents = _documents(asked)
        ranking = await self._handle.arank(self.model, self._load_options, self._request(documents, asked))
        return [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]

    def _request(self, documents: Sequence[Document], asked: RerankInput) -> RankRequest:
        check_options(asked, RerankInput)
        fields, separator = self.metadata_fields, self.metadata_separator
        return RankRequest(
            query=asked["query"],
            documents=[text_with_metadata(each.page_content, each.metadata, fields, separator) for each in documents],
            keys=[(each.id, each.id is None and each.page_content) for each in documents] if self.deduplicate else None,
            on_error=self.on_error,
            progress=self.progress,
            **rank_options(self, asked),
        )


def _documents(asked: RerankInput) -> list[Document]:
    if not isinstance(asked, dict) or not asked.keys() >= {"query", "documents"}:
        raise InputError("reranking needs a dictionary with query and documents")
    return list(asked["documents"])


def _with_relevance(document: Document, ranked: Ranked | Kept) -> Document:
    kept = {name: value for name, value in document.metadata.items() if name not in _TOLD}
    told = {} if isinstance(ranked, Kept) else dict(zip(_TOLD, (ranked.score, ranked.logit), strict=True))
    return document.model_copy(update={"metadata": {**kept, **told}})


_TOLD = ("relevance_score", "relevance_logit")
