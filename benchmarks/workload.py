"""Prompts -> token ids, distinct tokens, and the arithmetic they need. Independent of onelogit's own engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import NamedTuple

from torch import nn
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from onelogit import Recipe

SEAM = "\x00"


class CallWork(NamedTuple):
    """What a call requires.

    Attributes:
        documents: number of query-document pairs.
        prompt_tokens: in all rows together.
        distinct_tokens: nodes in the prefix tree of all rows: a prefix that several rows share counts once.
        flop: required multiplications and additions; see `needed_flop`.
    """

    documents: int
    prompt_tokens: int
    distinct_tokens: int
    flop: int


def messages_of(recipe: Recipe, query: str, document: str) -> list[dict[str, str]]:
    """The input of the recipe's chat template."""
    instruction = recipe.default_instruction
    system = [{"role": "system", "content": instruction}] if instruction else []
    return [*system, {"role": "query", "content": query}, {"role": "document", "content": document}]


def prompt_rows(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, query: str, documents: Sequence[str]
) -> list[list[int]]:
    """The token ids that transformers makes of the chat template, split where the family's own code joins texts."""
    rows = []
    for document in documents:
        text = tokenizer.apply_chat_template(
            messages_of(recipe, query, document),
            chat_template=recipe.chat_template,
            tokenize=False,
            add_generation_prompt=True,
            seam=SEAM,
        )
        parts = [tokenizer.encode(part, add_special_tokens=False) for part in text.split(SEAM)]
        rows.append([id for part in parts for id in part])
    return rows


def count_work(rows: Sequence[Sequence[int]], config: PretrainedConfig) -> CallWork:
    """The least work that a model of this configuration has with these rows."""
    new = list(_new_spans(rows))
    return CallWork(
        documents=len(rows),
        prompt_tokens=sum(map(len, rows)),
        distinct_tokens=sum(end - start for start, end in new),
        flop=needed_flop(new, config),
    )


def _new_spans(rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    """The (start, end) of each distinct row that no row before it has: sorted rows share most with their neighbours."""
    ordered = [(), *sorted({tuple(row) for row in rows})]
    for before, row in pairwise(ordered):
        shared = next((i for i, (a, b) in enumerate(zip(before, row, strict=False)) if a != b), len(before))
        yield shared, len(row)


def needed_flop(new: Sequence[tuple[int, int]], config: PretrainedConfig) -> int:
    """Two operations for each weight that a token meets and for each product in its attention.

    In the last layer every token needs its key and value only, and rows' last tokens also query, output and MLP. Norms,
    rotary embeddings, softmax and the one-logit head are not counted.

    Args:
        new: for each distinct row, the (start, end) of its tokens that no other row has computed.
        config: of the model.
    """
    width, heads = config.hidden_size, config.num_attention_heads * config.head_dim
    key_value = 2 * width * config.num_key_value_heads * config.head_dim
    others = 2 * width * heads + 3 * width * config.intermediate_size
    tokens = sum(end - start for start, end in new)
    attended = sum((end * (end + 1) - start * (start + 1)) // 2 for start, end in new)  # each token attends to its path
    attended_last = sum(end for _, end in new)
    full_layers = config.num_hidden_layers - 1
    linear = tokens * (key_value * (full_layers + 1) + others * full_layers) + len(new) * others
    attention = 2 * heads * (attended * full_layers + attended_last)
    return 2 * (linear + attention)


@contextmanager
def counted_tokens(embeddings: nn.Module | None) -> Iterator[list[int]]:
    """A list of the tokens in each forward pass of the block, padding included; None for a model that has no module."""
    counts: list[int] = []

    def count(_module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]) -> None:
        counts.append((args[0] if args else kwargs["input"]).numel())

    hook = None if embeddings is None else embeddings.register_forward_pre_hook(count, with_kwargs=True)
    try:
        yield counts
    finally:
        if hook is not None:
            hook.remove()
