"""A ModelSpec -> the model's folder, the texts of its small files, and its recipe with the reason for it. No torch."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from onelogit.checkpoints.adapter import Adapter, find_adapter, read_adapted_texts
from onelogit.checkpoints.hub import find_folder, read_texts
from onelogit.checkpoints.metadata import SmallFiles
from onelogit.checkpoints.odd_paths import why_no_tokenizer, why_no_weights
from onelogit.checkpoints.recipe_choice import ResolvedRecipe, known_recipe, resolve_recipe
from onelogit.errors import CheckpointError, InputError, RecipeError, UnsupportedModelError
from onelogit.model_spec import ModelSpec
from onelogit.recipes.lookup import recipe_of
from onelogit.recipes.recipe import Recipe


class ResolvedModel(NamedTuple):
    """A model that was found, with its small files and its recipe.

    Attributes:
        spec: the model's name and options.
        folder: contains at least the small files; see `fetch_weights`. Of an adapter, the base model's.
        texts: of the small files; of an adapter, with those of its base model.
        recipe: how to use the model.
        because: the reason for the recipe, for messages.
        adapter: to merge into the weights; None for a whole model.
    """

    spec: ModelSpec
    folder: Path
    texts: SmallFiles
    recipe: Recipe
    because: str
    adapter: Adapter | None = None

    @property
    def name(self) -> str:
        """The hub id or path."""
        return str(self.spec.model)

    @property
    def tokenizer_folder(self) -> Path:
        """The folder of the tokenizer: the adapter's, if it brings one."""
        return self.folder if self.adapter is None or not self.adapter.has_tokenizer else self.adapter.folder

    @property
    def modules_folder(self) -> Path:
        """The folder of the module chain that gives the logit: the adapter's, if it brings one."""
        return self.folder if self.adapter is None or not self.adapter.has_modules else self.adapter.folder


def resolve_model(spec: ModelSpec) -> ResolvedModel:
    """Find a model, read its small files, and resolve its recipe.

    Raises:
        CheckpointError: the model is not found, or its files are damaged.
        RecipeError: as `resolve_recipe`.
        InputError: the recipe in the options is invalid, a local folder is given a revision, or a whole model is
            given a base model.
    """
    given = recipe_of(spec.options.get("recipe"))
    folder, texts, adapter = find_texts(spec)
    name = str(spec.model if spec.folder is None else spec.folder)
    try:
        found = resolve_recipe(name, texts, given)
        if adapter is not None:
            adapter, found = _with_licences(adapter, found)
        return ResolvedModel(spec, folder, texts, *found, adapter=adapter)
    except UnsupportedModelError:
        raise
    except RecipeError as error:  # perhaps because files are missing
        is_used = spec.folder is not None and spec.url is None
        reason = why_no_tokenizer(folder) or (why_no_weights(folder) if is_used else None)
        if reason is None:
            raise
        raise CheckpointError(reason) from error


def find_texts(spec: ModelSpec) -> tuple[Path, SmallFiles, Adapter | None]:
    """The model's folder and the texts of its small files; of an adapter, the base model's, with the adapter.

    Raises:
        CheckpointError: as `resolve_model`.
        InputError: as `resolve_model`.
    """
    folder = find_folder(str(spec.model), spec.options, with_weights=False, base=spec.base_folder)
    adapter = find_adapter(folder, spec)
    if adapter is not None:
        return read_adapted_texts(adapter)
    texts = read_texts(folder)
    if "base_model" in spec.options:
        raise InputError(f"base_model is for a PEFT adapter, but {spec.model!r} is a whole model; leave it out")
    return folder, texts, None


def _with_licences(adapter: Adapter, found: ResolvedRecipe) -> tuple[Adapter, ResolvedRecipe]:
    """The adapter and the recipe with the licences of both the base model and the adapter."""
    known = known_recipe(adapter.base)
    if adapter.base_licence is None and known is not None:
        adapter = adapter._replace(base_licence=known.recipe.licence)
    named = dict.fromkeys(each for each in (adapter.base_licence, adapter.own_licence) if each is not None)
    licence = ", ".join(named) or found.recipe.licence
    return adapter, found._replace(recipe=replace(found.recipe, licence=licence))


def fetch_weights(model: ResolvedModel) -> ResolvedModel:
    """The same model with its weights on this machine: downloaded from the hub, unless it is a local folder.

    Of an adapter, also those of its base model.
    """
    spec, adapter = model.spec, model.adapter
    if adapter is not None:
        adapter = adapter.with_weights()
        return model._replace(folder=adapter.find_base(with_weights=True), adapter=adapter)
    if model.folder == spec.folder:
        return model
    return model._replace(folder=find_folder(model.name, spec.options, with_weights=True, base=spec.base_folder))
