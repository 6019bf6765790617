"""A model's id or path -> its folder, the texts of its small files, and where its tensors are stored. No torch."""

import json
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open

from onelogit.errors import CheckpointError, InputError, first_line
from onelogit.validation import checked_path

_SMALL_FILES = ["*.json", "*.jinja", "*.md", "*.model", "*.txt", "*.py"]
_OTHER_WEIGHTS = ["consolidated*", "original/*", "onnx/*", "openvino/*"]  # the same model in other forms
_INDEX = "model.safetensors.index.json"
_TEXT_PATTERNS = ("*.json", "*/*.json", "*.jinja", "*/*.jinja", "*/*/*.jinja", "README.md")
_NOT_TEXTS = ("tokenizer.json", "vocab.json", _INDEX)


def find_folder(name: str, *, with_weights: bool, revision: str | None = None, token: str | bool | None = None) -> Path:
    """The folder of a checkpoint: the local one, or a snapshot from the hub.

    Args:
        name: hub id or path.
        with_weights: False for the small files alone.
        revision: branch, tag or commit; a local folder has none.
        token: for a private or gated model; None for the one that is logged in.

    Raises:
        CheckpointError: there is no such folder, nor such a model on the hub, or it cannot be fetched.
        InputError: an empty name, the home of nobody, or a revision of a local folder.
    """
    if not name:
        raise InputError("the model's name is empty: name a hub id or a folder")
    name = str(checked_path(name)) if name.startswith("~") else name
    if Path(name).is_dir():
        if revision is not None:
            raise InputError(f"{name!r} is a folder here, which has no revision {revision!r}")
        return Path(name)
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1 or "\\" in name:
        raise CheckpointError(f"there is no folder {name!r}{_left_aside(Path(name))}")
    patterns = ["*.safetensors", *_SMALL_FILES] if with_weights else _SMALL_FILES
    try:
        return Path(
            _snapshot(name, revision=revision, token=token, allow_patterns=patterns, ignore_patterns=_OTHER_WEIGHTS)
        )
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"the model {name!r} is neither a folder here nor found on the hub; check the spelling, log in for a gated "
            f"model, or download it first where there is no network ({first_line(error)})"
            f"{_left_aside(Path(name))}"
        ) from error


def _snapshot(name: str, **options: Any) -> str:
    """The hub's folder, or the one here where the hub is out of reach: some clients ask it even for a commit."""
    try:
        return str(snapshot_download(name, **options))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError):
        raise
    except Exception as error:  # whatever a transport or a disk raises
        is_of_the_disk = isinstance(error, OSError) and not isinstance(error, ConnectionError)
        with suppress(LocalEntryNotFoundError):
            if not is_of_the_disk:  # of a full one, half a model is here
                return str(snapshot_download(name, **options, local_files_only=True))
        raise CheckpointError(
            f"the model {name!r} cannot be fetched ({type(error).__name__}: {first_line(error)})"
        ) from error


def _left_aside(folder: Path) -> str:
    """Where an earlier export is, if a process was killed at the moment of replacing it."""
    name = escape(folder.name)
    found = sorted(folder.absolute().parent.glob(f".{name}-*/{name}/config.json"))
    return f"; an export that was broken off left the earlier one at {found[-1].parent}" if found else ""


def read_texts(folder: Path) -> dict[str, str]:
    """The text of each small file, by its path in the folder.

    Raises:
        CheckpointError: the folder is no checkpoint, or an adapter alone, or a file is not UTF-8.
    """
    files = (file for pattern in _TEXT_PATTERNS for file in folder.glob(pattern) if file.name not in _NOT_TEXTS)
    texts = {file.relative_to(folder).as_posix(): _read_text(file) for file in files}
    if "config.json" not in texts and "adapter_config.json" in texts:
        raise CheckpointError(
            f"{folder} holds what PEFT adds to a model (LoRA), not a model: merge the two with `merge_and_unload()` of "
            "peft, save that with the tokenizer, and name its folder"
        )
    if "config.json" not in texts:
        raise CheckpointError(f"{folder} has no config.json: it is not a checkpoint")
    return texts


def files_of_tensors(folder: Path) -> dict[str, Path]:
    """The safetensors file of each tensor, by the tensor's name.

    Raises:
        CheckpointError: weights are missing, damaged, or pickled.
    """
    if (folder / _INDEX).is_file():
        try:
            weight_map: dict[str, str] = json.loads(_read_text(folder / _INDEX))["weight_map"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise CheckpointError(f"{folder / _INDEX} is damaged: {error!r}") from error
        if any(Path(file).name != file for file in weight_map.values()):
            raise CheckpointError(f"{folder / _INDEX} names files outside the folder")
        missing = sorted({file for file in weight_map.values() if not (folder / file).is_file()})
        if missing:
            raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {_INDEX} names")
        return {key: folder / file for key, file in weight_map.items()}
    file = folder / "model.safetensors"
    if not file.is_file():
        if any(folder.glob("*.bin")):
            raise CheckpointError(
                f"{folder} holds pickled weights (.bin), which can run code and are not read; save them as safetensors "
                "with model.save_pretrained(folder) of transformers"
            )
        raise CheckpointError(f"{folder} holds no weights (model.safetensors)")
    try:
        with safe_open(file, framework="np") as tensors:
            return dict.fromkeys(tensors.keys(), file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut short: {error}") from error


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8: {error}") from error
