"""What an encoder returns, one field at a time."""

from collections.abc import Sequence

from onelogit.prompts.encoder import Encoder


def row_ids(encoder: Encoder, pairs: Sequence[tuple[str, str]], instruction: str | None = None) -> list[list[int]]:
    return [[*row.ids] for row in encoder.rows(pairs, instruction)]


def cacheable_prefixes(encoder: Encoder, pairs: Sequence[tuple[str, str]]) -> list[tuple[int, ...]]:
    return [row.cacheable_prefixes for row in encoder.rows(pairs, None)]
