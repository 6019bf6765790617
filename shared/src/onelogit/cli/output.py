"""What a command prints besides its tables: results as JSON on stdout, and a line to people on stderr."""

import json
import unicodedata

from rich.console import Console

from onelogit.options import DEMO_NOTE, is_demo


def print_json(content: object) -> None:
    """One line of JSON in which no character acts on a terminal: those without a glyph are spelled in ASCII."""
    written = json.dumps(content, ensure_ascii=False)
    print("".join(_spelled(character) for character in written))  # noqa: T201


def say(text: str) -> None:
    """A line to people, which no pipe passes on."""
    Console(stderr=True, soft_wrap=True, highlight=False).print(f"onelogit: {text}", markup=False)


def mention_demo(model: str | None) -> None:
    """Say so where the model is the demo model, whose figures mean nothing."""
    if model is not None and is_demo(model):
        say(DEMO_NOTE)


def _spelled(character: str) -> str:
    is_mute = unicodedata.category(character) in ("Cc", "Cf", "Zl", "Zp")
    return json.dumps(character)[1:-1] if is_mute else character
