"""Recipe and the table of families: facts with their sources, no code that acts on them."""

from dataclasses import dataclass
from typing import Literal

Activation = Literal["sigmoid", "identity"]

DEFAULT_MAX_TOKENS = 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOut:
    """Which rows of the language-model head make the logit, and how.

    The logit is `scale * (head[true] - head[false])` at the prompt's last token,
    or `scale * head[true]` where `false` is None. A token is given by its id, or by its text
    where ids differ between the tokenizers of one family; a text must be exactly one token.
    """

    true: int | str
    false: int | str | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that has to be known of a model to rerank with it.

    Attributes:
        family: a short name, for logs and errors.
        chat_template: jinja, as Sentence Transformers declares it: messages with the roles `query` and `document`,
            and `system` for an instruction. `{{ seam }}` renders empty and marks a place where the family's
            reference code ends one tokenizer call and begins the next.
        read_out: the head rows that make the logit; None where the checkpoint has a one-logit head of its own.
        activation: turns the logit into the score that the model's card publishes.
        default_instruction: used where the caller gives none; None for no instruction.
        max_tokens: the longest prompt that the card stands for, in tokens.
        licence: SPDX-like identifier; the model card's own word wins over this one.
        models: hub ids known to follow this recipe.
        name_pattern: regular expression, matched without case against the last part of an id or path.
        source: where these facts can be checked.
    """

    family: str
    chat_template: str
    read_out: ReadOut | None
    source: str
    activation: Activation = "identity"
    default_instruction: str | None = None
    max_tokens: int = DEFAULT_MAX_TOKENS
    licence: str | None = None
    models: tuple[str, ...] = ()
    name_pattern: str | None = None


# Jinja drops one newline at the end of a template, so each template that must end in one is written with one more.
_FIELDS = (
    '{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first'
    " | default(instruction) -%}\n"
    '{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}\n'
    '{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}\n'
)

QWEN3_INSTRUCTION = "Given a web search query, retrieve relevant passages that answer the query"

# Byte for byte the file on the hub, so that an export can be compared with it.
QWEN3_TEMPLATE = """\
{%- set instruction = messages | selectattr("role", "eq", "system") | map(attribute="content") | first | default("Given a web search query, retrieve relevant passages that answer the query") -%}
{%- set query_text = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}
{%- set document_text = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}
<|im_start|>system
Judge whether the Document meets the requirements based on the Query and the Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>
<|im_start|>user
<Instruct>: {{ instruction }}
<Query>: {{ query_text }}
<Document>: {{ document_text }}<|im_end|>
<|im_start|>assistant
<think>

</think>


"""  # noqa: E501

CTXL_TEMPLATE = (
    _FIELDS
    + """\
Check whether a given document contains information helpful to answer the query.
<Document> {{ document }}
<Query> {{ query }}{{ " " ~ instruction if instruction }} ??"""
)

MXBAI_TEMPLATE = (
    _FIELDS
    + """\
<|im_start|>system
You are Qwen, created by Alibaba Cloud. You are a helpful assistant.<|im_end|>
<|im_start|>user
{{ seam }}{{ "instruction: " ~ instruction ~ "\\n" if instruction }}query: {{ query }}{{ seam }}
{{ seam }}document: {{ document }}{{ seam }}
{{ seam }}You are a search relevance expert who evaluates how well documents match search queries. \
For each query-document pair, carefully analyze the semantic relationship between them, then provide your binary \
relevance judgment (0 for not relevant, 1 for relevant).
Relevance:<|im_end|>
<|im_start|>assistant

"""
)

BGE_GEMMA_TEMPLATE = (
    _FIELDS
    + """\
A: {{ query }}{{ seam }}
{{ seam }}B: {{ document }}{{ seam }}
{{ seam }}Given a query A and a passage B, determine whether the passage contains an answer to the query by \
providing a prediction of either 'Yes' or 'No'."""
)

_ZERANK_BODY = """\
<|im_start|>user
{{ document | trim }}<|im_end|>
<|im_start|>assistant

"""

ZERANK_1_TEMPLATE = (
    _FIELDS
    + """\
<|im_start|>system
{{ query | trim }}<|im_end|>
"""
    + _ZERANK_BODY
)

ZERANK_2_TEMPLATE = (
    _FIELDS
    + """\
<|im_start|>system
{% if instruction -%}
<query>{{ query | trim }}</query>
<instruction>{{ instruction }}</instruction>
{%- else -%}
{{ query | trim }}
{%- endif %}<|im_end|>
"""
    + _ZERANK_BODY
)

FAMILIES = (
    Recipe(
        family="qwen3-reranker",
        chat_template=QWEN3_TEMPLATE,
        read_out=ReadOut(true="yes", false="no"),
        activation="sigmoid",
        default_instruction=QWEN3_INSTRUCTION,
        licence="apache-2.0",
        models=("Qwen/Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-4B", "Qwen/Qwen3-Reranker-8B"),
        name_pattern=r"qwen3-reranker-",
        source="https://huggingface.co/Qwen/Qwen3-Reranker-0.6B",
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

# Architectures that no row of an LM head can stand for, each with the reason that the user is told.
UNSUPPORTED_ARCHITECTURES = {
    "JinaForRanking": "it ranks all documents of a list in one prompt, by the cosine of projected tokens",
    "JinaVLForRanking": "it is a vision-language model with a two-layer head of its own",
    "LayerWiseMiniCPMForCausalLM": "it has one head for each layer, in code of its own",
    "CostWiseGemmaForCausalLM": "it has one head for each layer and merges tokens between layers",
    "T5Gemma2": "it is an encoder-decoder",
    "Bidirectional": "it attends in both directions, in code of its own",
    "ForConditionalGeneration": "it is a multimodal or encoder-decoder model",
}
