"""A model and its options -> what they are called in results: a name, and a digest of all that changes a logit."""

import json
import os
from hashlib import sha256
from pathlib import Path

from onelogit.checkpoints.hub import files_of_tensors, find_folder, read_texts
from onelogit.checkpoints.resolve import resolve_recipe
from onelogit.options import API_KEY_VARIABLE, OpenOptions, check_place, is_url, plain_options
from onelogit.recipes.recipe import recipe_fields
from onelogit.validation import checked_path, checked_recipe

# What says where, how fast and who may, but not what.
_NOT_OF_THE_LOGIT = {
    *("batch_tokens", "document_cache_bytes", "document_cache_host_bytes", "compile", "device", "device_map"),
    *("api_key", "token", "headers", "timeout_s", "attempts", "requests_at_once", "pairs_a_request"),
    *("url", "model", "recipe"),
}
# Nobody waits for a call, which is of a thousand pairs; a server may take a minute to start anew.
_PATIENT: OpenOptions = {"timeout_s": 600.0, "attempts": 12}
_TAIL_BYTES = 2**16


def is_remote(model: str, options: OpenOptions) -> bool:
    """Whether a server scores."""
    return is_url(model) or options.get("url") is not None


def sent_options(model: str, options: OpenOptions) -> OpenOptions:
    """The options as another process needs them, which may have another environment and work in another folder.

    Raises:
        InputError: an unknown option, or one that has no part in a server, or in a local model.
    """
    sent = plain_options(options)
    check_place({**sent, "url": model} if is_url(model) else sent)
    if (served := sent.get("model")) is not None:
        sent["model"] = sent_name(served)
    if is_remote(model, sent):
        api_key = os.environ.get(API_KEY_VARIABLE)
        sent = {**_PATIENT, **({} if api_key is None else {"api_key": api_key}), **sent}
    return sent


def sent_name(model: str) -> str:
    """The model's name as another process knows it."""
    return str(checked_path(model).absolute()) if _is_folder(model) else model


def model_label(model: str, options: OpenOptions) -> str:
    """The model's name and twelve hexadecimal digits; the same for the same model, recipe and options anywhere.

    Of weights, the sizes and last bytes are looked at; of a server's, nothing.

    Raises:
        CheckpointError: the model is not found, or damaged.
        RecipeError: it is not known how it reranks.
    """
    named = options.get("model") if is_url(model) else model
    facts: dict[str, object] = {
        name: value for name, value in options.items() if name not in _NOT_OF_THE_LOGIT and value is not False
    }
    facts["raw_logits"] = options.get("raw_logits")
    if named is not None and _writes_prompts(model, options):
        facts |= _facts_of(named, options, with_weights=not is_remote(model, options))
    digest = sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    name = model if named is None else named
    return f"{Path(name).absolute().name if _is_folder(name) else name}@{digest}"


def _writes_prompts(model: str, options: OpenOptions) -> bool:
    """Whether prompts are written here, and so the model's files read."""
    is_of_texts = options.get("protocol") not in (None, "vllm-tokens")
    return not (is_remote(model, options) and is_of_texts and options.get("template") != "client")


def _facts_of(model: str, options: OpenOptions, *, with_weights: bool) -> dict[str, object]:
    revision, token = options.get("revision"), options.get("token")
    folder = find_folder(model, with_weights=False, revision=revision, token=token)
    recipe = resolve_recipe(model, read_texts(folder), checked_recipe(options.get("recipe"))).recipe
    tensors = {}
    if with_weights:
        folder = find_folder(model, with_weights=True, revision=revision, token=token)
        tensors = {file.name: _size_and_tail(file) for file in {*files_of_tensors(folder).values()}}
    texts = {name: text for name, text in read_texts(folder).items() if name != "README.md"}
    return {"recipe": recipe_fields(recipe), "tensors": tensors, "texts": texts}


def _size_and_tail(file: Path) -> tuple[int, str]:
    size = file.stat().st_size
    with file.open("rb") as stream:
        stream.seek(max(0, size - _TAIL_BYTES))
        return size, sha256(stream.read()).hexdigest()


def _is_folder(model: str) -> bool:
    return not is_url(model) and checked_path(model).is_dir()
