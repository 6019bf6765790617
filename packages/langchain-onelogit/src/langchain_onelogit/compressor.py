"""LangChain documents -> the same documents, reranked. It only translates; onelogit computes the scores."""

from collections.abc import Sequence
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any, Never, Required, Self

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.load.serializable import Serializable
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import BeforeValidator, ConfigDict, Field, InstanceOf, PrivateAttr, SecretStr, model_validator
from typing_extensions import Unpack

from langchain_onelogit.relevance import Relevance, ScoredMetadata, check_call, relevance_of, text_of
from onelogit import ContentDocument, InputError, ModelSpec, OpenOptions, Protocol, Ranked
from onelogit.adapters import (
    Kept,
    ModelFields,
    OnError,
    RankOptions,
    RankRequest,
    RerankerHandle,
    adapter_fields,
    checked_score_threshold,
    checked_top_n,
    document_list,
    fields_of,
    images_in,
    keep_recipe_plain,
    plain,
    plain_options,
    rank_options,
    text_with_metadata,
    with_images,
)

if TYPE_CHECKING:
    from onelogit import RemoteReranker, Reranker


class RerankInput(RankOptions, total=False):
    """The input of the runnable: a query, its documents, and options of this call."""

    query: Required[str]
    documents: Required[Sequence[Document]]


class OnelogitRerank(ModelFields, Serializable, BaseDocumentCompressor):
    """Reorders documents by the relevance logit of a decoder language model.

    Returns copies of the documents, with the same ids and two more metadata entries: `relevance_score`, on the scale
    of the model's card, and `relevance_logit`, which determines the order.

    Attributes:
        model: hub id or path of a folder; loaded by `warm_up`, or by the first call with documents.
        device, dtype, token: as in `onelogit.OpenOptions`; dumps never contain the token.
        url, protocol, api_key: of a server to use instead of a local model; dumps never contain the key.
        max_tokens, long_documents, batch_tokens, document_cache_bytes: as in `onelogit.OpenOptions`.
        recipe, revision, quantization, quantization_config, trust_remote_code: as in `onelogit.OpenOptions`.
        options: the other `onelogit.OpenOptions`, and these.
        top_n, score_threshold, instruction: as in `onelogit.adapters.RankOptions`, for calls that do not set them.
        metadata_fields: names of metadata to put in front of a document's text.
        metadata_separator: between these values, and before the text.
        image_fields: names of metadata with images for the server, as in `onelogit.adapters.images_in`; a local model
            refuses them.
        deduplicate: keep only the best of the documents with the same id, or without an id and with the same text.
        on_error: "raise", or "keep_order" to log the error and return the documents unchanged.
        progress: show a progress bar.
    """

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    model: Annotated[str, BeforeValidator(plain)]
    device: Annotated[str | None, BeforeValidator(plain)] = None
    dtype: Annotated[str | None, BeforeValidator(plain)] = None
    token: SecretStr | None = None
    url: str | None = None
    protocol: Protocol | None = None
    api_key: SecretStr | None = None
    options: Annotated[OpenOptions, BeforeValidator(plain_options)] = Field(default_factory=OpenOptions)
    top_n: Annotated[int | None, BeforeValidator(checked_top_n)] = None
    score_threshold: Annotated[float | None, BeforeValidator(checked_score_threshold)] = None
    instruction: str | None = None
    metadata_fields: Annotated[Sequence[str], BeforeValidator(plain)] = ()
    metadata_separator: str = "\n"
    image_fields: Annotated[Sequence[str], BeforeValidator(plain)] = ()
    deduplicate: bool = False
    on_error: OnError = "raise"
    progress: bool = False
    _handle: RerankerHandle = PrivateAttr(default_factory=RerankerHandle)

    @classmethod
    def from_reranker(cls, reranker: "Reranker | RemoteReranker", **fields: Any) -> Self:
        """A compressor that uses an existing reranker, which it never closes."""
        rerank = cls(**fields_of(reranker, fields))
        rerank._handle = RerankerHandle(reranker)
        return rerank

    def compress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        **overrides: Unpack[RankOptions],
    ) -> list[Document]:
        """The documents, most relevant first. An empty list does not load the model."""
        call: RerankInput = {"query": query, "documents": document_list(documents, Document), **overrides}
        return self.as_runnable().invoke(call, {"callbacks": callbacks})

    async def acompress_documents(
        self,
        documents: Sequence[Document],
        query: str,
        callbacks: Callbacks | None = None,
        **overrides: Unpack[RankOptions],
    ) -> list[Document]:
        """`compress_documents` without blocking the event loop, even while the model is loaded."""
        call: RerankInput = {"query": query, "documents": document_list(documents, Document), **overrides}
        return await self.as_runnable().ainvoke(call, {"callbacks": callbacks})

    def as_runnable(self) -> "RerankRunnable":
        """The compressor as a step of a chain. Each call is a separate trace event."""
        return RerankRunnable(rerank=self)

    def rerank(
        self,
        documents: Sequence[str | Document | dict[str, Any]],
        query: str,
        *,
        rank_fields: Sequence[str] | None = None,
        model: str | None = None,
        top_n: int | None = -1,
        max_tokens_per_doc: int | None = None,
        **unknown: Never,
    ) -> list[Relevance]:
        """The relevance of documents, best first, as `CohereRerank.rerank` returns it. `deduplicate` does not apply.

        Args:
            documents: texts, documents, or dictionaries, which are read as YAML.
            query: the query.
            rank_fields: keys of the dictionaries to read; None for all.
            model: None, or the compressor's own: it has only one.
            top_n: return at most this many; None for all, -1 for as many as the compressor's own `top_n`.
            max_tokens_per_doc: None: `max_tokens` of the compressor limits the whole prompt.
            **unknown: refused, with the name that is meant.
        """
        check_call(self.model, model, max_tokens_per_doc, unknown)
        ranking = self._handle.rank(self._spec, self._text_request(documents, query, rank_fields, top_n))
        return [relevance_of(ranked) for ranked in ranking]

    async def arerank(
        self,
        documents: Sequence[str | Document | dict[str, Any]],
        query: str,
        *,
        rank_fields: Sequence[str] | None = None,
        model: str | None = None,
        top_n: int | None = -1,
        max_tokens_per_doc: int | None = None,
        **unknown: Never,
    ) -> list[Relevance]:
        """`rerank` without blocking the event loop."""
        check_call(self.model, model, max_tokens_per_doc, unknown)
        request = self._text_request(documents, query, rank_fields, top_n)
        return [relevance_of(ranked) for ranked in await self._handle.arank(self._spec, request)]

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._handle = copy(self._handle)  # closing one, or changing its fields, does not affect the other
        return copied

    def warm_up(self) -> None:
        """Load the model and score once. Does nothing if it is loaded."""
        self._handle.warm_up(self._spec(), self.on_error)

    async def awarm_up(self) -> None:
        """`warm_up` without blocking the event loop."""
        await self._handle.awarm_up(self._spec(), self.on_error)

    def close(self) -> None:
        """Drop the model. Its memory is freed when nothing else uses it; the next call loads it again."""
        self._handle.close()

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    @property
    def lc_secrets(self) -> dict[str, str]:
        return {"token": "HF_TOKEN", "api_key": "ONELOGIT_API_KEY"}

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, given: Any) -> Any:
        return adapter_fields(given, cls.model_fields) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        keep_recipe_plain(self)
        self._spec()
        self._request([], {"query": "", "documents": []})
        return self

    def _spec(self) -> ModelSpec:
        token, api_key = (None if each is None else each.get_secret_value() for each in (self.token, self.api_key))
        return self._handle.spec(self, token=token, api_key=api_key)

    def _rerank(self, call: RerankInput) -> list[Document]:
        documents = _documents(call)
        ranking = self._handle.rank(self._spec, self._request(documents, call))
        return [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]

    async def _arerank(self, call: RerankInput) -> list[Document]:
        documents = _documents(call)
        ranking = await self._handle.arank(self._spec, self._request(documents, call))
        return [_with_relevance(documents[ranked.index], ranked) for ranked in ranking]

    def _request(self, documents: Sequence[Document], call: RerankInput) -> RankRequest:
        return RankRequest(
            query=call["query"],
            documents=documents,
            kind=Document,
            text=self._content,
            key=self._key if self.deduplicate else None,
            on_error=self.on_error,
            progress=self.progress,
            **rank_options(self, call, RerankInput),
        )

    def _content(self, document: Document) -> str | ContentDocument:
        separator = self.metadata_separator
        text = text_with_metadata(document.page_content, document.metadata, self.metadata_fields, separator)
        given = [document.metadata[field] for field in self.image_fields if field in document.metadata]
        return with_images(text, images_in(given)) if given else text

    def _key(self, document: Document) -> tuple[object, object]:
        content = (document.page_content, repr([document.metadata.get(field) for field in self.image_fields]))
        return document.id, document.id is None and content

    def _text_request(
        self, documents: Sequence[Any], query: str, rank_fields: Sequence[str] | None, top_n: int | None
    ) -> RankRequest:
        options = rank_options(self, {})
        options["top_n"] = self.top_n if top_n == -1 else top_n
        return RankRequest(
            query=query,
            documents=document_list(documents, Document),
            kind=object,
            text=lambda each: self._content(each) if isinstance(each, Document) else text_of(each, rank_fields),
            on_error=self.on_error,
            progress=self.progress,
            **options,
        )


class RerankRunnable(RunnableSerializable[RerankInput, list[Document]]):
    """A compressor as a step of a chain, which can be dumped.

    Attributes:
        rerank: the compressor.
        name: of its trace events.
    """

    model_config = ConfigDict(extra="forbid")

    rerank: InstanceOf[OnelogitRerank]  # which is not validated again in each call
    name: str | None = "OnelogitRerank"

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def invoke(self, input: RerankInput, config: RunnableConfig | None = None, **_: Any) -> list[Document]:
        return self._call_with_config(self.rerank._rerank, input, config)

    async def ainvoke(self, input: RerankInput, config: RunnableConfig | None = None, **_: Any) -> list[Document]:
        return await self._acall_with_config(self.rerank._arerank, input, config)


def _documents(call: RerankInput) -> list[Document]:
    if not isinstance(call, dict) or not call.keys() >= {"query", "documents"}:
        raise InputError("reranking needs a dictionary with query and documents")
    return document_list(call["documents"], Document)


def _with_relevance(document: Document, ranked: Ranked | Kept) -> Document:
    if not isinstance(document, Document):  # in a list that keeps its order because of it
        return document
    added = {} if isinstance(ranked, Kept) else {"relevance_score": ranked.score, "relevance_logit": ranked.logit}
    return document.model_copy(update={"metadata": ScoredMetadata({**document.metadata, **added})})
