"""A tokenizer -> its control tokens, what it adds to a text, and copies of it without settings."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Protocol

from tokenizers import Tokenizer


class FastTokenizer(Protocol):
    """What prompts need of a tokenizer: one of transformers with a fast backend, or the result of `read_tokenizer`."""

    @property
    def backend_tokenizer(self) -> Tokenizer: ...

    @property
    def bos_token(self) -> str | None: ...

    @property
    def model_input_names(self) -> Sequence[str]: ...


def without_limits(backend: Tokenizer) -> Tokenizer:
    """The tokenizer itself, or a copy where it was saved with truncation or padding switched on."""
    if backend.truncation is None and backend.padding is None:
        return backend
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def control_ids(backend: Tokenizer) -> dict[str, int]:
    """Every added token that acts on the model: the special ones, and those that stand outside the vocabulary.

    `<think>` and `<tool_call>` of Qwen3 are not marked special, but no text is meant to spell them. Gemma's added
    runs of newlines are plain vocabulary, and stay text.
    """
    vocabulary = backend.get_vocab(with_added_tokens=False)
    return {
        token.content: id
        for id, token in backend.get_added_tokens_decoder().items()
        if token.special or token.content not in vocabulary
    }


def any_of(texts: Iterable[str]) -> str:
    """A pattern that finds any of some texts, the longest first, as a group."""
    longest_first = sorted(texts, key=len, reverse=True)
    return f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "((?!))"


def without_settings(backend: Tokenizer, removed: Iterable[str]) -> Tokenizer:
    """A copy of the tokenizer that adds nothing, cuts nothing, pads nothing, and does not know `removed`."""
    content = json.loads(backend.to_str())
    forgotten = set(removed)
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in forgotten]
    if content["model"]["type"] == "Unigram":
        # Its vocabulary holds control tokens as pieces of text: so unlikely, they are never chosen.
        vocabulary = content["model"]["vocab"]
        content["model"]["vocab"] = [[piece, -1e6 if piece in forgotten else score] for piece, score in vocabulary]
    return Tokenizer.from_str(json.dumps({**content, "truncation": None, "padding": None, "post_processor": None}))


def added_ids(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    bare = backend.encode("a", add_special_tokens=False).ids
    full = backend.encode("a", add_special_tokens=True).ids
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]
