"""A checkpoint's folder -> its model with all weights, as transformers loads it."""

import copy
import logging
import math
import re
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from onelogit.checkpoints.device import find_device, find_device_map, find_dtype, is_quantised
from onelogit.checkpoints.head_weights import stored_dtype
from onelogit.checkpoints.hub import tensor_shapes
from onelogit.checkpoints.native_classes import native_config, native_names
from onelogit.errors import CheckpointError, InputError, UnsupportedModelError, counted, first_line
from onelogit.options import LoadOptions

logger = logging.getLogger(__name__)

_INDEX = re.compile(r"\.\d+\.")
_BUFFER = re.compile(r"inv_freq$|masked_bias$|attn\.bias$|position_ids$")
_SMALL_MODEL = 10_000_000  # numbers that may be missing in any case
_ENLARGED, _PACKED = 3, 32  # times as many numbers as are stored: of tied weights and buffers, of quantised weights

# How a model computes and returns the same numbers, whatever its trainer asked for.
_PLAIN_OUTPUT: dict[str, object] = {
    "return_dict": True,
    "output_hidden_states": False,
    "output_attentions": False,
    "chunk_size_feed_forward": 0,
}


def load_model(folder: Path, config: PretrainedConfig, options: LoadOptions, *, is_backbone: bool) -> PreTrainedModel:
    """The model with all its weights, in evaluation mode, on its device.

    Unless the caller names a dtype, the model's config keeps the stored dtype, in which an export is written, even if
    a CPU computes float16 as float32.

    Args:
        folder: of the checkpoint.
        config: of the checkpoint.
        options: device, dtype, and options for transformers.
        is_backbone: do not load the head; False for a sequence classifier with its own head.

    Raises:
        CheckpointError: weights are missing or damaged; missing ones are never filled with random numbers.
        UnsupportedModelError: the classifier has more than two labels.
        InputError: the device or dtype is unknown, or the device map leaves the embeddings on disk.
    """
    kind = AutoModel if is_backbone else AutoModelForSequenceClassification
    model: Any = load_model_class(kind, folder, config, options)
    if not is_backbone:
        check_label_count(folder, model.config.num_labels)
    model.eval().requires_grad_(False)
    if is_quantised(model.config):
        _unpack_weights(model, folder)
    return model  # type: ignore[no-any-return]


def load_model_class(
    model_class: Any,
    folder: Path,
    config: PretrainedConfig,
    options: LoadOptions,
    *,
    supplied: Container[str] = (),
    **changes: object,
) -> PreTrainedModel:
    """The model of a class of transformers with all its weights, on its device; see `load_model`.

    Args:
        model_class: such as `AutoModel`.
        folder: of the checkpoint.
        config: of the checkpoint.
        options: as in `load_model`.
        supplied: names of weights that the caller will set, and that may be missing.
        **changes: fields of the configuration that replace the checkpoint's.
    """
    device = find_device(options.get("device"))
    stored = config.dtype or stored_dtype(folder)
    device_map = find_device_map(options, config, device)
    changes = {name: value for name, value in _PLAIN_OUTPUT.items() if hasattr(config, name)} | changes
    if (native := native_config(folder)) is not None:
        native.update(changes)
        changes = {"config": native}
    if not options.get("trust_remote_code"):
        _check_sizes(model_class, folder, native or config)
    model = _from_pretrained(
        model_class,
        folder,
        options,
        supplied,
        **changes,
        dtype=find_dtype(options.get("dtype"), stored, device, is_kept=is_quantised(config)),
        device_map=device_map,
    )
    if options.get("dtype") is None:
        model.config.dtype = stored
    if device_map is None:
        model.to(device)
    if model.device.type == "meta":
        raise InputError(f"device_map={device_map!r} has no device for the embeddings of {folder}; add one")
    return model  # type: ignore[no-any-return]


def _check_sizes(model_class: Any, folder: Path, config: PretrainedConfig) -> None:
    """Refuse a model much larger than its stored weights: transformers would allocate the difference, and then fail."""
    stored = sum(math.prod(shape) for shape in tensor_shapes(folder).values())
    try:
        with torch.device("meta"):
            model = model_class.from_config(copy.deepcopy(config))
    except Exception:
        return
    declared = sum(each.numel() for each in (*model.parameters(), *model.buffers()))
    if declared > _SMALL_MODEL + stored * (_PACKED if is_quantised(config) else _ENLARGED):
        raise CheckpointError(
            f"config.json in {folder} declares a model of {declared:,} numbers, which does not fit its weights: they "
            f"have {stored:,}; copy config.json from the original"
        )


def check_label_count(folder: Path, count: int) -> None:
    """Raise UnsupportedModelError unless there are one or two labels."""
    if count not in (1, 2):
        raise UnsupportedModelError(
            f"{folder} classifies into {count} labels; a reranker's head must have one logit, or two labels, of which "
            "one means relevant"
        )


def _from_pretrained(
    model_class: Any, folder: Path, options: LoadOptions, supplied: Container[str], **further: object
) -> Any:
    """The model. Missing weights are an error: transformers fills them with random numbers and only warns."""
    further |= {name: options.get(name) for name in ("attn_implementation", "quantization_config")}
    further["trust_remote_code"] = options.get("trust_remote_code", False)  # None would make transformers ask on stdin
    further["key_mapping"] = native_names(folder) or None
    given = {name: value for name, value in further.items() if value is not None}
    try:
        with without_load_report():
            model, report = model_class.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **given)
    except Exception as error:  # each quantisation method raises errors of its own classes
        if "ignore_mismatched_sizes" in str(error):
            raise CheckpointError(f"the shapes of weights in {folder} differ from its config.json") from error
        raise CheckpointError(f"the weights in {folder} cannot be loaded: {first_line(error)}") from error
    missing = sorted([*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])])
    missing = [key for key in missing if key not in supplied]
    if "key_mapping" in given and hasattr(model, "_weight_conversions"):
        del model._weight_conversions  # with which save_pretrained would write the wrappers again
    unread = sorted(report["unexpected_keys"])
    if missing:
        other = f"; its weights have other names, such as {unread[0]}" if unread else ""
        raise CheckpointError(
            f"{folder} lacks {counted(len(missing), 'weight')} of its model, such as {missing[0]}{other}"
        )
    _warn_of_unread_layers(model, folder, unread)
    return model


def _warn_of_unread_layers(model: PreTrainedModel, folder: Path, names: list[str]) -> None:
    """Log a warning if config.json lacks layers, or parts of layers, that the weights have: it may be another model's.

    Other tensors, such as a language model's head, are unread on purpose, and so are the buffers of older versions.
    """
    modules = {name for name, _ in model.named_modules()}
    stacks = {name: _INDEX.split(name)[0] for name in names if _INDEX.search(name) and not _BUFFER.search(name)}
    unread = [name for name, stack in stacks.items() if {stack, stack.partition(".")[2]} & modules - {""}]
    if unread:
        message = "%s has %s in its layers that its config.json does not declare, such as %s; %s not used"
        verb = "it is" if len(unread) == 1 else "they are"
        logger.warning(message, folder, counted(len(unread), "weight"), unread[0], verb)


@torch.inference_mode()
def _unpack_weights(model: PreTrainedModel, folder: Path) -> None:
    """Run the model once: this unpacks some kinds of quantised weights, before free memory is measured."""
    try:
        model(torch.zeros((1, 1), dtype=torch.long, device=model.device))
    except Exception as error:  # kernels raise errors of many classes
        computed = f"in {str(model.dtype).removeprefix('torch.')} on {model.device}"
        raise CheckpointError(
            f"the quantised weights in {folder} cannot be used {computed}; another dtype may work: {first_line(error)}"
        ) from error


@contextmanager
def without_load_report() -> Iterator[None]:
    """Silence transformers' table of unread weights in this thread: the head is not loaded on purpose."""
    thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        return record.thread != thread or "LOAD REPORT" not in record.getMessage()

    reporter = logging.getLogger("transformers.modeling_utils")
    reporter.addFilter(is_wanted)
    try:
        yield
    finally:
        reporter.removeFilter(is_wanted)
