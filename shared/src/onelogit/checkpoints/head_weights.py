"""A stored head -> the weights that give the logit: rows of a language-model head, or the layers of a module chain."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn

from onelogit.checkpoints.hub import files_of_tensors
from onelogit.checkpoints.module_chain import DenseLayer, ModuleChain, NormLayer
from onelogit.checkpoints.untrusted_files import why_outside
from onelogit.errors import CheckpointError, RecipeError, UnsupportedModelError

_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_OWN_HEAD = "score.weight"
_ROWS_A_SLICE = 1024  # which stay in the processor's cache: several times as fast as larger slices


class HeadRows(NamedTuple):
    """The rows of a head that give the logit: the true token's and, for a difference, the false token's.

    `weight` has the shape (rows, hidden) and the stored dtype; `bias` has the shape (rows,), or is None.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None


class WholeHead(NamedTuple):
    """Where the whole head of a language model is stored, of which a reranker keeps only the rows of its answers.

    `is_tied`: whether the input embeddings are the head if the folder contains no head. `merged`: the head's weight
    and bias, in memory, if an adapter changed it; else None.
    """

    folder: Path
    is_tied: bool
    merged: tuple[torch.Tensor, torch.Tensor | None] | None = None

    @torch.inference_mode()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """The logit of each token of the vocabulary. Only a slice of the head is in memory at a time.

        Args:
            hidden: a last hidden state, shape (hidden,), float32, on the CPU.

        Returns:
            Shape (vocabulary,), float32.

        Raises:
            CheckpointError: the head can no longer be read.
        """
        if self.merged is not None:
            weight, merged_bias = self.merged
            merged_logits = _sliced_logits(weight, len(weight), hidden)
            return merged_logits if merged_bias is None else merged_logits + merged_bias.float()
        files = files_of_tensors(self.folder)
        key, bias_key = _head_keys(self.folder, files, is_tied=self.is_tied)
        with _refuse_damaged(files[key]), safe_open(files[key], framework="pt") as tensors:
            head = tensors.get_slice(key)
            logits = _sliced_logits(head, head.get_shape()[0], hidden)
        if bias_key is None:
            return logits
        with _refuse_damaged(files[bias_key]), safe_open(files[bias_key], framework="pt") as tensors:
            bias: torch.Tensor = tensors.get_tensor(bias_key)
            return logits + bias.float()


def _sliced_logits(head: Any, count: int, hidden: torch.Tensor) -> torch.Tensor:
    starts = range(0, count, _ROWS_A_SLICE)
    return torch.cat([head[start : start + _ROWS_A_SLICE].float() @ hidden for start in starts])


def count_own_rows(folder: Path) -> int:
    """The number of rows of the checkpoint's own classification head: its labels.

    Raises:
        CheckpointError: there is no such head, or its file is damaged.
    """
    files = files_of_tensors(folder)
    key = _find_key(files, _OWN_HEAD)
    if key is None:
        raise _missing(folder, [_OWN_HEAD])
    with _refuse_damaged(files[key]), safe_open(files[key], framework="pt") as tensors:
        return int(tensors.get_slice(key).get_shape()[0])


def read_head_rows(folder: Path, ids: list[int], *, is_own: bool = False, is_tied: bool = False) -> HeadRows:
    """Some rows of a head; only these are read from disk.

    Args:
        folder: of the checkpoint.
        ids: of the rows.
        is_own: the head is the checkpoint's own classification head, not that of the language model.
        is_tied: whether the input embeddings are the head if no language-model head is stored.

    Raises:
        CheckpointError: there is no such head, or its file is damaged.
        RecipeError: an id is outside the vocabulary.
        UnsupportedModelError: the head is quantised.
    """
    files = files_of_tensors(folder)
    key, bias_key = _head_keys(folder, files, is_own=is_own, is_tied=is_tied)
    return HeadRows(
        weight=_read_rows(files[key], key, ids),
        bias=None if bias_key is None else _read_rows(files[bias_key], bias_key, ids),
    )


def _head_keys(
    folder: Path, files: dict[str, Path], *, is_own: bool = False, is_tied: bool = False
) -> tuple[str, str | None]:
    """The names of a head's weight and, if it has one, its bias."""
    names = [_OWN_HEAD] if is_own else ["lm_head.weight", *(_EMBEDDINGS if is_tied else ())]
    key = next((found for name in names if (found := _find_key(files, name)) is not None), None)
    if key is None:
        raise _missing(folder, names)
    return key, _find_key(files, names[0].replace("weight", "bias"))


def stored_dtype(folder: Path) -> torch.dtype | None:
    """The dtype of a checkpoint's first tensor, for configurations that name no dtype; None if it is quantised."""
    key, file = next(iter(files_of_tensors(folder).items()))
    names = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    with safe_open(file, framework="pt") as tensors:
        return names.get(tensors.get_slice(key).get_dtype())


def read_module_layers(folder: Path, chain: ModuleChain) -> nn.Sequential:
    """The layers of a module chain with their weights, in float32.

    Raises:
        CheckpointError: a file is missing or damaged, or contains other tensors than its config.json declares.
    """
    layers: list[nn.Module] = []
    for layer in chain.layers:
        if reason := why_outside(folder / layer.folder / "model.safetensors", folder):
            raise CheckpointError(reason)
        layers.append(_read_layer(folder / layer.folder, layer))
        if isinstance(layer, DenseLayer) and layer.activation != "Identity":
            layers.append(getattr(nn, layer.activation)())
    return nn.Sequential(*layers).eval().requires_grad_(False)


def _find_key(files: dict[str, Path], name: str) -> str | None:
    return next((key for key in files if key == name or key.endswith(f".{name}")), None)


def _missing(folder: Path, names: list[str]) -> CheckpointError:
    return CheckpointError(f"{folder} has no tensor {' or '.join(names[:2])}, so its head cannot be read")


def _read_rows(file: Path, key: str, rows: Sequence[int]) -> torch.Tensor:
    with _refuse_damaged(file), safe_open(file, framework="pt") as tensors:
        tensor = tensors.get_slice(key)
        count = tensor.get_shape()[0]
        for row in rows:
            if not 0 <= row < count:
                raise RecipeError(f"the token id {row} is outside the vocabulary of {count} tokens")
        taken = torch.cat([tensor[row : row + 1] for row in rows])
    if not taken.is_floating_point() or taken.element_size() < 2:
        raise UnsupportedModelError(f"{key} is quantised ({taken.dtype}); use the unquantised checkpoint")
    return taken


def _read_layer(folder: Path, declared: DenseLayer | NormLayer) -> nn.Module:
    file = folder / "model.safetensors"
    if not file.is_file():
        raise CheckpointError(f"{folder} has no weights (model.safetensors); pickled weights (.bin) are not supported")
    layer: nn.Module
    if isinstance(declared, DenseLayer):
        layer = nn.Linear(declared.inputs, declared.outputs, bias=declared.has_bias, device="meta")
    else:
        layer = nn.LayerNorm(declared.inputs, device="meta")
    with _refuse_damaged(file):
        # Tensor names begin with an attribute of the module: linear.weight, norm.bias.
        tensors = {name.rpartition(".")[2]: tensor.float() for name, tensor in load_file(file).items()}
    try:
        layer.load_state_dict(tensors, assign=True)
    except RuntimeError as error:
        raise CheckpointError(f"{file} does not contain the tensors that its config.json declares: {error}") from error
    return layer


@contextmanager
def _refuse_damaged(file: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError, IndexError) as error:  # the last of a tensor without rows
        raise CheckpointError(f"{file} is damaged or incomplete: {error}") from error
