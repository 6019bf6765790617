"""The model of a tokenizer, as in tokenizer.json -> the same model without any spelling of some ids.

Most vocabularies contain control tokens as plain text. Which texts reach them depends on the tokenizer: the best path
of a Unigram model, a merge of a BPE model, a whole word of a WordPiece model. So they are renamed to a text that nobody
can write, because it is drawn at random, and no text reaches their ids.
"""

import re
import secrets
from collections.abc import Collection
from typing import Any

_BYTE = re.compile("<0x[0-9A-F]{2}>")


def without_spellings(model: dict[str, Any], ids: Collection[int]) -> dict[str, Any]:
    """A copy of the model in which no text gives one of the ids, except those that texts consist of.

    These are single characters, the bytes of characters outside the vocabulary, and the unknown token of all others.
    Other ids, and the scores that decide between them, stay as they are.
    """
    vocabulary, has_bytes = model["vocab"], bool(model.get("byte_fallback"))

    def is_renamed(token: str, id: int) -> bool:
        return id in ids and len(token) > 1 and not (has_bytes and _BYTE.fullmatch(token))

    if isinstance(vocabulary, list):  # of a Unigram model: pairs of a token and its score, in the order of their ids
        pairs = enumerate(vocabulary)
        named = [[_secret_name(id), score] if is_renamed(token, id) else [token, score] for id, (token, score) in pairs]
        return {**model, "vocab": named}
    names = {token: _secret_name(id) for token, id in vocabulary.items() if is_renamed(token, id)}
    changed = {**model, "vocab": {names.get(token, token): id for token, id in vocabulary.items()}}
    if (unknown := model.get("unk_token")) is not None:
        changed["unk_token"] = names.get(unknown, unknown)
    if merges := model.get("merges"):
        changed["merges"] = _without_names(merges, names, len(model.get("continuing_subword_prefix") or ""))
    return changed


def _without_names(merges: list[Any], names: Collection[str], prefix_length: int) -> list[Any]:
    """The merges that neither use nor give one of the tokens; a merge is a list of two, or a text with a space."""
    pairs = ((merge, merge if isinstance(merge, list) else merge.split(" ", 1)) for merge in merges)
    return [
        merge
        for merge, (left, right) in pairs
        if left not in names and right not in names and left + right[prefix_length:] not in names
    ]


def _secret_name(id: int) -> str:
    return f"\ufdd0{secrets.token_hex(16)}-{id}"
