"""`onelogit recipes`: a model -> its recipe and the reason for it; without a model, all known families."""

import argparse
from dataclasses import asdict

from rich.table import Table
from rich.text import Text

from onelogit.checkpoints.known_family import family_of_id
from onelogit.checkpoints.resolve import ResolvedRecipe, resolve_model
from onelogit.cli.model_options import add_hub_options, add_json_option, hub_options
from onelogit.cli.output import print_json
from onelogit.errors import CheckpointError
from onelogit.io.tables import FigureTable, console
from onelogit.model_spec import ModelSpec
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import ReadOut, Recipe

SUMMARY = "list the known model families, or show which recipe a model would get and why"
EXAMPLES = (
    "onelogit recipes",
    "onelogit recipes Qwen/Qwen3-Reranker-0.6B",
)
_NO_TEMPLATE = "none; the tokenizer joins query and document"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", nargs="?", help="hub id or folder (default: list all families)")
    add_json_option(parser)
    add_hub_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table of families, or the recipe of one model."""
    content: object = [asdict(recipe) for recipe in FAMILIES]
    table: FigureTable | Table = _table_of_families()
    if options.model is not None:
        found = _find_recipe(ModelSpec(options.model, options=hub_options(options)))
        content = {**asdict(found.recipe), "because": found.because}
        table = _table_of_recipe(found.recipe, found.because)
    if options.json:
        print_json(content)
    else:
        console().print(table)
    return 0


def _find_recipe(spec: ModelSpec) -> ResolvedRecipe:
    """The recipe of a model, or the table's if the model's files cannot be had, but its id is in the table."""
    try:
        found = resolve_model(spec)
        return ResolvedRecipe(found.recipe, found.because)
    except CheckpointError as error:
        known = None if "revision" in spec.options else family_of_id(str(spec.model))
        if known is None:
            raise
        return ResolvedRecipe(known.recipe, f"{known.because}; its files were not read, because {error}")


def _table_of_families() -> FigureTable:
    caption = "Models in the Sentence Transformers format need no entry. --json lists the models of each family."
    texts = ("logit", "score", "licence")
    columns = ["family", "logit", "score", "tokens", "licence"]
    table = FigureTable(columns, title="Model families known to onelogit", caption=caption, texts=texts)
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
        "licence": "not declared" if recipe.licence is None else recipe.licence,
        "source": recipe.source,
        "chat template": _NO_TEMPLATE if recipe.chat_template is None else recipe.chat_template,
    }
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return table


def _logit(read_out: ReadOut | None) -> str:
    if read_out is None:
        return "the model's own head"
    tokens = [token for token in (read_out.true, read_out.false) if token is not None]
    names = (token if isinstance(token, str) else f"token {token}" for token in tokens)
    return " − ".join(names) + ("" if read_out.scale == 1 else f", times {read_out.scale:g}")
