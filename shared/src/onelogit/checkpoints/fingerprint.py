"""A ModelSpec -> its label in results: the model's name and a digest of what affects its logits. No torch."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from onelogit.checkpoints.hub import files_of_tensors
from onelogit.checkpoints.load_encoder import writes_prompts
from onelogit.checkpoints.resolve import fetch_weights, resolve_model
from onelogit.model_spec import ModelSpec
from onelogit.options import API_KEY_VARIABLE, OpenOptions, plain_options
from onelogit.recipes.recipe import recipe_fields
from onelogit.validation import checked_path

# Options that do not affect the logits, and the recipe, which is resolved before it enters the digest.
_WITHOUT_EFFECT = {
    *("batch_tokens", "document_cache_bytes", "document_cache_host_bytes", "compile", "device", "device_map"),
    *("api_key", "token", "headers", "timeout_s", "attempts", "requests_at_once", "pairs_a_request"),
    *("cache_dir", "local_files_only"),
    "recipe",
}
# For calls of a thousand pairs that no user waits for; a server may take a minute to restart.
_PATIENT = {"timeout_s": 600.0, "attempts": 12}
_TAIL_BYTES = 2**16


def portable_spec(spec: ModelSpec) -> ModelSpec:
    """The spec for another process, which may have another environment and working directory, as plain data."""
    model, options = spec.model, dict[str, Any](plain_options(cast("OpenOptions", spec.options)))
    if spec.folder is not None:
        model = str(spec.folder.absolute())
    if "cache_dir" in options:
        options["cache_dir"] = str((spec.base_folder / checked_path(options["cache_dir"])).absolute())
    if spec.url is not None:
        api_key = os.environ.get(API_KEY_VARIABLE)
        options = {**_PATIENT, **({} if api_key is None else {"api_key": api_key}), **options}
    return ModelSpec(model, spec.url, options)


def model_label(spec: ModelSpec) -> str:
    """The model's name and twelve hexadecimal digits: the same on any machine for the same model, recipe and options.

    Only the sizes and the last bytes of weight files are read; a server's weights are unknown.

    Raises:
        CheckpointError: the model is not found, or damaged.
        RecipeError: no recipe is known for the model.
    """
    facts: dict[str, object] = {
        name: value for name, value in spec.options.items() if name not in _WITHOUT_EFFECT and value is not False
    }
    facts["raw_logits"] = spec.options.get("raw_logits")
    if spec.model is not None and writes_prompts(spec):
        facts |= _facts_of(spec)
    digest = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    return f"{spec.name if spec.folder is None else spec.folder.absolute().name}@{digest}"


def _facts_of(spec: ModelSpec) -> dict[str, Any]:
    model = resolve_model(spec)
    tensors = {}
    if spec.url is None:
        folder = fetch_weights(model).folder
        tensors = {file.name: _size_and_tail(file) for file in {*files_of_tensors(folder).values()}}
    texts = {name: text for name, text in model.texts.items() if name != "README.md"}
    return {"recipe": recipe_fields(model.recipe), "tensors": tensors, "texts": texts}


def _size_and_tail(file: Path) -> tuple[int, str]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - _TAIL_BYTES))
        return size, sha256(stream.read()).hexdigest()
