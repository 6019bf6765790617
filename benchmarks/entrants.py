"""Names -> those who compute logits around one model in a device's memory: onelogit, and its peers."""

from collections.abc import Callable, Sequence
from copy import deepcopy

import torch
from contestants import CARD, CARDS, ONELOGIT, SENTENCE_TRANSFORMERS
from cross_encoders import head_alone, unpadded, with_logit_score
from device_clock import Call
from lineup import Absent, Entrant, Lineup

from onelogit import Reranker
from onelogit.passes import TokenRow

COMPILED = "onelogit, compiled"
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
        raise Absent(f"{type(error).__name__}: {error}".strip().splitlines()[0]) from error


def of_reranker(lineup: Lineup, reranker: Reranker) -> Entrant:
    """onelogit; its rows are handed in behind the tokenizer, where no public door is."""

    def tokenised(query: str, documents: Sequence[str]) -> Call:
        rows = [TokenRow(tuple(row)) for row in lineup.rows(query, documents)]
        return lambda: reranker._scorer._service.logits(rows)

    return Entrant(reranker.logits, tokenised, reranker.classifier)


def _card(lineup: Lineup) -> Entrant:
    """As the card shows it: all at once, left padding, logits of the whole vocabulary at each place, the last read."""
    model, tokenizer = lineup.twin(), deepcopy(lineup.tokenizer)
    tokenizer.padding_side = "left"
    read = CARDS[lineup.shape.family](lineup.recipe.read_out)

    def tokenised(query: str, documents: Sequence[str]) -> Call:
        inputs = tokenizer.pad({"input_ids": lineup.rows(query, documents)}, return_tensors="pt")

        @torch.no_grad()
        def compute() -> list[float]:
            return read(model(**inputs.to(lineup.device)).logits[:, -1, :])

        return compute

    return Entrant(lambda query, documents: tokenised(query, documents)(), tokenised, model)


_ENTRANTS: dict[str, Callable[[Lineup], Entrant]] = {
    ONELOGIT: lambda lineup: of_reranker(lineup, lineup.reranker()),
    COMPILED: lambda lineup: of_reranker(lineup, lineup.reranker(compile=True)),
    SENTENCE_TRANSFORMERS: with_logit_score,
    HEAD_ALONE: head_alone,
    UNPADDED: unpadded,
    CARD: _card,
}
