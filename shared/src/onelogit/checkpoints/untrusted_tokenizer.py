"""A tokenizer, which a stranger wrote -> an error if its rules may make a text many times as long. No torch.

Its library would end the process when memory runs out.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from typing import Any

from tokenizers import Tokenizer

from onelogit.errors import CheckpointError, first_line

_MAX_GROWTH = 1_000  # times; published normalizers replace a character by at most a few
# A sequence of characters, classes and their repetitions, which takes a character in every dialect of expressions.
_TAKES_A_CHARACTER = re.compile(
    r"(?:(?:\\[sSdDwWnrt]|\[\^?(?:\\.|[^\[\]\\&])+\]|[^\\\[\](){}?*+|^$])(?:\+|\{[1-9]\d*,?\})?)+"
)
_PARTS = ("normalizers", "decoders", "pretokenizers")


def check_growth(backend: Tokenizer, name: object) -> None:
    """Check the normalizer and the decoder of a tokenizer, before it reads any text.

    Args:
        backend: the tokenizer.
        name: of its folder, for messages.

    Raises:
        CheckpointError: their replacements together may make a text more than a thousand times as long.
    """
    for step in (backend.normalizer, backend.decoder):
        rules = [] if step is None else [*_rules(json.loads(step.__getstate__()))]
        growth = math.prod(max(1.0, _growth_of(rule)) for rule in rules)
        if growth > _MAX_GROWTH:
            raise CheckpointError(
                f"the tokenizer in {name} may make a text {growth:.3g} times as long, of at most {_MAX_GROWTH:,}, "
                "so it may be hostile; copy tokenizer.json from the original"
            )


def check_reads(backend: Tokenizer, name: object) -> None:
    """Check that a tokenizer reads a text and a pair: files that contradict themselves make its library panic.

    Args:
        backend: the tokenizer, after `check_growth`.
        name: of its folder, for messages.

    Raises:
        CheckpointError: it cannot, or it reads a letter as nothing.
    """
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
    if rule.get("type") != "Replace":
        return 1.0
    pattern, content = rule["pattern"], len(rule["content"])
    if text := pattern.get("String"):
        return content / len(text)
    # An expression that may match nothing also writes between any two characters.
    return float(content) if _TAKES_A_CHARACTER.fullmatch(pattern.get("Regex", "")) else content + 1.0
