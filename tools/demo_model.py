"""Token ids of queries and documents -> logits, with what prompts share computed once. Knows no text and no loss."""

from typing import NamedTuple

import torch
from torch import Tensor
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM


class Frame(NamedTuple):
    """The constant token ids of the prompt, and the two answers."""

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
    config._attn_implementation = "eager"  # on CPU, bfloat16 trains half as fast again as with the fused kernel
    return Qwen3ForCausalLM(config)


class SharedPrompts:
    """Scores many documents a query: the head of the prompt runs once, each query once, each document once."""

    def __init__(self, model: Qwen3ForCausalLM, frame: Frame, *, rows_at_once: int = 12) -> None:
        self.model = model
        self.frame = frame
        self.rows_at_once = rows_at_once

    def logits(self, queries: list[list[int]], documents: list[list[list[int]]]) -> Tensor:
        """The logits of each query's documents, one after another, shape (number of documents,), float32."""
        head = self._run([self.frame.head], [], [0])
        query_rows = [ids + self.frame.middle for ids in queries]
        head_tokens = len(self.frame.head)
        prefix = self._run(query_rows, [head.expand(len(queries))], [head_tokens] * len(queries))
        owners = torch.tensor([index for index, group in enumerate(documents) for _ in group])
        rows = [ids + self.frame.tail for group in documents for ids in group]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        parts = []
        for start in range(0, len(order), self.rows_at_once):
            chosen = order[start : start + self.rows_at_once]
            before = [head.expand(len(chosen)), prefix.select(owners[chosen])]
            starts = [head_tokens + len(query_rows[owner]) for owner in owners[chosen].tolist()]
            parts.append(self._run([rows[index] for index in chosen], before, starts).last)
        last = torch.cat(parts)[torch.argsort(torch.tensor(order))]
        embedding = self.model.model.embed_tokens.weight
        answer = embedding[self.frame.true_id].float() - embedding[self.frame.false_id].float()
        return last.float() @ answer

    def _run(self, rows: list[list[int]], before: "list[_Run]", starts: list[int]) -> "_Run":
        """Run rows, padded on the right, after what the runs before them hold for each row."""
        counts = torch.tensor([len(row) for row in rows])
        widest = int(counts.max())
        ids = torch.zeros(len(rows), widest, dtype=torch.long)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
        steps = torch.arange(widest)
        own = (steps[:, None] >= steps).expand(len(rows), -1, -1)
        seen = torch.cat([*(run.real[:, None].expand(-1, widest, -1) for run in before), own], dim=2)
        output = self.model.model(
            input_ids=ids,
            attention_mask=torch.where(seen, 0.0, torch.finfo(torch.float32).min)[:, None],
            position_ids=steps + torch.tensor(starts)[:, None],
            past_key_values=_cache(self.model.config, [run.states for run in before]),
            use_cache=True,
        )
        states = [(layer.keys[:, :, -widest:], layer.values[:, :, -widest:]) for layer in output.past_key_values.layers]
        last = output.last_hidden_state[torch.arange(len(rows)), counts - 1]
        return _Run(states, steps < counts[:, None], last)


class _Run(NamedTuple):
    """Keys and values of each layer, which of their places hold tokens, and the last hidden state of each row."""

    states: list[tuple[Tensor, Tensor]]
    real: Tensor
    last: Tensor

    def select(self, rows: Tensor) -> "_Run":
        """These rows, any number of times each."""
        states = [tuple(part.index_select(0, rows) for part in layer) for layer in self.states]
        return _Run(states, self.real[rows], self.last[rows])

    def expand(self, count: int) -> "_Run":
        """The only row, so many times."""
        states = [tuple(part.expand(count, -1, -1, -1) for part in layer) for layer in self.states]
        return _Run(states, self.real.expand(count, -1), self.last.expand(count, -1))


def _cache(config: Qwen3Config, states: list[list[tuple[Tensor, Tensor]]]) -> DynamicCache:
    cache = DynamicCache(config=config)
    for index, layers in enumerate(zip(*states, strict=True)):
        keys, values = (torch.cat(parts, dim=2) for parts in zip(*layers, strict=True))
        cache.update(keys, values, index)
    return cache
