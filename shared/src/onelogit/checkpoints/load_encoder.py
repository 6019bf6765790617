"""A ModelSpec -> the encoder of its prompts. Reads no weights; imports neither transformers nor torch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

from tokenizers import Tokenizer

from onelogit.checkpoints.odd_paths import why_no_tokenizer
from onelogit.checkpoints.resolve import ResolvedModel, resolve_model
from onelogit.checkpoints.untrusted_tokenizer import check_tokenizer
from onelogit.errors import CheckpointError
from onelogit.model_spec import ModelSpec
from onelogit.options import TokenProtocol
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.tokenizer import stop_sampling


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
        settings = json.loads(texts.get("tokenizer_config.json", "{}"))
        bos_token = _content(settings.get("bos_token"))
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        # As transformers, which adds the special tokens that only tokenizer_config.json names.
        named = {_content(token) for token in _special_tokens(settings)} - known - {None, ""}
        backend.add_special_tokens([token for token in named if backend.token_to_id(token) is not None])
    except Exception as error:  # tokenizers raises only Exception for a damaged file
        raise CheckpointError(f"the tokenizer in {folder} cannot be read: {error}") from error
    stop_sampling(backend)
    check_tokenizer(backend, folder)
    return FileTokenizer(backend, bos_token)


def _special_tokens(settings: Mapping[str, Any]) -> list[Any]:
    """The special tokens that tokenizer_config.json names, as texts or objects."""
    lists = [settings.get(f"{kind}_special_tokens") for kind in ("additional", "extra")]
    decoder = settings.get("added_tokens_decoder")
    return [
        *(value for name, value in settings.items() if name.endswith("_token")),
        *(token for each in lists if isinstance(each, list) for token in each),
        *(token for token in (decoder.values() if isinstance(decoder, dict) else ()) if token.get("special")),
    ]


def _content(token: object) -> Any:
    """The text of a special token; None if it is not one."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
