"""A path that is not a checkpoint -> what it is instead, and what to do. Reads names and first bytes only. No torch."""

import json
import re
from pathlib import Path

from onelogit.checkpoints.untrusted_files import MAX_TEXT_BYTES

_LFS_POINTER = b"version https://git-lfs"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.*")

_GGUF = "GGUF, for llama.cpp: serve it with llama-server and name its url, or use the model that it was made from"
_TRANSFORMERS = "use the version of the model for transformers (config.json and model*.safetensors)"
_PICKLED = (
    "pickled weights ({}), which are not supported because they can run code; save them as safetensors with "
    "model.save_pretrained(folder) of transformers"
)
# Patterns of files that hold weights in other formats -> what they are, and what to do instead.
_OTHER_WEIGHTS = {
    "*.gguf": _GGUF,
    "*.onnx": f"ONNX; {_TRANSFORMERS}",
    "onnx/*.onnx": f"ONNX; {_TRANSFORMERS}",
    "openvino*.xml": f"OpenVINO; {_TRANSFORMERS}",
    "openvino/*.xml": f"OpenVINO; {_TRANSFORMERS}",
    "consolidated*": f"in the vendor's own format; {_TRANSFORMERS}",
    "original/consolidated*": f"in the vendor's own format; {_TRANSFORMERS}",
    "zero_to_fp32.py": "of DeepSpeed: run python zero_to_fp32.py . . --safe_serialization in that folder",
    "*/*.distcp": "of sharded FSDP: merge them with accelerate merge-weights",
    "*.distcp": "of sharded FSDP: merge them with accelerate merge-weights",
    "*.npz": f"of MLX; {_TRANSFORMERS}",
    "tf_model.h5": f"of TensorFlow; {_TRANSFORMERS}",
    "*.msgpack": f"of Flax; {_TRANSFORMERS}",
    "*.bin": _PICKLED.format(".bin"),
    "*.pt": _PICKLED.format(".pt"),
    "*.pth": _PICKLED.format(".pth"),
}
PICKLED_ADAPTER = (
    "pickled weights (adapter_model.bin) are not supported because they can run code; where you trust them, load the "
    "adapter with peft, and save it with save_pretrained(folder), which writes safetensors"
)
_TRAINERS_FILES = {"training_args.bin", "optimizer.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth"}


def why_no_folder(path: Path) -> str | None:
    """What a path that is not a folder is instead: a file or a broken link; None if nothing is there."""
    if not path.is_file():
        return why_unreadable(path)
    suffix = path.suffix.lower()
    if suffix == ".gguf":
        return f"{path} is {_GGUF}"
    if suffix in (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z"):
        return f"{path} is an archive; unpack it, and name the folder"
    if suffix == ".safetensors" or path.name in ("config.json", "tokenizer.json", "modules.json"):
        return f"{path} is one file of a model; name its folder, {path.absolute().parent}"
    return f"{path} is a file, not the folder of a model"


def why_no_checkpoint(folder: Path) -> str:
    """What a folder without config.json is instead."""
    names = sorted(each.name for each in folder.iterdir())
    if not names:
        return f"{folder} is empty: it has no config.json, so it is not a checkpoint"
    return (
        _why_cache(folder)
        or _why_trainers_folder(folder, names)
        or _why_other_weights(folder)
        or _why_wrong_level(folder)
        or (f"{folder} has no config.json; its weights seem to be {_GGUF}" if "gguf" in str(folder).lower() else None)
        or f"{folder} has no config.json, so it is not a checkpoint"
    )


def why_no_weights(folder: Path) -> str | None:
    """Why a folder without safetensors has no usable weights; None if nothing is known."""
    parts = folder.absolute().parts
    reasons = [why_unreadable(each) for each in folder.glob("*.safetensors")]
    if reason := next(filter(None, reasons), None) or _why_other_weights(folder):
        return reason
    is_snapshot = len(parts) > 2 and parts[-2] == "snapshots" and parts[-3].startswith("models--")
    if is_snapshot and not has_weights(folder):
        how = "load it by its hub id with access to the hub (without local_files_only), which downloads the weights"
        return f"{folder} contains only the small files of a model; {how}"
    return None


def why_no_tokenizer(folder: Path) -> str | None:
    """Why a folder has no tokenizer, and where to take it from; None if there are files of one."""
    if any(each.is_file() for name in _TOKENIZERS for each in folder.glob(name)):
        return None
    source = "the model that was trained"
    parent = folder.absolute().parent
    if (parent / "tokenizer.json").is_file() and (parent / "modules.json").is_file():
        return f"{folder} is a part of a model; name the folder above it, {parent}"
    is_trainers = (folder / "trainer_state.json").is_file() or re.fullmatch(r"checkpoint-\d+", folder.name)
    if is_trainers and (parent / "tokenizer.json").is_file():
        source = f"{parent}, or name that folder, which has the final model," if has_weights(parent) else str(parent)
    kind = "is a trainer's checkpoint without a tokenizer" if is_trainers else "has no tokenizer"
    return (
        f"{folder} {kind} (tokenizer.json); copy tokenizer.json, tokenizer_config.json and chat_template.jinja from "
        f"{source} into it"
    )


def why_unreadable(file: Path) -> str | None:
    """Why a file has no content: it is a broken link, or a pointer of Git LFS; None otherwise."""
    if file.is_symlink() and not file.exists():
        return f"{file} is a link to {file.readlink()}, which does not exist; download the model again"
    if file.exists() and not (file.is_file() or file.is_dir()):
        return f"{file} is not a regular file; copy it again from the original"  # a pipe would be read forever
    try:
        with file.open("rb") as stream:
            is_pointer = stream.read(len(_LFS_POINTER)) == _LFS_POINTER
    except (OSError, ValueError):  # reported where the file is read
        return None
    how = f"run `git lfs pull` in {file.parent}, or download the model again"
    return f"{file} is only a pointer of Git LFS; {how}" if is_pointer else None


def has_weights(folder: Path) -> bool:
    """Whether a folder has a whole model's weights, in safetensors."""
    return any(folder.glob("model*.safetensors"))


def _why_cache(folder: Path) -> str | None:
    snapshots = folder if folder.name == "snapshots" else folder / "snapshots"
    if folder.name.startswith("models--") or (folder.name == "snapshots" and "models--" in str(folder)):
        found = sorted(each for each in snapshots.glob("*") if (each / "config.json").exists())
        if not found:
            return f"{folder} is a model's folder in the hub's cache, but has no snapshot; download the model again"
        main = snapshots.parent / "refs" / "main"
        commit = _text_of(main).strip() if main.is_file() else ""
        best = next((each for each in found if each.name == commit), found[-1])
        further = f" (there are {len(found)} snapshots)" if len(found) > 1 else ""
        return f"{folder} is a model's folder in the hub's cache; name its snapshot, {best}{further}, or the hub id"
    for cache in (folder, folder / "hub"):
        ids = sorted(each.name.removeprefix("models--").replace("--", "/", 1) for each in cache.glob("models--*"))
        if ids:
            return f"{folder} is a cache of the hub; name a model, such as {ids[0]}, with cache_dir={str(cache)!r}"
    return None


def _why_trainers_folder(folder: Path, names: list[str]) -> str | None:
    steps = sorted(int(name.partition("-")[2]) for name in names if re.fullmatch(r"checkpoint-\d+", name))
    if not steps:
        return None
    latest = folder / f"checkpoint-{steps[-1]}"
    best = _best_checkpoint(latest)
    chosen = "" if best is None or best == latest.name else f", or the best, {folder / best}"
    return f"{folder} has a trainer's checkpoints, but no final model; name a checkpoint: the latest, {latest}{chosen}"


def _best_checkpoint(checkpoint: Path) -> str | None:
    try:
        state = json.loads(_text_of(checkpoint / "trainer_state.json"))
        return Path(state["best_model_checkpoint"]).name
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _why_other_weights(folder: Path) -> str | None:
    for pattern, what in _OTHER_WEIGHTS.items():
        found = sorted(each for each in folder.glob(pattern) if each.name not in _TRAINERS_FILES)
        if found and not has_weights(folder):
            return f"the weights in {folder} ({found[0].relative_to(folder).as_posix()}) are {what}"
    return None


def _why_wrong_level(folder: Path) -> str | None:
    adapters = sorted(each.parent.name for each in folder.glob("*/adapter_config.json"))
    if adapters:
        named, first = ", ".join(adapters), folder / adapters[0]
        return f"{folder} has no config.json, but contains folders of adapters ({named}): name one, {first}"
    inner = sorted(each.parent.name for each in folder.glob("*/config.json") if _names_architecture(each))
    if inner:
        return f"{folder} has no config.json, but contains folders of models: name one, {folder / inner[0]}"
    if (folder.absolute().parent / "config.json").is_file():
        return f"{folder} is a part of a model; name the folder above it, {folder.absolute().parent}"
    if has_weights(folder):
        return f"{folder} has weights, but no config.json; copy it and the tokenizer from the model that was trained"
    return None


def _names_architecture(config: Path) -> bool:
    try:
        return '"architectures"' in _text_of(config)
    except OSError:
        return False


def _text_of(file: Path) -> str:
    """The text of a file; "" if it is too large."""
    return "" if file.stat().st_size > MAX_TEXT_BYTES else file.read_text(encoding="utf-8", errors="replace")
