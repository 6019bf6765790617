"""A real model's shape -> one model in a device's memory, and the targets that compute with its weights.

Each target has its own model object, because targets change attention, hooks or compiled layers; the weight tensors are
shared. Nothing is written to disk.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from targets import CARDS, Score
from timing import Compute
from torch import nn
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from workload import prompt_rows

from checkpoints import random_model, recipe_with_ids
from onelogit import Recipe, Reranker
from onelogit.conversion.classifier import sequence_classifier
from onelogit.conversion.head import Float32Head, one_logit_head
from onelogit.engine.attention.context import attends_over_prefix_tree, backends_of
from onelogit.engine.forward import converted_head_logits, padded_hidden
from onelogit.engine.scheduler import ScoringCall
from onelogit.prompts.token_rows import TokenRow


class GpuTarget(NamedTuple):
    """A way to compute logits.

    Attributes:
        score: (query, documents) -> one logit per document.
        tokenize: (query, documents) -> a function that computes the same logits from token ids in the host's memory.
        model: that computes.
    """

    score: Score
    tokenize: Callable[[str, Sequence[str]], Compute]
    model: nn.Module


class TargetUnavailable(Exception):  # noqa: N818  a reason to continue without a target
    """A target cannot take part; the message says why."""


@dataclass(frozen=True)
class SharedModel:
    """A model, and everything else that the targets with its weights share.

    Attributes:
        family: of its recipe.
        config: of the model.
        tokenizer: of all targets.
        peer_batch: prompts in one forward pass of Sentence Transformers.
        weights: folder of a language model with that configuration; None for random weights.
    """

    family: str
    config: Qwen3Config
    tokenizer: PreTrainedTokenizerFast
    device: torch.device
    dtype: torch.dtype
    peer_batch: int = 32
    weights: Path | None = None
    _rows: dict[tuple[str, str], list[int]] = field(default_factory=dict)  # all targets need the same ones

    @cached_property
    def recipe(self) -> Recipe:
        """The family's recipe."""
        return recipe_with_ids(self.tokenizer, self.family)

    @cached_property
    def model(self) -> Qwen3ForCausalLM:
        """The language model itself; targets compute with copies of it."""
        if self.weights is None:
            model = random_model(self.config, str(self.device))
        else:
            model = Qwen3ForCausalLM.from_pretrained(self.weights, dtype=torch.bfloat16).eval().to(self.device)
        # Not `.to(bfloat16)`, which would also round the rotary embedding's frequencies.
        return model.float() if self.dtype == torch.float32 else model

    def copy(self) -> Qwen3ForCausalLM:
        """Another model object with the same weight tensors."""
        return deepcopy(self.model, {id(weight): weight for weight in self.model.parameters()})

    def rows(self, query: str, documents: Sequence[str]) -> list[list[int]]:
        """The token ids that transformers makes of the family's chat template."""
        new = [document for document in documents if (query, document) not in self._rows]
        for document, row in zip(new, prompt_rows(self.tokenizer, self.recipe, query, new), strict=True):
            self._rows[query, document] = row
        return [self._rows[query, document] for document in documents]

    def reranker(self, **options: Any) -> Reranker:
        """A reranker with its own model object."""
        model, padding = self.copy(), self.tokenizer.pad_token_id or 0
        classifier = sequence_classifier(model.model, self.head(model), padding)
        return Reranker(classifier, self.tokenizer, self.recipe, **options)

    def head(self, model: Qwen3ForCausalLM) -> Float32Head:
        """The one-logit head."""
        read_out = self.recipe.read_out
        rows = [id for id in (read_out.true, read_out.false) if id is not None]
        return one_logit_head(model.lm_head.weight[rows], None, read_out)


def attention_of(shared: SharedModel, target: GpuTarget) -> str:
    """The name of onelogit's attention on this device, because its fallbacks raise no errors."""
    if not attends_over_prefix_tree(target.model):
        return "padded rows: prefix trees gave other logits when the model was loaded"
    query = torch.empty(1, 1, shared.config.head_dim, device=shared.device, dtype=shared.dtype)
    return f"prefix trees, {next(backend.__name__ for backend in backends_of(query.device) if backend.supports(query))}"


def padded_logits(classifier: nn.Module, rows: Sequence[Sequence[int]]) -> list[float]:
    """The logits of a converted classifier, computed as padded rows."""
    hidden = padded_hidden(classifier, [TokenRow(tuple(row)) for row in rows])
    return converted_head_logits(classifier, hidden).tolist()


def onelogit_target(shared: SharedModel, **options: Any) -> GpuTarget:
    """Onelogit. Token ids go to the scheduler, because no public method takes them."""
    reranker = shared.reranker(**options)

    def tokenize(query: str, documents: Sequence[str]) -> Compute:
        rows = [TokenRow(tuple(row)) for row in shared.rows(query, documents)]

        def compute() -> list[float]:
            with ScoringCall(reranker._scorer._scheduler) as call:
                call.add(rows)
                return call.logits()

        return compute

    return GpuTarget(reranker.logits, tokenize, reranker.classifier)


def compiled_target(shared: SharedModel) -> GpuTarget:
    """Onelogit with compiled layers.

    Raises:
        TargetUnavailable: onelogit does not use compiled layers.
    """
    target = onelogit_target(shared, compile=True)
    layers: Any = target.model.get_submodule("model.layers")
    if all(layer._compiled_call_impl is None for layer in layers):
        raise TargetUnavailable("the compiled layers gave other logits, so onelogit does not use them")
    return target


def card_target(shared: SharedModel) -> GpuTarget:
    """The model card's loop: all prompts at once, left padding, the last token's logits of the whole vocabulary."""
    model, tokenizer = shared.copy(), deepcopy(shared.tokenizer)
    tokenizer.padding_side = "left"
    read = partial(CARDS[shared.family], shared.recipe.read_out)

    def tokenize(query: str, documents: Sequence[str]) -> Compute:
        inputs = tokenizer.pad({"input_ids": shared.rows(query, documents)}, return_tensors="pt")

        @torch.no_grad()
        def compute() -> list[float]:
            on_device = {name: each.to(shared.device) for name, each in inputs.items()}
            return read(model(**on_device).logits[:, -1, :])

        return compute

    return GpuTarget(lambda query, documents: tokenize(query, documents)(), tokenize, model)
