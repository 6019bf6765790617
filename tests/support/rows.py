"""The encoder of a template, what it returns, and texts for it."""

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from onelogit import Recipe
from onelogit.prompts.encoder import Encoder

# Any text without control tokens, or one whose tokens depend on the text around it.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<|>"), max_size=12) | st.text(
    st.sampled_from(" \t\r\n\u3000\u2028.,'!?:/-1aSs漢각\u1100\u1161é\u0301\u0338\u200d\ufe0f😀"), max_size=6
)


def encoder_of(tokenizer: Any, chat_template: str | None, max_tokens: int = 9999, **options: object) -> Encoder:
    recipe = Recipe(family="of a test", chat_template=chat_template, read_out=None, source="a test")
    return Encoder(recipe, tokenizer, {"max_tokens": max_tokens, **options})


def row_ids(encoder: Encoder, pairs: Sequence[tuple[str, str]], instruction: str | None = None) -> list[list[int]]:
    return [[*row.ids] for row in encoder.rows(pairs, instruction)]


def cacheable_lengths(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
    return [row.cacheable_lengths for row in encoder.rows(pairs, None)]
