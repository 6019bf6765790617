"""A ModelSpec -> the model's folder, the texts of its small files, and its recipe with the reason for it. No torch."""

from pathlib import Path
from typing import NamedTuple

from onelogit.checkpoints.hub import find_folder, read_texts
from onelogit.checkpoints.metadata import SmallFiles
from onelogit.checkpoints.odd_paths import why_no_tokenizer, why_no_weights
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.errors import CheckpointError, RecipeError, UnsupportedModelError
from onelogit.model_spec import ModelSpec
from onelogit.recipes.lookup import recipe_of
from onelogit.recipes.recipe import Recipe


class ResolvedModel(NamedTuple):
    """A model that was found, with its small files and its recipe.

    Attributes:
        spec: the model's name and options.
        folder: contains at least the small files; see `fetch_weights`.
        texts: of the small files.
        recipe: how to use the model.
        because: the reason for the recipe, for messages.
    """

    spec: ModelSpec
    folder: Path
    texts: SmallFiles
    recipe: Recipe
    because: str

    @property
    def name(self) -> str:
        """The hub id or path."""
        return str(self.spec.model)


def resolve_model(spec: ModelSpec) -> ResolvedModel:
    """Find a model, read its small files, and resolve its recipe.

    Raises:
        CheckpointError: the model is not found, or its files are damaged.
        RecipeError: as `resolve_recipe`.
        InputError: the recipe in the options is invalid, or a local folder is given a revision.
    """
    given = recipe_of(spec.options.get("recipe"))
    folder = find_folder(str(spec.model), spec.options, with_weights=False, base=spec.base_folder)
    texts = read_texts(folder)
    name = str(spec.model if spec.folder is None else spec.folder)
    try:
        return ResolvedModel(spec, folder, texts, *resolve_recipe(name, texts, given))
    except UnsupportedModelError:
        raise
    except RecipeError as error:  # perhaps because files are missing
        is_used = spec.folder is not None and spec.url is None
        reason = why_no_tokenizer(folder) or (why_no_weights(folder) if is_used else None)
        if reason is None:
            raise
        raise CheckpointError(reason) from error


def fetch_weights(model: ResolvedModel) -> ResolvedModel:
    """The same model with its weights on this machine: downloaded from the hub, unless it is a local folder."""
    spec = model.spec
    if model.folder == spec.folder:
        return model
    return model._replace(folder=find_folder(model.name, spec.options, with_weights=True, base=spec.base_folder))
