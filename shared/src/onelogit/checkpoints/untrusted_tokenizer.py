"""A tokenizer, which a stranger wrote -> an error if it could exhaust memory or time, or cannot read a text. No torch.

Its library would end the process when memory runs out.
"""

import base64
import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from onelogit.errors import CheckpointError, first_line
from onelogit.prompts.tokenizer import without_limits

_MAX_GROWTH = 1_000  # times; published normalizers replace a character by at most a few
_MAX_WORD = 1_000  # characters; published WordPiece models have 100, and affixes of two
_MAX_ADDED = 1_000  # tokens; published models add three or four to a pair
# A sequence of characters, classes and their repetitions, which takes a character in every dialect of expressions.
_TAKES_A_CHARACTER = re.compile(
    r"(?:(?:\\[sSdDwWnrt]|\[\^?(?:\\.|[^\[\]\\&])+\]|[^\\\[\](){}?*+|^$])(?:\+|\{[1-9]\d*,?\})?)+"
)
_PARTS = ("normalizers", "decoders", "pretokenizers")


def check_tokenizer(backend: Tokenizer, name: object) -> None:
    """Check a tokenizer before it reads a caller's text.

    Args:
        backend: the tokenizer.
        name: of its folder, for messages.

    Raises:
        CheckpointError: its rules may make a text more than a thousand times as long, its words may be absurdly long,
            it adds absurdly many tokens, it cannot read a text, or it reads a letter as nothing.
    """
    _check_growth(backend, name)
    _check_words(backend.model, name)
    _check_added_tokens(backend, name)
    _check_reads(without_limits(backend), name)


def _check_growth(backend: Tokenizer, name: object) -> None:
    for step in (backend.normalizer, backend.decoder):
        rules = [] if step is None else [*_rules(json.loads(step.__getstate__()))]
        growth = math.prod(max(1.0, _growth_of(rule)) for rule in rules)
        if growth > _MAX_GROWTH:
            raise _hostile(name, f"may make a text {growth:.3g} times as long, of at most {_MAX_GROWTH:,}")


def _check_words(model: Any, name: object) -> None:
    """Check the numbers that decide how long a word takes: the square of its length, times the length of its affix."""
    affixes = ("continuing_subword_prefix", "end_of_word_suffix")
    sizes = {affix: len(getattr(model, affix, None) or "") for affix in affixes}
    sizes["max_input_chars_per_word"] = getattr(model, "max_input_chars_per_word", 0)
    for field, size in sizes.items():
        if size > _MAX_WORD:
            raise _hostile(name, f"has a {field} of {size:,} characters, of at most {_MAX_WORD:,}")


def _check_added_tokens(backend: Tokenizer, name: object) -> None:
    count = backend.num_special_tokens_to_add(is_pair=True)
    if count > _MAX_ADDED:
        raise _hostile(name, f"adds {count:,} tokens to each pair of texts, of at most {_MAX_ADDED:,}")


def _hostile(name: object, what: str) -> CheckpointError:
    return CheckpointError(
        f"the tokenizer in {name} {what}, so it may be hostile; copy tokenizer.json from the original"
    )


def _check_reads(backend: Tokenizer, name: object) -> None:
    """Check that a tokenizer reads a text and a pair: files that contradict themselves make its library panic."""
    try:
        backend.encode("a", "a")
        places = backend.encode("a").sequence_ids
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CheckpointError(
            f"the tokenizer in {name} cannot read a text ({first_line(error)}); copy tokenizer.json from the original"
        ) from error
    if 0 not in places:
        raise CheckpointError(
            f"the tokenizer in {name} reads the letter 'a' as nothing; copy tokenizer.json from the original"
        )


def _rules(step: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The rules in a step that has others, or the step itself."""
    parts = next((step[name] for name in _PARTS if name in step), None)
    if parts is None:
        yield step
    else:
        for part in parts:
            yield from _rules(part)


def _growth_of(rule: Mapping[str, Any]) -> float:
    """How many characters a rule may write for one."""
    if rule.get("type") == "Precompiled":
        return _longest_replacement(base64.b64decode(rule["precompiled_charsmap"] or ""))
    if rule.get("type") == "Prepend":
        return 1.0 + len(rule["prepend"])
    if rule.get("type") != "Replace":
        return 1.0
    pattern, content = rule["pattern"], len(rule["content"])
    if text := pattern.get("String"):
        return content / len(text)
    # An expression that may match nothing also writes between any two characters.
    return float(content) if _TAKES_A_CHARACTER.fullmatch(pattern.get("Regex", "")) else content + 1.0


def _longest_replacement(table: bytes) -> float:
    """The most characters that SentencePiece's table writes for one.

    A table is the number of bytes of a trie, the trie, and the replacements, each of which ends with a zero byte
    (https://github.com/google/sentencepiece/blob/master/src/normalizer.cc).
    """
    replacements = table[4 + int.from_bytes(table[:4], "little") :]
    return float(max(len(each.decode("utf-8", "replace")) for each in replacements.split(b"\0")))
