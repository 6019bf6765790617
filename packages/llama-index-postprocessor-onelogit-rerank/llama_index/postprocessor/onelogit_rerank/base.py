"""LlamaIndex nodes -> the same nodes, reranked. It only translates; onelogit computes the scores."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import TYPE_CHECKING, Annotated, Any, Self

from llama_index.core.callbacks import CBEventType, EventPayload
from llama_index.core.instrumentation import get_dispatcher  # type: ignore[attr-defined]
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.prompts import PromptTemplate
from llama_index.core.prompts.mixin import PromptDictType, PromptMixin
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle
from pydantic import BeforeValidator, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from onelogit import InputError, ModelSpec, OpenOptions, Protocol, Ranked
from onelogit.adapters import Kept, OnError, RankRequest, RerankerHandle, fields_of, plain_options, rank_options

if TYPE_CHECKING:
    from onelogit import RemoteReranker, Reranker

dispatcher = get_dispatcher(__name__)


class OnelogitRerank(BaseNodePostprocessor, PromptMixin):
    """Reorders nodes by the relevance logit of a decoder language model.

    Returns copies of the nodes with the same ids. The score is on the scale of the model's card. Two metadata entries
    are added: `relevance_logit`, which determines the order, and `retrieval_score`, the score before reranking. Both
    are hidden from language and embedding models.

    Attributes:
        model: hub id or path of a folder; loaded by `warm_up`, or by the first call with nodes.
        device, dtype, token: as in `onelogit.OpenOptions`; dumps never contain the token.
        url, protocol, api_key: of a server to use instead of a local model; dumps never contain the key.
        options: the other `onelogit.OpenOptions`.
        top_n, score_threshold, instruction: as in `onelogit.adapters.RankOptions`.
        metadata_mode: which metadata to read with a node's text.
        deduplicate: keep only the best of the nodes with the same id.
        on_error: "raise", or "keep_order" to log the error and return the nodes unchanged.
        show_progress: show a progress bar.
    """

    model_config = ConfigDict(
        extra="forbid", hide_input_in_errors=True, protected_namespaces=(), arbitrary_types_allowed=True
    )

    model: str
    device: str | None = None
    dtype: str | None = None
    token: SecretStr | None = Field(default=None, exclude=True)
    url: str | None = None
    protocol: Protocol | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    options: Annotated[OpenOptions, BeforeValidator(plain_options)] = Field(default_factory=OpenOptions)
    top_n: int | None = Field(default=None, ge=1, strict=True)
    score_threshold: float | None = Field(default=None, strict=True)
    instruction: str | None = None
    metadata_mode: MetadataMode = MetadataMode.EMBED
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
        nodes = list(nodes)
        with self._events(nodes, query_bundle) as reranked:
            ranking = self._handle.rank(self._spec, self._request(nodes, query_bundle))
            reranked += [_with_relevance(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)
        with self._events(nodes, query_bundle) as reranked:
            ranking = await self._handle.arank(self._spec, self._request(nodes, query_bundle))
            reranked += [_with_relevance(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    @contextmanager
    def _events(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> Iterator[list[NodeWithScore]]:
        """Report the start to both event systems of the framework, and the end, even after an error."""
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
            dispatcher.event(ReRankEndEvent(nodes=reranked))

    def _request(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> RankRequest:
        if query_bundle is None and nodes:
            raise InputError("reranking needs a query: pass query_str or query_bundle")
        return RankRequest(
            query="" if query_bundle is None else query_bundle.query_str,
            documents=[each.node.get_content(self.metadata_mode) for each in nodes],
            keys=[each.node_id for each in nodes] if self.deduplicate else None,
            on_error=self.on_error,
            progress=self.show_progress,
            **rank_options(self, {}),
        )

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._spec()
        self._request([], None)
        return self

    def _spec(self) -> ModelSpec:
        token, api_key = (None if each is None else each.get_secret_value() for each in (self.token, self.api_key))
        return self._handle.spec(self, token=token, api_key=api_key)

    def _get_prompts(self) -> PromptDictType:
        return {"instruction": PromptTemplate(self.instruction or "")}

    def _update_prompts(self, prompts: PromptDictType) -> None:
        shown = self._get_prompts()["instruction"].get_template()
        if "instruction" in prompts and (new := prompts["instruction"].get_template()) != shown:
            self.instruction = new


def _with_relevance(scored: NodeWithScore, ranked: Ranked | Kept) -> NodeWithScore:
    if isinstance(ranked, Kept):
        return NodeWithScore(node=scored.node, score=scored.score)
    node = scored.node
    added = {"relevance_logit": ranked.logit, "retrieval_score": scored.score}
    update = {
        "metadata": {**node.metadata, **added},
        "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *added])),
        "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *added])),
    }
    return NodeWithScore(node=node.model_copy(update=update), score=ranked.score)
