"""A LlamaIndex prompt -> the text of an instruction, in which only `{query_str}` is left to fill."""

import re

from llama_index.core.prompts import PromptTemplate, RichPromptTemplate, SelectorPromptTemplate
from llama_index.core.prompts.utils import format_string

from onelogit import InputError

_QUERY = "{query_str}"
# A variable of a PromptTemplate, or of a RichPromptTemplate. JSON, a single brace and { this } are text.
_VARIABLE = re.compile(r"\{\{\s*[A-Za-z_][\w.]*\s*\}\}|\{[A-Za-z_][\w.]*\}|\{\s*query_str\b[^{}]*\}")


def instruction_text(prompt: object) -> str | None:
    """The text of a prompt template, with all its variables filled except the query; strings and None are unchanged.

    Raises:
        InputError: it is something else, such as a chat; a variable has no value; or the query is changed.
    """
    if isinstance(prompt, SelectorPromptTemplate):
        return instruction_text(prompt.select())
    if prompt is None or isinstance(prompt, str):
        _check_text(prompt)
        return prompt
    if not isinstance(prompt, PromptTemplate | RichPromptTemplate) or getattr(prompt, "is_chat_template", False):
        kind = f"{type(prompt).__module__.partition('.')[0]}.{type(prompt).__name__}"
        raise InputError(
            f"instruction must be a string, or a PromptTemplate or RichPromptTemplate without chat, not a {kind}"
        )
    mappings = prompt.template_var_mappings or {}
    values = {mappings.get(name, name) for name in ("query_str", *prompt.kwargs, *(prompt.function_mappings or {}))}
    _refuse([f"{{{name}}}" for name in prompt.template_vars if name not in values])
    text = prompt.format(query_str=_QUERY)
    if prompt.format(query_str="{another}").replace("{another}", _QUERY) != text:
        raise InputError("the prompt of the instruction changes the query; it can only insert {query_str} as it is")
    return instruction_text(text)


def _check_text(text: str | None) -> None:
    """Check that a text has no variable other than `{query_str}`.

    Raises:
        InputError: it has others; the message names them.
    """
    _refuse([name for name in _VARIABLE.findall(text or "") if name != _QUERY])


def filled(prompt: object, query: str) -> str | None:
    """The instruction for one query; raises as `instruction_text`."""
    text = instruction_text(prompt)
    return None if text is None else format_string(text, query_str=query)


def _refuse(variables: list[str]) -> None:
    if variables:
        named = " and ".join(dict.fromkeys(variables))
        raise InputError(
            f"nothing fills {named} in the instruction: only {{query_str}} is filled, with the query; give others a "
            "value with partial_format, or write text in braces as { text }"
        )
