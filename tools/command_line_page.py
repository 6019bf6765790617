"""The parser of the command `onelogit` -> docs/command-line.md: all commands, their options and examples.

    python tools/command_line_page.py

A test checks that the page is what this writes.
"""

import argparse
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from onelogit.cli.main import _COMMANDS, _parser

PAGE = Path(__file__).parents[1] / "docs" / "command-line.md"

_HEAD = """\
# Command line

`onelogit COMMAND --help` shows what this page shows; it is written from the same source, by
`python tools/command_line_page.py`. [The files that commands read](data.md) says which files and names of fields they
accept.

- **Results** go to stdout, as tables, or with `--json` as JSON; messages, warnings and progress bars go to stderr.
- **Exit codes**: 0; 1 if `verify` finds a difference, or `bulk` has pairs with errors; 2 after an error, which is one
  line on stderr; 130 after Ctrl-C.
- **Secrets** are read from the environment: `ONELOGIT_API_KEY` for a server, `HF_TOKEN` for the hub.
- **Packages**: `rank`, `recipes`, `prompt`, `convert` and `bench` need only the core, and the other commands an
  [extra](install.md#extras). If it is missing, the error says what to install.

"""
_NOT_RUN = "<!-- not run: the parser checks them; the commands of other pages run -->\n"
_SHARED = "Options of several commands"
_TITLES = {"server": "A server", "loading the model": "Loading the model", "prompt and score": "Prompt and score"}

Rows = dict[str, str]


def render() -> str:
    """The whole page."""
    commands = _parsers()
    shared = _shared_groups(commands)
    overview = "".join(
        f"| [`{name}`](#onelogit-{name}) | {parser.description} |\n" for name, parser in commands.items()
    )
    sections = "".join(_section(name, parser, shared) for name, parser in commands.items())
    tables = "".join(f"\n### {_TITLES[title]}\n\n{_table(rows)}" for title, rows in shared.items())
    return f"{_HEAD}| command | |\n|---|---|\n{overview}{sections}\n## {_SHARED}\n{tables}"


def _parsers() -> dict[str, argparse.ArgumentParser]:
    (choice,) = [each for each in _parser()._actions if isinstance(each, argparse._SubParsersAction)]
    return dict(choice.choices)


def _shared_groups(commands: dict[str, argparse.ArgumentParser]) -> dict[str, Rows]:
    """The groups that two commands or more have alike, by their title."""
    found: dict[str, list[Rows]] = {}
    for parser in commands.values():
        for title, rows in _groups(parser):
            found.setdefault(title, []).append(rows)
    return {
        title: next(rows for rows in all_rows if all_rows.count(rows) > 1)
        for title, all_rows in found.items()
        if any(all_rows.count(rows) > 1 for rows in all_rows) and title in _TITLES
    }


def _section(name: str, parser: argparse.ArgumentParser, shared: dict[str, Rows]) -> str:
    examples = "".join(f"$ {each}\n" for each in import_module(f"onelogit.cli.{name.replace('-', '_')}").EXAMPLES)
    summary = str(parser.description)
    text = f"\n## onelogit {name}\n\n{summary[:1].upper()}{summary[1:]}.\n\n{_NOT_RUN}```console\n{examples}```\n\n"
    own, also = {}, []
    for title, rows in _groups(parser):
        others = shared.get(title, {})
        common = {flag for flag in rows if rows[flag] == others.get(flag)}
        if common:
            also.append(_link(title, others.keys() - rows.keys()))
        own |= {flag: text for flag, text in rows.items() if flag not in common}
    return text + _table(own) + (f"\nAlso: {', '.join(also)}.\n" if also else "")


def _link(title: str, left_out: set[str]) -> str:
    anchor = _TITLES[title].lower().replace(" ", "-")
    without = f" (without {', '.join(sorted(left_out))})" if left_out else ""
    return f"[{_TITLES[title].lower()}](#{anchor}){without}"


def _groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, Rows]]:
    for group in parser._action_groups:
        rows = dict(_row(parser, action) for action in group._group_actions if "--help" not in action.option_strings)
        if rows:
            yield str(group.title), rows


def _row(parser: argparse.ArgumentParser, action: argparse.Action) -> tuple[str, str]:
    """The flags with the name of their value, and what they mean."""
    formatter = parser._get_formatter()
    value = formatter._format_args(action, formatter._get_default_metavar_for_optional(action))
    if not action.option_strings:
        name = str(action.metavar or action.dest)
        forms = {None: name, "+": f"{name} ...", "?": f"[{name}]", "*": f"[{name} ...]"}
        shown = f"`{forms[action.nargs]}`"
    elif action.choices is not None:
        shown = ", ".join(f"`{flag}`" for flag in action.option_strings)
    else:
        shown = ", ".join(f"`{f'{flag} {value}'.strip()}`" for flag in action.option_strings)
    text = formatter._expand_help(action)
    if action.choices is not None:
        text = f"{text}: {', '.join(f'`{choice}`' for choice in action.choices)}"
    return shown, text


def _table(rows: Rows) -> str:
    lines = "".join(f"| {_cell(flags)} | {_cell(text)} |\n" for flags, text in rows.items())
    return f"| argument | |\n|---|---|\n{lines}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    assert [*_parsers()] == [*_COMMANDS]
    PAGE.write_text(render(), encoding="utf-8")
