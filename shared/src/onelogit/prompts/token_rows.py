"""What an encoder is given and what it writes: a tokenizer, rows of token ids, prompts as text. Data alone."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tokenizers import Tokenizer

from onelogit.prompts.tokenizer import Row


class HasBackend(Protocol):
    """A tokenizer as far as it matters here: one of transformers with a fast backend, or of `tokenizer_file`."""

    @property
    def backend_tokenizer(self) -> Tokenizer: ...

    @property
    def bos_token(self) -> str | None: ...

    @property
    def model_input_names(self) -> Sequence[str]: ...


class Rows(NamedTuple):
    """One row of token ids for each pair, in the pairs' order; where long documents are read in chunks, one for each.

    Attributes:
        rows: the ids.
        owners: which of the pairs each row belongs to, by its index, ascending.
        truncated_count: how many documents were cut to fit.
        second_starts: where in each row the second text begins, for models that are told; None for all others.
        cacheable_prefixes: for each row, the lengths of the prefixes worth keeping, in tokens and ascending: up to the
            text of the query, up to the text of the document, and up to each text of the caller's behind it. None is 0
            or the whole row. Empty for models that read pairs.
    """

    rows: list[Row]
    owners: Sequence[int]
    truncated_count: int
    second_starts: list[int] | None = None
    cacheable_prefixes: Sequence[tuple[int, ...]] = ()


class Prompts(NamedTuple):
    """Whole prompts as text, with what `Rows` says of them."""

    texts: list[str]
    owners: Sequence[int]
    truncated_count: int
