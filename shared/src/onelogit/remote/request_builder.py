"""Pairs of texts -> requests for their logits, and the pair to which each number of the responses belongs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple, TypeVar

from onelogit.base_reranker import Pairs
from onelogit.contents import ContentDocument
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import PromptText, TokenRow
from onelogit.remote.document_cutter import DocumentCutter, DocumentPart
from onelogit.remote.protocols import ScoreRequest

Item = TypeVar("Item")

_IMAGE_CHARACTERS = 32 * 2**20  # of the images in a request with several documents


class BuiltRequests(NamedTuple):
    """The requests of one call.

    Attributes:
        requests: in the order of the pairs.
        owners: for each number of the responses, the index of its pair; a document in chunks has several numbers.
        truncated_count: how many documents were truncated to fit.
    """

    requests: list[ScoreRequest]
    owners: Sequence[int]
    truncated_count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestBuilder:
    """Builds requests of at most `pairs_a_request` pairs.

    `encoder` writes the prompts; None if the server does. Then `cutter` cuts the documents; None to send them whole.
    """

    encoder: Encoder | None
    cutter: DocumentCutter | None = None
    sends_tokens: bool
    pairs_a_request: int

    def build(self, pairs: Pairs, instruction: str | None, common: ScoreRequest) -> BuiltRequests:
        """The requests of a call. A request of plain documents has a single query; prompts of any queries are mixed.

        Args:
            pairs: texts.
            instruction: None or "" for none.
            common: the fields that all requests share.

        Raises:
            InputError: as `Encoder.rows`.
        """
        if self.encoder is None:
            return self._build_for_template(pairs, instruction, common)
        prompts: Sequence[TokenRow | PromptText]
        if self.sends_tokens:
            prompts = rows = self.encoder.rows(pairs, instruction)
            requests = [replace(common, rows=part) for part in self._split([row.ids for row in rows])]
        else:
            prompts = texts = self.encoder.prompts(pairs, instruction)
            requests = [replace(common, documents=part) for part in self._split([each.text for each in texts])]
        return BuiltRequests(requests, [each.owner for each in prompts], sum(each.is_truncated for each in prompts))

    def _build_for_template(self, pairs: Pairs, instruction: str | None, common: ScoreRequest) -> BuiltRequests:
        parts = self._parts(pairs, instruction)
        requests = [
            replace(common, query=query, documents=documents, instruction=instruction or None)
            for query, group in groupby(parts, key=attrgetter("query"))
            for portion in self._split([part.text for part in group])
            for documents in _small_bodies(portion)
        ]
        return BuiltRequests(requests, [part.owner for part in parts], sum(part.is_truncated for part in parts))

    def _parts(self, pairs: Pairs, instruction: str | None) -> list[DocumentPart]:
        """The parts of all documents. One with images is a single part: only the server can count an image's tokens."""
        whole = [DocumentPart(query, document, owner) for owner, (query, document) in enumerate(pairs)]
        if self.cutter is None:
            return whole
        owners = [part.owner for part in whole if isinstance(part.text, str)]
        cut = self.cutter.parts([pairs[owner] for owner in owners], instruction)
        with_images = [part for part in whole if not isinstance(part.text, str)]
        parts = [*(part._replace(owner=owners[part.owner]) for part in cut), *with_images]
        return sorted(parts, key=attrgetter("owner"))

    def _split(self, items: Sequence[Item]) -> list[Sequence[Item]]:
        size = self.pairs_a_request
        return [items[start : start + size] for start in range(0, len(items), size)]


def _small_bodies(documents: Sequence[str | ContentDocument]) -> Iterator[Sequence[str | ContentDocument]]:
    """The documents in portions whose images are not too much for one request, apart from those of a single one."""
    start = size = 0
    for index, document in enumerate(documents):
        more = 0 if isinstance(document, str) else document.size
        if size and size + more > _IMAGE_CHARACTERS:
            yield documents[start:index]
            start, size = index, 0
        size += more
    yield documents[start:]
