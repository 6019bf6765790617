"""Queries and documents -> rows of token ids, each within the limit. No tensors.

A prompt is cut into spans at its control tokens, and wherever its tokenizer always separates tokens. Each span is
tokenised as a whole, so the ids equal the ids of the whole prompt. The caller's texts are always inside spans, and
spans are tokenised by a copy of the tokenizer without control tokens. Its truncation and padding are never used: all
threads share these settings, so threads with different settings would corrupt each other's rows.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from onelogit.errors import InputError, RecipeError
from onelogit.prompts.boundaries import cut_at_boundaries
from onelogit.prompts.chunking import DocumentTokens, Window, tokens_of_documents
from onelogit.prompts.layout import Ids, Layout, Span, TokenCache, Values, fill, lay_out, lay_out_pair
from onelogit.prompts.prompt import Prompt, describe_prompt, items_of_pair, prompt_items
from onelogit.prompts.span_check import SAMPLES, check_spans
from onelogit.prompts.template import compile_prompt, no_place, takes_instruction, usable_default, warn_of_lost_text
from onelogit.prompts.token_rows import PromptText, TokenRow
from onelogit.prompts.tokenizer import (
    FastTokenizer,
    added_ids,
    check_control_tokens,
    control_ids,
    without_limits,
    without_settings,
)
from onelogit.recipes.recipe import Recipe
from onelogit.validation import checked_max_tokens, checked_text

_CHARACTERS_AT_A_TIME = 1_000_000
_LONG_QUERY = 4  # characters for each of `max_tokens`, from which a query hardly ever fits
_CACHE_BYTES = 8 * 2**20  # about 5,000 documents of 150 tokens


class Encoder:
    """Writes and tokenises the prompts of a recipe. Safe to share between threads.

    Args:
        recipe: determines the prompt, its default instruction and its limit.
        tokenizer: the checkpoint's own, with a fast backend.
        options: only `instruction`, `max_tokens`, `long_documents` and `allow_control_tokens` are used.
        position_limit: the longest row that the model can read, in tokens; None if unknown.

    Attributes:
        instruction: from the options, or the recipe's default; None or "" for none.
        max_tokens: the longest row. Truncation only removes the end of a document, and no more than necessary.

    Raises:
        InputError: an option is out of range, or the family takes no instruction.
        RecipeError: the tokenizer gives other ids for the prompt's spans than for the whole prompt.
    """

    def __init__(
        self, recipe: Recipe, tokenizer: FastTokenizer, options: Mapping[str, Any], position_limit: int | None = None
    ) -> None:
        self.max_tokens = checked_max_tokens(options.get("max_tokens"), recipe, position_limit)
        self._has_chunks = options.get("long_documents") == "chunk_max"
        self._recipe = recipe
        self._bos = tokenizer.bos_token or ""
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        self._backend = without_limits(tokenizer.backend_tokenizer)
        self._server_adds_bos = self.bos_id in added_ids(self._backend)[0]
        self._control_ids = control_ids(self._backend)
        allows_control_tokens = bool(options.get("allow_control_tokens"))
        self._span_tokenizer = without_settings(self._backend, {} if allows_control_tokens else self._control_ids)
        self._token_cache = TokenCache(_CACHE_BYTES)
        self._layout = lru_cache(maxsize=2)(self._new_layout)
        instruction = options.get("instruction")
        self.instruction: str | None = None
        self.instruction = self.checked_instruction(usable_default(recipe) if instruction is None else instruction)
        layout = self._layout(self.takes_instruction)
        check_spans(recipe, self._backend, self._bos, lambda values: self._whole_rows(layout, [values])[0][0].ids)
        if recipe.chat_template is not None:
            warn_of_lost_text(recipe.chat_template)
        if not allows_control_tokens:
            check_control_tokens(self._backend, self._span_tokenizer, self._control_ids)

    @property
    def takes_instruction(self) -> bool:
        """Whether the prompt has a place for an instruction."""
        return self._recipe.chat_template is not None and takes_instruction(self._recipe.chat_template)

    @property
    def is_document_first(self) -> bool:
        """Whether the document comes before the query in the prompt."""
        return self._layout(self.takes_instruction).is_document_first

    def checked_instruction(self, instruction: str | None) -> str | None:
        """The given instruction, or the encoder's default for None.

        Raises:
            InputError: it is not a string, or the prompt has no place for an instruction.
        """
        if instruction is None:
            return self.instruction
        instruction = checked_text(instruction, "the instruction")
        if instruction and not self.takes_instruction:
            raise InputError(no_place(self._recipe, instruction))
        return instruction

    @property
    def bos_id(self) -> int | None:
        """The id of the tokenizer's BOS token; None if it has none."""
        return self._backend.token_to_id(self._bos) if self._bos else None

    def plain_ids(self, text: str) -> list[int]:
        """The ids of a text without a prompt, with the special tokens that the tokenizer adds."""
        return list(self._backend.encode(text).ids)

    def rows(self, pairs: Sequence[tuple[str, str]], instruction: str | None) -> list[TokenRow]:
        """One row for each (query, document), or several for a document in chunks.

        Args:
            pairs: texts; the document may be empty.
            instruction: None or "" for none.

        Raises:
            InputError: a query leaves no room for a document.
        """
        layout, values = self._layout(bool(instruction)), _values(pairs, instruction)
        self._check_long_queries(layout, values)
        rows, span_ids = self._whole_rows(layout, values)
        long = [row for row in rows if len(row.ids) > self.max_tokens]
        if not long:
            return rows
        index, parts = layout.document_span_index, {}
        for owner, document in tokens_of_documents(self._span_tokenizer, layout, values, long):
            before, after = span_ids[owner][:index], span_ids[owner][index + 1 :]
            parts[owner] = [
                layout.row([*before, document.span_ids(window), *after], owner)._replace(
                    is_truncated=not self._has_chunks
                )
                for window in self._windows(document)
            ]
        return [part for row in rows for part in parts.get(row.owner, [row])]

    def prompts(self, pairs: Sequence[tuple[str, str]], instruction: str | None) -> list[PromptText]:
        """Like `rows`, but as text, for a server that tokenises and treats `<|im_end|>` in a text as a control token.

        The tokenizer's own first and last tokens are omitted, because the server adds them.

        Raises:
            InputError: as `rows`.
            RecipeError: the model reads pairs and has no prompt.
        """
        if self._recipe.chat_template is None:
            raise RecipeError("this model reads query and document as a pair; use template='server'")
        prompt = compile_prompt(self._recipe.chat_template, bool(instruction))
        layout, values = self._layout(bool(instruction)), _values(pairs, instruction)
        self._check_long_queries(layout, values)
        texts = [self._text(prompt, value) for value in values]
        # A server may add tokens or join other ones, but not so that they become twice as many.
        long = [row for row in self._whole_rows(layout, values)[0] if 2 * len(row.ids) > self.max_tokens]
        encodings = self._backend.encode_batch_fast([texts[row.owner] for row in long])
        lengths = [max(len(row.ids), len(each.ids)) for row, each in zip(long, encodings, strict=True)]
        cut = [row for row, length in zip(long, lengths, strict=True) if length > self.max_tokens]
        parts = {
            owner: [
                PromptText(part, owner, is_truncated=not self._has_chunks)
                for part in self._cut_texts(prompt, values[owner], document)
            ]
            for owner, document in tokens_of_documents(self._span_tokenizer, layout, values, cut)
        }
        whole = (PromptText(text, owner, is_truncated=False) for owner, text in enumerate(texts))
        return [part for each in whole for part in parts.get(each.owner, [each])]

    def describe(self, query: str, document: str, instruction: str | None) -> Prompt:
        """The prompt of one pair, for people to look at. Raises as `rows`."""
        layout, values = self._layout(bool(instruction)), _values([(query, document)], instruction)
        rows, (whole,) = self.rows([(query, document)], instruction), self._whole_rows(layout, values)[0]
        ((_, tokens),) = tokens_of_documents(self._span_tokenizer, layout, values, [whole])
        template = self._recipe.chat_template
        items = items_of_pair(layout) if template is None else self._items(compile_prompt(template, bool(instruction)))
        return describe_prompt(self._recipe, self._backend, items, values[0], tokens, rows, whole, self.max_tokens)

    def _cut_texts(self, prompt: Span, value: Values, document: DocumentTokens) -> list[str]:
        """The prompts of a document's first part, or of all its parts, none longer than a server accepts."""
        # A part may begin or end with white space that the template would strip from a whole document.
        exact = tuple(part._replace(is_stripped=False) if part.field == "document" else part for part in prompt)

        def text_of(part: str) -> str:
            return self._text(exact, {**value, "document": part})

        windows = self._windows(document)
        parts = document.texts(windows, lambda part: self._excess(text_of(part)), is_whole=self._has_chunks)
        return [text_of(part) for part in parts]

    def _text(self, prompt: Span, value: Values) -> str:
        """A prompt without the BOS token, if the tokenizer adds one itself."""
        text = fill(prompt, value)
        return text.removeprefix(self._bos) if self._server_adds_bos else text

    def _excess(self, text: str) -> int:
        """The number of tokens by which a prompt is too long for a server that tokenises it; negative if it fits."""
        return len(self._backend.encode(text).ids) - self.max_tokens

    def _new_layout(self, has_instruction: bool) -> Layout:
        """The layout, with short spans if they give the same ids as the longest spans."""
        if self._recipe.chat_template is None:
            return lay_out_pair(self._backend, has_types=self._has_types)
        items = self._items(compile_prompt(self._recipe.chat_template, has_instruction))
        short_items: list[int | Span] = []
        for item in items:
            short_items += [item] if isinstance(item, int) else cut_at_boundaries(item, self._span_tokenizer)
        whole, short = lay_out(items, self._span_tokenizer), lay_out(short_items, self._span_tokenizer)
        whole_ids, short_ids = ([row.ids for row in self._whole_rows(each, SAMPLES)[0]] for each in (whole, short))
        return short if whole_ids == short_ids else whole

    def _items(self, prompt: Span) -> list[int | Span]:
        return prompt_items(prompt, self._recipe, self._bos, self._backend, self._control_ids)

    def _whole_rows(self, layout: Layout, values: Iterable[Values]) -> tuple[list[TokenRow], list[list[Ids]]]:
        """The rows without a limit, and the ids of each of their variable spans.

        Each text is tokenised once, or not at all if it is cached.
        """
        texts = [layout.texts(value) for value in values]
        unique = dict.fromkeys(text for row in texts for text in row)
        ids_of = self._token_cache.find(unique)
        for some in _divided([text for text in unique if text not in ids_of]):
            encodings = self._span_tokenizer.encode_batch_fast(some, add_special_tokens=False)
            new = {text: array("I", encoding.ids) for text, encoding in zip(some, encodings, strict=True)}
            self._token_cache.add(new)
            ids_of |= new
        span_ids = [[ids_of[text] for text in row] for row in texts]
        return [layout.row(ids, owner) for owner, ids in enumerate(span_ids)], span_ids

    def _check_long_queries(self, layout: Layout, values: Sequence[Values]) -> None:
        """Refuse queries that leave no room for a document before they are written once for each document.

        Raises:
            InputError: as `rows`.
        """
        long = {value["query"]: value for value in values if len(value["query"]) > _LONG_QUERY * self.max_tokens}
        for value in long.values():
            alone: Values = {**value, "document": ""}
            (row,), _ = self._whole_rows(layout, [alone])
            if len(row.ids) > self.max_tokens:
                for _, document in tokens_of_documents(self._span_tokenizer, layout, [alone], [row]):
                    self._windows(document)  # raises

    def _windows(self, document: DocumentTokens) -> list[Window]:
        """The parts to read of a document that does not fit: only the first, or all of them."""
        windows = document.windows(self.max_tokens)
        return [*windows] if self._has_chunks else [next(windows)]


def _divided(texts: Iterable[str]) -> Iterator[list[str]]:
    """The texts in lists of about a million characters: an encoding takes 80 bytes for each token."""
    some: list[str] = []
    length = 0
    for text in texts:
        some.append(text)
        length += len(text)
        if length >= _CHARACTERS_AT_A_TIME:
            yield some
            some, length = [], 0
    if some:
        yield some


def _values(pairs: Iterable[tuple[str, str]], instruction: str | None) -> list[Values]:
    return [{"query": query, "document": document, "instruction": instruction or ""} for query, document in pairs]
