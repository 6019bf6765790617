"""Prompts -> rows of token ids, each within the limit. Knows tokens, no tensors.

A prompt is cut into runs at its control tokens, and where its tokenizer begins anew whatever stands there; each run is
tokenised whole, so the ids are those of the whole prompt. A caller's text only ever stands inside a run, and runs are
read by a copy of the tokenizer that knows no control tokens. That copy is never asked to truncate or pad: such
settings are shared state, and threads that differ in them corrupt each other's rows without an error.
"""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Self

from onelogit.errors import InputError, RecipeError
from onelogit.options import LongDocuments
from onelogit.prompts.boundaries import cut_at_boundaries
from onelogit.prompts.chunking import Chunk, cut_into_chunks
from onelogit.prompts.layout import Layout, Piece, Values, lay_out, lay_out_pair, split_at_control_tokens
from onelogit.prompts.template import Part, Prompt, compile_prompt, takes_instruction
from onelogit.prompts.token_cache import TokenCache
from onelogit.prompts.token_rows import PromptText, TokenRow
from onelogit.prompts.tokenizer import FastTokenizer, added_ids, control_ids, without_limits, without_settings
from onelogit.recipes.recipe import Recipe
from onelogit.validation import check_text, checked_choice, checked_max_tokens

_RECENT_BYTES = 8 * 2**20  # some 5,000 passages of 150 tokens

# Texts that lean on what stands around them.
_PROBES: tuple[Values, ...] = (
    {"query": "What is it?", "document": "It is 1.\n\nTwo.", "instruction": "Say."},
    {"query": " \n", "document": "\n ", "instruction": "\r\n"},
    {"query": "\u0301'", "document": "\u0338s\u0301", "instruction": "\u0301e"},
    {"query": "", "document": "", "instruction": ""},
)


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
        family: for error messages.
        instruction: the default one; None or "" for none.

    Raises:
        InputError: an instruction for a prompt that has no place for one.
        RecipeError: the tokenizer reads a prompt in pieces differently than whole.
    """

    def __init__(
        self,
        tokenizer: FastTokenizer,
        chat_template: str | None,
        max_tokens: int,
        *,
        adds_special_tokens: bool = True,
        allow_control_tokens: bool = False,
        has_chunks: bool = False,
        family: str = "a model",
        instruction: str | None = None,
    ) -> None:
        backend = without_limits(tokenizer.backend_tokenizer)
        self.max_tokens = max_tokens
        self._has_chunks = has_chunks
        self._chat_template = chat_template
        self._control_ids = control_ids(backend)
        self._run_tokenizer = without_settings(backend, {} if allow_control_tokens else self._control_ids)
        self._recent = TokenCache(_RECENT_BYTES)
        self._bos = tokenizer.bos_token or ""
        self._adds_special_tokens = adds_special_tokens
        self._first_ids, self._last_ids = added_ids(backend)
        self._backend = backend
        is_told_types = "token_type_ids" in tokenizer.model_input_names
        self._has_types = chat_template is None and is_told_types and 1 in backend.encode("a", "b").type_ids
        self._layout = lru_cache(maxsize=2)(self._lay_out)
        self._family = family
        self.instruction: str | None = None
        self.instruction = self.checked_instruction(instruction)
        self._check_runs()
        if not allow_control_tokens:
            self._check_control_tokens()

    @classmethod
    def for_recipe(
        cls,
        recipe: Recipe,
        tokenizer: FastTokenizer,
        options: Mapping[str, Any],
        position_limit: int | None = None,
    ) -> Self:
        """The encoder of a recipe's prompts.

        Args:
            recipe: the prompt and its limits.
            tokenizer: the checkpoint's own, with a fast backend.
            options: of these, `instruction`, `max_tokens`, `long_documents` and `allow_control_tokens` are used.
            position_limit: the longest row that the model can read, in tokens; None if unknown.

        Raises:
            InputError: a limit out of its range, or an instruction for a family that takes none.
            RecipeError: the recipe does not fit the tokenizer.
        """
        long_documents = checked_choice("long_documents", options.get("long_documents"), LongDocuments)
        instruction = options.get("instruction")
        return cls(
            tokenizer,
            recipe.chat_template,
            checked_max_tokens(options.get("max_tokens"), recipe, position_limit),
            adds_special_tokens=recipe.adds_special_tokens,
            allow_control_tokens=bool(options.get("allow_control_tokens")),
            has_chunks=long_documents == "chunk_max",
            family=recipe.family,
            instruction=recipe.default_instruction if instruction is None else instruction,
        )

    def takes_instruction(self) -> bool:
        """Whether the prompt has a place for an instruction."""
        return self._chat_template is not None and takes_instruction(self._chat_template)

    @property
    def is_document_first(self) -> bool:
        """Whether the prompt's document stands in front of its query."""
        return self._layout(self.takes_instruction()).is_document_first

    def checked_instruction(self, instruction: str | None) -> str | None:
        """The given instruction; the encoder's own for None.

        Args:
            instruction: "" for none.

        Raises:
            InputError: it is not a string, or the prompt has no place for an instruction.
        """
        if instruction is None:
            return self.instruction
        check_text(instruction, "the instruction")
        if instruction and not self.takes_instruction():
            raise InputError(f"the family {self._family} takes no instruction, but got {instruction!r}")
        return instruction

    @property
    def bos_id(self) -> int | None:
        """The tokenizer's first token; None where it has none."""
        return self._backend.token_to_id(self._bos) if self._bos else None

    def plain_ids(self, text: str) -> list[int]:
        """A text without any prompt, as the tokenizer reads it by itself."""
        return list(self._backend.encode(text).ids)

    def rows(self, pairs: Sequence[tuple[str, str]], instruction: str | None) -> list[TokenRow]:
        """One row for each (query, document), or more for a document in chunks.

        Args:
            pairs: texts; the document may be empty.
            instruction: None or "" for none.

        Raises:
            InputError: a query leaves no room for a document.
        """
        layout = self._layout(bool(instruction))
        values = _values(pairs, instruction)
        run_ids = self._run_ids(layout, values)
        chunks = self._chunks(layout, values, run_ids)
        return [
            TokenRow(
                layout.join(ids),
                layout.starts(ids)[1] if self._has_types else 0,
                layout.cacheable_prefixes(ids),
                owner,
                is_truncated=owner in chunks and not self._has_chunks,
            )
            for owner, whole in enumerate(run_ids)
            for ids in ([layout.with_document(whole, chunk.ids) for chunk in chunks.get(owner, ())] or [whole])
        ]

    def prompts(self, pairs: Sequence[tuple[str, str]], instruction: str | None) -> list[PromptText]:
        """The same as text, for a server that tokenises by itself; control tokens in a caller's text act there.

        The tokenizer's own first and last tokens are left to the server.

        Raises:
            InputError: as `rows`.
            RecipeError: the model reads pairs, and has no prompt.
        """
        if self._chat_template is None:
            raise RecipeError("this model reads query and document as a pair: let the server write its prompts")
        layout, prompt = self._layout(bool(instruction)), compile_prompt(self._chat_template, bool(instruction))
        values = _values(pairs, instruction)
        chunks = self._chunks(layout, values, self._run_ids(layout, values))
        return [
            PromptText(
                prompt.text({**value, "document": document}).removeprefix(self._bos),
                owner,
                is_truncated=owner in chunks and not self._has_chunks,
            )
            for owner, value in enumerate(values)
            for document in (
                [layout.document_text(value, chunk.start, chunk.end) for chunk in chunks.get(owner, ())]
                or [value["document"]]
            )
        ]

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

    def _uncut_rows(self, layout: Layout, values: Iterable[Values]) -> list[tuple[int, ...]]:
        return [layout.join(ids) for ids in self._run_ids(layout, values)]

    def _run_ids(self, layout: Layout, values: Iterable[Values]) -> list[list[Sequence[int]]]:
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

    def _chunks(
        self, layout: Layout, values: Sequence[Values], run_ids: Sequence[Sequence[Sequence[int]]]
    ) -> dict[int, list[Chunk]]:
        """What is read of each document that does not fit, by its index: its beginning, or all of its chunks."""
        lengths = [layout.starts(ids)[-1] for ids in run_ids]
        long = [index for index, length in enumerate(lengths) if length > self.max_tokens]
        texts = [layout.texts(values[index])[layout.document_span_index] for index in long]
        encodings = self._run_tokenizer.encode_batch(texts, add_special_tokens=False) if long else []
        chunks = {}
        for index, encoding in zip(long, encodings, strict=True):
            span, excess = layout.document_span(values[index]), lengths[index] - self.max_tokens
            parts = cut_into_chunks(encoding, span, excess, self.max_tokens)
            chunks[index] = [*parts] if self._has_chunks else [next(parts)]
        return chunks

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
        if [*row] != whole:
            raise RecipeError(
                f"this tokenizer reads a prompt differently when it is cut at its control tokens: {[*row]}, not {whole}"
            )

    def _check_control_tokens(self) -> None:
        """Prove that no control token can be spelled."""
        for text, id in self._control_ids.items():
            if id in self._run_tokenizer.encode(text, add_special_tokens=False).ids:
                raise RecipeError(
                    f"this tokenizer reads the plain text {text!r} as the control token {id}; "
                    "allow_control_tokens=True puts up with it"
                )


def _values(pairs: Iterable[tuple[str, str]], instruction: str | None) -> list[Values]:
    return [{"query": query, "document": document, "instruction": instruction or ""} for query, document in pairs]
