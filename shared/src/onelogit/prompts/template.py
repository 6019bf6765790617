"""A chat template -> the prompt's parts: constant text, and the places where a caller's text stands.

The template is rendered here with fillers, once, and never again: a prompt is the parts with the caller's text
put in. So it is known which characters are the caller's, and none of them can act as template code.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from itertools import product
from typing import Literal, NamedTuple, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from onelogit.errors import RecipeError

Field = Literal["query", "document", "instruction"]
FIELDS: tuple[Field, ...] = ("query", "document", "instruction")

# Private-use characters: no template holds them, and `trim` leaves them alone.
_FILLERS: dict[Field, str] = {field: f"\ue0f0{field}\ue0f1" for field in FIELDS}
_SEAM = "\ue0f2"
_MARKS = re.compile("|".join([*map(re.escape, _FILLERS.values()), _SEAM]))
_FIELD_OF = {filler: field for field, filler in _FILLERS.items()}
_PROBES = ("a b", " a\n", "{{ query }} {% if %} <|x|>", "word " * 3000)


class Part(NamedTuple):
    """A piece of a prompt: constant `text`, or a `field` of the caller's, or, with neither, a seam."""

    text: str = ""
    field: Field | None = None
    is_stripped: bool = False


@dataclass(frozen=True, slots=True)
class Prompt:
    """One form of a family's prompt, as parts in order."""

    parts: tuple[Part, ...]

    @property
    def takes_instruction(self) -> bool:
        return any(part.field == "instruction" for part in self.parts)

    def text(self, values: Mapping[Field, str]) -> str:
        """The whole prompt, as a string.

        Args:
            values: the query, the document and, where the prompt takes one, the instruction.
        """
        return "".join(fill(part, values) for part in self.parts)


def fill(part: Part, values: Mapping[Field, str]) -> str:
    """The text of one part: its own, or the caller's in its place."""
    if part.field is None:
        return part.text
    text = values[part.field]
    return text.strip() if part.is_stripped else text


@lru_cache(maxsize=64)
def compile_prompt(chat_template: str, has_instruction: bool) -> Prompt:
    """The prompt that a chat template writes, with or without an instruction.

    The compiled form is proved before it is used: on probe texts (white space at the ends, template code, a very
    long text, an empty document) it must equal what the template itself renders.

    Args:
        chat_template: jinja with the roles `query` and `document`, and `system` for an instruction.
        has_instruction: whether a system message with the instruction is there. A prompt whose
            `takes_instruction` is then still False belongs to a family that knows none.

    Raises:
        RecipeError: the template is no valid jinja, loses the query or the document, writes the document twice, or
            changes a caller's text in a way that cannot be followed.
    """
    template = _parse(chat_template)
    rendered = _render(template, _FILLERS, has_instruction, seam=_SEAM)
    stripped = {field for field in FIELDS if f" {_FILLERS[field]} " not in _render_spaced(template, has_instruction)}
    prompt = Prompt(tuple(_parts(rendered, stripped)))
    for field, most in (("query", None), ("document", 1)):
        count = sum(part.field == field for part in prompt.parts)
        if count == 0:
            raise RecipeError(f"the chat template writes no {field}: it is not one for reranking")
        if most is not None and count > most:
            raise RecipeError(f"the chat template writes the {field} {count} times")
    _prove(prompt, template, has_instruction)
    return prompt


def takes_instruction(chat_template: str) -> bool:
    """Whether a template has a place for an instruction; one that fails over a system message has none.

    Raises:
        RecipeError: it fails without one, too.
    """
    try:
        return compile_prompt(chat_template, True).takes_instruction
    except RecipeError:
        compile_prompt(chat_template, False)
        return False


def _parts(rendered: str, stripped: set[Field]) -> list[Part]:
    parts, start = [], 0
    for mark in _MARKS.finditer(rendered):
        if mark.start() > start:
            parts.append(Part(rendered[start : mark.start()]))
        field = _FIELD_OF.get(mark.group())
        parts.append(Part(field=field, is_stripped=field in stripped))
        start = mark.end()
    return [*parts, Part(rendered[start:])] if start < len(rendered) else parts


def _render_spaced(template: jinja2.Template, has_instruction: bool) -> str:
    return _render(template, {field: f" {filler} " for field, filler in _FILLERS.items()}, has_instruction)


def _prove(prompt: Prompt, template: jinja2.Template, has_instruction: bool) -> None:
    values: dict[Field, str]
    for query, document, instruction in product(_PROBES, (*_PROBES, ""), _PROBES[: 2 if has_instruction else 1]):
        values = {"query": query, "document": document, "instruction": instruction}
        if prompt.text(values) != _render(template, values, has_instruction):
            raise RecipeError("the chat template changes a query, document or instruction before it writes it")


def _render(template: jinja2.Template, values: Mapping[Field, str], has_instruction: bool, seam: str = "") -> str:
    messages = [{"role": "system", "content": values["instruction"]}] if has_instruction else []
    messages += [{"role": role, "content": values[role]} for role in ("query", "document")]
    try:
        return template.render(messages=messages, seam=seam, add_generation_prompt=False)
    except (jinja2.TemplateError, TypeError, ValueError) as error:
        raise RecipeError(f"the chat template refuses the roles query and document: {error}") from error


def _parse(chat_template: str) -> jinja2.Template:
    """The template in an environment with the names and rules that transformers gives to chat templates.

    Source: transformers 5.23, utils/chat_template_utils.py.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    try:
        return environment.from_string(chat_template)
    except jinja2.TemplateError as error:
        raise RecipeError(f"the chat template is not valid jinja: {error}") from error


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
