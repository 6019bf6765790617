"""Recipe, its form as plain data, and the table of families: facts with their sources, no code that acts on them."""

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from onelogit.errors import RecipeError
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
            reference code ends one tokenizer call and begins the next. None where query and document go to the
            tokenizer as a pair, as encoders take them.
        read_out: the head rows that make the logit; None where the checkpoint has a one-logit head of its own.
        activation: turns the logit into the score that the model's card publishes.
        default_instruction: used where the caller gives none; None for no instruction.
        adds_special_tokens: whether the tokenizer's own first and last tokens stand around a prompt that does not
            begin with the first one already; the references differ in this.
        max_tokens: the longest prompt that the card stands for, in tokens.
        licence: SPDX-like identifier; the model card's own word wins over this one.
        models: hub ids known to follow this recipe.
        name_pattern: regular expression, matched without case against the last part of an id or path.
        source: where these facts can be checked.
    """

    family: str
    chat_template: str | None
    read_out: ReadOut | None
    source: str
    activation: Activation = "identity"
    default_instruction: str | None = None
    adds_special_tokens: bool = True
    max_tokens: int = DEFAULT_MAX_TOKENS
    licence: str | None = None
    models: tuple[str, ...] = ()
    name_pattern: str | None = None


def recipe_fields(recipe: Recipe | ReadOut) -> dict[str, Any]:
    """A recipe as plain data, which YAML and JSON can hold: the fields that are not as by default."""
    plain = {}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.default is MISSING or value != field.default:
            plain[field.name] = recipe_fields(value) if isinstance(value, ReadOut) else value
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def recipe_from(plain: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_fields` described.

    Raises:
        RecipeError: a field is missing or unknown.
    """
    try:
        given = plain["read_out"]
        read_out = None if given is None else ReadOut(**_checked_types(ReadOut, given))
        models = (
            tuple(plain.get("models", ())) if isinstance(plain.get("models", ()), list | tuple) else plain["models"]
        )
        return Recipe(**_checked_types(Recipe, {**plain, "read_out": read_out, "models": models}))
    except (KeyError, TypeError) as error:
        names = ", ".join(field.name for field in fields(Recipe))
        raise RecipeError(
            f"{error} is wrong with this recipe; its fields are {names}, and those of read_out true, false, scale. "
            "In YAML, put true, false, yes and no into quotes"
        ) from error


def _checked_types(kind: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    for name, hint in get_type_hints(kind).items():
        if name in values and not _fits(values[name], hint):
            raise TypeError(f"{name}={values[name]!r}")
    return values


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    kinds = get_args(hint) or (hint,)
    is_flag = isinstance(value, bool) and bool not in kinds  # which Python counts among the numbers
    return not is_flag and (isinstance(value, kinds) or (float in kinds and isinstance(value, int)))


def is_non_commercial(licence: str | None) -> bool:
    """Whether a licence, by its name, is for use that is not commercial."""
    return licence is not None and re.search(r"\bnc\b|non-?commercial", licence.lower().replace("_", "-")) is not None


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
