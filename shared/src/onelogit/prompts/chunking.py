"""The span of a document that does not fit -> chunks of the document that fit, as ids and as text."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple, cast

from tokenizers import Encoding, Tokenizer

from onelogit.errors import InputError
from onelogit.prompts.layout import Layout, Values, fill
from onelogit.prompts.token_rows import TokenRow

_OVERLAP = 8  # a chunk repeats 1/8 of the chunk before, so that a passage cut by one of them is whole in the other
_DOCUMENTS_AT_A_TIME = 16  # enough for all cores
_NEIGHBOURS = ("a", " a", "1", ".", "\n", "漢")  # no tokenizer joins constant text with all of them


class Window(NamedTuple):
    """A part of a document, from the token `begin` to the token before `end`."""

    begin: int
    end: int


class DocumentTokens:
    """The tokens of a document within those of its span.

    A token that joins constant text with the document belongs to the document: a chunk that lacks it has the constant
    text alone.

    Args:
        tokenizer: of spans.
        text: of the document's span.
        encoding: of this text.
        document: the beginning and end of the document in this text, in characters.
        row_length: the number of tokens of the whole prompt.
    """

    def __init__(
        self, tokenizer: Tokenizer, text: str, encoding: Encoding, document: tuple[int, int], row_length: int
    ) -> None:
        self._tokenizer, self._text, self._encoding, self._ids = tokenizer, text, encoding, encoding.ids
        self._start, self._stop = document
        total = len(self._ids)
        self._first = next((i for i in range(total) if self._is_inside(i)), total)
        self._end = next((i + 1 for i in range(total - 1, self._first - 1, -1) if self._is_inside(i)), self._first)
        self._outside = row_length - total
        self._count = self._end - self._first
        self._is_joined_before = self._count > 0 and self._place(self._first)[0] < self._start
        self._is_joined_after = self._count > 0 and self._place(self._end - 1)[1] > self._stop

    def _place(self, index: int) -> tuple[int, int]:
        """The beginning and end of a token in the text. `Encoding.offsets` would take 100 bytes for each token."""
        return cast("tuple[int, int]", self._encoding.token_to_chars(index))

    def _is_inside(self, index: int) -> bool:
        first, last = self._place(index)
        return self._start < last and first < self._stop

    @cached_property
    def _positions(self) -> list[int]:
        """Where each token of the document begins in the text, and where the last one ends."""
        if not self._count:
            return [self._start]
        begins = [first for first, _ in self._encoding.offsets[self._first + 1 : self._end]]
        return [*accumulate([self._start, *begins, self._stop], max)]

    @cached_property
    def _before(self) -> list[int]:
        """The ids before a chunk that is not the first."""
        if self._is_joined_before:
            return _constant_ids(self._tokenizer, self._text[: self._start], is_before=True)
        return self._ids[: self._first]

    @cached_property
    def _after(self) -> list[int]:
        """The ids after a chunk that is not the last."""
        if self._is_joined_after:
            return _constant_ids(self._tokenizer, self._text[self._stop :], is_before=False)
        return self._ids[self._end :]

    def span_ids(self, window: Window) -> list[int]:
        """The ids of the span with only a part of the document."""
        before = self._ids[: self._first] if window.begin == 0 else self._before
        after = self._ids[self._end :] if window.end == self._count else self._after
        return [*before, *self._ids[self._first + window.begin : self._first + window.end], *after]

    @property
    def whole_text(self) -> str:
        """The document, as the template writes it."""
        return self._text[self._start : self._stop]

    def text(self, window: Window) -> str:
        """A part of the document as text. It begins and ends between characters, even if tokens do not."""
        return self._text[self._positions[window.begin] : self._positions[window.end]]

    def windows(self, max_tokens: int) -> Iterator[Window]:
        """The document's first tokens, as many as fit, then the following chunks.

        The last chunk is as long as the others, so that it is not scored by only a few words.

        Args:
            max_tokens: the limit of the row. A document that fits is a single window.

        Raises:
            InputError: not even one token fits.
        """
        left = max_tokens - self._outside
        if len(self._ids) <= left:
            yield Window(0, self._count)
            return
        room = min(left - len(self._ids[: self._first]) - len(self._after), self._count - 1)
        _check_room(room, max_tokens)
        yield Window(0, room)
        begin = room - room // _OVERLAP
        room = left - len(self._before) - max(len(self._after), len(self._ids) - self._end)
        _check_room(room, max_tokens)
        while begin + room < self._count:
            yield Window(begin, begin + room)
            begin += room - room // _OVERLAP
        yield Window(max(self._count - room, 1), self._count)

    def texts(self, windows: Sequence[Window], excess_of: Callable[[str], int], *, is_whole: bool) -> Iterator[str]:
        """The texts of the windows, or of slightly different ones if these are too long.

        Args:
            windows: from the document's beginning, without gaps.
            excess_of: a part of the document -> the number of tokens by which its prompt is too long.
            is_whole: whether the texts must contain the end of the last window, too.

        Raises:
            InputError: not even one character fits.
        """
        covered = 0
        for begin, end in windows[:-1] if is_whole else windows:
            window = self._with_earlier_end(Window(min(begin, covered), end), excess_of)
            yield self.text(window)
            covered = window.end
        while is_whole and covered < self._count:
            last = Window(min(windows[-1].begin, covered), self._count)
            window = self._with_later_begin(last, covered, excess_of) or self._with_earlier_end(
                Window(covered, self._count), excess_of
            )
            yield self.text(window)
            covered = window.end

    def _with_earlier_end(self, window: Window, excess_of: Callable[[str], int]) -> Window:
        begin, end = window
        # The first window that has a character: several tokens may be parts of the same one.
        least = next(n for n in range(begin + 1, self._count + 1) if self._positions[n] > self._positions[begin])
        end = max(end, least)
        while (excess := excess_of(self.text(Window(begin, end)))) > 0:
            if end == least:
                raise InputError(
                    "the query, the instruction and the constant text of the prompt leave no room for the character "
                    f"{self.text(Window(begin, end))!r} of a document, which a server tokenises: {excess} tokens too "
                    "many. Shorten the query or the instruction, or raise max_tokens"
                )
            end = max(end - excess, least)
        return Window(begin, end)

    def _with_later_begin(self, window: Window, latest: int, excess_of: Callable[[str], int]) -> Window | None:
        begin, end = window
        while (excess := excess_of(self.text(Window(begin, end)))) > 0:
            if begin == latest:
                return None
            begin = min(begin + excess, latest)
        return Window(begin, end)


def tokens_of_documents(
    tokenizer: Tokenizer, layout: Layout, values: Sequence[Values], rows: Sequence[TokenRow]
) -> Iterator[tuple[int, DocumentTokens]]:
    """The tokens of the documents of some whole rows, one by one, each with the index of the row's pair.

    Only a few are in memory at a time: with its position in the text, a token takes 200 bytes.

    Args:
        tokenizer: of spans.
        layout: of the rows.
        values: the texts of each pair.
        rows: without a limit.
    """
    for start in range(0, len(rows), _DOCUMENTS_AT_A_TIME):
        some = rows[start : start + _DOCUMENTS_AT_A_TIME]
        texts = [fill(layout.document_span, values[row.owner]) for row in some]
        encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
        for row, text, encoding in zip(some, texts, encodings, strict=True):
            offsets = layout.document_offsets(values[row.owner])
            yield row.owner, DocumentTokens(tokenizer, text, encoding, offsets, len(row.ids))


def _check_room(room: int, max_tokens: int) -> None:
    if room < 1:
        raise InputError(
            f"the query, the instruction and the constant text of the prompt take {max_tokens - room} tokens, which "
            f"leaves no room for a document in max_tokens={max_tokens}: {1 - room} too many. Shorten the query or "
            "the instruction, or raise max_tokens"
        )


def _constant_ids(tokenizer: Tokenizer, text: str, *, is_before: bool) -> list[int]:
    """The ids of constant text next to a document, from a neighbour with which the tokenizer does not join it."""
    for neighbour in _NEIGHBOURS:
        encoding = tokenizer.encode(text + neighbour if is_before else neighbour + text, add_special_tokens=False)
        border = len(text) if is_before else len(neighbour)
        if all(last <= border or border <= first for first, last in encoding.offsets):
            own = [last <= border if is_before else first >= border for first, last in encoding.offsets]
            return [id for id, is_own in zip(encoding.ids, own, strict=True) if is_own]
    return list(tokenizer.encode(text, add_special_tokens=False).ids)
