"""A chat template -> the parts of the prompt: constant text, and fields for the caller's texts.

The template is rendered only once, with placeholders. Each prompt is then written by filling in the parts, so the
caller's characters are known, and cannot act as template code.
"""

import logging
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from itertools import product

from onelogit.errors import RecipeError
from onelogit.prompts.bounded_template import BoundedTemplate, names_in, parse_template
from onelogit.prompts.layout import FIELDS, SEAM, Field, Part, Span, Values, fill
from onelogit.prompts.template_limits import TemplateLimitError
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import Recipe

logger = logging.getLogger(__name__)

# Private-use characters, because no template contains them, and jinja's `trim` keeps them.
_PLACEHOLDERS: dict[Field, str] = {field: f"\ue0f0{field}\ue0f1" for field in FIELDS}
_SEAM_MARK = "\ue0f2"
_MARKS = re.compile(f"({'|'.join([*_PLACEHOLDERS.values(), _SEAM_MARK])})")
_FIELD_OF = {placeholder: field for field, placeholder in _PLACEHOLDERS.items()}
_MESSAGE_OF = {"query": "{{ messages[-2].content }}", "document": "{{ messages[-1].content }}"}
# As other libraries' templates and Python's `format` name the texts.
_VARIABLE = re.compile(
    r"\{\{[-+]?\s*(query|question|document|doc|passage|text|instruction|instruct|task)\b[^{}]*\}\}"
    r"|\{(query|question|document|doc|passage|text|instruction|instruct|task)\}",
    re.IGNORECASE,
)
_SAMPLES = ("a b", " a\n", "{{ query }} {% if %} <|x|>", "word " * 3000)


def compile_prompt(chat_template: str, has_instruction: bool) -> Span:
    """The whole prompt that a chat template writes, with or without an instruction.

    The result is verified: for sample texts (surrounding white space, template code, a very long text, an empty
    document), it must equal the template's own rendering.

    Args:
        chat_template: jinja with the roles `query` and `document`, and `system` for an instruction.
        has_instruction: whether to render a system message with an instruction; a template may ignore it.

    Raises:
        RecipeError: the template is not valid jinja, omits the query or the document, writes the document twice, or
            changes the caller's texts (only stripping is supported).
        TemplateLimitError: rendering it takes too much time or memory.
    """
    prompt = _compiled(chat_template, has_instruction)
    if isinstance(prompt, RecipeError):
        raise type(prompt)(*prompt.args)
    return prompt


@lru_cache(maxsize=64)
def _compiled(chat_template: str, has_instruction: bool) -> Span | RecipeError:
    """The prompt, or the error: a template that takes too long is rendered only once."""
    try:
        return _compile(chat_template, has_instruction)
    except RecipeError as error:
        return error.with_traceback(None)


def _compile(chat_template: str, has_instruction: bool) -> Span:
    template = parse_template(chat_template)
    rendered = _render(template, _PLACEHOLDERS, has_instruction, seam=_SEAM_MARK)
    spaced = _render(template, {name: f" {text} " for name, text in _PLACEHOLDERS.items()}, has_instruction)
    stripped = {field for field in FIELDS if f" {_PLACEHOLDERS[field]} " not in spaced}
    prompt = tuple(_part(text, stripped) for text in _MARKS.split(rendered) if text)
    counts = Counter(part.field for part in prompt)
    missing = [field for field in ("query", "document") if not counts[field]]
    if missing:
        raise RecipeError(_how_to_write(missing, chat_template))
    if counts["document"] > 1:
        raise RecipeError(f"the chat template writes the document {counts['document']} times instead of once")
    _verify(prompt, template, has_instruction)
    return prompt


def takes_instruction(chat_template: str) -> bool:
    """Whether a template has a place for an instruction. False if it fails only with a system message.

    Raises:
        RecipeError: the template also fails without a system message.
    """
    try:
        return any(part.field == "instruction" for part in compile_prompt(chat_template, True))
    except TemplateLimitError:
        raise
    except RecipeError:
        compile_prompt(chat_template, False)
        return False


def no_place(recipe: Recipe, instruction: str) -> str:
    """The error for an instruction that a recipe's prompt has no place for."""
    error = f"the family {recipe.family} takes no instruction, but {instruction!r} was given"
    if recipe.chat_template is None or any(recipe.chat_template == known.chat_template for known in FAMILIES):
        return error
    place = '{% if messages[0].role == "system" %}{{ messages[0].content }}{% endif %}'
    return f"{error}; to give it a place, write {place} into the chat template"


def usable_default(recipe: Recipe) -> str | None:
    """The recipe's default instruction; None for that of a known family if another prompt has no place for it."""
    default = recipe.default_instruction
    if default not in {known.default_instruction for known in FAMILIES}:
        return default  # the caller's own, which must not be ignored
    return default if recipe.chat_template is not None and takes_instruction(recipe.chat_template) else None


def check_template(chat_template: str) -> None:
    """Check that a template is for reranking. Raises as `takes_instruction`."""
    takes_instruction(chat_template)


def warn_of_lost_text(chat_template: str) -> None:
    """Log a warning if prompts lack a newline that ends the template, or a variable that does not exist.

    Jinja drops the newline as in transformers, which renders the same file for other programs. The templates of known
    families are right without it.
    """
    if wrong := [each for each in _unknown_variables(chat_template) if each.startswith("{{")]:
        logger.warning(
            "the chat template writes %s, which is empty, because templates get messages: an instruction is the "
            "content of the message with the role system, {{ messages[-2].content }} is the query, and "
            "{{ messages[-1].content }} the document",
            " and ".join(wrong),
        )
    if any(recipe.chat_template and chat_template.endswith(recipe.chat_template) for recipe in FAMILIES):
        return
    has_instruction, texts = takes_instruction(chat_template), {field: f"<{field}>" for field in FIELDS}
    rendered, whole = (
        _render(parse_template(chat_template, keeps_last_newline=keeps), texts, has_instruction)
        for keeps in (False, True)
    )
    if rendered != whole:
        logger.warning(
            "the chat template ends in a newline that prompts lack, because Jinja drops it, as in transformers: they "
            "end in %r. To have it in the prompt, end the template in {{ '\\n' }} instead; otherwise, remove it",
            rendered[-20:],
        )


def _unknown_variables(chat_template: str) -> list[str]:
    """The places where a template writes a text as another library's variable, or as Python's `format` does."""
    names = names_in(chat_template)
    assigned = {name.name for name in names if name.ctx == "store"}
    found = _VARIABLE.finditer(chat_template)
    return [*dict.fromkeys(match[0] for match in found if match[1] not in assigned)]


def _how_to_write(missing: Sequence[str], chat_template: str) -> str:
    """Why a template writes no query or no document, and how it would."""
    wrong = _unknown_variables(chat_template)
    are_none = "are no variables" if len(wrong) > 1 else "is no variable"
    reason = f" ({' and '.join(wrong)} {are_none} there)" if wrong else ""
    written = " and ".join(f"{_MESSAGE_OF[field]} where the {field} belongs" for field in missing)
    return (
        f"the chat template writes no {' and no '.join(missing)}{reason}, so it is not a template for reranking: it "
        f"gets messages with the roles query and document, so write {written}"
    )


def _part(text: str, stripped: set[Field]) -> Part:
    field = _FIELD_OF.get(text)
    return SEAM if text == _SEAM_MARK else Part("" if field else text, field, field in stripped)


def _verify(prompt: Span, template: BoundedTemplate, has_instruction: bool) -> None:
    for query, document, instruction in product(_SAMPLES, (*_SAMPLES, ""), _SAMPLES[: 2 if has_instruction else 1]):
        values: Values = {"query": query, "document": document, "instruction": instruction}
        if fill(prompt, values) != _render(template, values, has_instruction):
            raise RecipeError("the chat template changes a query, document or instruction; it may only strip it")


def _render(template: BoundedTemplate, values: Values, has_instruction: bool, seam: str = "") -> str:
    messages = [{"role": "system", "content": values["instruction"]}] if has_instruction else []
    messages += [{"role": role, "content": values[role]} for role in ("query", "document")]
    try:
        return template.render(messages=messages, seam=seam, add_generation_prompt=False)
    except TemplateLimitError:
        raise
    except RecipeError as error:
        raise RecipeError(
            f"the chat template refuses the roles query and document: {error}. It gets one message with each of them: "
            "{{ messages[-2].content }} is the query, and {{ messages[-1].content }} the document"
        ) from error
