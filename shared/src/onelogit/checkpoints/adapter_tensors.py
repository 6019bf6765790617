"""The file of a PEFT adapter -> the names and shapes of its tensors, and what its settings may ask for."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from safetensors import SafetensorError, safe_open

from onelogit.checkpoints.adapter import ADAPTER_WEIGHTS, Adapter
from onelogit.errors import CheckpointError
from onelogit.io.lines import shortened

_PREFIX = "base_model.model."
_HEAD = re.compile(r"^(score|classifier)\.(\w+\.)?(weight|bias)$")
_EMBEDDINGS = re.compile(r"(?:^|\.)(embed_tokens|wte|embed_in|word_embeddings|lm_head)\.(?:base_layer\.)?weight$")
_TIED = re.compile(r"(?:^|\.)(embed_tokens|wte|embed_in|word_embeddings|lm_head)\.")
_RANK = re.compile(r"^(\w+_)?r(ank)?$|^n_frequency$|^num_vectors$|^vector_length$|block_size$")
_WITHOUT_RANKS = ("LOKR",)  # whose rank may exceed all sizes: it then has whole matrices


class AdapterTensors(NamedTuple):
    """The tensors in an adapter's file: the shape of each, by its name in the base model."""

    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def read(cls, adapter: Adapter) -> "AdapterTensors":
        """The names and shapes, without the values.

        Raises:
            CheckpointError: the file is damaged, or is not PEFT's; or the settings ask for other sizes.
        """
        file = adapter.folder / ADAPTER_WEIGHTS
        try:
            with safe_open(file, framework="pt") as tensors:
                shapes = {name: tuple(tensors.get_slice(name).get_shape()) for name in tensors.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file} is damaged or incomplete: {error}") from error
        if foreign := next((name for name in shapes if not name.startswith("base_model.")), None):
            raise CheckpointError(f"{file} was not written by PEFT: it has a tensor of the name {foreign!r}")
        if not shapes:
            raise CheckpointError(f"{file} is empty; copy it again from the training's output")
        of_layers = {name: shape for name, shape in shapes.items() if name.startswith(_PREFIX)}
        read = cls({name.removeprefix(_PREFIX): shape for name, shape in of_layers.items()})
        if flat := next((name for name in read.matrices if not all(read.shapes[name]) or not read.shapes[name]), None):
            raise CheckpointError(f"{file} is damaged: its tensor {flat!r} has the shape {[*read.shapes[flat]]}")
        _check_ranks(adapter, shapes)
        return read

    @property
    def matrices(self) -> list[str]:
        """The names of whole heads and embeddings."""
        return [name for name in self.shapes if _HEAD.match(name) or _EMBEDDINGS.search(name)]

    @property
    def head(self) -> dict[str, tuple[int, ...]]:
        """The shapes of the classification head that the adapter brings; empty if it brings none."""
        return {name: shape for name, shape in self.shapes.items() if _HEAD.match(name)}

    @property
    def label_count(self) -> int | None:
        """The number of labels of the head that the adapter brings, or None."""
        weights = [shape[0] for name, shape in self.head.items() if name.endswith("weight")]
        return weights[-1] if weights else None

    @property
    def vocabulary(self) -> int | None:
        """The number of embeddings in the file; None if it contains no whole embeddings."""
        return max((shape[0] for name, shape in self.shapes.items() if _EMBEDDINGS.search(name)), default=None)

    @property
    def touches_embeddings(self) -> bool:
        """Whether the adapter changes the embeddings or the language-model head."""
        return any(_TIED.search(name) for name in self.shapes)


def needed_vocabulary(tensors: AdapterTensors, adapter: Adapter, size: int) -> int | None:
    """The number of embeddings that the base model, which has `size`, needs for the adapter; None if that many.

    Raises:
        CheckpointError: the settings name tokens that no tokenizer of the model can have.
    """
    needed = tensors.vocabulary
    indices = adapter.settings.get("trainable_token_indices") or adapter.settings.get("token_indices") or []
    parts = indices.values() if isinstance(indices, dict) else [indices]
    trained = [each for part in parts for each in (part if isinstance(part, list) else [part])]
    if wrong := [each for each in trained if type(each) is not int or not 0 <= each < 2 * size]:
        raise CheckpointError(
            f"{adapter.name!r} trains the token {shortened(str(wrong[0]), 30)}, of {size:,} that its base model has, "
            "so its adapter_config.json is damaged; copy it from the training's output"
        )
    if needed is None and trained and max(trained) >= size:
        needed = max(trained) + 1
    return None if needed in (None, size) else needed


def _check_ranks(adapter: Adapter, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Check that no rank exceeds all sizes in the file: PEFT would allocate it before it compares the shapes."""
    if adapter.kind in _WITHOUT_RANKS:
        return
    limit = max((max(shape, default=1) for shape in shapes.values()), default=1)
    patterns = adapter.settings.get("rank_pattern") or {}
    declared = [(name, value) for name, value in adapter.settings.items() if _RANK.search(name)]
    declared += [("rank_pattern", value) for value in (patterns.values() if isinstance(patterns, dict) else [patterns])]
    for name, value in declared:
        if isinstance(value, int | float) and not abs(value) <= limit:
            raise CheckpointError(
                f"adapter_config.json in {adapter.folder} declares {name}={shortened(str(value), 30)}, which does not "
                f"fit its weights: they have at most {limit:,} rows or columns; copy it from the training's output"
            )
