"""What every form of request asks for: pairs of texts, or rows of token ids -> their logits and counts."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from onelogit.serving.limits import ServingLimits
from onelogit.serving.refusals import RefusalError

if TYPE_CHECKING:
    from onelogit.local.reranker import Reranker
    from onelogit.local.scorer import LocalScorer
    from onelogit.prompts.token_rows import TokenRow

_LARGE_CHARACTERS = 2**18


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringWork:
    """What to score.

    Attributes:
        pairs: queries, which are not blank, and documents.
        instruction: of the pairs; None for the model's default, "" for none.
        max_tokens_per_document: a longer document is cut to its first tokens; None for no limit but the model's.
        may_truncate: whether to cut a document that is too long for the model, or to refuse the request.
        rows: token ids of whole prompts, instead of pairs.
    """

    pairs: list[tuple[str, str]] = field(default_factory=list)
    instruction: str | None = None
    max_tokens_per_document: int | None = None
    may_truncate: bool = True
    rows: list[list[int]] | None = None

    @property
    def count(self) -> int:
        """The number of logits."""
        return len(self.pairs) if self.rows is None else len(self.rows)

    @property
    def character_count(self) -> int:
        """The length of all texts, each query as often as it is paired."""
        return sum(len(query) + len(document) for query, document in self.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredWork:
    """The result.

    Attributes:
        logits: in the order of the request.
        prompt_tokens: of all prompts together.
        truncated_count: how many documents were cut to fit the model.
    """

    logits: list[float]
    prompt_tokens: int
    truncated_count: int


async def score(
    work: ScoringWork, reranker: "Reranker", limits: ServingLimits, large_texts: ThreadPoolExecutor
) -> ScoredWork:
    """The logits of a request, without blocking the event loop; cancelling it takes it from the scheduler's queue.

    Args:
        work: what to score.
        reranker: of the server.
        limits: of the server.
        large_texts: the thread that tokenises the texts of large requests, one request after the other.

    Raises:
        RefusalError: the request is too large, or a document too long.
        InputError: an argument is invalid, or a query too long.
        LogitError: a logit is NaN or infinite.
    """
    if work.count > limits.max_documents:
        raise RefusalError(
            413, f"the request has {work.count} documents; this server takes at most {limits.max_documents} a request"
        )
    scorer = reranker.scorer
    # A token takes up to 250 bytes while a text is tokenised, so a few large bodies at once would fill the memory.
    thread = large_texts if work.character_count > _LARGE_CHARACTERS else None
    rows = await asyncio.get_running_loop().run_in_executor(thread, _rows, work, scorer)
    truncated_count = len({row.owner for row in rows if row.is_truncated})
    if truncated_count and not work.may_truncate:
        raise RefusalError(
            413,
            f"{truncated_count} of {work.count} documents are too long for the model's {scorer.max_tokens} tokens; "
            "shorten them, or set truncate to true",
        )
    logits = await scorer.arow_logits(rows)
    return ScoredWork(logits=logits, prompt_tokens=sum(len(row.ids) for row in rows), truncated_count=truncated_count)


def _rows(work: ScoringWork, scorer: "LocalScorer") -> "list[TokenRow]":
    if work.rows is not None:
        return scorer.checked_rows(work.rows)
    pairs, limit = work.pairs, work.max_tokens_per_document
    if limit is not None:
        cut = scorer.first_tokens([document for _, document in pairs], limit)
        pairs = [(query, document) for (query, _), document in zip(pairs, cut, strict=True)]
    return scorer.rows(pairs, work.instruction)
