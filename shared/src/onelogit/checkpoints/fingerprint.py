"""A ModelSpec -> its label in results: the model's name and a digest of what affects its logits. No torch."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any, cast

from onelogit.checkpoints.adapter import ADAPTER_WEIGHTS, find_adapter
from onelogit.checkpoints.hub import ADAPTER_CONFIG, files_of_tensors
from onelogit.checkpoints.load_encoder import writes_prompts
from onelogit.checkpoints.metadata import BASE_CARD
from onelogit.checkpoints.resolve import fetch_weights, resolve_model
from onelogit.errors import CheckpointError
from onelogit.model_spec import ModelSpec
from onelogit.option_checks import plain_options
from onelogit.options import API_KEY_VARIABLE, OpenOptions
from onelogit.recipes.recipe import recipe_fields
from onelogit.validation import checked_path

# Options that do not affect the logits, and those whose files are read: the recipe's and the base model's.
_WITHOUT_EFFECT = {
    *("batch_tokens", "document_cache_bytes", "document_cache_host_bytes", "max_waiting"),
    *("compile", "device", "device_map"),
    *("api_key", "token", "headers", "timeout_s", "attempts", "requests_at_once", "pairs_a_request"),
    *("cache_dir", "local_files_only"),
    *("recipe", "base_model"),
}
# For calls of a thousand pairs that no user waits for; a server may take a minute to restart.
_PATIENT = {"timeout_s": 600.0, "attempts": 12}
_SAMPLE_BYTES = 4096
_MAX_HEADER_BYTES = 100_000_000  # as in the safetensors library


def portable_spec(spec: ModelSpec) -> ModelSpec:
    """The spec for another process, which may have another environment and working directory, as plain data."""
    model, options = spec.model, dict[str, Any](plain_options(cast("OpenOptions", spec.options)))
    if spec.folder is not None:
        model = str(spec.folder.absolute())
    if "cache_dir" in options:
        options["cache_dir"] = str((spec.base_folder / checked_path(options["cache_dir"])).absolute())
    if (base_model := _base_folder(spec)) is not None:
        options["base_model"] = str(base_model.absolute())
    if spec.url is not None:
        api_key = os.environ.get(API_KEY_VARIABLE)
        options = {**_PATIENT, **({} if api_key is None else {"api_key": api_key}), **options}
    return ModelSpec(model, spec.url, options)


def _base_folder(spec: ModelSpec) -> Path | None:
    """The local folder of an adapter's base model; None for a model on the hub, and for a whole model."""
    try:
        adapter = None if spec.folder is None else find_adapter(spec.folder, spec)
        return spec.base_model_folder if adapter is None else adapter.base_spec.folder
    except CheckpointError:  # raised when the model is opened
        return None


def model_label(spec: ModelSpec) -> str:
    """The model's name and twelve hexadecimal digits: the same on any machine for the same model, recipe and options.

    Only the size of weight files and some bytes of each tensor are read; a server's weights are unknown.

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
        model = fetch_weights(model)
        files = {*files_of_tensors(model.folder).values()}
        if model.adapter is not None:
            files.add(model.adapter.folder / ADAPTER_WEIGHTS)
        tensors = {file.name: _size_and_samples(file) for file in files}
    texts = {name: text for name, text in model.texts.items() if name not in ("README.md", BASE_CARD)}
    if model.adapter is not None:  # the base model's path may differ on each machine
        texts[ADAPTER_CONFIG] = json.dumps({**model.adapter.settings, "base_model_name_or_path": None})
    vocabulary = model.tokenizer_folder / "tokenizer.json"  # too large to be one of the texts
    tokenizer = sha256(vocabulary.read_bytes()).hexdigest() if vocabulary.is_file() else None
    return {"recipe": recipe_fields(model.recipe), "tensors": tensors, "texts": texts, "tokenizer": tokenizer}


def _size_and_samples(file: Path) -> tuple[int, str]:
    """The size of a safetensors file, and the digest of its header and of the middle of each tensor."""
    digest = sha256()
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if length > _MAX_HEADER_BYTES:
                raise ValueError(f"its header has {length:,} bytes")
            header = stream.read(length)
            digest.update(header)
            start = stream.tell()
            for name, tensor in sorted(json.loads(header).items()):
                if name != "__metadata__":
                    begin, end = tensor["data_offsets"]
                    stream.seek(start + max(begin, (begin + end - _SAMPLE_BYTES) // 2))
                    digest.update(stream.read(min(_SAMPLE_BYTES, end - begin)))
    except (OSError, ValueError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise CheckpointError(f"{file} is damaged or incomplete: {error!r}") from error
    return file.stat().st_size, digest.hexdigest()
