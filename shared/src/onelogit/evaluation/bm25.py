"""DataSet -> the same with candidates for each query: those that were given, or those that BM25 finds."""

from dataclasses import replace

from onelogit.errors import InputError, optional_import
from onelogit.evaluation.data.dataset import DataSet, JudgedQuery
from onelogit.io.progress import is_shown

_QUERIES_AT_ONCE = 500


def with_candidates(data: DataSet, most: int) -> DataSet:
    """The data with at most that many candidates for each query, best first.

    Args:
        data: whose queries bring what was found, or leave it to BM25 to find.
        most: of each query.
    """
    if all(query.found is not None for query in data.queries):
        cut = [replace(query, found=(query.found or ())[:most]) for query in data.queries]
        return replace(data, queries=cut)
    return replace(data, queries=_found_by_bm25(data, most))


def _found_by_bm25(data: DataSet, most: int) -> list[JudgedQuery]:
    """The queries with the documents that share a word with them.

    Words are as bm25s splits them: at spaces and punctuation, and without those of one letter.
    """
    with optional_import("bm25s", alternative="pass --run"):
        import bm25s  # noqa: PLC0415
    ids = [*data.documents]
    shows = is_shown()
    tokens = bm25s.tokenize([*data.documents.values()], stopwords=None, show_progress=shows, leave=False)
    if not tokens.vocab:
        raise InputError(f"no document of {data.name} has a word that BM25 could find: pass a --run")
    index = bm25s.BM25()
    index.index(tokens, show_progress=shows, leave_progress=False)
    queries: list[JudgedQuery] = []
    for start in range(0, len(data.queries), _QUERIES_AT_ONCE):
        part = data.queries[start : start + _QUERIES_AT_ONCE]
        asked = bm25s.tokenize([query.text for query in part], stopwords=None, show_progress=False, return_ids=False)
        found, scores = index.retrieve(asked, k=min(most, len(ids)), show_progress=False)
        for query, places, values in zip(part, found, scores, strict=True):
            best = tuple(ids[place] for place, value in zip(places, values, strict=True) if value > 0)
            queries.append(replace(query, found=best))
    return queries
