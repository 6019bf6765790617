"""Prompts -> rows, distinct tokens, the arithmetic they need. Nothing here comes from onelogit's own engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from onelogit import Recipe

SEAM = "\x00"


class Work(NamedTuple):
    """What a call asks for.

    Attributes:
        documents: how many pairs.
        prompt_tokens: of all rows together.
        distinct_tokens: places in the tree of all rows: a prefix that several rows share counts once.
        flop: multiplications and additions that cannot be left out; see `needed_flop`.
    """

    documents: int
    prompt_tokens: int
    distinct_tokens: int
    flop: int


def prompt_rows(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, query: str, documents: Sequence[str]
) -> list[list[int]]:
    """The rows as transformers makes them of the chat template, cut where the family's own code joins pieces."""
    instruction = recipe.default_instruction
    system = [{"role": "system", "content": instruction}] if instruction else []
    rows = []
    for document in documents:
        messages = [*system, {"role": "query", "content": query}, {"role": "document", "content": document}]
        text = tokenizer.apply_chat_template(
            messages, chat_template=recipe.chat_template, tokenize=False, add_generation_prompt=True, seam=SEAM
        )
        pieces = [tokenizer.encode(piece, add_special_tokens=False) for piece in text.split(SEAM)]
        rows.append([id for piece in pieces for id in piece])
    return rows


def count_work(rows: Sequence[Sequence[int]], config: PretrainedConfig) -> Work:
    """What these rows ask of a model of this configuration, at least."""
    fresh = list(_fresh_parts(rows))
    return Work(
        documents=len(rows),
        prompt_tokens=sum(map(len, rows)),
        distinct_tokens=sum(end - start for start, end in fresh),
        flop=needed_flop(fresh, config),
    )


def _fresh_parts(rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Of each distinct row, from where to where it is in no row before it: sorted rows share most with neighbours."""
    ordered = [(), *sorted({tuple(row) for row in rows})]
    for before, row in pairwise(ordered):
        shared = next((i for i, (a, b) in enumerate(zip(before, row, strict=False)) if a != b), len(before))
        yield shared, len(row)


def needed_flop(fresh: Sequence[tuple[int, int]], config: PretrainedConfig) -> int:
    """Two for each weight that a token meets and for each product in its attention.

    Of the last layer, every token needs its key and value only; query, output and MLP are needed for rows' last
    tokens. Norms, rotary embeddings, softmax and the one-logit head are not counted.
    """
    width, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    key_value = 2 * width * config.num_key_value_heads * config.head_dim
    others = 2 * width * heads + 3 * width * config.intermediate_size
    tokens = sum(end - start for start, end in fresh)
    seen = sum((end * (end + 1) - start * (start + 1)) // 2 for start, end in fresh)  # each token sees its path
    seen_last = sum(end for _, end in fresh)
    whole = config.num_hidden_layers - 1
    linear = tokens * (key_value * (whole + 1) + others * whole) + len(fresh) * others
    attention = 2 * heads * (seen * whole + seen_last)
    return 2 * (linear + attention)


class TokenCount:
    """How many tokens went through a model's input embeddings, padding included."""

    def __init__(self) -> None:
        self.tokens = 0

    def note(self, _module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        ids = args[0] if args else kwargs["input"]
        self.tokens += ids.numel()


@contextmanager
def counted(embeddings: nn.Module | None) -> Iterator[TokenCount]:
    """Count while the block runs; None for a model that cannot be looked into."""
    count = TokenCount()
    hook = None if embeddings is None else embeddings.register_forward_pre_hook(count.note, with_kwargs=True)
    try:
        yield count
    finally:
        if hook is not None:
            hook.remove()
