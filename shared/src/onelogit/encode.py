"""Prompts -> rows of token ids, each within the limit. Knows tokens, no tensors.

A prompt is cut at its control tokens into runs, and each run is tokenised whole, so the ids are those of the whole
prompt. A caller's text only ever stands inside a run, and runs are read by a copy of the tokenizer that knows no
control tokens. That copy is never asked to truncate or pad: such settings are shared state, and threads that differ
in them corrupt each other's rows without an error.
"""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import NamedTuple

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from onelogit.errors import InputError, RecipeError
from onelogit.template import Field, Part, Prompt, compile_prompt, fill, takes_instruction
from onelogit.tokens import Row, added_ids, any_of, control_ids, without_limits, without_settings

Run = tuple[Part, ...]

_QUERY: Run = (Part(field="query"),)
_DOCUMENT: Run = (Part(field="document"),)


class Rows(NamedTuple):
    """One row of token ids for each pair, in the pairs' order.

    Attributes:
        rows: the ids.
        truncated_count: how many documents were cut to fit.
        second_starts: where in each row the second text begins, for models that are told; None for all others.
    """

    rows: list[Row]
    truncated_count: int
    second_starts: list[int] | None = None


class Encoder:
    """Writes and tokenises prompts. Safe to share between threads: nothing in it changes.

    Args:
        tokenizer: the checkpoint's own, with a fast backend.
        chat_template: of the recipe; None for query and document as a pair, joined as the tokenizer joins pairs.
        adds_special_tokens: as in `Recipe`.
        max_tokens: the longest row; longer documents lose tokens at their end, and nothing else is ever cut.
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
    ) -> None:
        backend = without_limits(tokenizer.backend_tokenizer)
        self.max_tokens = max_tokens
        self._chat_template = chat_template
        self._control_ids = control_ids(backend)
        self._control_pattern = any_of(self._control_ids)
        self._run_tokenizer = without_settings(backend, {} if allow_control_tokens else self._control_ids)
        self._bos = tokenizer.bos_token
        self._adds_special_tokens = adds_special_tokens
        self._first_ids, self._last_ids = added_ids(backend)
        self._pair_pieces = _pair_pieces(backend) if chat_template is None else ()
        is_told_types = "token_type_ids" in tokenizer.model_input_names
        self._has_types = chat_template is None and is_told_types and 1 in backend.encode("a", "b").type_ids
        self._runs_of = lru_cache(maxsize=64)(self._split_at_control_tokens)
        self._check_runs(backend)
        if not allow_control_tokens:
            self._check_control_tokens()

    def takes_instruction(self) -> bool:
        """Whether the prompt has a place for an instruction."""
        return self._chat_template is not None and takes_instruction(self._chat_template)

    def rows(self, pairs: Sequence[tuple[str, str]], instruction: str | None) -> Rows:
        """One row for each (query, document).

        Args:
            pairs: texts; the document may be empty.
            instruction: None or "" for none.

        Raises:
            InputError: a query leaves no room for a document.
        """
        pieces = self._pieces(bool(instruction))
        values: list[dict[Field, str]] = [
            {"query": query, "document": document, "instruction": instruction or ""} for query, document in pairs
        ]
        texts = [_run_texts(pieces, value) for value in values]
        ids_of = self._tokenize(text for row in texts for text in row)
        rows = [_join(pieces, [ids_of[text] for text in row]) for row in texts]
        truncated = [index for index, row in enumerate(rows) if len(row) > self.max_tokens]
        for index in truncated:
            rows[index] = self._cut(pieces, values[index], len(rows[index]))
        return Rows(rows, len(truncated), self._second_starts(texts, ids_of))

    def _pieces(self, has_instruction: bool) -> tuple[int | Run, ...]:
        if self._chat_template is None:
            return self._pair_pieces
        return self._runs_of(compile_prompt(self._chat_template, has_instruction))

    def _second_starts(self, texts: Iterable[list[str]], ids_of: dict[str, Row]) -> list[int] | None:
        if not self._has_types:
            return None
        added = sum(isinstance(piece, int) for piece in self._pair_pieces[: self._pair_pieces.index(_DOCUMENT)])
        return [added + len(ids_of[query]) for query, _ in texts]

    def _tokenize(self, texts: Iterable[str]) -> dict[str, Row]:
        unique = list(dict.fromkeys(texts))
        encodings = self._run_tokenizer.encode_batch_fast(unique, add_special_tokens=False)
        return {text: encoding.ids for text, encoding in zip(unique, encodings, strict=True)}

    def _cut(self, pieces: Sequence[int | Run], values: dict[Field, str], length: int) -> Row:
        """The row of one pair with as many tokens taken from the document's end as do not fit."""
        runs = [piece for piece in pieces if not isinstance(piece, int)]
        encodings = [self._run_tokenizer.encode(text, add_special_tokens=False) for text in _run_texts(pieces, values)]
        place = next(i for i, run in enumerate(runs) if any(part.field == "document" for part in run))
        start, end = _document_span(runs[place], values)
        # A token that joins the document's last characters to the frame belongs to the frame.
        offsets = enumerate(encodings[place].offsets)
        inside = [i for i, (first, last) in offsets if start <= first and last <= end]
        excess = length - self.max_tokens
        if excess >= len(inside):
            used = length - len(inside)
            raise InputError(
                f"the query, the instruction and the prompt's frame take {used} tokens, which leaves no room for a "
                f"document in max_tokens={self.max_tokens}: {used - self.max_tokens + 1} too many. "
                "Shorten the query or raise max_tokens"
            )
        dropped = set(inside[len(inside) - excess :])
        run_ids = [encoding.ids for encoding in encodings]
        run_ids[place] = [id for i, id in enumerate(run_ids[place]) if i not in dropped]
        return _join(pieces, run_ids)

    def _split_at_control_tokens(self, prompt: Prompt) -> tuple[int | Run, ...]:
        """A prompt's pieces in order: control tokens as ids, and between them runs of parts."""
        pieces: list[int | Run] = []
        run: list[Part] = []

        def end_run() -> None:
            if run:
                pieces.append(tuple(run))
                run.clear()

        for part in prompt.parts:
            if part == Part():  # a seam
                end_run()
                continue
            for text in re.split(self._control_pattern, part.text) if part.field is None else [None]:
                if text is None:
                    run.append(part)
                elif text in self._control_ids:
                    end_run()
                    pieces.append(self._control_ids[text])
                elif text:
                    run.append(Part(text))
        end_run()
        if not self._adds_special_tokens or (self._bos and prompt.parts[0].text.startswith(self._bos)):
            return tuple(pieces)  # the template writes the beginning itself
        return (*self._first_ids, *pieces, *self._last_ids)

    def _check_runs(self, backend: Tokenizer) -> None:
        """Prove on one prompt that reading it in runs gives the ids of the whole."""
        values: dict[Field, str] = {"query": "What is it?", "document": "It is 1.\n\nTwo.", "instruction": "Say."}
        if self._chat_template is None:
            whole = backend.encode(values["query"], values["document"]).ids
        else:
            prompt = compile_prompt(self._chat_template, self.takes_instruction())
            if Part() in prompt.parts:
                return  # seams exist where the reference itself does not read the prompt whole
            text = prompt.text(values)
            is_begun = bool(self._bos) and text.startswith(self._bos)
            whole = backend.encode(text, add_special_tokens=self._adds_special_tokens and not is_begun).ids
        pieces = self._pieces(self.takes_instruction())
        ids_of = self._tokenize(_run_texts(pieces, values))
        row = _join(pieces, [ids_of[run] for run in _run_texts(pieces, values)])
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


def _pair_pieces(backend: Tokenizer) -> tuple[int | Run, ...]:
    """What the tokenizer makes of a pair: its own tokens, and between them the query and the document."""
    query, document = (backend.encode(text, add_special_tokens=False).ids for text in ("a", "b"))
    full = backend.encode("a", "b").ids
    start = next(i for i in range(len(full)) if full[i : i + len(query)] == query)
    after = start + len(query)
    second = next(i for i in range(after, len(full)) if full[i : i + len(document)] == document)
    return (*full[:start], _QUERY, *full[after:second], _DOCUMENT, *full[second + len(document) :])


def _join(pieces: Sequence[int | Run], run_ids: Iterable[Row]) -> Row:
    """One row from its control tokens and the ids of its runs, in order."""
    remaining = iter(run_ids)
    return [id for piece in pieces for id in ([piece] if isinstance(piece, int) else next(remaining))]


def _run_texts(pieces: Sequence[int | Run], values: dict[Field, str]) -> list[str]:
    return [_run_text(piece, values) for piece in pieces if not isinstance(piece, int)]


def _run_text(run: Run, values: dict[Field, str]) -> str:
    return "".join(fill(part, values) for part in run)


def _document_span(run: Run, values: dict[Field, str]) -> tuple[int, int]:
    """Where the document stands in the text of its run, in characters."""
    place = next(i for i, part in enumerate(run) if part.field == "document")
    start = len(_run_text(run[:place], values))
    return start, start + len(fill(run[place], values))
