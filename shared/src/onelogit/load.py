"""A model's id or path -> the parts of its checkpoint. The only file that reads hub or disk."""

import json
import logging
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from onelogit.declared import check_architecture, declared_licence, find_recipe
from onelogit.errors import CheckpointError, InputError, RecipeError, UnsupportedModelError
from onelogit.recipes import ReadOut, Recipe

logger = logging.getLogger(__name__)

_SMALL_FILES = ["*.json", "*.jinja", "*.md", "*.model", "*.txt", "*.py"]
_INDEX = "model.safetensors.index.json"
_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
# Fields of a config that change logits after the head, so that a head row alone would not give them.
_CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "dim_model_base")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What a classifier is made of.

    Attributes:
        backbone: the decoder without a head, in evaluation mode, on its device.
        head_rows: shape (rows, hidden), in the stored dtype: the true row and, for a difference, the false row;
            or the one row of a native head.
        tokenizer: the checkpoint's own.
        recipe: with token ids in place of texts.
        pad_token_id: the tokenizer's, or its end-of-sequence token where it names none.
    """

    backbone: PreTrainedModel
    head_rows: torch.Tensor
    tokenizer: PreTrainedTokenizerFast
    recipe: Recipe
    pad_token_id: int


def load_checkpoint(
    model: str | os.PathLike[str],
    *,
    device: str | None = None,
    dtype: str | None = None,
    recipe: Recipe | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Checkpoint:
    """The parts of a checkpoint; small files first, so that a model that cannot be used is refused before its weights.

    Of the language-model head only the rows that the recipe names are read.

    Raises:
        CheckpointError: the model is not found, lacks weights, or is damaged.
        RecipeError: no recipe is known, or it does not fit the tokenizer.
        InputError: an unknown device or dtype.
    """
    place = _device(device)
    name = os.fspath(model)
    folder = _find(name, revision, _SMALL_FILES)
    texts = _read_texts(folder)
    recipe = find_recipe(name, texts) if recipe is None else recipe
    check_architecture(name, texts, recipe)
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    _refuse_changed_logits(name, config)
    tokenizer = _load_tokenizer(folder, trust_remote_code)
    recipe = _with_token_ids(recipe, tokenizer)
    recipe = replace(recipe, licence=declared_licence(texts) or recipe.licence)
    _mention_licence(name, recipe.licence)
    folder = _find(name, revision, ["*.safetensors", *_SMALL_FILES])
    head_rows = _read_head_rows(folder, recipe.read_out, is_tied=bool(config.tie_word_embeddings))
    backbone = _load_backbone(folder, _dtype(dtype, config, place), trust_remote_code)
    backbone.to(place)  # type: ignore[arg-type]
    return Checkpoint(
        backbone=backbone,
        head_rows=head_rows,
        tokenizer=tokenizer,
        recipe=recipe,
        pad_token_id=_pad_token_id(tokenizer, config),
    )


def _find(name: str, revision: str | None, patterns: list[str]) -> Path:
    if Path(name).is_dir():
        return Path(name)
    if Path(name).is_absolute() or name.startswith(".") or name.count("/") > 1 or "\\" in name:
        raise CheckpointError(f"there is no folder {name!r}")
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, HFValidationError) as error:
        raise CheckpointError(
            f"the model {name!r} is neither a folder here nor found on the hub; check the spelling, "
            f"log in for a gated model, or download it first where there is no network ({_first_line(error)})"
        ) from error


def _read_texts(folder: Path) -> dict[str, str]:
    files = (file for pattern in ("*.json", "*.jinja", "README.md") for file in folder.rglob(pattern))
    texts = {}
    for file in files:
        if file.name not in ("tokenizer.json", "vocab.json", _INDEX):
            texts[file.relative_to(folder).as_posix()] = _read_text(file)
    if "config.json" not in texts:
        raise CheckpointError(f"{folder} has no config.json: it is not a checkpoint")
    return texts


def _read_text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{file} is not UTF-8: {error}") from error


def _load_tokenizer(folder: Path, trust_remote_code: bool) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=trust_remote_code)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"{type(tokenizer).__name__} is a tokenizer in Python; onelogit needs a tokenizer.json")
    return tokenizer


def _with_token_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Recipe:
    if recipe.read_out is None:
        return recipe
    true, false = (_token_id(token, tokenizer) for token in (recipe.read_out.true, recipe.read_out.false))
    if true is None or true == false:
        raise RecipeError(f"a read-out needs a true token, and another false one or none, not {recipe.read_out}")
    return replace(recipe, read_out=replace(recipe.read_out, true=true, false=false))


def _token_id(token: int | str | None, tokenizer: PreTrainedTokenizerFast) -> int | None:
    if not isinstance(token, str):
        return token
    ids = tokenizer.encode(token, add_special_tokens=False)
    if len(ids) != 1 or ids[0] == tokenizer.unk_token_id:
        raise RecipeError(f"the answer {token!r} must be one token, but this tokenizer reads it as {ids}")
    return int(ids[0])


def _read_head_rows(folder: Path, read_out: ReadOut | None, *, is_tied: bool) -> torch.Tensor:
    """The rows of the head that make the logit, through slices: the rest of the head stays on disk."""
    files = _files_of_tensors(folder)
    if any(key.endswith("lm_head.bias") for key in files) and read_out is not None:
        raise UnsupportedModelError("the language-model head has a bias, which is not supported")
    names = ["score.weight"] if read_out is None else ["lm_head.weight", *(["embed_tokens.weight"] if is_tied else [])]
    key = next((key for name in names for key in files if key == name or key.endswith(f".{name}")), None)
    if key is None:
        raise CheckpointError(f"{folder} has no tensor {' or '.join(names)}: the head's rows cannot be read")
    try:
        with safe_open(folder / files[key], framework="pt") as file:
            return _slice_rows(file.get_slice(key), key, read_out)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{files[key]} is damaged or cut short: {error}") from error


def _slice_rows(head: Any, key: str, read_out: ReadOut | None) -> torch.Tensor:
    count, _ = head.get_shape()
    if read_out is None and count != 1:
        raise UnsupportedModelError(f"{key} has {count} rows: a reranker's own head must have one logit")
    ids = [0] if read_out is None else [id for id in (read_out.true, read_out.false) if isinstance(id, int)]
    for id in ids:
        if not 0 <= id < count:
            raise RecipeError(f"the token id {id} is outside the vocabulary of {count} tokens")
    rows = torch.cat([head[id : id + 1] for id in ids])
    if not rows.is_floating_point():
        raise UnsupportedModelError(f"{key} is quantised ({rows.dtype}); take the unquantised checkpoint")
    return rows


def _files_of_tensors(folder: Path) -> dict[str, str]:
    """The file of each tensor, by the tensor's name."""
    if (folder / _INDEX).is_file():
        weight_map: dict[str, str] = json.loads(_read_text(folder / _INDEX))["weight_map"]
        missing = sorted({file for file in weight_map.values() if not (folder / file).is_file()})
        if missing:
            raise CheckpointError(f"{folder} lacks {', '.join(missing)}, which {_INDEX} names")
        return weight_map
    file = folder / "model.safetensors"
    if not file.is_file():
        is_pickle = any(folder.glob("*.bin"))
        raise CheckpointError(
            f"{folder} holds pickled weights (.bin), which can run code and are not read; save them as safetensors "
            "with model.save_pretrained(folder) of transformers"
            if is_pickle
            else f"{folder} holds no weights (model.safetensors)"
        )
    try:
        with safe_open(file, framework="pt") as tensors:
            return dict.fromkeys(tensors.keys(), file.name)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is damaged or cut short: {error}") from error


def _load_backbone(folder: Path, dtype: torch.dtype, trust_remote_code: bool) -> PreTrainedModel:
    try:
        with _without_load_report():
            backbone, report = AutoModel.from_pretrained(
                folder,
                dtype=dtype,
                trust_remote_code=trust_remote_code,
                use_safetensors=True,
                output_loading_info=True,
            )
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(f"the weights in {folder} cannot be loaded: {error}") from error
    missing = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    if missing:
        # transformers fills these with random numbers and only warns.
        raise CheckpointError(f"{folder} lacks {len(missing)} weights of its backbone, {missing[0]} among them")
    return backbone.eval().requires_grad_(False)  # type: ignore[no-any-return]


@contextmanager
def _without_load_report() -> Iterator[None]:
    """Silence transformers' table of unread weights in this thread: the head is left out on purpose."""
    thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.thread != thread or "LOAD REPORT" not in record.getMessage()

    reporter = logging.getLogger("transformers.modeling_utils")
    reporter.addFilter(is_wanted)
    try:
        yield
    finally:
        reporter.removeFilter(is_wanted)


def _refuse_changed_logits(name: str, config: PretrainedConfig) -> None:
    for field in _CHANGED_LOGITS:
        value = getattr(config, field, None)
        if value not in (None, 1, 1.0):
            raise UnsupportedModelError(f"{name!r} changes its logits after the head ({field}={value})")


def _pad_token_id(tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig) -> int:
    ids = (tokenizer.pad_token_id, config.pad_token_id, tokenizer.eos_token_id, config.eos_token_id)
    known = (id[0] if isinstance(id, list) else id for id in ids if id is not None)
    return int(next(known, 0))


def _device(device: str | None) -> torch.device:
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise InputError(f"unknown device {device!r}: {_first_line(error)}") from error


def _dtype(dtype: str | None, config: PretrainedConfig, device: torch.device) -> torch.dtype:
    if dtype is not None:
        if dtype not in _DTYPES:
            raise InputError(f"unknown dtype {dtype!r}; it is one of {', '.join(_DTYPES)}")
        return _DTYPES[dtype]
    stored = config.dtype if isinstance(config.dtype, torch.dtype) else torch.float32
    return torch.float32 if stored == torch.float16 and device.type == "cpu" else stored


def _mention_licence(name: str, licence: str | None) -> None:
    if licence and re.search(r"(^|-)nc(-|$)", licence.lower()):
        logger.warning("%s is licensed %s: not for commercial use", name, licence)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
