"""A document's run that does not fit -> the parts of the document that do, each as ids and as text."""

from collections.abc import Iterator
from typing import NamedTuple

from tokenizers import Encoding

from onelogit.errors import InputError

_OVERLAP = 8  # a chunk begins with this part of the one before, lest a passage on the seam be read in halves only


class Chunk(NamedTuple):
    """A part of a document.

    Attributes:
        ids: of the document's run, with no more of the document in it than this part.
        start: where the part begins in the run's text, in characters.
        end: where it ends.
    """

    ids: list[int]
    start: int
    end: int


def cut_into_chunks(encoding: Encoding, document: tuple[int, int], excess: int, max_tokens: int) -> Iterator[Chunk]:
    """As many of a document's tokens as fit: its first, and then those behind, chunk by chunk.

    The last chunk is as long as the others, so that no few last words stand for a document.

    Args:
        encoding: of the document's run.
        document: where the document stands in the text of the run, in characters.
        excess: how many tokens the row has too many.
        max_tokens: what the row may have, to be named.

    Raises:
        InputError: not one token fits.
    """
    start, end = document
    # A token that joins the document's last characters to the frame belongs to the frame.
    inside = [i for i, (first, last) in enumerate(encoding.offsets) if start <= first and last <= end]
    room = len(inside) - excess
    if room < 1:
        raise InputError(
            f"the query, the instruction and the prompt's frame take {max_tokens - room} tokens, which leaves no room "
            f"for a document in max_tokens={max_tokens}: {1 - room} too many. Shorten the query or raise max_tokens"
        )
    ids, offsets = encoding.ids, encoding.offsets
    before, after = ids[: inside[0]], ids[inside[-1] + 1 :]
    for begin in (*range(0, excess, room - room // _OVERLAP), excess):
        first, last = inside[begin], inside[begin + room - 1]
        yield Chunk([*before, *ids[first : last + 1], *after], offsets[first][0], offsets[last][1])
