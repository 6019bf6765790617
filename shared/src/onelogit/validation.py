"""A caller's arguments -> the same arguments, checked; an InputError names the argument, its value and the limit."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from numbers import Integral, Real
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

from onelogit.contents import ContentDocument, checked_content, is_content
from onelogit.errors import InputError, counted
from onelogit.option_values import real_number, whole_number
from onelogit.recipes.recipe import Recipe

logger = logging.getLogger(__name__)

_TEXT_NAMES = ("text", "content", "page_content", "document", "passage", "contents", "body")
# The text of a document in each framework, and the package whose adapter takes such documents.
_FRAMEWORK_TEXTS = {
    "page_content": "langchain-onelogit",
    "get_content()": "llama-index-postprocessor-onelogit-rerank",
    "content": "onelogit-haystack",
}

Choice = TypeVar("Choice", bound=str | None)


Document = str | ContentDocument
"""A text; or, for a server that reads images, texts and images. A content list with images becomes the latter."""


def checked_documents(documents: Iterable[Any]) -> list[Document]:
    """Return the documents as a list, with whole characters.

    Raises:
        InputError: they are one string, a set or a mapping, or one of them is neither a string nor a content list.
    """
    if isinstance(documents, str):
        raise InputError("documents must be a list of strings, not one string; pass [document]")
    checked = _checked_list(documents, "documents", "strings")
    for index, document in enumerate(checked):
        if not isinstance(document, str):
            checked[index] = _checked_content(document, f"document {index}")
    return _with_whole_characters(checked)


def checked_pairs(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Document]]:
    """Return the pairs as a list, with whole characters.

    Raises:
        InputError: an item is not a pair of a string and a document, or a query is blank or has half a character.
    """
    queries: list[str] = []
    documents: list[Document] = []
    for index, pair in enumerate(_checked_list(pairs, "pairs", "(query, document)")):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"pair {index} must be a tuple of a query and a document, not {pair!r}")
        query, document = pair
        queries.append(checked_text(query, f"the query of pair {index}", is_blank_allowed=False))
        is_text = isinstance(document, str)
        documents.append(document if is_text else _checked_content(document, f"the document of pair {index}"))
    return [*zip(queries, _with_whole_characters(documents), strict=True)]


def checked_pair(query: str, document: str) -> tuple[str, str]:
    """Return a query and a document, with whole characters.

    Raises:
        InputError: one of them is not a string, or the query is blank or has half a character.
    """
    query = checked_text(query, "the query", is_blank_allowed=False)
    _check_document(document, "the document")
    return query, with_whole_characters([document])[0]


def _checked_list(values: Iterable[Any], name: str, content: str) -> list[Any]:
    # A set has no order to index by, and a mapping would give its keys.
    if isinstance(values, str | bytes | Mapping | Set) or not isinstance(values, Iterable):
        raise InputError(f"{name} must be a list of {content}, not a {type(values).__name__}")
    return list(values)


def _checked_content(document: object, name: str) -> Document:
    if not is_content(document):
        _check_document(document, name)
    return checked_content(document, name)


def _with_whole_characters(documents: Sequence[Document]) -> list[Document]:
    """As `with_whole_characters`, which is given all texts at once, so that it warns once."""
    texts = [part for each in documents for part in ([each] if isinstance(each, str) else each.texts)]
    whole = iter(with_whole_characters(texts))
    return [next(whole) if isinstance(each, str) else each.with_texts(lambda _: next(whole)) for each in documents]


def with_whole_characters(documents: Sequence[str], *, is_logging: bool = True) -> list[str]:
    """The documents without halves of characters (surrogates), as texts from PDF files contain.

    Two halves that belong together become their character. Any other is replaced by U+FFFD, as decoders do; unless
    `is_logging` is False, a warning says how many.
    """
    whole, counts = [], []
    for document in documents:
        text = document
        if not _is_whole(document):
            text = _joined(document).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            counts.append(text.count("\ufffd") - document.count("\ufffd"))
        whole.append(text)
    if is_logging and any(counts):
        halves = "(half of a character)" if sum(counts) == 1 else "(halves of characters)"
        among = f"{sum(map(bool, counts))} of {len(whole)} document{'' if len(whole) == 1 else 's'}"
        verb = "was" if sum(counts) == 1 else "were"
        message = "%s %s in %s %s replaced by U+FFFD"
        logger.warning(message, counted(sum(counts), "lone surrogate"), halves, among, verb)
    return whole


def check_string(text: object, name: str) -> None:
    """Check that `text` is a string; `name` is its name in error messages.

    Raises:
        InputError: it is not.
    """
    if not isinstance(text, str):
        raise InputError(f"{name} must be a string, not {type(text).__name__}")


def _check_document(document: object, name: str) -> None:
    """Check that a document is a string; the error for an object says where its text is."""
    if isinstance(document, str):
        return
    hint = ""
    if isinstance(document, Mapping):
        key = next((key for key in _TEXT_NAMES if key in document), None)
        hint = "" if key is None else f": pass its text, document[{key!r}]"
    elif isinstance(document, tuple | list):
        hint = "; for pairs of a query and a document, use predict or pair_logits"
    for attribute, package in _FRAMEWORK_TEXTS.items():
        if hasattr(document, attribute.removesuffix("()")):
            hint = f": pass its text, document.{attribute}, or rank with {package}"
            break
    raise InputError(f"{name} must be a string, not {type(document).__name__}{hint}")


def checked_text(text: object, name: str, is_blank_allowed: bool = True) -> str:
    """Return a text; two halves of a character (surrogates) that belong together become the character.

    Args:
        text: a query, an instruction or a name, which a replaced character would change.
        name: its name in error messages.
        is_blank_allowed: whether it may be blank.

    Raises:
        InputError: it is not a string, is blank although that is not allowed, or contains half a character.
    """
    check_string(text, name)
    text = str(text)
    if not is_blank_allowed and not text.strip():
        raise InputError(f"{name} is empty ({text!r}); it must contain text")
    if _is_whole(text):
        return text
    text = _joined(text)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} contains half a character (a lone surrogate) at position {error.start}") from error
    return text


def check_text(text: object, name: str, is_blank_allowed: bool = True) -> None:
    """Check a text. Raises as `checked_text`."""
    checked_text(text, name, is_blank_allowed)


def _is_whole(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _joined(text: str) -> str:
    """The text with the character of each pair of surrogates; lone surrogates remain."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return the path with a leading `~` or `~user` expanded.

    Raises:
        InputError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"cannot expand {os.fspath(path)!r}: no such user") from error


def checked_max_tokens(max_tokens: int | None, recipe: Recipe, model_limit: int | None) -> int:
    """Return the caller's limit, or by default the smaller of the recipe's and the model's limits.

    Raises:
        InputError: the limit is not a whole number from 1 up, or exceeds the model's.
    """
    checked_count("max_tokens", max_tokens)
    if max_tokens is None:
        return recipe.max_tokens if model_limit is None else min(recipe.max_tokens, model_limit)
    if model_limit is not None and max_tokens > model_limit:
        raise InputError(f"max_tokens={max_tokens} exceeds the {model_limit} tokens that the model supports")
    return max_tokens


def checked_count(name: str, value: int | None, least: int = 1) -> int | None:
    """Return the value.

    Raises:
        InputError: it is neither None nor a whole number from `least` up.
    """
    if not _is_count(value, least):
        raise InputError(f"{name} must be a whole number from {least} up, not {value!r}")
    return value


def checked_top_n(top_n: object, name: str = "top_n") -> int | None:
    """Return `top_n` as a number, if it is one or the text of one, or None. Raises as `check_top_n`."""
    top_n = top_n if top_n is None or type(top_n) is int else whole_number(top_n)
    check_top_n(top_n, name)
    return cast("int | None", top_n)


def check_top_n(top_n: object, name: str = "top_n") -> None:
    """Check that `top_n` is None or a whole number from 1 up; `name` is its name in error messages.

    Raises:
        InputError: it is neither.
    """
    if not _is_count(top_n, least=1):
        raise InputError(f"{name} must be a whole number from 1 up, or None for all, not {top_n!r}")


def _is_count(value: object, least: int) -> bool:
    return value is None or (isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least)


def checked_score_threshold(score_threshold: object) -> float | None:
    """Return the threshold as a number, if it is one or the text of one, or None. Raises as `check_score_threshold`."""
    score_threshold = score_threshold if isinstance(score_threshold, float | None) else real_number(score_threshold)
    check_score_threshold(score_threshold)
    return cast("float | None", score_threshold)


def check_score_threshold(score_threshold: object) -> None:
    """Check that the threshold is None or a number other than NaN.

    Raises:
        InputError: it is neither.
    """
    if score_threshold is None:
        return
    is_number = isinstance(score_threshold, Real) and not isinstance(score_threshold, bool)
    if not is_number or score_threshold != score_threshold:  # noqa: PLR0124  only NaN differs from itself
        raise InputError(f"score_threshold must be a number, or None for all documents, not {score_threshold!r}")


def checked_choice(name: str, value: Choice, choices: object) -> Choice:
    """Return the value if it is None or one of the values of the `Literal` type `choices`.

    Raises:
        InputError: it is another value.
    """
    if value is not None and value not in get_args(choices):
        raise InputError(f"unknown {name} {value!r}; choose one of {', '.join(get_args(choices))}")
    return value
