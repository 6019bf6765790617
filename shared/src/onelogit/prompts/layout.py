"""A prompt -> its layout: frames of constant ids, and between them the runs of text that each pair fills anew."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tokenizers import Tokenizer

from onelogit.prompts.boundaries import Run
from onelogit.prompts.template import Field, Part, Prompt, fill
from onelogit.prompts.tokenizer import any_of

Piece = int | Run
Values = Mapping[Field, str]

_QUERY: Run = (Part(field="query"),)
_DOCUMENT: Run = (Part(field="document"),)


@dataclass(frozen=True, slots=True)
class Layout:
    """A prompt as `frames[0] runs[0] frames[1] ... runs[-1] frames[-1]`.

    Attributes:
        frames: token ids, one frame more than there are runs; empty where a run begins or ends the prompt, or two meet.
        runs: parts that are tokenised together, at least one of them a caller's text.
        document_run: which of the runs holds the document.
        stem_runs: which of the runs begin where what was read so far is worth keeping.
    """

    frames: tuple[tuple[int, ...], ...]
    runs: tuple[Run, ...]
    document_span_index: int
    cacheable_spans: frozenset[int]

    @property
    def is_document_first(self) -> bool:
        """Whether the document stands in front of the query."""
        fields = [part.field for run in self.runs for part in run]
        return next(field for field in fields if field in ("query", "document")) == "document"

    def texts(self, values: Values) -> list[str]:
        """The text of each run, in order."""
        return [_text(run, values) for run in self.runs]

    def join(self, run_ids: Sequence[Iterable[int]]) -> tuple[int, ...]:
        """One row.

        Args:
            run_ids: the ids of each run, in order.
        """
        row = [*self.frames[0]]
        for ids, frame in zip(run_ids, self.frames[1:], strict=True):
            row += ids
            row += frame
        return tuple(row)

    def with_document(self, run_ids: Sequence[Sequence[int]], document: Sequence[int]) -> list[Sequence[int]]:
        """The ids of each run, with others in place of the document's run."""
        return [document if index == self.document_span_index else ids for index, ids in enumerate(run_ids)]

    def starts(self, run_ids: Sequence[Sequence[int]]) -> list[int]:
        """Where each run begins in the row, and where the row ends, in tokens."""
        starts, place = [], 0
        for frame, ids in zip(self.frames, (*run_ids, ()), strict=True):
            place += len(frame)
            starts.append(place)
            place += len(ids)
        return starts

    def cacheable_prefixes(self, run_ids: Sequence[Sequence[int]]) -> tuple[int, ...]:
        """Where a row can be cut, in tokens from its start, ascending; see `TokenRow`."""
        *starts, end = self.starts(run_ids)
        places = [start for run, start in enumerate(starts) if run in self.cacheable_spans]
        return tuple(dict.fromkeys(place for place in places if 0 < place < end))

    def document_text(self, values: Values, start: int, end: int) -> str:
        """A part of the text of the document's run."""
        return _text(self.runs[self.document_span_index], values)[start:end]

    def document_span(self, values: Values) -> tuple[int, int]:
        """Where the document stands in the text of its run, in characters."""
        run = self.runs[self.document_span_index]
        place = next(i for i, part in enumerate(run) if part.field == "document")
        start = len(_text(run[:place], values))
        return start, start + len(fill(run[place], values))


def lay_out(pieces: Iterable[Piece], tokenizer: Tokenizer) -> Layout:
    """The layout of a prompt of its own template.

    Args:
        pieces: ids and runs in order.
        tokenizer: reads the runs that are constant.
    """
    frames: list[list[int]] = [[]]
    runs: list[Run] = []
    for piece in pieces:
        if isinstance(piece, int):
            frames[-1].append(piece)
        elif any(part.field for part in piece):
            runs.append(piece)
            frames.append([])
        else:
            frames[-1] += tokenizer.encode(_text(piece, {}), add_special_tokens=False).ids
    fields = [{part.field for part in run} for run in runs]
    document_span_index = next(i for i, held in enumerate(fields) if "document" in held)
    cacheable_spans = frozenset(i for i, held in enumerate(fields) if "query" in held or i >= document_span_index)
    return Layout(tuple(map(tuple, frames)), tuple(runs), document_span_index, cacheable_spans)


def lay_out_pair(backend: Tokenizer) -> Layout:
    """What the tokenizer makes of a pair: its own tokens, and between them the query and the document."""
    query, document = (backend.encode(text, add_special_tokens=False).ids for text in ("a", "b"))
    full = backend.encode("a", "b").ids
    start = next(i for i in range(len(full)) if full[i : i + len(query)] == query)
    after = start + len(query)
    second = next(i for i in range(after, len(full)) if full[i : i + len(document)] == document)
    frames = full[:start], full[after:second], full[second + len(document) :]
    return Layout(tuple(map(tuple, frames)), (_QUERY, _DOCUMENT), 1, frozenset())


def split_at_control_tokens(prompt: Prompt, control_ids: Mapping[str, int]) -> Iterator[Piece]:
    """A prompt's pieces in order: control tokens as ids, and between them, and between its seams, runs."""
    pattern = any_of(control_ids)
    run: list[Part] = []
    for part in prompt.parts:
        is_seam = part == Part()
        for text in re.split(pattern, part.text):
            if run and (is_seam or text in control_ids):
                yield tuple(run)
                run = []
            if text in control_ids:
                yield control_ids[text]
            elif text or part.field:
                run.append(part._replace(text=text))
    if run:
        yield tuple(run)


def _text(run: Run, values: Values) -> str:
    return "".join(fill(part, values) for part in run)
