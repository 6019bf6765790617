"""Pairs for a server that writes the prompts -> the parts of their documents that fit, by the model's own tokenizer."""

import sys
from copy import copy
from functools import partial
from itertools import islice
from typing import NamedTuple

from onelogit.base_reranker import Pairs
from onelogit.checkpoints.load_encoder import LoadedEncoder
from onelogit.prompts.chunking import DocumentTokens
from onelogit.prompts.tokenizer import without_limits
from onelogit.validation import Document


class DocumentPart(NamedTuple):
    """A whole document, or a part of one.

    Attributes:
        query: of its pair.
        text: the document or the part; or a whole document with images.
        owner: index of the pair; a document in chunks has several parts.
        is_truncated: whether the rest of the document is not read at all.
    """

    query: str
    text: Document
    owner: int
    is_truncated: bool = False


class DocumentCutter:
    """Cuts documents so that the model's prompt for each part has at most `max_tokens` tokens.

    Args:
        loaded: the model's encoder, whose prompt the server is assumed to write.
        has_chunks: True to keep all of a long document, in chunks; False to keep its beginning.
    """

    def __init__(self, loaded: LoadedEncoder, *, has_chunks: bool) -> None:
        self.max_tokens = loaded.encoder.max_tokens
        self._has_chunks = has_chunks
        self._tokenizer = without_limits(loaded.tokenizer)
        self._encoder = copy(loaded.encoder)
        self._encoder.max_tokens = sys.maxsize  # it counts the tokens of whole prompts

    def parts(self, pairs: Pairs, instruction: str | None) -> list[DocumentPart]:
        """The parts of all documents, in order.

        Args:
            pairs: texts.
            instruction: as sent to the server; None for the model's default.

        Raises:
            InputError: a query leaves no room for a document.
        """
        instruction = self._encoder.checked_instruction(instruction)
        parts: list[DocumentPart] = []
        for owner, row in enumerate(self._encoder.rows(pairs, instruction)):
            query, document = pairs[owner]
            if len(row.ids) <= self.max_tokens:
                parts.append(DocumentPart(query, document, owner))
                continue
            encoding = self._tokenizer.encode(document, add_special_tokens=False)
            tokens = DocumentTokens(self._tokenizer, document, encoding, (0, len(document)), len(row.ids))
            windows = [*islice(tokens.windows(self.max_tokens), None if self._has_chunks else 1)]
            texts = tokens.texts(windows, partial(self._excess, query, instruction), is_whole=self._has_chunks)
            parts += [DocumentPart(query, text, owner, is_truncated=not self._has_chunks) for text in texts]
        return parts

    def _excess(self, query: str, instruction: str | None, document: str) -> int:
        """The number of tokens by which a prompt is too long; negative if it fits."""
        return len(self._encoder.rows([(query, document)], instruction)[0].ids) - self.max_tokens
