"""Recipe: the facts needed to use a model as a reranker. Also converts recipes to plain data and back."""

import logging
import math
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass, fields
from difflib import get_close_matches
from functools import lru_cache
from numbers import Integral, Real
from typing import Any, Literal, get_args, get_origin, get_type_hints

from onelogit.errors import RecipeError
from onelogit.recipes.answer_names import are_swapped, relevant_name

logger = logging.getLogger(__name__)

Activation = Literal["sigmoid", "identity"]

DEFAULT_MAX_TOKENS = 8192
_IN_YAML = "in YAML, put true, false, yes and no in quotes"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOut:
    """How the logit is computed from rows of the language-model head.

    The logit is `scale * (head[true] - head[false])` at the prompt's last token, or `scale * head[true]` if `false` is
    None. A token is given by its id, or by its text if ids differ between a family's tokenizers; a text must be exactly
    one token. If the two seem to be swapped, as in `ReadOut(true="no", false="yes")`, a warning is logged.

    Raises:
        RecipeError: a field is of the wrong type.
    """

    true: int | str
    false: int | str | None = None
    scale: float = 1.0

    def __post_init__(self) -> None:
        _check_fields(self)
        warn_if_swapped(self.true, self.false)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All facts that reranking with a model needs.

    Attributes:
        family: a short name, for messages.
        chat_template: Jinja in the form of Sentence Transformers: messages with the roles `query` and `document`, and
            `system` for an instruction. `{{ seam }}` renders empty; it marks the end of one tokenizer call and the
            beginning of the next in the family's reference code. None if the tokenizer joins query and document, as for
            encoders.
        read_out: the head rows that give the logit; None if the checkpoint already has a one-logit head.
        activation: from the logit to the score on the model card's scale.
        default_instruction: used if the caller gives none; None for no instruction.
        adds_special_tokens: whether the tokenizer's first and last special tokens are added to a prompt that does not
            already begin with the first one; reference implementations differ in this.
        max_tokens: the longest prompt that the model card supports.
        licence: SPDX-like identifier; the model card takes precedence.
        models: hub ids known to follow this recipe.
        architectures: classes that only the training code of this family saves, which by default trains on its prompt.
        name_pattern: regular expression, matched case-insensitively against the last part of an id or path.
        source: where these facts can be checked.

    Raises:
        RecipeError: a field is of the wrong type.
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
    architectures: tuple[str, ...] = ()
    name_pattern: str | None = None

    def __post_init__(self) -> None:
        _check_fields(self)


def recipe_fields(recipe: Recipe | ReadOut) -> dict[str, Any]:
    """The recipe as plain data for YAML or JSON, without the fields that have their default value."""
    plain = {}
    for field in fields(recipe):
        value = getattr(recipe, field.name)
        if field.default is MISSING or value != field.default:
            plain[field.name] = recipe_fields(value) if isinstance(value, ReadOut) else value
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def recipe_from(plain: Mapping[str, Any]) -> Recipe:
    """The recipe from the output of `recipe_fields`.

    Raises:
        RecipeError: a field is missing, unknown or of the wrong type.
    """
    try:
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        if isinstance(values.get("read_out"), Mapping):
            values["read_out"] = ReadOut(**_checked_types(ReadOut, values["read_out"]))
        return Recipe(**_checked_types(Recipe, values))
    except (TypeError, AttributeError) as error:
        raise RecipeError(f"invalid recipe: {error}") from error


@lru_cache(maxsize=2)
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _checked_types(kind: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    _check_names(kind, values)
    for name, hint in _hints(kind).items():
        if name in values and not _fits(values[name], hint):
            form = _read_out_form(values[name]) if name == "read_out" else f"write {_form_of(hint)}"
            in_yaml = f"; {_IN_YAML}" if isinstance(values[name], bool) else ""
            raise TypeError(f"{name} cannot be {values[name]!r}: {form}{in_yaml}")
    if kind is ReadOut and not (math.isfinite(scale := values.get("scale", 1)) and scale):
        raise TypeError(f"scale cannot be {scale!r}: write a number other than 0; a smaller one lowers all logits")
    return values


def _check_names(kind: Any, values: Mapping[str, Any]) -> None:
    what, of = ("read_out", "read_out") if kind is ReadOut else ("it", "a recipe")
    known = {field.name: field.default is MISSING for field in fields(kind)}
    all_names = ", ".join(known)
    if unknown := [_with_closest(name, known) for name in values if name not in known]:
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        in_yaml = f": {_IN_YAML}" if any(isinstance(name, bool) for name in values) else ""
        raise TypeError(
            f"{what} has unknown fields, {', '.join(unknown[:3])}{more}{in_yaml}. The fields of {of} are {all_names}"
        )
    if missing := [name for name, is_required in known.items() if is_required and name not in values]:
        raise TypeError(f"{what} lacks {', '.join(missing)}. The fields of {of} are {all_names}")


def _with_closest(name: object, known: Collection[str]) -> str:
    close = get_close_matches(str(name), known, n=1, cutoff=0.75)
    return f"{name!r} (did you mean {close[0]!r}?)" if close else repr(name)


def warn_if_swapped(true: object, false: object) -> None:
    """Log a warning if the texts of two answers are known to mean the opposite."""
    if are_swapped(true, false):
        logger.warning(
            "the answer %r counts as relevant, and %r as irrelevant: if that is the wrong way round, write "
            "ReadOut(true=%r, false=%r) (for a command: --classifier-from-tokens takes the false token first)",
            *(true, false, false, true),
        )


def _check_fields(facts: Recipe | ReadOut) -> None:
    values = {field.name: getattr(facts, field.name) for field in fields(facts)}
    try:
        _checked_types(type(facts), values)
    except TypeError as error:
        raise RecipeError(f"invalid recipe: {error}") from error


def _form_of(hint: Any) -> str:
    """What a field of a type may be, in words."""
    if get_origin(hint) is Literal:
        return " or ".join(map(repr, get_args(hint)))
    if get_origin(hint) is tuple:
        return "a list of texts"
    words = {str: "a text", int: "an integer", float: "a number", bool: "True or False", type(None): "None"}
    return " or ".join(words[each] for each in (get_args(hint) or (hint,)))


def _read_out_form(given: object) -> str:
    """How to write a read-out that was given in another form."""
    if isinstance(given, Mapping):
        given = [given[name] for name in ("true", "false") if given.get(name) is not None]
    tokens = [given] if isinstance(given, str | int) else [*given] if isinstance(given, tuple | list) else []
    if len(tokens) not in (1, 2) or not all(type(token) in (str, int) for token in tokens):
        return "write ReadOut(true='yes', false='no'), with the answer tokens of the model"
    if len(tokens) == 2 and relevant_name(str(tokens[0]), str(tokens[1])) == 1:
        tokens.reverse()
    written = ", ".join(f"{name}={token!r}" for name, token in zip(("true", "false"), tokens, strict=False))
    return f"write ReadOut({written}), where true is the answer for a relevant document"


def _fits(value: object, hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(isinstance(each, str) for each in value)
    kinds = get_args(hint) or (hint,)
    is_flag = isinstance(value, bool) and bool not in kinds  # bool is a subclass of int
    is_number = (float in kinds and isinstance(value, Real)) or (
        int in kinds and isinstance(value, Integral)
    )  # NumPy's
    return not is_flag and (isinstance(value, kinds) or is_number)


def is_non_commercial(licence: str | None) -> bool:
    """Whether the licence identifier names a non-commercial licence."""
    return licence is not None and re.search(r"\bnc\b|non-?commercial", licence.lower().replace("_", "-")) is not None
