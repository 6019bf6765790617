"""The supported model families and the known unsupported models: facts with their sources, no code that uses them."""

from dataclasses import dataclass, replace

from onelogit.recipes.recipe import ReadOut, Recipe
from onelogit.recipes.templates import (
    BGE_GEMMA_TEMPLATE,
    CTXL_TEMPLATE,
    MXBAI_TEMPLATE,
    PRISM_INSTRUCTION,
    PRISM_TEMPLATE,
    QWEN3_INSTRUCTION,
    QWEN3_TEMPLATE,
    ZERANK_1_TEMPLATE,
    ZERANK_2_TEMPLATE,
)

_QWEN3_RERANKER = Recipe(
    family="qwen3-reranker",
    chat_template=QWEN3_TEMPLATE,
    read_out=ReadOut(true="yes", false="no"),
    activation="sigmoid",
    default_instruction=QWEN3_INSTRUCTION,
    licence="apache-2.0",
    models=("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B"),
    name_pattern=r"(?<!prism-)qwen3-reranker-",
    source="https://huggingface.co/Qwen/Qwen3-Reranker-0.6B",
)

FAMILIES = (
    _QWEN3_RERANKER,
    replace(
        _QWEN3_RERANKER,
        family="kure-reranker",
        licence=None,
        models=("nlpai-lab/KURE-Reranker-base",),
        name_pattern=r"kure-reranker",
        source="https://huggingface.co/nlpai-lab/KURE-Reranker-base",
    ),
    replace(
        _QWEN3_RERANKER,
        family="coreb-code-reranker",
        licence=None,
        models=("hq-bench/coreb-code-reranker",),
        name_pattern=r"coreb-code-reranker",
        source="https://huggingface.co/hq-bench/coreb-code-reranker",
    ),
    Recipe(
        family="prism-reranker",
        chat_template=PRISM_TEMPLATE,
        read_out=ReadOut(true="yes", false="no"),
        activation="sigmoid",
        default_instruction=PRISM_INSTRUCTION,
        max_tokens=10240,
        licence="mit",
        models=(
            "infgrad/Prism-Qwen3.5-Reranker-0.8B",
            "infgrad/Prism-Qwen3.5-Reranker-2B",
            "infgrad/Prism-Qwen3.5-Reranker-4B",
            "infgrad/Prism-Qwen3.5-Reranker-9B",
        ),
        name_pattern=r"prism-qwen3\.5-reranker",
        source="https://huggingface.co/infgrad/Prism-Qwen3.5-Reranker-0.8B",
    ),
    Recipe(
        family="ctxl-rerank-v2",
        chat_template=CTXL_TEMPLATE,
        # By id: token 0 is "!" in the 1b and 2b models and "<unk>" in the 6b one.
        read_out=ReadOut(true=0),
        max_tokens=32768,
        licence="cc-by-nc-sa-4.0",
        models=(
            "ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
            "ContextualAI/ctxl-rerank-v2-instruct-multilingual-2b",
            "ContextualAI/ctxl-rerank-v2-instruct-multilingual-6b",
        ),
        name_pattern=r"ctxl-rerank-v2-",
        source="https://huggingface.co/ContextualAI/ctxl-rerank-v2-instruct-multilingual-1b",
    ),
    Recipe(
        family="mxbai-rerank-v2",
        chat_template=MXBAI_TEMPLATE,
        read_out=ReadOut(true="1", false="0"),
        licence="apache-2.0",
        models=("mixedbread-ai/mxbai-rerank-base-v2", "mixedbread-ai/mxbai-rerank-large-v2"),
        # Not "...-v2-seq": those conversions have two labels and a changed prompt.
        name_pattern=r"mxbai-rerank-(base|large)-v2$",
        source="https://github.com/mixedbread-ai/mxbai-rerank/blob/main/mxbai_rerank/mxbai_rerank_v2.py",
    ),
    Recipe(
        family="bge-reranker-v2-gemma",
        chat_template=BGE_GEMMA_TEMPLATE,
        read_out=ReadOut(true="Yes"),
        max_tokens=1024,
        licence="apache-2.0",
        models=("BAAI/bge-reranker-v2-gemma",),
        name_pattern=r"bge-reranker-v2-gemma",
        source="https://huggingface.co/BAAI/bge-reranker-v2-gemma",
    ),
    Recipe(
        family="zerank-1",
        chat_template=ZERANK_1_TEMPLATE,
        read_out=ReadOut(true="Yes", scale=0.2),
        activation="sigmoid",
        licence="apache-2.0",
        models=(
            "zeroentropy/zerank-1-reranker",
            "zeroentropy/zerank-1",
            "zeroentropy/zerank-1-small-reranker",
            "zeroentropy/zerank-1-small",
        ),
        name_pattern=r"zerank-1(-small)?(-reranker)?(-seq)?$",
        source="https://huggingface.co/zeroentropy/zerank-1-small-reranker",
    ),
    Recipe(
        family="zerank-2",
        chat_template=ZERANK_2_TEMPLATE,
        read_out=ReadOut(true="Yes", scale=0.2),
        activation="sigmoid",
        licence="apache-2.0",
        models=("zeroentropy/zerank-2-reranker", "zeroentropy/zerank-2"),
        name_pattern=r"zerank-2(-reranker)?(-seq)?$",
        source="https://huggingface.co/zeroentropy/zerank-2-reranker",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsupported:
    """Models that cannot be converted to a one-logit classifier, with the reason for the error message.

    Attributes:
        pattern: regular expression, matched case-insensitively against the architecture and the model's name.
        reason: a clause that completes "it has no one-logit form:".
        alternative: a sentence that says what to use instead.
    """

    pattern: str
    reason: str
    alternative: str


UNSUPPORTED = (
    Unsupported(
        pattern=r"^JinaForRanking|jina-reranker-v3",
        reason="it ranks all documents of a list in one prompt, by the cosine of projected tokens",
        alternative="Run it with its own code (model.rerank), or use a pointwise model such as Qwen3-Reranker",
    ),
    Unsupported(
        pattern=r"^JinaVL|jina-reranker-m0",
        reason="it is a vision-language model with a two-layer head",
        alternative="Run it with its own code (model.compute_score)",
    ),
    Unsupported(
        pattern=r"^LayerWiseMiniCPM|minicpm-layerwise",
        reason="it has one head for each layer, in custom code",
        alternative="Use BAAI/bge-reranker-v2-gemma, or run it with FlagEmbedding",
    ),
    Unsupported(
        pattern=r"^CostWiseGemma|gemma2-lightweight",
        reason="it has one head for each layer and merges tokens between layers",
        alternative="Use BAAI/bge-reranker-v2-gemma, or run it with FlagEmbedding",
    ),
    Unsupported(
        pattern=r"^Querit| Querit",
        reason="it uses a custom attention mask and a head at its [CLS] token",
        alternative="Run it with its own code",
    ),
    Unsupported(
        pattern=r"T5Gemma|KaLM-Reranker",
        reason="it is an encoder-decoder",
        alternative="Run it with its own code",
    ),
    Unsupported(
        pattern=r"Bidirectional|nemotron.*rerank",
        reason="it attends in both directions, in custom code",
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
        alternative="Use a pointwise model such as Qwen3-Reranker",
    ),
)
