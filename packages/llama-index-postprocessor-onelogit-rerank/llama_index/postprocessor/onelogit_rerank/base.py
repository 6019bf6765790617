"""LlamaIndex nodes -> the same nodes, reranked. Translates; the core scores."""

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
from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, SecretStr, model_validator

from onelogit import (
    InputError,
    Kept,
    OnError,
    OpenOptions,
    Protocol,
    Ranked,
    RankRequest,
    RerankerHandle,
    adapter_options,
    fields_of,
    plain_options,
    rank_options,
)

if TYPE_CHECKING:
    from onelogit import RemoteReranker, Reranker

dispatcher = get_dispatcher(__name__)


class OnelogitRerank(BaseNodePostprocessor, PromptMixin):
    """Reorders nodes by a decoder language model's relevance logit.

    Each node that comes back is a copy with the same id: its score is the one on the scale of the model's card, and
    its metadata hold the `relevance_logit`, which the order is by, and the `retrieval_score` that it came with, both
    out of sight of language and embedding models.

    Attributes:
        model: hub id or path of a folder; loaded by `warm_up`, or when the first nodes come.
        device, dtype, token: as in `onelogit.OpenOptions`; the token stands in no dump.
        url, protocol, api_key: of a server in place of a model in this process; the key stands in no dump.
        options: the other `onelogit.OpenOptions`.
        top_n, score_threshold, instruction: as in `onelogit.RankOptions`.
        metadata_mode: which metadata are read with a node's text.
        deduplicate: of nodes with the same id keep the best.
        on_error: "raise", or "keep_order" to log the error and give the nodes back as they came.
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
    options: Annotated[OpenOptions, AfterValidator(plain_options)] = Field(default_factory=OpenOptions)
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
        """One that uses a reranker which is there already, and which whoever made it closes."""
        rerank = cls(**fields_of(reranker, fields))
        rerank._handle = RerankerHandle(reranker)
        return rerank

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

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)
        with self._announced(nodes, query_bundle) as reranked:
            ranking = self._handle.rank(self.model, self._load_options, self._request(nodes, query_bundle))
            reranked += [_with_relevance(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)
        with self._announced(nodes, query_bundle) as reranked:
            ranking = await self._handle.arank(self.model, self._load_options, self._request(nodes, query_bundle))
            reranked += [_with_relevance(nodes[ranked.index], ranked) for ranked in ranking]
        return reranked

    @contextmanager
    def _announced(self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None) -> Iterator[list[NodeWithScore]]:
        """Tell both of the framework's event systems what begins and, however it goes, that it has ended."""
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
        self._load_options()
        self._request([], None)
        return self

    def _load_options(self) -> OpenOptions:
        token, api_key = (None if each is None else each.get_secret_value() for each in (self.token, self.api_key))
        return adapter_options(self, token=token, api_key=api_key)

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
    told = {"relevance_logit": ranked.logit, "retrieval_score": scored.score}
    update = {
        "metadata": {**node.metadata, **told},
        "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, *told])),
        "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, *told])),
    }
    return NodeWithScore(node=node.model_copy(update=update), score=ranked.score)
