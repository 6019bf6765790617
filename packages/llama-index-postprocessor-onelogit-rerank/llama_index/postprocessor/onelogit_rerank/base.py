"""LlamaIndex nodes -> the same nodes, reranked. It only translates; onelogit computes the scores."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Self

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType, PromptMixin
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from llama_index.postprocessor.onelogit_rerank.images import images_of
from llama_index.postprocessor.onelogit_rerank.instruction import filled, instruction_text
from onelogit import ContentDocument, InputError, ModelSpec, OpenOptions, Protocol, Ranked
from onelogit.adapters import (
    Kept,
    MetadataDict,
    ModelFields,
    OnError,
    RankRequest,
    RerankerHandle,
    adapter_fields,
    checked_score_threshold,
    checked_top_n,
    document_list,
    fields_of,
    keep_recipe_plain,
    plain,
    plain_options,
    rank_options,
    uses_server,
    with_images,
)

if TYPE_CHECKING:
    from onelogit import RemoteReranker, Reranker

dispatcher = get_dispatcher(__name__)


class OnelogitRerank(ModelFields, BaseNodePostprocessor, PromptMixin):
    """Reorders nodes by the relevance logit of a decoder language model.

    Returns copies of the nodes with the same ids and hashes. The score is on the scale of the model's card. Two values
    can be read from the metadata by name: `relevance_logit`, which determines the order, and `retrieval_score`, the
    score before reranking. The metadata does not list them; texts, dumps and pickles of a node lack them.

    Attributes:
        model: hub id or path of a folder; loaded by `warm_up`, or by the first call with nodes.
        device, dtype, token: as in `onelogit.OpenOptions`; dumps never contain the token.
        url, protocol, api_key: of a server to use instead of a local model; dumps never contain the key.
        max_tokens, long_documents, batch_tokens, document_cache_bytes: as in `onelogit.OpenOptions`.
        recipe, revision, quantization, quantization_config, trust_remote_code: as in `onelogit.OpenOptions`.
        options: the other `onelogit.OpenOptions`, and these.
        top_n, score_threshold, instruction: as in `onelogit.adapters.RankOptions`. The instruction can be a prompt
            template; `{query_str}` in it is replaced by the query.
        metadata_mode: which metadata to read with a node's text.
        read_images: send the image of an `ImageNode`, or of another node with one, to the server; a local model reads
            its text, and refuses it without one. False to rank by the texts alone.
        deduplicate: keep only the best of the nodes with the same id.
        on_error: "raise", or "keep_order" to log the error and return the nodes unchanged.
        show_progress: show a progress bar.
    """

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, protected_namespaces=(), arbitrary_types_allowed=True
    )

    model: Annotated[str, BeforeValidator(plain)]
    device: Annotated[str | None, BeforeValidator(plain)] = None
    dtype: Annotated[str | None, BeforeValidator(plain)] = None
    token: SecretStr | None = Field(default=None, exclude=True)
    url: str | None = None
    protocol: Protocol | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    options: Annotated[OpenOptions, BeforeValidator(plain_options)] = Field(default_factory=OpenOptions)
    top_n: Annotated[int | None, BeforeValidator(checked_top_n)] = None
    score_threshold: Annotated[float | None, BeforeValidator(checked_score_threshold)] = None
    instruction: Annotated[str | None, BeforeValidator(instruction_text)] = None
    metadata_mode: MetadataMode = MetadataMode.EMBED
    read_images: bool = True
    deduplicate: bool = False
    on_error: OnError = "raise"
    show_progress: bool = False
    _handle: RerankerHandle = PrivateAttr(default_factory=RerankerHandle)

    @classmethod
    def class_name(cls) -> str:
        return "OnelogitRerank"

    @classmethod
    def from_reranker(cls, reranker: "Reranker | RemoteReranker", **fields: Any) -> Self:
        """A postprocessor that uses an existing reranker, which it never closes."""
        rerank = cls(**fields_of(reranker, fields))
        rerank._handle = RerankerHandle(reranker)
        return rerank

    def __copy__(self) -> Self:
        copied = super().__copy__()
        copied._handle = copy(self._handle)  # closing one, or changing its fields, does not affect the other
        return copied

    def __getstate__(self) -> dict[str, Any]:
        self._handle.check_picklable()  # the framework leaves out a handle that cannot be pickled
        return super().__getstate__()

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # creates a new handle, which would not know where relative paths begin
        self._handle = (state.get("__pydantic_private__") or {}).get("_handle", self._handle)

    def warm_up(self) -> None:
        """Load the model and score once. Does nothing if it is loaded."""
        self._handle.warm_up(self._spec(), self.on_error)

    async def awarm_up(self) -> None:
        """`warm_up` without blocking the event loop."""
        await self._handle.awarm_up(self._spec(), self.on_error)

    def close(self) -> None:
        """Drop the model. Its memory is freed when nothing else uses it; the next call loads it again."""
        self._handle.close()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = document_list(nodes, NodeWithScore)
        with self._events(nodes, query_bundle) as reranked:
            ranking = self._handle.rank(self._spec, self._request(nodes, query_bundle))
            reranked += [_with_relevance(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = document_list(nodes, NodeWithScore)
        with self._events(nodes, query_bundle) as reranked:
            ranking = await self._handle.arank(self._spec, self._request(nodes, query_bundle))
            reranked += [_with_relevance(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    @contextmanager
    def _events(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> Iterator[list[NodeWithScore]]:
        """Report the start to both event systems of the framework, and the end, even after an error."""
        nodes = [each for each in nodes if isinstance(each, NodeWithScore)]  # the events refuse anything else
        top_n = len(nodes) if self.top_n is None else self.top_n
        reranked: list[NodeWithScore] = []
        payload: dict[str, Any] = {
            EventPayload.NODES: nodes,
            EventPayload.MODEL_NAME: self.model,
            EventPayload.QUERY_STR: query_bundle and query_bundle.query_str,
            EventPayload.TOP_K: top_n,
        }
        dispatcher.event(ReRankStartEvent(query=query_bundle, nodes=nodes, top_n=top_n, model_name=self.model))
        try:
            with self.callback_manager.event(CBEventType.RERANKING, payload=payload) as event:
                yield reranked
                event.on_end(payload={EventPayload.NODES: reranked})
        finally:
            dispatcher.event(ReRankEndEvent(nodes=[each for each in reranked if isinstance(each, NodeWithScore)]))

    def _request(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> RankRequest:
        if query_bundle is None and nodes:
            raise InputError("reranking needs a query: pass query_str or query_bundle")
        query = "" if query_bundle is None else query_bundle.query_str
        options = rank_options(self, {})
        given = options["instruction"]
        options["instruction"] = filled(self.options.get("instruction") if given is None else given, query)
        return RankRequest(
            query=query,
            documents=nodes,
            kind=NodeWithScore,
            text=self._content,
            key=attrgetter("node_id") if self.deduplicate else None,
            on_error=self.on_error,
            progress=self.show_progress,
            **options,
        )

    def _content(self, scored: NodeWithScore) -> str | ContentDocument:
        text = scored.node.get_content(self.metadata_mode)
        is_caption_enough = bool(text.strip()) and not uses_server(self)
        return text if is_caption_enough or not self.read_images else with_images(text, images_of(scored.node))

    @model_validator(mode="before")
    @classmethod
    def _check_fields(cls, given: Any) -> Any:
        return adapter_fields(given, cls.model_fields) if isinstance(given, dict) else given

    @model_validator(mode="after")
    def _check(self) -> Self:
        keep_recipe_plain(self)
        self._spec()
        self._request([], None)
        return self

    def _spec(self) -> ModelSpec:
        token, api_key = (None if each is None else each.get_secret_value() for each in (self.token, self.api_key))
        return self._handle.spec(self, token=token, api_key=api_key)

    def _get_prompts(self) -> PromptDictType:
        return {"instruction": PromptTemplate(self.instruction or "")}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        if "instruction" in prompts:
            new = instruction_text(prompts["instruction"])
            self.instruction = None if new == "" and self.instruction is None else new


class RerankedMetadata(MetadataDict):
    """A node's metadata, and relevance that can be read by its name, but is not listed.

    A node's hash, text and equality depend on all listed metadata, and retrievers tell nodes apart by them. Relevance
    hides metadata with the same name.
    """

    def __init__(self, metadata: Mapping[str, Any] = MappingProxyType({}), **relevance: float | None) -> None:
        super().__init__(metadata)
        self.relevance = relevance

    def __getitem__(self, name: str) -> Any:
        return self.relevance[name] if name in self.relevance else super().__getitem__(name)

    def __contains__(self, name: object) -> bool:
        return name in self.relevance or super().__contains__(name)

    def get(self, name: str, default: Any = None) -> Any:
        try:
            return self[name]
        except KeyError:
            return default


def _with_relevance(scored: NodeWithScore, ranked: Ranked | Kept) -> NodeWithScore:
    if not isinstance(scored, NodeWithScore):  # in a list that keeps its order because of it
        return scored
    if isinstance(ranked, Kept):
        return NodeWithScore(node=scored.node, score=scored.score)
    metadata = RerankedMetadata(scored.node.metadata, relevance_logit=ranked.logit, retrieval_score=scored.score)
    return NodeWithScore(node=scored.node.model_copy(update={"metadata": metadata}), score=ranked.score)
