"""LlamaIndex nodes -> the same nodes, reranked. Translates; the core scores."""

from typing import TYPE_CHECKING

from llama_index.core.bridge.pydantic import ConfigDict, Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from onelogit import InputError, LoadOptions, Ranked, open_reranker

if TYPE_CHECKING:
    from onelogit import Reranker


class OnelogitRerank(BaseNodePostprocessor):
    """Reorders nodes by a decoder language model's relevance logit.

    Each node that comes back is a copy with the same id: its score is the one on the scale of the model's card, and
    its metadata hold the `relevance_logit`, which the order is by, out of sight of language and embedding models.

    Attributes:
        model: hub id or path of a folder; loaded when the first nodes come.
        top_n: keep this many at most; None for all.
        instruction: what "relevant" means here; None for the model's default.
        options: see `onelogit.LoadOptions`.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), arbitrary_types_allowed=True)

    model: str
    top_n: int | None = Field(default=None, ge=1, strict=True)
    instruction: str | None = None
    options: LoadOptions = Field(default_factory=LoadOptions)
    _reranker: "Reranker | None" = PrivateAttr(default=None)

    @classmethod
    def class_name(cls) -> str:
        return "OnelogitRerank"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        nodes = list(nodes)
        if not nodes:
            return []
        if query_bundle is None:
            raise InputError("reranking needs a query: pass query_str or query_bundle")
        self._reranker = open_reranker(self.model, **self.options)  # the one that is open already, if there is one
        texts = [node.node.get_content(metadata_mode=MetadataMode.EMBED) for node in nodes]
        ranking = self._reranker.rank(query_bundle.query_str, texts, self.top_n, instruction=self.instruction)
        return [_with_relevance(nodes[ranked.index], ranked) for ranked in ranking]


def _with_relevance(scored: NodeWithScore, ranked: Ranked) -> NodeWithScore:
    key = "relevance_logit"
    node = scored.node
    update = {
        "metadata": {**node.metadata, key: ranked.logit},
        "excluded_llm_metadata_keys": list(dict.fromkeys([*node.excluded_llm_metadata_keys, key])),
        "excluded_embed_metadata_keys": list(dict.fromkeys([*node.excluded_embed_metadata_keys, key])),
    }
    return NodeWithScore(node=node.model_copy(update=update), score=ranked.score)
