"""The command `onelogit`: arguments -> tables or JSON on stdout, or a one-line error on stderr with exit code 2."""

import argparse
import errno
import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Any, NoReturn

from huggingface_hub.utils.tqdm import disable_progress_bars

from onelogit import __version__
from onelogit.cli.number_lists import joined_lists
from onelogit.cli.output import SafeFormatter, say
from onelogit.errors import InputError, OnelogitError
from onelogit.option_names import meant_option

_EXAMPLES = "examples:"
_FULL = {getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG", "EIO") if hasattr(errno, name)}
# Modules of this package.
_COMMANDS = ("rank", "recipes", "prompt", "convert", "verify", "bench", "evaluate", "bulk", "serve")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None for `sys.argv`.

    Returns:
        The exit code: 0; 1 if `verify` finds a difference or `bulk` has pairs with errors; 2 after an error message;
        130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # for characters that the terminal's encoding lacks
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(SafeFormatter())
    try:
        options = _parse_arguments(arguments)
    except InputError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    options.arguments = [*arguments]
    if not sys.stderr.isatty():
        disable_progress_bars()  # of the hub; transformers follows the hub's setting
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()  # inside the try block, so that a closed pipe is handled below
        return code
    except BrokenPipeError:
        _discard_output()
        return 0
    except OSError as error:
        if error.errno not in _FULL:
            raise
        _discard_output()
        say(f"the output cannot be written: {error.strerror}")
        return 2
    except SystemExit:  # Rich exits if the pipe is closed, after replacing stdout by the null device
        return 0
    except OnelogitError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit fails


class _HelpFormatter(argparse.HelpFormatter):
    """Keeps the lines of the examples, which can then be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if text.startswith(_EXAMPLES) else super()._fill_text(text, width, indent)


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage text."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parse_arguments(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the arguments. Unlike plain argparse, this accepts documents both before and after options.

    Raises:
        InputError: an argument is wrong or unknown.
    """
    options, rest = _parser().parse_known_args(joined_lists(arguments, "-k"))
    if rest and (not hasattr(options, "document") or any(each.startswith("-") for each in rest)):
        options.parser.error(f"unknown arguments: {' '.join(rest)}{_meant_flags(rest, options.parser)}")
    if rest:
        options.document += rest
    return options


def _meant_flags(rest: Sequence[str], parser: argparse.ArgumentParser) -> str:
    known = {flag[2:].replace("-", "_") for flag in re.findall(r"--[\w-]+", parser.format_usage())}
    given = [each.partition("=")[0] for each in rest if each.startswith("--")]
    meant = {flag: meant_option(flag[2:].replace("-", "_"), known) for flag in given}
    hints = [f"{flag} is --{name.replace('_', '-')} here" for flag, name in meant.items() if name is not None]
    return f" ({', '.join(hints)})" if hints else ""


def _parser() -> _Parser:
    # No abbreviations: a new option could make one ambiguous.
    shared: dict[str, Any] = {"allow_abbrev": False, "formatter_class": _HelpFormatter}
    modules = {name: import_module(f"onelogit.cli.{name.replace('-', '_')}") for name in _COMMANDS}
    examples = _examples([modules[name].EXAMPLES[0] for name in ("rank", "evaluate")])
    description = "Rerank with decoder language models."
    parser = _Parser(prog="onelogit", description=description, epilog=examples, **shared)
    parser.add_argument("--version", action="version", version=f"onelogit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, module in modules.items():
        examples, summary = _examples(module.EXAMPLES), module.SUMMARY
        command = commands.add_parser(name, help=summary, description=summary, epilog=examples, **shared)
        module.add_arguments(command)
        command.set_defaults(command=module.run, parser=command)
    return parser


def _examples(commands: Sequence[str]) -> str:
    """The last lines of a help text."""
    return "\n  ".join([_EXAMPLES, *commands])


if __name__ == "__main__":
    sys.exit(main())
