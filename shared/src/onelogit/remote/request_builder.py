"""Pairs of texts -> the requests that ask for their logits, and whose the answers are."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

from onelogit.base_reranker import Pairs
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import PromptText, TokenRow
from onelogit.remote.protocols import ProtocolSpec, ScoreRequest

Item = TypeVar("Item")


class BuiltRequests(NamedTuple):
    """What a call asks.

    Attributes:
        bodies: one a request.
        counts: how many answers each has.
        owners: of each answer the pair that it is for; several are for a document in chunks.
        truncated_count: how many documents were cut at their end to fit; 0 if the server writes the prompts.
    """

    bodies: list[dict[str, Any]]
    counts: list[int]
    owners: Sequence[int]
    truncated_count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBuilder:
    """How pairs become requests.

    Attributes:
        dialect: the server's.
        encoder: writes the prompts; None where the server does.
        sends_tokens: token ids, and no texts.
        pairs_a_request: at most.
    """

    protocol_spec: ProtocolSpec
    encoder: Encoder | None
    sends_tokens: bool
    pairs_a_request: int

    def asked(self, pairs: Pairs, instruction: str | None, one: ScoreRequest) -> BuiltRequests:
        """The requests of a call: for tokens and whole prompts in any mixture, else one query in each.

        Args:
            pairs: texts.
            instruction: None or "" for none.
            one: what all requests have in common.

        Raises:
            InputError: as `Encoder.rows`.
        """
        if self.encoder is None:
            asks = [
                replace(one, query=query, documents=part, instruction=instruction or None)
                for query, documents in _by_query(pairs)
                for part in self._parts(documents)
            ]
            return self._request(asks, range(len(pairs)))
        if self.sends_tokens:
            rows = self.encoder.rows(pairs, instruction)
            requests = [replace(one, rows=part) for part in self._parts([row.ids for row in rows])]
            return self._request_prompts(requests, rows)
        prompts = self.encoder.prompts(pairs, instruction)
        requests = [replace(one, documents=part) for part in self._parts([prompt.text for prompt in prompts])]
        return self._request_prompts(requests, prompts)

    def _parts(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        most = self.pairs_a_request
        return [items[start : start + most] for start in range(0, len(items), most)]

    def _request_prompts(
        self, requests: Sequence[ScoreRequest], prompts: Sequence[TokenRow | PromptText]
    ) -> BuiltRequests:
        built = self._request(requests, [prompt.owner for prompt in prompts])
        return built._replace(truncated_count=sum(prompt.is_truncated for prompt in prompts))

    def _request(self, asks: Sequence[ScoreRequest], owners: Sequence[int]) -> BuiltRequests:
        return BuiltRequests([self.protocol_spec.build(ask) for ask in asks], [ask.count for ask in asks], owners)


def _by_query(pairs: Pairs) -> list[tuple[str, list[str]]]:
    """Neighbours with the same query, together."""
    groups: list[tuple[str, list[str]]] = []
    for query, document in pairs:
        if not groups or groups[-1][0] != query:
            groups.append((query, []))
        groups[-1][1].append(document)
    return groups
