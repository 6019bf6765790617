"""Models that no one-logit classifier can stand for, with the reasons and the ways out."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """Models that no row of a language-model head can stand for, with the reason that the user is told.

    Attributes:
        pattern: regular expression, matched without case against the architecture and the model's name.
    """

    pattern: str
    reason: str
    alternative: str


UNSUPPORTED = (
    Unsupported(
        pattern=r"^JinaForRanking|jina-reranker-v3",
        reason="it ranks all documents of a list in one prompt, by the cosine of projected tokens",
        alternative="Run it with its own code (model.rerank), or take a pointwise model such as Qwen3-Reranker",
    ),
    Unsupported(
        pattern=r"^JinaVL|jina-reranker-m0",
        reason="it is a vision-language model with a two-layer head of its own",
        alternative="Run it with its own code (model.compute_score)",
    ),
    Unsupported(
        pattern=r"^LayerWiseMiniCPM|minicpm-layerwise",
        reason="it has one head for each layer, in code of its own",
        alternative="Take BAAI/bge-reranker-v2-gemma, or run it with FlagEmbedding",
    ),
    Unsupported(
        pattern=r"^CostWiseGemma|gemma2-lightweight",
        reason="it has one head for each layer and merges tokens between layers",
        alternative="Take BAAI/bge-reranker-v2-gemma, or run it with FlagEmbedding",
    ),
    Unsupported(
        pattern=r"^Querit| Querit",
        reason="it attends by a mask of its own and reads a head at its [CLS] token",
        alternative="Run it with its own code",
    ),
    Unsupported(
        pattern=r"T5Gemma|KaLM-Reranker",
        reason="it is an encoder-decoder",
        alternative="Run it with its own code",
    ),
    Unsupported(
        pattern=r"Bidirectional|nemotron.*rerank",
        reason="it attends in both directions, by code of its own",
        alternative="Run it with trust_remote_code=True in transformers, or serve it with vLLM",
    ),
    Unsupported(
        pattern=r"ForConditionalGeneration|Qwen3-VL-Reranker|LightOn-rerank-PW",
        reason="it is a multimodal model, and its text backbone is not converted",
        alternative="Run it with sentence_transformers.CrossEncoder",
    ),
    Unsupported(
        pattern=r"LightOn-rerank-LW|ListConRanker",
        reason="it ranks a list as a whole",
        alternative="Take a pointwise model such as Qwen3-Reranker",
    ),
)
