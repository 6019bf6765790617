"""`onelogit recipes`: the families that are known, or what would be used for a model, and why."""

import argparse
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onelogit.checkpoints.hub import find_folder, read_texts
from onelogit.checkpoints.resolve import resolve_recipe
from onelogit.cli.model_options import add_json_option, add_revision_option
from onelogit.cli.output import print_json
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import ReadOut, Recipe

SUMMARY = "the families that are known, or what would be used for a model, and which file said so"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """What the command takes."""
    parser.add_argument("model", nargs="?", help="hub id or folder; all families where left out")
    add_json_option(parser)
    add_revision_option(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table of families, or the recipe of one model."""
    if options.model is None:
        _print([asdict(recipe) for recipe in FAMILIES], _table_of_families(), is_json=options.json)
        return 0
    folder = find_folder(options.model, with_weights=False, revision=options.revision)
    recipe, because = resolve_recipe(options.model, read_texts(folder))
    _print({**asdict(recipe), "because": because}, _table_of_recipe(recipe, because), is_json=options.json)
    return 0


def _print(content: object, table: Table, *, is_json: bool) -> None:
    if is_json:
        print_json(content)
    else:
        Console().print(table)


def _table_of_families() -> Table:
    caption = "A model that declares itself needs no entry. --json names the models of each family."
    table = Table(title="Families that onelogit knows", caption=caption)
    for name in ("family", "logit", "score", "tokens", "licence"):
        is_right, is_whole = name == "tokens", name in ("family", "logit")
        table.add_column(name, justify="right" if is_right else "left", no_wrap=is_whole, overflow="fold")
    for recipe in FAMILIES:
        licence = "see the model's card" if recipe.licence is None else recipe.licence
        logit = _logit(recipe.read_out)
        table.add_row(recipe.family, logit, recipe.activation, f"{recipe.max_tokens:,}", licence)
    return table


def _table_of_recipe(recipe: Recipe, because: str) -> Table:
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "family": recipe.family,
        "recognised by": because,
        "logit": _logit(recipe.read_out),
        "score": recipe.activation,
        "instruction": recipe.default_instruction or "none",
        "max tokens": f"{recipe.max_tokens:,}",
        "licence": "not named" if recipe.licence is None else recipe.licence,
        "source": recipe.source,
        "chat template": "none: a pair for the tokenizer" if recipe.chat_template is None else recipe.chat_template,
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _logit(read_out: ReadOut | None) -> str:
    if read_out is None:
        return "its own head"
    tokens = [
        token if isinstance(token, str) else f"token {token}"
        for token in (read_out.true, read_out.false)
        if token is not None
    ]
    return " − ".join(tokens) + ("" if read_out.scale == 1 else f", times {read_out.scale:g}")
