"""A ModelSpec -> the state of the model's files, which differs once they have changed. No torch.

Opens no file, except once the adapter_config.json of an adapter, whose base model's files count as well.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import try_to_load_from_cache

from onelogit.checkpoints.adapter import find_adapter
from onelogit.checkpoints.hub import ADAPTER_CONFIG
from onelogit.checkpoints.load_encoder import writes_prompts
from onelogit.errors import OnelogitError
from onelogit.model_spec import ModelSpec
from onelogit.validation import checked_path

_SUFFIXES = (".safetensors", ".json", ".jinja", ".model", ".py")
_OTHER_FILES = ("README.md", "merges.txt", "vocab.txt")
_MAX_DEPTH = 2  # of the files that are read, such as those of a module chain

FileState = tuple[str, int, int, int]  # path in the folder, bytes, and the times of the last two kinds of change


class ModelState(NamedTuple):
    """The folder of a model, without symlinks, and its files that are read; and those of an adapter's base model."""

    folder: str
    files: frozenset[FileState]
    base: "ModelState | None" = None


class ModelFiles:
    """The files of a spec's model that this process reads.

    Raises:
        InputError: a path begins with an unknown user's home.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec = spec
        self._adapter_config: FileState | None = None
        self._base: ModelFiles | None = None
        self._is_read = spec.model is not None and writes_prompts(spec)
        self._name, self._revision = spec.name, spec.options.get("revision")
        self._folder = spec.base_folder / checked_path(spec.name)
        cache = spec.options.get("cache_dir")
        self._cache = None if cache is None else spec.base_folder / checked_path(cache)

    def state(self) -> ModelState | None:
        """The state of the files; of a model on the hub, of the revision that the cache has now.

        Takes 0.1 to 0.2 ms on a local disk, so that it can be asked in each call.

        Returns:
            None if there is no such model on this machine, or this process reads none of its files.
        """
        if not self._is_read:
            return None
        folder = str(self._folder) if os.path.isdir(self._folder) else self._snapshot()  # noqa: PTH112  False for any string
        try:
            return None if folder is None else self._with_base(folder)
        except OSError:  # removed in the meantime
            return None

    def _with_base(self, folder: str) -> ModelState:
        state = ModelState(os.path.realpath(folder), frozenset(_files(folder)))
        config = next((file for file in state.files if file[0] == ADAPTER_CONFIG), None)
        if config is None:
            return state
        if config != self._adapter_config:  # read only once it has changed
            self._base, self._adapter_config = self._base_files(folder), config
        return state if self._base is None else state._replace(base=self._base.state())

    def _base_files(self, folder: str) -> "ModelFiles | None":
        try:
            adapter = find_adapter(Path(folder), self._spec)
            return None if adapter is None else ModelFiles(adapter.base_spec)
        except OnelogitError:  # raised when the model is opened
            return None

    def _snapshot(self) -> str | None:
        """The folder of a hub's model in the cache."""
        for name in ("config.json", ADAPTER_CONFIG):
            try:
                file = try_to_load_from_cache(self._name, name, cache_dir=self._cache, revision=self._revision)
            except ValueError:  # not a hub id
                return None
            if isinstance(file, str):
                return os.path.dirname(file)  # noqa: PTH120  as a string
        return None


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
