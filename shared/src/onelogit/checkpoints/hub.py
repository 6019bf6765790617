"""A model's id or path -> its folder, the texts of its small files, and the file of each tensor. No torch."""

import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from glob import escape
from pathlib import Path
from typing import Any

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open

from onelogit.checkpoints.odd_paths import why_no_checkpoint, why_no_folder, why_no_weights, why_unreadable
from onelogit.checkpoints.untrusted_files import (
    MAX_TEXTS_BYTES,
    check_readable,
    check_texts,
    check_vocabularies,
    is_plain_path,
    is_required,
    why_outside,
)
from onelogit.errors import CheckpointError, InputError, first_line
from onelogit.io.lines import shortened
from onelogit.validation import checked_path

# Downloaded for transformers, which also reads the code and vocabularies; `read_texts` reads only some of them.
_SMALL_FILES = ["*.json", "*.jinja", "*.md", "*.model", "*.txt", "*.py"]
_OTHER_WEIGHTS = ["consolidated*", "original/*", "onnx/*", "openvino/*"]  # the same model in other formats
_NETWORK_VARIABLES = ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")
_WAYS_OUT = {  # of errors of the hub, the first that fits
    HFValidationError: "it is not like owner/name, the form of a hub id; check the spelling",
    GatedRepoError: "it is gated; ask for access at {page}, and log in or pass token=",
    RevisionNotFoundError: "it has no revision {revision!r}; name a branch, a tag or a commit",
    RepositoryNotFoundError: "there is no such model, or it is private; check the spelling, or log in",
    LocalEntryNotFoundError: "the hub cannot be reached; check the network, or download the model beforehand",
}
_HUB_OPTIONS = ("revision", "token", "cache_dir", "local_files_only")
_INDEX = "model.safetensors.index.json"
_DISTRIBUTED = "shard-?????-model-?????-of-?????.safetensors"
_MAX_SHARDS = 10_000  # the largest published models have some 200
_TEXT_PATTERNS = ("*.json", "*/*.json", "*.jinja", "*/*.jinja", "*/*/*.jinja", "README.md")
ADAPTER_CONFIG = "adapter_config.json"
_ADAPTER_FILES = (ADAPTER_CONFIG, "adapter_model.safetensors", "adapter_model.bin")
_NOT_TEXTS = ("tokenizer.json", "vocab.json", _INDEX)


def find_folder(name: str, options: Mapping[str, Any], *, with_weights: bool, base: Path | None = None) -> Path:
    """The folder of a checkpoint: a local one, or a snapshot from the hub.

    Args:
        name: hub id or path.
        options: of the caller, as checked by `ModelSpec`; those of `SourceOptions` are read, except the recipe.
        with_weights: False to download the small files only.
        base: the folder in which relative paths begin; None for the working directory.

    Raises:
        CheckpointError: there is no such folder or model, or the model cannot be fetched.
        InputError: the name is empty, or begins with an unknown user's home, or a local folder is given a revision.
    """
    if not name:
        raise InputError("the model's name is empty; give a hub id or a folder")
    name = str(checked_path(name)) if name.startswith("~") else name
    base = Path() if base is None else base
    try:
        is_folder, reason = (base / name).is_dir(), why_no_folder(base / name)
    except OSError as error:  # a folder above it may not be read, or the name is too long
        raise CheckpointError(f"{name!r} cannot be read: {error.strerror}") from error
    if is_folder:
        if options.get("revision") is not None:
            raise InputError(f"{name!r} is a local folder, which has no revision {options['revision']!r}")
        return base / name
    if reason is not None:
        raise CheckpointError(reason)
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1 or "\\" in name:
        raise CheckpointError(f"there is no folder {name!r}{_moved_aside(base / name)}")
    patterns = ["*.safetensors", *_SMALL_FILES] if with_weights else _SMALL_FILES
    given = {option: options[option] for option in _HUB_OPTIONS if options.get(option) is not None}
    if "cache_dir" in given:
        given["cache_dir"] = base / checked_path(given["cache_dir"])
    try:
        return Path(_download(name, **given, allow_patterns=patterns, ignore_patterns=_OTHER_WEIGHTS))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise CheckpointError(_not_found(name, given, error)) from error


def _not_found(name: str, options: Mapping[str, Any], error: Exception) -> str:
    if options.get("local_files_only"):
        cache = Path(options.get("cache_dir", constants.HF_HUB_CACHE))
        of_revision = f" with the revision {options['revision']!r}" if "revision" in options else ""
        way_out = "load it once without local_files_only, or name another cache_dir"
        if (cache / "hub").is_dir() and not [*cache.glob("models--*")]:
            way_out = f"name the folder of the hub's cache itself, cache_dir={str(cache / 'hub')!r}"
        message = f"the model {name!r}{of_revision} is neither a local folder nor in the cache {cache}; {way_out}"
    else:
        way_out = _way_out(name, options, error)
        message = f"the model {name!r} is neither a local folder nor found on the hub: {way_out}"
    return message + _moved_aside(Path(name))


def _way_out(name: str, options: Mapping[str, Any], error: Exception) -> str:
    """Why the hub gave no model, and what to do about it, in place of the hub's long messages."""
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set, and the model was not downloaded before; unset it, or name a folder"
    known = next((way_out for kind, way_out in _WAYS_OUT.items() if isinstance(error, kind)), None)
    if known is None:
        return f"{shortened(first_line(error), 100)}; try again later, or download the model beforehand"
    return known.format(page=f"{constants.ENDPOINT}/{name}", revision=options.get("revision"))


def _download(name: str, **options: Any) -> str:
    """The hub's folder, or the cached one if the hub is unreachable; the hub may be asked even for a cached commit."""
    try:
        return str(snapshot_download(name, **options))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError):
        raise
    except Exception as error:  # transports and disks raise errors of any class
        is_disk_error = isinstance(error, OSError) and not isinstance(error, ConnectionError)
        with suppress(LocalEntryNotFoundError):
            if not is_disk_error:  # after a disk error, the cached model may be incomplete
                return str(snapshot_download(name, **{**options, "local_files_only": True}))
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise CheckpointError(f"the model {name!r} cannot be fetched ({reason}){_network_advice()}") from error


def _network_advice() -> str:
    """The environment variables that name proxies and certificates, because errors of the HTTP library do not."""
    found = [each for name in _NETWORK_VARIABLES for each in (name, name.lower()) if os.environ.get(each)]
    return f"; if the network is at fault, correct or unset {', '.join(found)}" if found else ""


def _moved_aside(folder: Path) -> str:
    """The place of an earlier export, if a process was killed while it replaced that export; see `io.atomic_write`."""
    name = escape(folder.name)
    try:
        found = sorted(folder.absolute().parent.glob(f".{name}-*/{name}/config.json"))
    except FileNotFoundError:  # the working directory was removed
        return ""
    return f"; an interrupted export left the earlier one at {found[-1].parent}" if found else ""


def commit_of(folder: Path) -> str | None:
    """The commit of a model in the hub's cache, by its folder there; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" and folder.parents[1].name.startswith("models--") else None


def read_texts(folder: Path) -> dict[str, str]:
    """The text of each small file of a model, by its path in the folder.

    Raises:
        CheckpointError: the folder is not a checkpoint, or contains a PEFT adapter, or a file is not UTF-8.
    """
    texts = read_small_files(folder)
    refuse_adapter(folder)
    if "config.json" not in texts:
        raise CheckpointError(why_no_checkpoint(folder))
    return texts


def read_small_files(folder: Path) -> dict[str, str]:
    """The text of each small file, by its path in the folder, of a model or of an adapter.

    Raises:
        CheckpointError: the folder cannot be read, a file is not UTF-8, or as `check_texts`.
    """
    try:
        next(folder.iterdir(), None)
    except OSError as error:  # `glob` would find nothing
        raise CheckpointError(f"{folder} cannot be read: {error.strerror}") from error
    if reason := why_unreadable(folder / "tokenizer.json"):
        raise CheckpointError(reason)
    check_vocabularies(folder)
    found = {file for pattern in _TEXT_PATTERNS for file in folder.glob(pattern) if file.name not in _NOT_TEXTS}
    texts, left = {}, MAX_TEXTS_BYTES
    for file in sorted(found, key=lambda each: (not is_required(each.name), len(each.parts), each)):
        if (text := _read_text(file, left)) is not None:
            texts[file.relative_to(folder).as_posix()] = text
            left -= len(text)
    check_texts(folder, texts)
    return texts


def refuse_adapter(folder: Path) -> None:
    """Refuse a PEFT adapter beside a model: transformers applies it to the weights if peft is installed."""
    found = [name for name in _ADAPTER_FILES if (folder / name).is_file()]
    if not found:
        return
    file = folder / ADAPTER_CONFIG
    content = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    base = re.search(r'"base_model_name_or_path"\s*:\s*"([^"]+)"', content)
    adapter = f"a PEFT adapter (LoRA){f' of {base.group(1)}' if base else ''}"
    if not (folder / "config.json").is_file() and not content:
        raise CheckpointError(f"{folder} has {adapter} without {ADAPTER_CONFIG}; copy it from the training's output")
    raise CheckpointError(
        f"{folder} contains {adapter} beside a model, and no file tells whether the model's weights contain it; "
        f"if they do, remove {' and '.join(found)}; if not, put them into a folder of their own, and name that one"
    )


def files_of_tensors(folder: Path) -> dict[str, Path]:
    """The safetensors file of each tensor, by the tensor's name.

    Raises:
        CheckpointError: weights are missing, damaged, or pickled.
    """
    refuse_adapter(folder)
    index, file = folder / _INDEX, folder / "model.safetensors"
    if part := next(folder.glob(_DISTRIBUTED), None):  # transformers would read it in place of the other files
        raise CheckpointError(
            f"{folder} has a part of a distributed checkpoint, {part.name}; load it where it was written, and save the "
            "model with model.save_pretrained(folder)"
        )
    if index.is_file():
        files = _indexed_files(index)
        if file.exists() and {*files.values()} != {file}:  # transformers would read the single file
            raise CheckpointError(
                f"{folder} has both model.safetensors and {_INDEX}, which names other files; remove the one that is "
                "not the model's"
            )
        return files
    if not file.is_file():
        if reason := why_no_weights(folder):
            raise CheckpointError(reason)
        if shards := sorted(each.name for each in folder.glob("*-of-*.safetensors")):
            raise CheckpointError(
                f"{folder} has shards ({shards[0]} ...), but no {_INDEX}, which names the shard of each tensor; copy "
                "it from the original"
            )
        other = [each.name for each in folder.glob("*.safetensors")]
        found = f"; {', '.join(sorted(other))} is another file" if other else ""
        raise CheckpointError(f"{folder} has no weights (model.safetensors){found}")
    if reason := why_unreadable(file):
        raise CheckpointError(reason)
    try:
        with safe_open(file, framework="np") as tensors:
            return dict.fromkeys(tensors.keys(), file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or incomplete: {error}") from error


def tensor_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, by its name. Raises as `files_of_tensors`, or if a file is damaged."""
    shapes: dict[str, tuple[int, ...]] = {}
    for file in sorted({*files_of_tensors(folder).values()}):
        try:
            with safe_open(file, framework="np") as tensors:
                found = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or incomplete: {error}") from error
        if twice := next(iter(shapes.keys() & found.keys()), None):
            raise CheckpointError(f"{file} has a tensor {twice!r} that another file of the model has, too; remove one")
        shapes |= found
    return shapes


def _indexed_files(index: Path) -> dict[str, Path]:
    try:
        weight_map: dict[str, str] = json.loads(_read_text(index) or "")["weight_map"]
        names = {*weight_map.values()}
        is_outside = any(Path(file).name != file or not is_plain_path(file) for file in names)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is damaged: {error!r}") from error
    if is_outside:
        raise CheckpointError(f"{index} names files outside the folder")
    if pickled := next((file for file in names if not file.endswith(".safetensors")), None):
        raise CheckpointError(f"{index} names {pickled!r}, which is not a safetensors file, so it is not read")
    if len(names) > _MAX_SHARDS:
        raise CheckpointError(f"{index} names {len(names):,} files, of at most {_MAX_SHARDS:,}, so it is damaged")
    missing = sorted(file for file in names if not (index.parent / file).is_file())
    if missing:
        more = f" and {len(missing) - 3:,} more files" if len(missing) > 3 else ""
        raise CheckpointError(f"{index.parent} lacks {', '.join(missing[:3])}{more}, which {_INDEX} names")
    for file in sorted(names):
        if reason := why_unreadable(index.parent / file) or why_outside(index.parent / file, index.parent):
            raise CheckpointError(reason)
    return {key: index.parent / file for key, file in weight_map.items()}


def _read_text(file: Path, left: int = MAX_TEXTS_BYTES) -> str | None:
    """The text of a file; None if it is too large, and the model can do without it."""
    if reason := why_unreadable(file):
        raise CheckpointError(reason)
    try:
        return file.read_text(encoding="utf-8") if check_readable(file, left) else None
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
