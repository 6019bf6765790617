"""A real model's shape -> a model with random weights in a device's memory, as often as somebody computes with it.

Each who computes has a model object of his own, for each changes his own (its attention, its hooks, its compiled
layers); the weights in them are the same tensors. Nothing is written to a disk.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from contestants import Score
from counting import prompt_rows
from device_clock import Call
from shapes import Shape, config_of
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from checkpoints import random_model, recipe_with_ids
from onelogit import Recipe, Reranker
from onelogit.conversion.classifier import sequence_classifier
from onelogit.conversion.head import Float32Head, one_logit_head


class Entrant(NamedTuple):
    """One way to get logits.

    Attributes:
        score: (query, documents) -> a raw logit each.
        tokenised: the same, in two steps: what is called at last begins with rows of token ids, in the host's memory.
        model: what computes.
    """

    score: Score
    tokenised: Callable[[str, Sequence[str]], Call]
    model: nn.Module


class Absent(Exception):  # noqa: N818  it is no error
    """Why one cannot take part."""


@dataclass(frozen=True)
class Lineup:
    """A model, and what all who compute with it have in common.

    Attributes:
        shape: of the model.
        layers: how many of the shape's.
        tokenizer: that all of them read with.
        peer_batch: prompts in one pass of Sentence Transformers.
        weights: folder of a language model of that shape; None for random ones.
    """

    shape: Shape
    layers: int
    tokenizer: PreTrainedTokenizerFast
    device: torch.device
    dtype: torch.dtype
    peer_batch: int = 32
    weights: Path | None = None
    _rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # everyone asks for the same ones

    @cached_property
    def recipe(self) -> Recipe:
        """Of the shape's family."""
        return recipe_with_ids(self.tokenizer, self.shape.family)

    @cached_property
    def config(self) -> Qwen3Config:
        """Of the model."""
        return config_of(self.shape, self.layers, is_tied=True)

    @cached_property
    def model(self) -> Qwen3ForCausalLM:
        """The language model itself, which nobody computes with: they all get `twin`s."""
        if self.weights is None:
            model = random_model(self.shape, self.layers, is_tied=True, device=str(self.device))
        else:
            model = Qwen3ForCausalLM.from_pretrained(self.weights, dtype=torch.bfloat16).eval().to(self.device)
        # Not `.to(bfloat16)`, which it is already: that would round the rotary embedding's frequencies as well.
        return model.float() if self.dtype == torch.float32 else model

    def twin(self) -> Qwen3ForCausalLM:
        """Another model object around the same weights."""
        return deepcopy(self.model, {id(weight): weight for weight in self.model.parameters()})

    def rows(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        """Of token ids, as transformers makes them of the family's chat template."""
        new = [document for document in documents if (query, document) not in self._rows]
        for document, row in zip(new, prompt_rows(self.tokenizer, self.recipe, query, new), strict=True):
            self._rows[query, document] = row
        return [self._rows[query, document] for document in documents]

    def reranker(self, **options: Any) -> Reranker:
        """A reranker around a twin of its own."""
        model, padding = self.twin(), self.tokenizer.pad_token_id or 0
        classifier = sequence_classifier(model.model, self.head(model), padding)
        return Reranker(classifier, self.tokenizer, self.recipe, **options)

    def head(self, model: Qwen3ForCausalLM) -> Float32Head:
        """The row of the one logit."""
        read_out = self.recipe.read_out
        rows = [id for id in (read_out.true, read_out.false) if id is not None]
        return one_logit_head(model.lm_head.weight[rows], None, read_out)
