"""`onelogit recipes`: a model -> its recipe and the reason for it; without a model, all known families."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import asdict, replace

from rich.table import Table
from rich.text import Text

from onelogit.checkpoints.known_family import family_of_id
from onelogit.checkpoints.load_encoder import read_tokenizer
from onelogit.checkpoints.metadata import read_position_limit
from onelogit.checkpoints.recipe_choice import ResolvedRecipe
from onelogit.checkpoints.resolve import ResolvedModel, resolve_model
from onelogit.cli.model_options import add_hub_options, add_json_option, hub_options
from onelogit.cli.output import print_json, printable_lines
from onelogit.errors import CheckpointError, RecipeError
from onelogit.io.tables import FigureTable, console
from onelogit.model_spec import ModelSpec
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.lookup import family_recipe
from onelogit.recipes.recipe import ReadOut, Recipe
from onelogit.validation import checked_max_tokens

SUMMARY = "list the known model families, or show which recipe a model would get and why"
EXAMPLES = (
    "onelogit recipes",
    "onelogit recipes Qwen/Qwen3-Reranker-0.6B",
)
_NO_TEMPLATE = "none; the tokenizer joins query and document"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("model", nargs="?", help="hub id, folder, or name of a family (default: list all families)")
    add_json_option(parser)
    add_hub_options(parser)


def run(options: argparse.Namespace) -> int:
    """Print the table of families, or the recipe of one model."""
    content: object = [asdict(recipe) for recipe in FAMILIES]
    table: FigureTable | Table = _table_of_families()
    if options.model is not None:
        found, token_texts = _find_recipe(ModelSpec(options.model, options=hub_options(options)))
        content = {**asdict(found.recipe), "because": found.because, "token_texts": token_texts}
        table = _table_of_recipe(found.recipe, found.because, token_texts)
    if options.json:
        print_json(content)
    else:
        console().print(table)
    return 0


def _find_recipe(spec: ModelSpec) -> tuple[ResolvedRecipe, dict[int, str]]:
    """The recipe of a model, with the limit that it has once it is loaded.

    If the files cannot be read, and the id is in the table or a family has this name, the table's recipe. Also the
    texts of the answer tokens, by id, if the tokenizer is known.
    """
    try:
        found = resolve_model(spec)
        max_tokens = checked_max_tokens(None, found.recipe, read_position_limit(found.texts))
        return ResolvedRecipe(replace(found.recipe, max_tokens=max_tokens), found.because), _token_texts(found)
    except CheckpointError as error:
        known = None if "revision" in spec.options else family_of_id(str(spec.model))
        if known is not None:
            return ResolvedRecipe(known.recipe, f"{known.because}; its files were not read, because {error}"), {}
        if (family := _family_called(str(spec.model))) is None:
            raise
        return ResolvedRecipe(family, "its name, which is a family's and no model's, so no files were read"), {}


def _family_called(name: str) -> Recipe | None:
    try:
        return None if "/" in name or os.path.exists(name) else family_recipe(name)  # noqa: PTH110  False for any string
    except RecipeError:
        return None


def _token_texts(model: ResolvedModel) -> dict[int, str]:
    """The texts of the answer tokens that the recipe gives by id; none if the tokenizer cannot be read."""
    ids = [token for token in _answer_tokens(model.recipe.read_out) if isinstance(token, int)]
    try:
        tokenizer = read_tokenizer(model.tokenizer_folder, model.texts).backend_tokenizer
    except CheckpointError:
        return {}
    texts = {id: tokenizer.decode([id], skip_special_tokens=False) for id in ids}
    return {id: text for id, text in texts.items() if text}  # a text is empty for an id beyond the vocabulary


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


def _table_of_recipe(recipe: Recipe, because: str, token_texts: Mapping[int, str]) -> Table:
    table = Table(show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    rows = {
        "family": recipe.family,
        "recognised by": because,
        "logit": _logit(recipe.read_out, token_texts),
        "score": recipe.activation,
        "instruction": recipe.default_instruction or "none",
        "max tokens": f"{recipe.max_tokens:,}",
        "licence": "not declared" if recipe.licence is None else recipe.licence,
        "source": recipe.source,
        "chat template": _NO_TEMPLATE if recipe.chat_template is None else recipe.chat_template,
    }
    for name, value in rows.items():
        table.add_row(name, Text(printable_lines(value)))
    return table


def _answer_tokens(read_out: ReadOut | None) -> list[int | str]:
    tokens = () if read_out is None else (read_out.true, read_out.false)
    return [token for token in tokens if token is not None]


def _logit(read_out: ReadOut | None, token_texts: Mapping[int, str] | None = None) -> str:
    if read_out is None:
        return "the model's own head"
    names = []
    for token in _answer_tokens(read_out):
        text = None if isinstance(token, str) else (token_texts or {}).get(token)
        name = token if isinstance(token, str) else f"token {token}"
        names.append(name if text is None else f"{text!r} ({name})")
    return " − ".join(names) + ("" if read_out.scale == 1 else f", times {read_out.scale:g}")
