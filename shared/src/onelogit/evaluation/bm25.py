"""Dataset -> the same dataset with candidates for each query: its own, or the results of BM25."""

from dataclasses import replace

from onelogit.errors import InputError, optional_import
from onelogit.evaluation.data.dataset import Dataset, LabelledQuery
from onelogit.io.progress import is_shown

_QUERIES_AT_ONCE = 500


def with_candidates(dataset: Dataset, max_candidates: int) -> Dataset:
    """The dataset with at most `max_candidates` candidates for each query, best first.

    The dataset's own candidates are kept; but if any query's candidates are None, BM25 finds them for all queries.

    Raises:
        InputError: bm25s is not installed, or no document contains a word.
    """
    if all(query.candidates is not None for query in dataset.queries):
        queries = [replace(query, candidates=(query.candidates or ())[:max_candidates]) for query in dataset.queries]
    else:
        queries = _search(dataset, max_candidates)
    return replace(dataset, queries=queries)


def _search(dataset: Dataset, max_candidates: int) -> list[LabelledQuery]:
    """The queries, with the documents that share a word with them as candidates.

    bm25s splits texts at spaces and punctuation, and ignores words of one letter.
    """
    with optional_import("bm25s", alternative="pass --run"):
        import bm25s  # noqa: PLC0415
    ids = [*dataset.documents]
    shows = is_shown()
    tokens = bm25s.tokenize([*dataset.documents.values()], stopwords=None, show_progress=shows, leave=False)
    if not tokens.vocab:
        raise InputError(f"no document of {dataset.name} contains a word that BM25 can index; pass --run")
    index = bm25s.BM25()
    index.index(tokens, show_progress=shows, leave_progress=False)
    queries: list[LabelledQuery] = []
    for start in range(0, len(dataset.queries), _QUERIES_AT_ONCE):
        part = dataset.queries[start : start + _QUERIES_AT_ONCE]
        words = bm25s.tokenize([query.text for query in part], stopwords=None, show_progress=False, return_ids=False)
        positions, scores = index.retrieve(words, k=min(max_candidates, len(ids)), show_progress=False)
        for query, best, values in zip(part, positions, scores, strict=True):
            found = tuple(ids[position] for position, value in zip(best, values, strict=True) if value > 0)
            queries.append(replace(query, candidates=found))
    return queries
