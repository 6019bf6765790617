"""Token ids of queries and documents -> logits; what prompts share is computed once. Independent of texts and loss."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM


class PromptTokens(NamedTuple):
    """The constant token ids of the prompt, and the ids of the two answers."""

    head: list[int]
    middle: list[int]
    tail: list[int]
    true_id: int
    false_id: int


def build_model(vocabulary_tokens: int, eos_token_id: int, pad_token_id: int) -> Qwen3ForCausalLM:
    """A small Qwen3 with random weights."""
    config = Qwen3Config(
        vocab_size=vocabulary_tokens,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=4096,
        rope_parameters={"rope_type": "default", "rope_theta": 1e7},
        tie_word_embeddings=True,
        initializer_range=0.04,
        bos_token_id=None,
        eos_token_id=eos_token_id,
        pad_token_id=pad_token_id,
    )
    config._attn_implementation = (
        "eager"  # on a CPU, training in bfloat16 is 1.5 times as fast as with the fused kernel
    )
    return Qwen3ForCausalLM(config)


class SharedPrompts:
    """Scores many documents per query: the head of the prompt, each query and each document are computed once."""

    def __init__(self, model: Qwen3ForCausalLM, prompt: PromptTokens, *, rows_at_once: int = 12) -> None:
        self.model = model
        self.prompt = prompt
        self.rows_at_once = rows_at_once

    def logits(self, queries: list[list[int]], documents: list[list[list[int]]]) -> Tensor:
        """The logits of all documents, query by query: shape (number of documents,), float32."""
        head = self._compute([self.prompt.head], [], [0])
        query_rows = [ids + self.prompt.middle for ids in queries]
        head_tokens = len(self.prompt.head)
        prefix = self._compute(query_rows, [head.expand(len(queries))], [head_tokens] * len(queries))
        owners = torch.tensor([index for index, group in enumerate(documents) for _ in group])
        rows = [ids + self.prompt.tail for group in documents for ids in group]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        parts = []
        for start in range(0, len(order), self.rows_at_once):
            chosen = order[start : start + self.rows_at_once]
            before = [head.expand(len(chosen)), prefix.select(owners[chosen])]
            starts = [head_tokens + len(query_rows[owner]) for owner in owners[chosen].tolist()]
            parts.append(self._compute([rows[index] for index in chosen], before, starts).last)
        last = torch.cat(parts)[torch.argsort(torch.tensor(order))]
        embedding = self.model.model.embed_tokens.weight
        answer = embedding[self.prompt.true_id].float() - embedding[self.prompt.false_id].float()
        return last.float() @ answer

    def _compute(self, rows: list[list[int]], before: "list[_Segment]", starts: list[int]) -> "_Segment":
        """Compute rows, padded on the right, each after the same row of the given segments."""
        counts = torch.tensor([len(row) for row in rows])
        max_tokens = int(counts.max())
        ids = torch.zeros(len(rows), max_tokens, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        steps = torch.arange(max_tokens)
        causal = (steps[:, None] >= steps).expand(len(rows), -1, -1)
        seen = torch.cat([*(segment.is_token[:, None].expand(-1, max_tokens, -1) for segment in before), causal], dim=2)
        output = self.model.model(
            input_ids=ids,
            attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None],
            position_ids=steps + torch.tensor(starts)[:, None],
            past_key_values=_cache(self.model.config, [segment.states for segment in before]),
            use_cache=True,
        )
        states = [
            (layer.keys[:, :, -max_tokens:], layer.values[:, :, -max_tokens:])
            for layer in output.past_key_values.layers
        ]
        last = output.last_hidden_state[torch.arange(len(rows)), counts - 1]
        return _Segment(states, steps < counts[:, None], last)


class _Segment(NamedTuple):
    """Keys and values of each layer, a mask of the positions with tokens, and the last hidden state of each row."""

    states: list[tuple[Tensor, Tensor]]
    is_token: Tensor
    last: Tensor

    def select(self, rows: Tensor) -> "_Segment":
        """The given rows, which may repeat."""
        states = [tuple(part.index_select(0, rows) for part in layer) for layer in self.states]
        return _Segment(states, self.is_token[rows], self.last[rows])

    def expand(self, count: int) -> "_Segment":
        """The only row, repeated."""
        states = [tuple(part.expand(count, -1, -1, -1) for part in layer) for layer in self.states]
        return _Segment(states, self.is_token.expand(count, -1), self.last.expand(count, -1))


def _cache(config: Qwen3Config, states: list[list[tuple[Tensor, Tensor]]]) -> DynamicCache:
    cache = DynamicCache(config=config)
    for index, layers in enumerate(zip(*states, strict=True)):
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*layers, strict=True))
        cache.update(keys, values, index)
    return cache
