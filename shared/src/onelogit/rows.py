"""A stored tensor -> some of its rows; the others stay on disk."""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from onelogit.errors import CheckpointError, RecipeError, UnsupportedModelError


def count_rows(file: Path, key: str) -> int:
    """How many rows a stored tensor has."""
    with safe_open(file, framework="pt") as tensors:
        return int(tensors.get_slice(key).get_shape()[0])


def read_rows(file: Path, key: str, rows: Sequence[int]) -> torch.Tensor:
    """Some rows of a stored tensor, in its stored dtype; the others stay on disk.

    Raises:
        CheckpointError: the file is damaged.
        RecipeError: a row is outside the tensor.
        UnsupportedModelError: the tensor is quantised.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            tensor = tensors.get_slice(key)
            count = tensor.get_shape()[0]
            for row in rows:
                if not 0 <= row < count:
                    raise RecipeError(f"the token id {row} is outside the vocabulary of {count} tokens")
            taken = torch.cat([tensor[row : row + 1] for row in rows])
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut short: {error}") from error
    if not taken.is_floating_point() or taken.element_size() < 2:
        raise UnsupportedModelError(f"{key} is quantised ({taken.dtype}); take the unquantised checkpoint")
    return taken
