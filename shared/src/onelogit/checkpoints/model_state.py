"""A ModelSpec -> the state of the model's files, which is another once they have changed. Opens no file; no torch."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import try_to_load_from_cache

from onelogit.checkpoints.load_encoder import writes_prompts
from onelogit.model_spec import ModelSpec
from onelogit.validation import checked_path

_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".py")
_OTHER_FILES = ("README.md", "merges.txt", "vocab.txt")
_MAX_DEPTH = 2  # of the files that are read, such as those of a module chain

FileState = tuple[str, int, int, int]  # path in the folder, bytes, and the times of the last two kinds of change


class ModelState(NamedTuple):
    """The folder of a model, without symlinks, and its files that are read."""

    folder: str
    files: frozenset[FileState]


def model_state(spec: ModelSpec) -> ModelState | None:
    """The state of a model's files; of a hub's model, of the revision that the cache has now.

    Takes 0.1 to 0.2 ms on a local disk, so that it can be asked in each call.

    Returns:
        None if no such model is on this machine, or this process reads none of its files.
    """
    if spec.model is None or not writes_prompts(spec):
        return None
    folder = spec.folder or _snapshot(spec)
    try:
        return None if folder is None else ModelState(os.path.realpath(folder), frozenset(_files(str(folder))))
    except OSError:  # removed in the meantime
        return None


def _snapshot(spec: ModelSpec) -> Path | None:
    """The folder of a hub's model in the cache."""
    options = spec.options
    cache = None if options.get("cache_dir") is None else spec.base_folder / checked_path(options["cache_dir"])
    try:
        file = try_to_load_from_cache(str(spec.model), "config.json", cache_dir=cache, revision=options.get("revision"))
    except ValueError:  # not a hub id
        return None
    return Path(file).parent if isinstance(file, str) else None


def _files(folder: str, within: str = "", depth: int = 0) -> Iterator[FileState]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                if depth < _MAX_DEPTH:
                    yield from _files(entry.path, f"{within}{entry.name}/", depth + 1)
            elif entry.name.endswith(_SUFFIXES) or entry.name in _OTHER_FILES:
                # The second time is changed even by a copy that sets the first one to that of its source.
                found = os.stat(entry.path)  # noqa: PTH116  a Path takes several times as long
                yield within + entry.name, found.st_size, found.st_mtime_ns, found.st_ctime_ns
