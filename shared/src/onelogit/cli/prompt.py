"""`onelogit prompt`: a model, a query and a document -> the exact prompt, its answer tokens, likeliest next tokens."""

import argparse
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from onelogit.checkpoints.load_encoder import load_encoder
from onelogit.checkpoints.metadata import read_position_limit
from onelogit.checkpoints.resolve import ResolvedModel, fetch_weights, resolve_model
from onelogit.cli.model_options import add_json_option, add_model_options, model_spec, source_of_recipe
from onelogit.cli.output import mention_demo, print_json, printable, printable_lines
from onelogit.errors import InputError, counted
from onelogit.io.progress import waiting
from onelogit.io.tables import FigureTable, console
from onelogit.prompts.prompt import DOUBTFUL_PROMPT, PartKind, Prompt
from onelogit.recipes.recipe import Recipe
from onelogit.validation import checked_pair

if TYPE_CHECKING:
    from onelogit.local.next_tokens import NextTokens

SUMMARY = "show the exact prompt of a query and a document, and the answer tokens that the logit is read from"
EXAMPLES = (
    'onelogit prompt Qwen/Qwen3-Reranker-0.6B --query "Which fruit is yellow?" --document "Bananas are yellow."',
    "onelogit prompt Qwen/Qwen3-Reranker-0.6B --weights",
)
_STYLES: dict[PartKind, str] = {
    "control": "bold magenta",
    "constant": "",
    "instruction": "yellow",
    "query": "cyan",
    "document": "green",
}
_NEXT_TOKENS = 10
_END_CHARACTERS = 30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add = parser.add_argument
    add("model", help="hub id or folder; only its small files and its tokenizer are read, unless --weights is given")
    add("--query", metavar="TEXT", default="What is the capital of China?", help="the query (default: a sample)")
    help_text = "the document (default: a sample)"
    add("--document", metavar="TEXT", dest="text", default="The capital of China is Beijing.", help=help_text)
    help_text = "load the weights, and show the likeliest next tokens and the share of the answers among them"
    add("--weights", action="store_true", help=help_text)
    add_json_option(parser)
    add_model_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the prompt, its size and its answers; with --weights, the likeliest next tokens."""
    query, document = checked_pair(options.query, options.text)
    spec = model_spec(options, options.model)
    if spec.url is not None:
        raise InputError(f"{spec.url} is a server; name the model that it serves, whose prompts are to be shown")
    found = resolve_model(spec)
    if options.weights:
        prompt, next_tokens = _with_weights(found, query, document)
    else:
        encoder = load_encoder(found, read_position_limit(found.texts)).encoder
        prompt, next_tokens = encoder.describe(query, document, encoder.instruction), None
    if options.json:
        named = {"model": found.name, "family": found.recipe.family, "because": found.because}
        print_json({**named, **prompt.to_json(), **({} if next_tokens is None else next_tokens.to_json())})
    else:
        out = console(soft_wrap=True)
        out.print(_shown(prompt, out))
        out.print(_facts(found, prompt, options), soft_wrap=False)
        if next_tokens is not None:
            out.print(_table_of(next_tokens), soft_wrap=False)
            if next_tokens.is_prompt_doubtful and (doubt := _doubt(found.recipe, is_given="recipe" in spec.options)):
                out.print(Text(doubt, style="bold red"))
    mention_demo(options.model)
    return 0


def _with_weights(found: ResolvedModel, query: str, document: str) -> "tuple[Prompt, NextTokens | None]":
    """The prompt and the likeliest next tokens; None for a model with a head of its own."""
    fetched = fetch_weights(found)
    with waiting(f"loading {found.name}"):
        from onelogit.local.reranker import Reranker  # noqa: PLC0415  loads torch

        reranker = Reranker.load(fetched)
    with reranker:
        prompt = reranker.prompt(query, document)
        return prompt, reranker.next_tokens(query, document, count=_NEXT_TOKENS) if prompt.answers else None


def _shown(prompt: Prompt, out: Console) -> Text:
    """The text with its parts in colours, a mark where the document is cut, and visible newlines at its end."""
    shown = Text()
    for kind, text in prompt.parts:
        shown.append(printable_lines(text), style=_STYLES[kind])
        if kind == "document" and prompt.unread:
            shown.append(f"[cut here: {counted(len(prompt.unread), 'more character')}]", style="reverse")
    end = len(prompt.text) - len(prompt.text.rstrip("\n"))
    shown = shown[: len(shown) - end]
    mark = "\\n" if out.options.ascii_only else "↵"
    for index in range(end):
        shown.append(mark if index == end - 1 else f"{mark}\n", style="dim")
    return shown


def _facts(found: ResolvedModel, prompt: Prompt, options: argparse.Namespace) -> Table:
    table = Table(show_header=False, box=box.SIMPLE)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    given = source_of_recipe(options)
    rows = {
        "tokens": f"{len(prompt.ids):,} of at most {prompt.max_tokens:,}",
        "document": _reading(prompt),
        "ends in": repr(prompt.text[-_END_CHARACTERS:]),
        "logit": _logit(found.recipe, prompt),
        "recipe": f"{found.recipe.family}: {found.because}" if given is None else f"given by {given}",
    }
    if not prompt.answers:
        rows["next token"] = "none, because the model has a head of its own"
    elif not options.weights:
        rows["next token"] = "--weights shows the likeliest, and whether the answers are among them"
    for name, value in rows.items():
        table.add_row(name, Text(printable(value)))
    return table


def _reading(prompt: Prompt) -> str:
    if not prompt.is_cut:
        return "whole"
    read = sum(len(part.text) for part in prompt.parts if part.kind == "document")
    if prompt.chunk_count > 1:
        return f"read in {prompt.chunk_count:,} chunks, of which this is the first"
    return (
        f"cut after {read:,} of {read + len(prompt.unread):,} characters; the whole prompt would have "
        f"{prompt.whole_token_count:,} tokens"
    )


def _logit(recipe: Recipe, prompt: Prompt) -> str:
    """How the logit is read, with the texts and ids of the answer tokens."""
    if recipe.read_out is None:
        return "the model's own head"
    answers = " − ".join(f"{text!r} (token {id})" for text, id in prompt.answers)
    return answers + ("" if recipe.read_out.scale == 1 else f", times {recipe.read_out.scale:g}")


def _table_of(found: "NextTokens") -> FigureTable:
    names = " and ".join(repr(answer.text) for answer in found.answers)
    subject = f"The answers {names} have" if len(found.answers) > 1 else f"The answer {names} has"
    caption = f"{subject} a share of {found.answer_share:.2g}. This says nothing about relevance."
    table = FigureTable(["next token", "id", "probability"], title="Likeliest next tokens", caption=caption)
    for text, id, probability in found.tokens:
        table.add_row(repr(text), str(id), f"{probability:.4f}")
    return table


def _doubt(recipe: Recipe, *, is_given: bool) -> str | None:
    """What an unlikely answer says about the prompt; None if it says nothing."""
    if recipe.read_out is None or recipe.read_out.false is not None:
        trained_otherwise = ", or it was trained only to order documents, as the demo model was"
        return f"{DOUBTFUL_PROMPT}{'' if is_given else trained_otherwise}."
    # The only answer is one for relevant documents, or a token that a family's training uses for nothing but the score.
    return f"{DOUBTFUL_PROMPT}, unless the document is irrelevant." if is_given else None
