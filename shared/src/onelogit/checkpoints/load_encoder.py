"""A ModelSpec -> the encoder of its prompts. Reads no weights; imports neither transformers nor torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, get_args

from tokenizers import Tokenizer

from onelogit.checkpoints.odd_paths import why_no_tokenizer
from onelogit.checkpoints.resolve import ResolvedModel, resolve_model
from onelogit.errors import CheckpointError
from onelogit.model_spec import ModelSpec
from onelogit.options import TokenProtocol
from onelogit.prompts.encoder import Encoder


class LoadedEncoder(NamedTuple):
    """The encoder of a model's prompts, with the parts that it was built from.

    Attributes:
        model: the model and its recipe.
        tokenizer: the model's own.
        encoder: writes its prompts, within the limits of the options.
    """

    model: ResolvedModel
    tokenizer: Tokenizer
    encoder: Encoder


class FileTokenizer(NamedTuple):
    """The parts of a tokenizer that prompts need: see `prompts.tokenizer.FastTokenizer`."""

    backend_tokenizer: Tokenizer
    bos_token: str | None
    model_input_names: tuple[str, ...] = ()


def writes_prompts(spec: ModelSpec) -> bool:
    """Whether this process writes the prompts, from the model's small files, instead of a server."""
    sends_tokens = spec.options.get("protocol") in (None, *get_args(TokenProtocol))
    return spec.url is None or sends_tokens or spec.options.get("template") == "client"


def load_encoder(spec: ModelSpec | ResolvedModel, position_limit: int | None = None) -> LoadedEncoder:
    """The encoder of a model.

    Args:
        spec: the model, with the options about prompts; if it is resolved already, it is not looked up again.
        position_limit: how many tokens the model can read; None if that is unknown.

    Raises:
        CheckpointError: the model is not found, or its tokenizer cannot be read.
        RecipeError: no recipe is known for the model.
        InputError: an option is out of range.
    """
    model = spec if isinstance(spec, ResolvedModel) else resolve_model(spec)
    tokenizer = read_tokenizer(model.tokenizer_folder, model.texts)
    encoder = Encoder(model.recipe, tokenizer, model.spec.options, position_limit)
    return LoadedEncoder(model, tokenizer.backend_tokenizer, encoder)


def read_tokenizer(folder: Path, texts: Mapping[str, str]) -> FileTokenizer:
    """The tokenizer of a folder, from its tokenizer.json and the texts of its small files.

    Raises:
        CheckpointError: the tokenizer is missing or damaged.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise CheckpointError(why_no_tokenizer(folder) or f"{folder} has no tokenizer.json")
    try:
        backend = Tokenizer.from_file(str(file))
        token = json.loads(texts.get("tokenizer_config.json", "{}")).get("bos_token")
        bos_token = token["content"] if isinstance(token, dict) else token
    except Exception as error:  # tokenizers raises only Exception for a damaged file
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error
    return FileTokenizer(backend, bos_token)
