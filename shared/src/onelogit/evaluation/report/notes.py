"""Evaluation -> what its reader has to know beside the figures, in sentences."""

from collections.abc import Iterator

from onelogit.evaluation.evaluation import Evaluation
from onelogit.options import DEMO_NOTE, is_demo
from onelogit.recipes.recipe import is_non_commercial

_FEW = 50
ORDER_ONLY = "A score orders the documents of a query; it is no probability that one is relevant, or true."


def warnings(evaluation: Evaluation) -> Iterator[str]:
    """What may mislead who overlooks it."""
    if any(is_demo(entry.run.system.model) for entry in evaluation.systems if entry.run is not None):
        yield DEMO_NOTE
    for entry in evaluation.systems:
        if entry.run is not None and is_non_commercial(entry.run.card.licence):
            yield f"{entry.name} is licensed {entry.run.card.licence}: not for commercial use."
    count = len(evaluation.queries)
    if count < _FEW:
        said = "One query has no interval, and says" if count == 1 else f"{count} queries say"
        yield f"{said} little of others; use {_FEW} or more for a decision."


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """What the figures stand for."""
    share = evaluation.candidates_recall
    is_all = share > 0.9999
    found = "All relevant documents are" if is_all else f"{share:.1%} of the relevant documents are"
    yield f"{found} among the candidates{'.' if is_all else '; no order can find the others.'}"
    if evaluation.without_candidates:
        count = evaluation.without_candidates
        yield f"The first stage found nothing for {count:,} of {len(evaluation.queries):,} queries; they count as 0."
    for reason, count in evaluation.data.left_out.items():
        yield f"{queries(count)} {'was' if count == 1 else 'were'} left out: {reason}."
    for kind, skipped in evaluation.skipped.items():
        yield f"Passed over (--skip-bad): {kind}, {skipped.count:,}; the first is {skipped.first}."
    if any(pairing.p_mrr is not None for pairing in evaluation.pairings):
        yield "Figures are by the labels of the first instruction; those that changed count for p-MRR alone."
    for entry in evaluation.systems:
        if entry.cut_count:
            yield f"{entry.name}: {entry.cut_count:,} documents were cut at their end to fit."


def queries(count: int) -> str:
    """So many queries, in words."""
    return "1 query" if count == 1 else f"{count:,} queries"
