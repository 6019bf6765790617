"""A tokenizer -> its control tokens, the tokens that it adds to a text, and copies of it with other settings."""

import json
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol

from tokenizers import Tokenizer, models

from onelogit.errors import RecipeError, first_line
from onelogit.processes import run_in_forked_children
from onelogit.prompts.spellings import without_spellings

_SPACES = " ▁Ġ"  # as vocabularies write the space before a word
# What chat templates write as a control token, even if a vocabulary has it as a piece that is not special.
_MARKUP = re.compile(r"<\|.*\|>|<｜.*｜>|<(start|end)_of_\w+>|\[/?[A-Z_]{2,}\]|</?s>")


class FastTokenizer(Protocol):
    """The parts of a tokenizer that prompts need: of transformers' fast tokenizers, or from `read_tokenizer`."""

    @property
    def backend_tokenizer(self) -> Tokenizer: ...

    @property
    def bos_token(self) -> str | None: ...

    @property
    def model_input_names(self) -> Sequence[str]: ...


def without_limits(backend: Tokenizer) -> Tokenizer:
    """The tokenizer itself, or a copy without truncation and padding if it was saved with either."""
    if backend.truncation is None and backend.padding is None:
        return backend
    copy = _with_same_model(backend, ())
    if copy is None:
        copy = Tokenizer.from_str(backend.to_str())
        copy.no_truncation()
        copy.no_padding()
    elif backend.post_processor is not None:
        copy.post_processor = backend.post_processor
    return copy


def stop_sampling(backend: Tokenizer) -> None:
    """Make the tokenizer give a text the same ids each time: files may keep the dropout of BPE, meant for training."""
    if getattr(backend.model, "dropout", None):
        backend.model.dropout = None


def control_ids(backend: Tokenizer) -> dict[str, int]:
    """The ids of all tokens that control the model: special ones, those outside the vocabulary, markup, and separators.

    `<think>` and `<tool_call>` of Qwen3 are not marked as special, but should not come from a text. The newline
    sequences that Gemma adds are in its vocabulary, and remain text. The tokens that the tokenizer puts around texts
    control the model even if it has them only in its vocabulary.
    """
    model = backend.model
    added = {
        token.content: id
        for id, token in backend.get_added_tokens_decoder().items()
        if token.special or model.token_to_id(token.content) is None or _MARKUP.fullmatch(token.content)
    }
    return {str(backend.id_to_token(id)): id for id in _ids_around_texts(backend)} | added


def _ids_around_texts(backend: Tokenizer) -> set[int]:
    """The ids that the tokenizer adds to a text, and to a pair."""
    encodings = backend.encode("a"), backend.encode("a", "a")
    return {id for each in encodings for id, place in zip(each.ids, each.sequence_ids, strict=True) if place is None}


def without_settings(backend: Tokenizer, removed: Iterable[str], *, keeps_spellings: bool = False) -> Tokenizer:
    """A copy of the tokenizer without the tokens `removed`, which adds no tokens and does not truncate or pad.

    No text gives the ids of these tokens, whatever its normalizer and its pre-tokenizer make of the text. Only the
    unknown token's id remains that of characters outside the vocabulary; and `check_control_tokens` tells of the rest.

    Args:
        backend: the tokenizer.
        removed: texts of tokens, added or only in the vocabulary.
        keeps_spellings: leave the tokens in the model's vocabulary, where a text may reach them.
    """
    unknown = set(removed)
    if (copy := _with_same_model(backend, unknown)) is not None:
        return copy
    content = json.loads(backend.to_str())
    ids = {id for text in unknown if (id := backend.token_to_id(text)) is not None}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in unknown]
    if not keeps_spellings:
        content["model"] = without_spellings(content["model"], ids)
    plain = {**content, "truncation": None, "padding": None, "post_processor": None}
    try:
        return Tokenizer.from_str(json.dumps(plain))
    except Exception as error:  # tokenizers raises only Exception; for example, if two tokens have one id
        raise RecipeError(f"this tokenizer cannot be read again ({first_line(error)}), so it is damaged") from error


def _with_same_model(backend: Tokenizer, removed: Collection[str]) -> Tokenizer | None:
    """A copy without truncation, padding, post-processor and the tokens `removed` that shares the tokenizer's model.

    A vocabulary of 150,000 tokens takes half a second to write and to read again.

    Returns:
        None if the vocabulary contains a removed token, or if the other added tokens would have other ids.
    """
    model, added = backend.model, backend.get_added_tokens_decoder()
    ids = [id for id, token in added.items() if token.content in removed]
    if any(model.id_to_token(id) is not None for id in ids) or any(
        model.token_to_id(each) is not None for each in removed
    ):
        return None
    kept = [(id, token) for id, token in added.items() if token.content not in removed]
    copy = Tokenizer(model)
    if backend.normalizer is not None:
        copy.normalizer = backend.normalizer
    if backend.pre_tokenizer is not None:
        copy.pre_tokenizer = backend.pre_tokenizer
    if backend.decoder is not None:
        copy.decoder = backend.decoder
    for _, token in sorted(kept, key=lambda item: item[0]):
        add = copy.add_special_tokens if token.special else copy.add_tokens
        add([token])
    contents = {id: token.content for id, token in copy.get_added_tokens_decoder().items()}
    return copy if contents == {id: token.content for id, token in kept} else None


def added_ids(backend: Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer adds before and after a text."""
    encoding = backend.encode("a")
    inside = [index for index, sequence in enumerate(encoding.sequence_ids) if sequence is not None]
    return encoding.ids[: inside[0]], encoding.ids[inside[-1] + 1 :]


def check_control_tokens(backend: Tokenizer, tokenizer: Tokenizer, control_ids: Mapping[str, int]) -> None:
    """Check that a copy of a tokenizer from `without_settings` reads the text of each control token as plain text.

    A control token that is an ordinary word, or any in a tokenizer that knows only whole words, is refused if a text
    spells it: without it, the words around it would have other ids.

    Args:
        backend: the tokenizer.
        tokenizer: the copy.
        control_ids: as from `control_ids`.

    Raises:
        RecipeError: it does not.
    """
    is_of_words = isinstance(backend.model, models.WordLevel)
    ordinary = {text for text in control_ids if is_of_words or text.strip(_SPACES).isalnum()}
    spelling = without_settings(backend, control_ids, keeps_spellings=True) if ordinary else tokenizer
    unknown = unknown_id(backend)
    for text, id in control_ids.items():
        reader = spelling if text in ordinary else tokenizer
        read = {each for spelt in (text, f"a{text}a") for each in reader.encode(spelt, add_special_tokens=False).ids}
        if id in read and id != unknown:
            raise RecipeError(
                f"this tokenizer reads the plain text {text!r} as the control token {id}; to accept this, set "
                "allow_control_tokens=True"
            )


def unknown_id(backend: Tokenizer) -> int | None:
    """The id that the tokenizer gives characters outside its vocabulary; None if it drops or refuses them."""
    model = backend.model
    if isinstance(model, models.Unigram):
        return json.loads(model.__getstate__())["unk_id"]  # type: ignore[no-any-return]
    unknown = getattr(model, "unk_token", None)
    return None if unknown is None else backend.token_to_id(unknown)


def token_id(token: int | str, backend: Tokenizer, unknown: str | None = None) -> int:
    """The id of an answer token, which is given as text or as id; `unknown` is the text of the unknown token.

    Raises:
        RecipeError: the text is not one token.
    """
    if not isinstance(token, str):
        return token
    own = backend.token_to_id(token)
    ids = without_limits(backend).encode(token, add_special_tokens=False).ids
    if own is not None and (token == unknown or len(ids) != 1):
        return int(own)  # the vocabulary's own spelling
    if len(ids) != 1 or (unknown is not None and ids[0] == backend.token_to_id(unknown)):
        raise RecipeError(f"the answer {token!r} must be one token, but this tokenizer reads it as {ids}")
    return int(ids[0])


def token_text(id: int, backend: Tokenizer) -> str:
    """The text of a token, with the space that it begins with; "" for an id outside the vocabulary."""
    alone, twice = (backend.decode([id] * count, skip_special_tokens=False) for count in (1, 2))
    return twice[len(alone) :] if twice.startswith(alone) else alone  # some tokenizers drop a text's first space


def _use_no_threads() -> None:
    """In a forked child, the library would wait forever for its threads, which exist only in the parent.

    By itself, it notices this only if the user has not set this variable.
    """
    if "TOKENIZERS_PARALLELISM" in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"


run_in_forked_children(_use_no_threads)
