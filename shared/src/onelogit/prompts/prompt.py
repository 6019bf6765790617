"""The rows of one pair -> Prompt, for people to look at: its text, parts, tokens and answers. No tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

from tokenizers import Tokenizer

from onelogit.prompts.chunking import DocumentTokens
from onelogit.prompts.layout import Field, Layout, Span, Values, fill, split_at_control_tokens
from onelogit.prompts.token_rows import TokenRow
from onelogit.prompts.tokenizer import added_ids, token_id, token_text
from onelogit.recipes.recipe import ReadOut, Recipe

DOUBTFUL_PROMPT = "This is probably not the prompt that the model was trained on"

PartKind = Literal["control", "constant", Field]


class PromptPart(NamedTuple):
    """A part of a prompt: a control token, constant text of the template, or one of the caller's texts."""

    kind: PartKind
    text: str


class AnswerToken(NamedTuple):
    """A token that the logit is read from; its text begins with a space if the token does."""

    text: str
    id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt as the model reads it; `str` gives its text.

    Attributes:
        text: the whole prompt, with the tokens that the tokenizer adds.
        ids: its token ids.
        parts: of the text, in order.
        answers: the true token and, for a difference, the false token; empty if the model has its own head.
        max_tokens: the longest prompt, in tokens.
        whole_token_count: the number of tokens if the document were not cut.
        unread: the end of the document, which is cut off; "" if it fits. With long_documents="chunk_max", the other
            chunks read it.
        chunk_count: how many prompts the document is read in; this is the first.
    """

    text: str
    ids: tuple[int, ...]
    parts: tuple[PromptPart, ...]
    answers: tuple[AnswerToken, ...]
    max_tokens: int
    whole_token_count: int
    unread: str = ""
    chunk_count: int = 1

    @property
    def is_cut(self) -> bool:
        """Whether the document does not fit into `max_tokens`."""
        return self.whole_token_count > self.max_tokens

    def __str__(self) -> str:
        return self.text

    def to_json(self) -> dict[str, Any]:
        """All attributes, as data for JSON."""
        named = {name: [each._asdict() for each in getattr(self, name)] for name in ("parts", "answers")}
        return {**asdict(self), "ids": [*self.ids], **named, "token_count": len(self.ids), "is_cut": self.is_cut}


def adds_tokens_to(text: str, recipe: Recipe, bos: str) -> bool:
    """Whether to add the tokenizer's special tokens to a prompt, which may already begin with the first one."""
    return recipe.adds_special_tokens and not (bos and text.startswith(bos))


def prompt_items(
    prompt: Span, recipe: Recipe, bos: str, backend: Tokenizer, control_ids: Mapping[str, int]
) -> list[int | Span]:
    """A whole prompt in order: the ids of control tokens, and the spans of text between them."""
    items: list[int | Span] = [*split_at_control_tokens(prompt, control_ids)]
    first_ids, last_ids = added_ids(backend) if adds_tokens_to(prompt[0].text, recipe, bos) else ([], [])
    return [*first_ids, *items, *last_ids]


def items_of_pair(layout: Layout) -> list[int | Span]:
    """`prompt_items` of a pair that the tokenizer joins."""
    items: list[int | Span] = []
    for ids, span in zip(layout.constant_ids, (*layout.variable_spans, None), strict=True):
        items += ids if span is None else (*ids, span)
    return items


def describe_prompt(
    recipe: Recipe,
    backend: Tokenizer,
    items: Sequence[int | Span],
    values: Values,
    tokens: DocumentTokens,
    rows: Sequence[TokenRow],
    whole: TokenRow,
    max_tokens: int,
) -> Prompt:
    """The first prompt of a pair.

    Args:
        recipe: names the answers.
        backend: gives the texts of tokens.
        items: of the whole prompt, from `prompt_items` or `items_of_pair`.
        values: the caller's texts.
        tokens: of the document.
        rows: of the pair, none longer than the limit.
        whole: the row without the limit.
        max_tokens: the limit of a row.
    """
    read = tokens.text(next(tokens.windows(max_tokens)))
    parts: list[PromptPart] = []
    for item in items:
        if isinstance(item, int):
            parts.append(PromptPart("control", str(backend.id_to_token(item))))
            continue
        for part in item:
            text = read if part.field == "document" else fill((part,), values)
            parts.append(PromptPart(part.field or "constant", text))
    return Prompt(
        text="".join(part.text for part in parts),
        ids=rows[0].ids,
        parts=tuple(part for part in parts if part.text),
        answers=answer_tokens(recipe.read_out, backend),
        max_tokens=max_tokens,
        whole_token_count=len(whole.ids),
        unread=tokens.whole_text[len(read) :],
        chunk_count=len(rows),
    )


def answer_tokens(read_out: ReadOut | None, backend: Tokenizer) -> tuple[AnswerToken, ...]:
    """The true token of a read-out and, if it has one, the false token; none for a model with its own head.

    Raises:
        RecipeError: a text is not one token.
    """
    tokens = () if read_out is None else (read_out.true, read_out.false)
    unknown = getattr(backend.model, "unk_token", None)
    ids = [token_id(token, backend, unknown) for token in tokens if token is not None]
    return tuple(AnswerToken(token_text(id, backend), id) for id in ids)
