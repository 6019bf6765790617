"""The command `onelogit`: arguments in, tables or JSON out, errors as one line with exit code 2."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from io import TextIOWrapper
from typing import NoReturn

from huggingface_hub.utils.tqdm import disable_progress_bars

from onelogit import __version__
from onelogit.cli import bench, bulk, convert, evaluate, rank, recipes, verify
from onelogit.cli.output import say
from onelogit.errors import InputError, OnelogitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None for those of the process.

    Returns:
        0; 1 where `verify` finds a difference, or `bulk` pairs with errors; 2 for an error that was printed; 130 where
        it was interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that lacks a character shows another
    try:
        options = _parsed(arguments)
    except InputError as error:
        say(str(error))
        return 2
    options.arguments = [*arguments]
    if not sys.stderr.isatty():
        disable_progress_bars()  # the hub's and, since they ask it, transformers'
    return _run(options)


def _run(options: argparse.Namespace) -> int:
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        code = command(options)
        sys.stdout.flush()  # here, where a pipe that closed is no error
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the interpreter's last flush fails
        return 0
    except SystemExit:  # Rich's own end where a pipe closed; it has put the null device in its place
        return 0
    except OnelogitError as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        return 130


class _Parser(argparse.ArgumentParser):
    """What is wrong is one line here, too, and not the usage of all options."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; see {self.prog} --help")


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The arguments; documents may stand on both sides of options, which argparse by itself does not allow.

    Raises:
        InputError: they are none.
    """
    options, rest = _parser().parse_known_args(arguments)
    if rest and (not hasattr(options, "document") or any(each.startswith("-") for each in rest)):
        options.parser.error(f"unknown arguments: {' '.join(rest)}")
    if rest:
        options.document += rest
    return options


def _parser() -> _Parser:
    # No option may be cut short: what is clear today would not be once there is another.
    parser = _Parser(prog="onelogit", description="Decoder language models as one-logit rerankers.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"onelogit {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for module in (rank, recipes, convert, verify, bench, evaluate, bulk):
        name = module.__name__.rpartition(".")[2]
        command = commands.add_parser(name, help=module.SUMMARY, description=module.SUMMARY, allow_abbrev=False)
        module.add_arguments(command)
        command.set_defaults(command=module.run, parser=command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
