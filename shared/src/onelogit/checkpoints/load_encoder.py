"""A model's name and options -> what writes its prompts, without its weights and without torch."""

from collections.abc import Mapping
from typing import NamedTuple

from onelogit.checkpoints.hub import find_folder, read_texts
from onelogit.checkpoints.resolve import resolve_recipe
from onelogit.checkpoints.tokenizer_file import read_tokenizer
from onelogit.options import LongDocuments, OpenOptions
from onelogit.prompts.encoder import Encoder
from onelogit.recipes.recipe import Recipe
from onelogit.validation import checked_choice, checked_max_tokens, checked_recipe


class PromptWriter(NamedTuple):
    """What is read of a model to write its prompts.

    Attributes:
        texts: its small files.
        recipe: as it was recognised, or given.
        encoder: of the recipe, with the options' limits.
        instruction: the options', or else the recipe's default; None for none.
    """

    texts: Mapping[str, str]
    recipe: Recipe
    encoder: Encoder
    instruction: str | None


def read_prompt_writer(model: str, options: OpenOptions, position_limit: int | None = None) -> PromptWriter:
    """What writes the prompts of a model.

    Args:
        model: hub id or path of a folder.
        options: of them those about prompts, and where the model is found.
        position_limit: what the model can place, where that is known.

    Raises:
        CheckpointError: the model is not found, or its tokenizer cannot be read.
        RecipeError: it is not known how it reranks.
        InputError: a limit or a choice that is none.
    """
    folder = find_folder(model, with_weights=False, revision=options.get("revision"), token=options.get("token"))
    texts = read_texts(folder)
    recipe = resolve_recipe(model, texts, checked_recipe(options.get("recipe"))).recipe
    encoder = Encoder(
        read_tokenizer(folder, texts),
        recipe.chat_template,
        checked_max_tokens(options.get("max_tokens"), recipe, position_limit),
        adds_special_tokens=recipe.adds_special_tokens,
        allow_control_tokens=bool(options.get("allow_control_tokens")),
        has_chunks=checked_choice("long_documents", options.get("long_documents"), LongDocuments) == "chunk_max",
    )
    given = options.get("instruction")
    instruction = recipe.default_instruction if given is None else given
    if instruction is not None:
        encoder.checked(instruction, recipe.family)
    return PromptWriter(texts, recipe, encoder, instruction)
