"""The Markdown pages for users -> their code blocks, each with the reason why it is not run, if there is one.

A block that the tests cannot run has a comment before it: `<!-- not run: needs a GPU -->`. A block with `title="FILE"`
is also written to that file, which later blocks of the page can read.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[2]
READMES = [ROOT / "README.md", ROOT / "shared" / "README.md", *sorted((ROOT / "packages").glob("*/README.md"))]
LISTINGS = sorted(file for file in (ROOT / "listings").glob("*/*") if file.suffix in (".md", ".mdx"))
PAGES = [*READMES, *sorted((ROOT / "docs").rglob("*.md"))]

_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)(?P<attributes>[^`\n]*)\n(?P<code>.*?)^(?P=indent)``` *$",
    re.MULTILINE | re.DOTALL,
)
_REASON = re.compile(r"<!-- not run: (?P<reason>(?:(?!-->).)+?) -->\s*\Z", re.DOTALL)
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block of a page.

    Attributes:
        place: the page and the line of its fence.
        language: "" if it names none.
        reason: why it is not run; None if it is.
        title: the file that it shows; None for no file.
        follows: the language of the block just before it, if only white space is between them.
    """

    place: str
    language: str
    code: str
    reason: str | None
    title: str | None
    follows: str | None


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a console block, in one line, and the lines that the page shows as its output."""

    line: str
    shown: list[str]


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    """The blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found, end, language = [], 0, None
    for match in _BLOCK.finditer(text):
        between = text[end : match.start()]
        reason = _REASON.search(between)
        title = _TITLE.search(match["attributes"])
        found.append(
            Block(
                place=f"{page_name(page)}:{text.count(chr(10), 0, match.start()) + 1}",
                language=match["language"],
                code=dedent(match["code"]),
                reason=None if reason is None else " ".join(reason["reason"].split()),
                title=None if title is None else title["title"],
                follows=None if between.strip() else language,
            )
        )
        end, language = match.end(), match["language"]
    return found


def commands_of(code: str) -> Iterator[Command]:
    """The commands after a `$` prompt, with their output; a line that ends in a backslash continues in the next one."""
    lines = code.replace("\\\n", " ").splitlines()
    starts = [number for number, line in enumerate(lines) if line.startswith("$ ")]
    for start, stop in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield Command(lines[start].removeprefix("$ "), [line for line in lines[start + 1 : stop] if line.strip()])
