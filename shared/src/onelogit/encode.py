"""Prompts -> rows of token ids, each within the limit. Knows tokens, no tensors.

A prompt is cut into runs at its control tokens, and where its tokenizer begins anew whatever stands there; each run is
tokenised whole, so the ids are those of the whole prompt. A caller's text only ever stands inside a run, and runs are
read by a copy of the tokenizer that knows no control tokens. That copy is never asked to truncate or pad: such
settings are shared state, and threads that differ in them corrupt each other's rows without an error.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Encoding
from transformers import PreTrainedTokenizerFast

from onelogit.boundaries import cut_at_boundaries
from onelogit.errors import InputError, RecipeError
from onelogit.recent import RecentIds
from onelogit.runs import Layout, Piece, Values, lay_out, lay_out_pair, split_at_control_tokens
from onelogit.template import Part, Prompt, compile_prompt, takes_instruction
from onelogit.tokens import Row, added_ids, control_ids, without_limits, without_settings

_RECENT_BYTES = 8 * 2**20  # some 5,000 passages of 150 tokens
_OVERLAP = 8  # a chunk begins with this part of the one before, lest a passage on the seam be read in halves only

RunIds = list[Sequence[int]]  # of each run of a row

# Texts that lean on what stands around them.
_PROBES: tuple[Values, ...] = (
    {"query": "What is it?", "document": "It is 1.\n\nTwo.", "instruction": "Say."},
    {"query": " \n", "document": "\n ", "instruction": "\r\n"},
    {"query": "\u0301'", "document": "\u0338s\u0301", "instruction": "\u0301e"},
    {"query": "", "document": "", "instruction": ""},
)


class Rows(NamedTuple):
    """One row of token ids for each pair, in the pairs' order; where long documents are read in chunks, one for each.

    Attributes:
        rows: the ids.
        owners: which of the pairs each row belongs to, by its index, ascending.
        truncated_count: how many documents were cut to fit.
        second_starts: where in each row the second text begins, for models that are told; None for all others.
        stems: for each row the places, in tokens from its start and ascending, in front of which it is worth keeping:
            where the text of its query begins, that of its document, and whatever text of a caller's stands behind
            that. None is 0 or the row's end. Rows of models that read pairs have none.
    """

    rows: list[Row]
    owners: Sequence[int]
    truncated_count: int
    second_starts: list[int] | None = None
    stems: Sequence[tuple[int, ...]] = ()


class Encoder:
    """Writes and tokenises prompts. Safe to share between threads.

    Args:
        tokenizer: the checkpoint's own, with a fast backend.
        chat_template: of the recipe; None for query and document as a pair, joined as the tokenizer joins pairs.
        adds_special_tokens: as in `Recipe`.
        max_tokens: the longest row; of a longer document only as many tokens stand in it as fit, and nothing else is
            ever cut.
        has_chunks: read a document that does not fit in chunks, a row each. Else its beginning stands for it.
        allow_control_tokens: read control tokens that a caller's text spells as such, as the references do.

    Raises:
        RecipeError: the tokenizer reads a prompt in pieces differently than whole.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        chat_template: str | None,
        max_tokens: int,
        *,
        adds_special_tokens: bool = True,
        allow_control_tokens: bool = False,
        has_chunks: bool = False,
    ) -> None:
        backend = without_limits(tokenizer.backend_tokenizer)
        self.max_tokens = max_tokens
        self._has_chunks = has_chunks
        self._chat_template = chat_template
        self._control_ids = control_ids(backend)
        self._run_tokenizer = without_settings(backend, {} if allow_control_tokens else self._control_ids)
        self._recent = RecentIds(_RECENT_BYTES)
        self._bos = tokenizer.bos_token
        self._adds_special_tokens = adds_special_tokens
        self._first_ids, self._last_ids = added_ids(backend)
        self._backend = backend
        is_told_types = "token_type_ids" in tokenizer.model_input_names
        self._has_types = chat_template is None and is_told_types and 1 in backend.encode("a", "b").type_ids
        self._layout = lru_cache(maxsize=2)(self._lay_out)
        self._check_runs()
        if not allow_control_tokens:
            self._check_control_tokens()

    def takes_instruction(self) -> bool:
        """Whether the prompt has a place for an instruction."""
        return self._chat_template is not None and takes_instruction(self._chat_template)

    def rows(self, pairs: Sequence[tuple[str, str]], instruction: str | None) -> Rows:
        """One row for each (query, document), or more for a document in chunks.

        Args:
            pairs: texts; the document may be empty.
            instruction: None or "" for none.

        Raises:
            InputError: a query leaves no room for a document.
        """
        layout = self._layout(bool(instruction))
        values: list[Values] = [
            {"query": query, "document": document, "instruction": instruction or ""} for query, document in pairs
        ]
        whole = self._run_ids(layout, values)
        long = self._long(layout, whole)
        fitting = self._fitting(layout, values, whole, long) if long else {}
        read = [(index, ids) for index, each in enumerate(whole) for ids in fitting.get(index, [each])]
        owners, run_ids = [index for index, _ in read], [ids for _, ids in read]
        truncated_count = 0 if self._has_chunks else len(long)
        rows = [layout.join(ids) for ids in run_ids]
        second_starts = [layout.starts(ids)[1] for ids in run_ids] if self._has_types else None
        return Rows(rows, owners, truncated_count, second_starts, [layout.stems(ids) for ids in run_ids])

    def _lay_out(self, has_instruction: bool) -> Layout:
        """The layout with the shortest runs that give the ids of the longest."""
        if self._chat_template is None:
            return lay_out_pair(self._backend)
        pieces = self._pieces(compile_prompt(self._chat_template, has_instruction))
        short_pieces: list[Piece] = []
        for piece in pieces:
            short_pieces += [piece] if isinstance(piece, int) else cut_at_boundaries(piece, self._run_tokenizer)
        whole, short = lay_out(pieces, self._run_tokenizer), lay_out(short_pieces, self._run_tokenizer)
        is_alike = self._uncut_rows(short, _PROBES) == self._uncut_rows(whole, _PROBES)
        return short if is_alike else whole

    def _pieces(self, prompt: Prompt) -> list[Piece]:
        pieces = [*split_at_control_tokens(prompt, self._control_ids)]
        if not self._adds_special_tokens or (self._bos and prompt.parts[0].text.startswith(self._bos)):
            return pieces  # the template writes the beginning itself
        return [*self._first_ids, *pieces, *self._last_ids]

    def _uncut_rows(self, layout: Layout, values: Iterable[Values]) -> list[Row]:
        return [layout.join(ids) for ids in self._run_ids(layout, values)]

    def _run_ids(self, layout: Layout, values: Iterable[Values]) -> list[RunIds]:
        """The ids of each run of each pair; a text is tokenised once, and not at all where it is still remembered."""
        texts = [layout.texts(value) for value in values]
        unique = dict.fromkeys(text for row in texts for text in row)
        ids_of = self._recent.find(unique)
        if unseen := [text for text in unique if text not in ids_of]:
            encodings = self._run_tokenizer.encode_batch_fast(unseen, add_special_tokens=False)
            fresh = {text: array("I", encoding.ids) for text, encoding in zip(unseen, encodings, strict=True)}
            self._recent.keep(fresh)
            ids_of |= fresh
        return [[ids_of[text] for text in row] for row in texts]

    def _long(self, layout: Layout, run_ids: Sequence[RunIds]) -> dict[int, int]:
        """By how many tokens the rows that do not fit are too long, by their index."""
        excess = [layout.starts(ids)[-1] - self.max_tokens for ids in run_ids]
        return {index: count for index, count in enumerate(excess) if count > 0}

    def _fitting(
        self, layout: Layout, values: Sequence[Values], run_ids: Sequence[RunIds], long: Mapping[int, int]
    ) -> dict[int, list[RunIds]]:
        """The ids of each run of the rows that are too long, once for each chunk of the document."""
        place = layout.document_run
        texts = [layout.texts(values[index])[place] for index in long]
        encodings = self._run_tokenizer.encode_batch(texts, add_special_tokens=False)
        found = {}
        for (index, excess), encoding in zip(long.items(), encodings, strict=True):
            chunks = self._chunks(encoding, layout.document_span(values[index]), excess)
            before, after = run_ids[index][:place], run_ids[index][place + 1 :]
            found[index] = [[*before, chunk, *after] for chunk in chunks]
        return found

    def _chunks(self, encoding: Encoding, document: tuple[int, int], excess: int) -> list[Row]:
        """The ids of a document's run, with as many of the document's tokens as fit: its first, then those behind."""
        start, end = document
        # A token that joins the document's last characters to the frame belongs to the frame.
        inside = [i for i, (first, last) in enumerate(encoding.offsets) if start <= first and last <= end]
        room = len(inside) - excess
        if room < 1:
            raise InputError(
                f"the query, the instruction and the prompt's frame take {self.max_tokens - room} tokens, which leaves "
                f"no room for a document in max_tokens={self.max_tokens}: {1 - room} too many. "
                "Shorten the query or raise max_tokens"
            )
        # The last chunk is as long as the others, so that no few last words stand for a document.
        starts = [*range(0, excess, room - room // _OVERLAP), excess] if self._has_chunks else [0]
        kept = [{*inside[start : start + room]} for start in starts]
        outside = {*range(len(encoding.ids))} - {*inside}
        return [[id for i, id in enumerate(encoding.ids) if i in chunk or i in outside] for chunk in kept]

    def _check_runs(self) -> None:
        """Prove on one prompt that reading it in runs gives the ids of the whole."""
        values = _PROBES[0]
        if self._chat_template is None:
            whole = self._backend.encode(values["query"], values["document"]).ids
        else:
            prompt = compile_prompt(self._chat_template, self.takes_instruction())
            if Part() in prompt.parts:
                return  # seams exist where the reference itself does not read the prompt whole
            text = prompt.text(values)
            is_begun = bool(self._bos) and text.startswith(self._bos)
            whole = self._backend.encode(text, add_special_tokens=self._adds_special_tokens and not is_begun).ids
        (row,) = self._uncut_rows(self._layout(self.takes_instruction()), [values])
        if row != whole:
            raise RecipeError(
                f"this tokenizer reads a prompt differently when it is cut at its control tokens: {row}, not {whole}"
            )

    def _check_control_tokens(self) -> None:
        """Prove that no control token can be spelled."""
        for text, id in self._control_ids.items():
            if id in self._run_tokenizer.encode(text, add_special_tokens=False).ids:
                raise RecipeError(
                    f"this tokenizer reads the plain text {text!r} as the control token {id}; "
                    "allow_control_tokens=True puts up with it"
                )
