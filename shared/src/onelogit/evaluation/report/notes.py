"""Evaluation -> warnings and remarks for readers of the results, in sentences."""

from collections.abc import Iterator

from onelogit.errors import counted
from onelogit.evaluation.evaluation import Evaluation, Group
from onelogit.options import DEMO_NOTE, is_demo
from onelogit.recipes.recipe import is_non_commercial

_FEW_QUERIES = 50
SCORE_NOTE = "A score is for ordering a query's documents; it is not a probability of being relevant or true."


def warnings(evaluation: Evaluation) -> Iterator[str]:
    """Reasons why the results could be misunderstood or misused."""
    runs = [result.run for result in evaluation.system_results if result.run is not None]
    if any(is_demo(run.system.spec.name) for run in runs):
        yield DEMO_NOTE
    for run in runs:
        if is_non_commercial(run.model_info.licence):
            yield f"{run.system.name} is licensed {run.model_info.licence}: not for commercial use."
    count = len(evaluation.queries)
    if count < _FEW_QUERIES:
        sample = "A single query has no confidence interval and says" if count == 1 else f"{count} queries say"
        yield f"{sample} little about other queries; use {_FEW_QUERIES} or more to base a decision on."
    yield from _warnings_of_groups(evaluation)


def has_few_queries(group: Group) -> bool:
    """Whether a group is so small that its intervals are wide."""
    return len(group.indices) < _FEW_QUERIES


def interval_note(group: Group) -> str:
    """What to know about the intervals of a group; empty if there is nothing."""
    if len(group.indices) == 1:
        return "no interval"
    return "the intervals are wide" if has_few_queries(group) else ""


def _warnings_of_groups(evaluation: Evaluation) -> Iterator[str]:
    few, count = [group.name for group in evaluation.groups if has_few_queries(group)], len(evaluation.groups)
    if few:
        named = f"The slice {few[0]} has" if len(few) == 1 else f"The slices {', '.join(few)} have"
        which = "Each slice has" if len(few) == count > 1 else named
        yield f"{which} fewer than {_FEW_QUERIES} queries, so that the intervals are wide and say little."
    if count > 1:
        yield (
            f"{count} slices were looked at: about one difference in 20 has an interval without 0 by chance alone. "
            "Repeat what you find in a slice with other queries."
        )


def remarks(evaluation: Evaluation) -> Iterator[str]:
    """Facts about the data that the results depend on."""
    share = evaluation.candidates_recall
    if share > 0.9999:
        yield "All relevant documents are among the candidates."
    else:
        yield f"{share:.1%} of the relevant documents are among the candidates; no order can find the others."
    if evaluation.without_candidates:
        count = evaluation.without_candidates
        yield f"The first stage found nothing for {count:,} of {len(evaluation.queries):,} queries; they count as 0."
    for reason, count in evaluation.dataset.excluded.items():
        yield f"{query_count(count)} {'was' if count == 1 else 'were'} excluded: {reason}."
    for kind, skipped in evaluation.skipped.items():
        yield f"Skipped (--skip-bad): {kind}, {skipped.count:,}; the first is {skipped.first}."
    if any(comparison.p_mrr is not None for comparison in evaluation.comparisons):
        yield "All metrics use the labels of the first instruction; only p-MRR uses the changed labels."
    for result in evaluation.results:
        if result.truncated_count:
            verb = "was" if result.truncated_count == 1 else "were"
            yield f"{result.name}: {counted(result.truncated_count, 'document')} {verb} truncated to fit."


def query_count(count: int) -> str:
    """The count with its noun, such as "1 query" or "1,234 queries"."""
    return "1 query" if count == 1 else f"{count:,} queries"
