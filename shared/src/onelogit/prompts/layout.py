"""A prompt -> its layout: constant token ids, and the spans of text between them, which differ between pairs.

A cache keeps the ids of spans that were tokenised lately.
"""

import re
import sys
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

from tokenizers import Tokenizer

from onelogit.errors import RecipeError
from onelogit.processes import new_lock
from onelogit.prompts.token_rows import TokenRow

Field = Literal["query", "document", "instruction"]
FIELDS: tuple[Field, ...] = get_args(Field)
Values = Mapping[Field, str]
Ids: TypeAlias = "array[int]"


class Part(NamedTuple):
    """A part of a prompt: constant `text`, a `field` for one of the caller's texts, or a seam, which has neither.

    The template may strip white space from a field: `is_stripped`.
    """

    text: str = ""
    field: Field | None = None
    is_stripped: bool = False


SEAM = Part()  # no token crosses it: the texts on both sides are tokenised separately
Span = tuple[Part, ...]  # parts of a prompt that follow each other


def fill(span: Span, values: Values) -> str:
    """The text of a span, with the caller's texts in its fields; `values` must contain all of its fields."""
    return "".join(_fill_part(part, values) for part in span)


def _fill_part(part: Part, values: Values) -> str:
    if part.field is None:
        return part.text
    text = values[part.field]
    return text.strip() if part.is_stripped else text


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt as `constant_ids[0] variable_spans[0] constant_ids[1] ... variable_spans[-1] constant_ids[-1]`.

    Attributes:
        constant_ids: token ids, in one tuple more than there are variable spans; a tuple may be empty.
        variable_spans: each is tokenised as a whole and contains at least one field.
        document_span_index: index of the variable span with the document.
        cacheable_spans: indices of the variable spans before which a cacheable prefix ends.
        constant_types: the token_type_ids of `constant_ids`; empty if all are 0, and for models without them.
        span_types: those of the variable spans, one for each.
    """

    constant_ids: tuple[tuple[int, ...], ...]
    variable_spans: tuple[Span, ...]
    document_span_index: int
    cacheable_spans: frozenset[int]
    constant_types: tuple[tuple[int, ...], ...] = ()
    span_types: tuple[int, ...] = ()

    @property
    def document_span(self) -> Span:
        return self.variable_spans[self.document_span_index]

    @property
    def is_document_first(self) -> bool:
        """Whether the document comes before the query."""
        fields = [part.field for span in self.variable_spans for part in span]
        return fields.index("document") < fields.index("query")

    def texts(self, values: Values) -> list[str]:
        """The text of each variable span."""
        return [fill(span, values) for span in self.variable_spans]

    def row(self, span_ids: Sequence[Iterable[int]], owner: int = 0) -> TokenRow:
        """The whole row, from the ids of each variable span; `owner` is as in `TokenRow`."""
        ids: list[int] = []
        types: list[int] = []
        starts = []
        for index, (constant, variable) in enumerate(zip(self.constant_ids, (*span_ids, ()), strict=True)):
            ids += constant
            starts.append(len(ids))
            ids += variable
            if self.constant_types:
                types += [*self.constant_types[index], *[(*self.span_types, 0)[index]] * (len(ids) - starts[index])]
        prefixes = [start for index, start in enumerate(starts) if index in self.cacheable_spans]
        prefixes = [length for length in dict.fromkeys(prefixes) if 0 < length < len(ids)]
        return TokenRow(tuple(ids), tuple(types), tuple(prefixes), owner)

    def document_offsets(self, values: Values) -> tuple[int, int]:
        """The beginning and end of the document in the text of its span, in characters."""
        span = self.document_span
        index = next(i for i, part in enumerate(span) if part.field == "document")
        return len(fill(span[:index], values)), len(fill(span[: index + 1], values))


def lay_out(ids_and_spans: Iterable[int | Span], tokenizer: Tokenizer) -> Layout:
    """The layout of a prompt from a chat template: its token ids and spans of text, in order.

    The tokenizer tokenises the constant spans.
    """
    constant_ids: list[list[int]] = [[]]
    spans: list[Span] = []
    for item in ids_and_spans:
        if isinstance(item, int):
            constant_ids[-1].append(item)
        elif any(part.field for part in item):
            spans.append(item)
            constant_ids.append([])
        else:
            constant_ids[-1] += tokenizer.encode(fill(item, {}), add_special_tokens=False).ids
    fields = [{part.field for part in span} for span in spans]
    document_span_index = next(i for i, present in enumerate(fields) if "document" in present)
    cacheable_spans = frozenset(i for i, present in enumerate(fields) if "query" in present or i >= document_span_index)
    return Layout(tuple(map(tuple, constant_ids)), tuple(spans), document_span_index, cacheable_spans)


def lay_out_pair(backend: Tokenizer, *, has_types: bool) -> Layout:
    """The layout of a pair that the tokenizer joins: query and document, with its special tokens around them.

    Raises:
        RecipeError: it joins no pairs.
    """
    pair = backend.encode("a", "b")
    query, document = ([i for i, sequence in enumerate(pair.sequence_ids) if sequence == n] for n in (0, 1))
    if not query or not document or query[-1] > document[0]:
        raise RecipeError("this tokenizer does not join two texts, one after the other; pass a recipe with a prompt")
    constants = slice(query[0]), slice(query[-1] + 1, document[0]), slice(document[-1] + 1, None)
    spans = (Part(field="query"),), (Part(field="document"),)
    constant_ids, types = (tuple(tuple(each[part]) for part in constants) for each in (pair.ids, pair.type_ids))
    if not has_types or not any(pair.type_ids):
        return Layout(constant_ids, spans, 1, frozenset())
    return Layout(constant_ids, spans, 1, frozenset(), types, (pair.type_ids[query[0]], pair.type_ids[document[0]]))


def split_at_control_tokens(prompt: Span, control_ids: Mapping[str, int]) -> Iterator[int | Span]:
    """The parts of a prompt in order: ids of control tokens, and the spans of text between control tokens and seams."""
    longest_first = sorted(control_ids, key=len, reverse=True)
    pattern = f"({'|'.join(map(re.escape, longest_first))})" if control_ids else "((?!))"
    span: list[Part] = []
    for part in prompt:
        is_seam = part == SEAM
        for text in re.split(pattern, part.text):
            if span and (is_seam or text in control_ids):
                yield tuple(span)
                span = []
            if text in control_ids:
                yield control_ids[text]
            elif text or part.field:
                span.append(part._replace(text=text))
    if span:
        yield tuple(span)


class TokenCache:
    """Token ids by text; the least recently used are evicted first. Safe to share between threads.

    Texts and ids together take at most `max_bytes`, without the overhead of the dictionary.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._used_bytes = 0
        self._ids_of: OrderedDict[str, Ids] = OrderedDict()
        self._lock = new_lock()

    def __reduce__(self) -> tuple[type["TokenCache"], tuple[int]]:
        return TokenCache, (self._max_bytes,)  # a lock cannot be copied; a copy is empty

    def find(self, texts: Iterable[str]) -> dict[str, Ids]:
        """The ids of the texts that are cached. Do not change them: they belong to the cache."""
        found = {}
        with self._lock:
            for text in texts:
                if text in self._ids_of:
                    self._ids_of.move_to_end(text)
                    found[text] = self._ids_of[text]
        return found

    def add(self, ids_of: Mapping[str, Ids]) -> None:
        """Cache the ids of some texts."""
        with self._lock:
            for text, ids in ids_of.items():
                if text not in self._ids_of and _byte_count(text, ids) <= self._max_bytes:
                    self._ids_of[text] = ids
                    self._used_bytes += _byte_count(text, ids)
            while self._used_bytes > self._max_bytes:
                self._used_bytes -= _byte_count(*self._ids_of.popitem(last=False))


def _byte_count(text: str, ids: Ids) -> int:
    return sys.getsizeof(text) + sys.getsizeof(ids)
