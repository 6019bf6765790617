"""A model and its options -> what they are called in results: a name, and a digest of all that changes a logit."""

import json
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from onelogit.files import files_of_tensors, find_folder, read_texts
from onelogit.inputs import checked_recipe
from onelogit.options import OpenOptions, plain_options
from onelogit.recipes import recipe_fields
from onelogit.recognise import recognise

# What says where and how fast, but not what; and who may.
_NOT_OF_THE_LOGIT = {
    *("batch_tokens", "document_cache_bytes", "document_cache_host_bytes", "device", "device_map"),
    *("token", "api_key", "headers"),
}
_TAIL_BYTES = 2**16


def is_server(model: str) -> bool:
    """Whether the model is the URL of a server."""
    return model.startswith(("http://", "https://"))


def sent_options(model: str, options: OpenOptions) -> OpenOptions:
    """The options as data that can travel to another process.

    Raises:
        InputError: an unknown option.
    """
    if is_server(model):
        return cast("OpenOptions", {name: value for name, value in options.items() if value not in (None, False)})
    return plain_options(options)


def sent_name(model: str) -> str:
    """The model's name as another process knows it, which may work in another folder."""
    return str(Path(model).expanduser().absolute()) if not is_server(model) and _is_folder(model) else model


def model_label(model: str, options: OpenOptions) -> str:
    """The model's name and twelve hexadecimal digits; the same for the same model, recipe and options anywhere.

    Of the weights, their sizes and last bytes are looked at.

    Raises:
        CheckpointError: the model is not found, or damaged.
        RecipeError: it is not known how it reranks.
    """
    facts: dict[str, object] = {
        name: value for name, value in options.items() if name not in _NOT_OF_THE_LOGIT and value is not False
    }
    if not is_server(model):
        facts |= _facts_of(model, options)
    digest = sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{Path(model).absolute().name if _is_folder(model) else model}@{digest}"


def _facts_of(model: str, options: OpenOptions) -> dict[str, object]:
    revision, token = options.get("revision"), options.get("token")
    small = find_folder(model, with_weights=False, revision=revision, token=token)
    recipe = recognise(model, read_texts(small), checked_recipe(options.get("recipe"))).recipe
    folder = find_folder(model, with_weights=True, revision=revision, token=token)
    tensors = {file.name: _size_and_tail(file) for file in {*files_of_tensors(folder).values()}}
    texts = {name: text for name, text in read_texts(folder).items() if name != "README.md"}
    return {"recipe": recipe_fields(recipe), "tensors": tensors, "texts": texts}


def _size_and_tail(file: Path) -> tuple[int, Any]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - _TAIL_BYTES))
        return size, sha256(stream.read()).hexdigest()


def _is_folder(model: str) -> bool:
    return Path(model).expanduser().is_dir()
