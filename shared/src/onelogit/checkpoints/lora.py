"""An adapter of PEFT and its base model -> the base model with the adapter in it, and then merged into its weights.

PEFT does both. Each layer is merged in float32 and rounded once, to the dtype of the backbone. The head is merged in
float32, and stays in it. Weights are changed in place, one layer at a time, so that no second copy is in memory.
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn
from transformers import AutoModelForSequenceClassification, PretrainedConfig, PreTrainedModel

from onelogit.checkpoints.adapter import Adapter
from onelogit.checkpoints.adapter_tensors import AdapterTensors, needed_vocabulary
from onelogit.checkpoints.device import is_quantised
from onelogit.checkpoints.weights import load_model_class
from onelogit.errors import (
    CheckpointError,
    InputError,
    UnsupportedModelError,
    check_packages,
    first_line,
)
from onelogit.options import LoadOptions

_REPEATED = re.compile(r"\.(modules_to_save|original_module)\.")  # resized embeddings that PEFT stores a second time
_OTHER_BASE = "name the model that it was trained on with base_model= (for a command: --base-model)"


def check_adapter(adapter: Adapter, config: PretrainedConfig, options: LoadOptions) -> None:
    """Check that an adapter can be merged, before any weights are fetched.

    Args:
        adapter: to merge.
        config: of its base model.
        options: of loading.

    Raises:
        InputError: peft is not installed, or the weights are to be quantised.
        UnsupportedModelError: PEFT cannot merge this kind of adapter, or the base model is quantised.
    """
    check_packages("peft")
    if options.get("quantization_config") is not None:
        raise InputError(
            f"{adapter.name!r} is an adapter, which is merged into unquantised weights; write the merged model with "
            "reranker.save (for a command: onelogit convert), and load that one with quantization_config"
        )
    if is_quantised(config):
        raise UnsupportedModelError(
            f"{adapter.name!r} is an adapter of {adapter.base!r}, whose weights are quantised, and merging into them "
            "would round them again; name the unquantised model with base_model= (for a command: --base-model)"
        )
    from peft import PEFT_TYPE_TO_TUNER_MAPPING, PeftType  # noqa: PLC0415  optional

    tuner = PEFT_TYPE_TO_TUNER_MAPPING.get(adapter.kind) if adapter.kind in PeftType.__members__ else None
    if not hasattr(tuner, "merge_and_unload"):
        raise UnsupportedModelError(
            f"{adapter.name!r} is an adapter of the kind {adapter.kind}, which PEFT cannot merge into a model"
        )
    if adapter.settings.get("layer_replication"):
        raise UnsupportedModelError(
            f"{adapter.name!r} repeats layers of its base model (layer_replication), so it cannot be merged into them"
        )


def adapted_config(config: PretrainedConfig, adapter: Adapter) -> PretrainedConfig:
    """The base model's configuration, changed in place to the vocabulary and the labels of the adapter.

    Raises CheckpointError for an adapter whose file is damaged, or is not PEFT's.
    """
    tensors = AdapterTensors.read(adapter)
    size = needed_vocabulary(tensors, adapter, config.get_text_config().vocab_size)
    if size is not None:
        config.get_text_config().vocab_size = size
    if (count := tensors.label_count) is not None and count != config.num_labels:
        config.num_labels = count
    return config


def load_unmerged(
    folder: Path,
    adapter: Adapter,
    config: PretrainedConfig,
    options: LoadOptions,
    kind: Any,
    *,
    has_exact_head: bool = False,
) -> tuple[Any, Any]:
    """The base model with the adapter in its layers, and PEFT's model around it.

    Args:
        folder: of the base model.
        adapter: with its weights.
        config: of the base model.
        options: as in `load_model`.
        kind: class of transformers for the whole model, such as `AutoModelForCausalLM`.
        has_exact_head: give a head that the adapter changes float32 weights, so that the model no longer computes.

    Raises:
        CheckpointError: weights are missing, or the adapter does not fit its base model.
        InputError: the device map leaves weights on disk or on the CPU of another device.
    """
    tensors = AdapterTensors.read(adapter)
    changes = {}
    if kind is AutoModelForSequenceClassification and (count := tensors.label_count) is not None:
        changes["num_labels"] = count
    model: Any = load_model_class(kind, folder, config, options, supplied=tensors.shapes.keys(), **changes)
    if any(weight.is_meta for weight in model.parameters()):
        raise InputError(
            f"{adapter.name!r} is an adapter, which cannot be merged into weights that device_map leaves on disk or "
            "offloads; leave device_map out, or let each part have a device"
        )
    size = needed_vocabulary(tensors, adapter, model.config.get_text_config().vocab_size)
    with _quiet():
        if size is not None:
            model.resize_token_embeddings(size, mean_resizing=False)
        _untie(model, tensors)
        if has_exact_head:
            _widen_head(model, tensors)
        wrapped = _inject(_target(model, tensors, adapter), adapter, tensors)
    return model.eval().requires_grad_(False), wrapped


def load_merged(
    folder: Path, adapter: Adapter, config: PretrainedConfig, options: LoadOptions, kind: Any
) -> PreTrainedModel:
    """The base model with the adapter merged into its weights, as a whole, in evaluation mode, on its device.

    The head's weights are float32 if the adapter changes them. Input and output embeddings are no longer tied if the
    adapter changes only one of them.

    Raises:
        UnsupportedModelError: PEFT cannot merge this adapter.
        OnelogitError: as `load_unmerged`.
    """
    model, wrapped = load_unmerged(folder, adapter, config, options, kind, has_exact_head=True)
    from peft.tuners.tuners_utils import BaseTunerLayer  # noqa: PLC0415  optional

    is_tied = model.config.tie_word_embeddings
    try:
        with _quiet():
            for layer in [each for each in wrapped.modules() if isinstance(each, BaseTunerLayer)]:
                _merge_layer(layer)
            wrapped.base_model.merge_and_unload()
    except (ValueError, NotImplementedError, RuntimeError, AttributeError, TypeError) as error:
        reason = first_line(error) or f"{adapter.kind} raises {type(error).__name__}"
        raise UnsupportedModelError(f"PEFT cannot merge the adapter {adapter.name!r}: {reason}") from error
    model.config.tie_word_embeddings = is_tied  # PEFT changes it, but a classifier has no output embeddings
    model.name_or_path = adapter.name
    return model.eval().requires_grad_(False)  # type: ignore[no-any-return]


def _merge_layer(layer: Any) -> None:
    """Merge a layer in float32, and round the sum once."""
    dtype = next(layer.get_base_layer().parameters()).dtype
    layer.get_base_layer().float()
    layer.merge()
    layer.get_base_layer().to(dtype)


def _untie(model: Any, tensors: AdapterTensors) -> None:
    """Give the language-model head weights of its own, because PEFT changes it or the embeddings alone."""
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is not None and tensors.touches_embeddings and outputs.weight is inputs.weight:
        outputs.weight = nn.Parameter(outputs.weight.detach().clone(), requires_grad=False)


def _widen_head(model: Any, tensors: AdapterTensors) -> None:
    outputs = model.get_output_embeddings()
    if outputs is not None and tensors.touches_embeddings:
        outputs.float()
    for name, module in model.named_children():
        if any(each.partition(".")[0] == name for each in tensors.head):
            module.float()


def _target(model: Any, tensors: AdapterTensors, adapter: Adapter) -> Any:
    """The part of the model that the adapter was trained on: the whole, or its backbone."""
    first = {name.partition(".")[0] for name in tensors.shapes}
    for part in (model, model.base_model):
        if all(hasattr(part, name) for name in first):
            return part
    strange = next(name for name in tensors.shapes if not hasattr(model, name.partition(".")[0]))
    raise CheckpointError(
        f"the adapter {adapter.name!r} does not fit its base model {adapter.base!r} ({type(model).__name__}), which "
        f"has no layer for {strange!r}; {_OTHER_BASE}"
    )


def _inject(target: PreTrainedModel, adapter: Adapter, tensors: AdapterTensors) -> Any:
    """PEFT's model around the target, with the adapter's weights."""
    from peft import PeftConfig, PeftModel  # noqa: PLC0415  optional

    what = f"the adapter {adapter.name!r} does not fit its base model {adapter.base!r}"
    try:
        settings = PeftConfig.from_pretrained(str(adapter.folder))
        settings.inference_mode = True
        if hasattr(settings, "modules_to_save") and (heads := _whole_heads(target, tensors)):
            settings.modules_to_save = sorted({*(settings.modules_to_save or ()), *heads})
        wrapped = PeftModel(target, settings)
        report = wrapped.load_adapter(str(adapter.folder), "default", is_trainable=False)
    except Exception as error:  # PEFT raises errors of many classes for settings and weights that do not fit
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        reason = lines[1] if "size mismatch" in str(error) and len(lines) > 1 else first_line(error)
        raise CheckpointError(f"{what}: {reason.rstrip('.')}; {_OTHER_BASE}") from error
    if report.missing_keys:
        raise CheckpointError(f"{what}: it has no weights for {report.missing_keys[0]}; {_OTHER_BASE}")
    if foreign := [name for name in report.unexpected_keys if not _REPEATED.search(name)]:
        raise CheckpointError(f"{what}, which has no layer for {foreign[0]}; {_OTHER_BASE}")
    return wrapped


def _whole_heads(target: PreTrainedModel, tensors: AdapterTensors) -> set[str]:
    """The modules of the head that the adapter's file contains as a whole; older versions of PEFT do not list them."""
    present = {name for name, _ in target.named_parameters()}
    return {name.partition(".")[0] for name in tensors.head if name in present}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence PEFT's advice for training, which is about embeddings and merged layers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
