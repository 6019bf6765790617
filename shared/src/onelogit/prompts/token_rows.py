"""The results of an encoder: prompts as token ids, or as text."""

from typing import NamedTuple


class TokenRow(NamedTuple):
    """One prompt as token ids.

    Attributes:
        ids: at least one.
        types: the token_type_ids; empty if all are 0, and for models without them.
        cacheable_lengths: lengths of the prefixes that other rows may share, in tokens, ascending: up to the text of
            the query, up to the text of the document, and up to each of the caller's texts after it. Never 0 or the
            whole row. Empty for models that read pairs.
        owner: index of the pair; a document read in chunks has one row for each chunk.
        is_truncated: whether the document was truncated to fit.
    """

    ids: tuple[int, ...]
    types: tuple[int, ...] = ()
    cacheable_lengths: tuple[int, ...] = ()
    owner: int = 0
    is_truncated: bool = False


class PromptText(NamedTuple):
    """One prompt as text; `owner` and `is_truncated` as in `TokenRow`."""

    text: str
    owner: int
    is_truncated: bool
