"""Names -> those who compute logits around one model in a device's memory: onelogit, and its peers."""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import torch
from contestants import CARD, CARDS, COMPILED, ONELOGIT, SENTENCE_TRANSFORMERS
from cross_encoders import head_alone, unpadded, with_logit_score
from device_clock import Call
from lineup import Absent, Entrant, Lineup

from onelogit import Reranker
from onelogit.engine.attention.flash_varlen import FlashVarlenAttention
from onelogit.engine.attention.hooks import attends_over_prefix_tree
from onelogit.engine.scheduler import ScoringCall
from onelogit.errors import first_line
from onelogit.prompts.token_rows import TokenRow

HEAD_ALONE = "Sentence Transformers, head alone"
UNPADDED = "Sentence Transformers, unpadded"
OURS = (ONELOGIT, COMPILED)


def enter(name: str, lineup: Lineup) -> Entrant:
    """Make one ready by its name.

    Raises:
        Absent: what it needs is not here.
    """
    try:
        return _ENTRANTS[name](lineup)
    except Absent:
        raise
    except Exception as error:  # compilers and optional packages fail in ways of their own; the run goes on
        raise Absent(f"{type(error).__name__}: {first_line(error)}") from error


def of_reranker(lineup: Lineup, reranker: Reranker) -> Entrant:
    """onelogit; its rows are handed in behind the tokenizer, where no public door is."""

    def tokenised(query: str, documents: Sequence[str]) -> Call:
        rows = [TokenRow(tuple(row)) for row in lineup.rows(query, documents)]

        def compute() -> list[float]:
            with ScoringCall(reranker._scorer._scheduler) as call:
                call.add(rows)
                return call.logits()

        return compute

    return Entrant(reranker.logits, tokenised, reranker.classifier)


def _compiled(lineup: Lineup) -> Entrant:
    entrant = of_reranker(lineup, lineup.reranker(compile=True))
    layers: Any = entrant.model.get_submodule("model.layers")
    if all(layer._compiled_call_impl is None for layer in layers):
        raise Absent("compiled, it gives other numbers, and so it computes plain")
    return entrant


def way_of(lineup: Lineup, entrant: Entrant) -> str:
    """How onelogit computes here: what it falls back to, it falls back to without an error."""
    if not attends_over_prefix_tree(entrant.model):
        return "padded rows: forests gave other numbers when it was loaded"
    query = torch.empty(1, 1, lineup.shape.head_dim, device=lineup.device, dtype=lineup.dtype)
    return "forests, all segments at once" if FlashVarlenAttention.supports(query) else "forests, segment by segment"


def _card(lineup: Lineup) -> Entrant:
    """As the card shows it: all at once, left padding, logits of the whole vocabulary at each place, the last read."""
    model, tokenizer = lineup.twin(), deepcopy(lineup.tokenizer)
    tokenizer.padding_side = "left"
    read = CARDS[lineup.shape.family](lineup.recipe.read_out)

    def tokenised(query: str, documents: Sequence[str]) -> Call:
        inputs = tokenizer.pad({"input_ids": lineup.rows(query, documents)}, return_tensors="pt")

        @torch.no_grad()
        def compute() -> list[float]:
            near = {name: each.to(lineup.device) for name, each in inputs.items()}
            return read(model(**near).logits[:, -1, :])

        return compute

    return Entrant(lambda query, documents: tokenised(query, documents)(), tokenised, model)


_ENTRANTS: dict[str, Callable[[Lineup], Entrant]] = {
    ONELOGIT: lambda lineup: of_reranker(lineup, lineup.reranker()),
    COMPILED: _compiled,
    SENTENCE_TRANSFORMERS: with_logit_score,
    HEAD_ALONE: head_alone,
    UNPADDED: unpadded,
    CARD: _card,
}
