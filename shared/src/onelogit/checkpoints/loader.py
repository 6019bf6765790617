"""A model's id or path -> the parts of its checkpoint: backbone, head rows, tokenizer and recipe."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from onelogit.checkpoints.adapter import Adapter
from onelogit.checkpoints.bidirectional import PooledHead, read_pooled_head
from onelogit.checkpoints.device import check_device_map, find_device, find_dtype, is_quantised
from onelogit.checkpoints.head_weights import (
    HeadRows,
    WholeHead,
    count_own_rows,
    read_head_rows,
    read_module_layers,
)
from onelogit.checkpoints.hub import commit_of, tensor_shapes
from onelogit.checkpoints.labels import LabelChoice, LabelRows
from onelogit.checkpoints.load_adapted import load_merged_parts
from onelogit.checkpoints.lora import adapted_config, check_adapter
from onelogit.checkpoints.metadata import parse_json
from onelogit.checkpoints.module_chain import ModuleChain, read_module_chain
from onelogit.checkpoints.native_classes import native_config, native_names, why_not_native
from onelogit.checkpoints.odd_paths import why_no_tokenizer
from onelogit.checkpoints.resolve import ResolvedModel, fetch_weights, resolve_model
from onelogit.checkpoints.untrusted_files import check_tensors
from onelogit.checkpoints.untrusted_tokenizer import check_tokenizer
from onelogit.checkpoints.vocabulary import check_vocabulary, vocabulary_size
from onelogit.checkpoints.weights import check_label_count, load_model
from onelogit.errors import CheckpointError, InputError, RecipeError, UnsupportedModelError, first_line
from onelogit.model_spec import ModelSpec
from onelogit.options import LoadOptions
from onelogit.processes import paused_collection
from onelogit.prompts.tokenizer import stop_sampling, token_id, token_text
from onelogit.quantization.processor import check_processor
from onelogit.recipes.recipe import ReadOut, Recipe, is_non_commercial, warn_if_swapped

logger = logging.getLogger(__name__)

# Config fields that change logits after the head, so that a head row alone does not give the model's logits.
_CHANGED_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier", "dim_model_base")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The parts of a classifier.

    Attributes:
        model: in evaluation mode, on its device: a backbone without a head, or a complete classifier if both
            `head_rows` and `layers` are None.
        head_rows: the rows of the language-model head that give the logit, or None.
        whole_head: of a language model whose answers give the logit; None if the model has a head of its own.
        chain: the modules that give the logit, or None.
        layers: the chain's layers, in float32, or None.
        pooled: how the head rows read the hidden states; None if they read the last token's.
        labels: the rows of a complete classifier that has two labels, or None.
        tokenizer: the checkpoint's own.
        recipe: with token ids instead of texts.
        pad_token_id: see `pad_token_id`.
        adapter: that was merged into the model, or None.
        commit: of the model on the hub, or of the adapter; None if it was loaded from any other folder.
        base_commit: of the adapter's base model, likewise.
    """

    model: PreTrainedModel
    head_rows: HeadRows | None
    whole_head: WholeHead | None
    chain: ModuleChain | None
    layers: nn.Sequential | None
    pooled: PooledHead | None
    labels: LabelRows | None
    tokenizer: PreTrainedTokenizerFast
    recipe: Recipe
    pad_token_id: int
    adapter: Adapter | None = None
    commit: str | None = None
    base_commit: str | None = None


def load_checkpoint(model: ModelSpec | ResolvedModel) -> Checkpoint:
    """The parts of a checkpoint. Small files are checked first: no weights are downloaded for an unusable model.

    Of the language-model head, only the rows that the recipe names are read.

    Raises:
        CheckpointError: the model is not found, lacks weights, or is damaged.
        RecipeError: no recipe is known, or it does not fit the tokenizer.
        InputError: the device, dtype, device map or quantisation cannot be used.
    """
    spec = model.spec if isinstance(model, ResolvedModel) else model
    options = spec.load_options
    find_dtype(options.get("dtype"), None, find_device(options.get("device")))  # raises before anything is read
    check_device_map(options.get("device_map"))
    if spec.quantization is not None:
        check_processor(find_device(options.get("device")))
    found = model if isinstance(model, ResolvedModel) else resolve_model(model)
    name, chain, pooled = found.name, read_module_chain(found.texts), _read_pooled_head(found)
    if is_non_commercial(found.recipe.licence):
        logger.warning("%s is licensed %s: not for commercial use", name, found.recipe.licence)
    config = load_config(found.folder, options)
    if spec.quantization is not None and is_quantised(config):
        raise InputError(f"the weights of {name!r} are quantised already; leave quantization out")
    if found.adapter is not None:
        check_adapter(found.adapter, config, options)
        adapter = found.adapter.with_weights()
        found, config = found._replace(adapter=adapter), adapted_config(config, adapter)
    tokenizer = load_tokenizer(found.tokenizer_folder, options)
    recipe = _with_token_ids(found.recipe, tokenizer)
    labels = LabelChoice(name, config.id2label, config.problem_type, options.get("relevant_label"))
    labels.check(found.texts, has_one=recipe.read_out is not None or chain is not None)
    check_vocabulary(tokenizer, recipe, config, uses_added_tokens=bool(options.get("allow_control_tokens")))
    found = fetch_weights(found)
    # Raise for missing, damaged, unmerged or other weights, before transformers reads them.
    native_names(found.folder)
    check_tensors(parse_json(found.texts, "config.json"), tensor_shapes(found.folder), found.folder)
    layers = None if chain is None else read_module_layers(found.modules_folder, chain)
    is_decoder = (recipe.chat_template is not None and chain is None) or pooled is not None
    if is_decoder:
        _check_convertible(name, config, recipe.read_out)
    read_parts = _read_parts if found.adapter is None else _merged_parts
    loaded, head_rows, whole_head = read_parts(found, config, recipe.read_out, labels, is_decoder=is_decoder)
    return Checkpoint(
        model=loaded,
        head_rows=head_rows,
        whole_head=whole_head,
        chain=chain,
        layers=layers,
        pooled=pooled,
        labels=None if is_decoder or chain is not None else labels.rows(int(loaded.config.num_labels or 1)),
        tokenizer=tokenizer,
        recipe=recipe,
        pad_token_id=pad_token_id(tokenizer, config),
        adapter=found.adapter,
        commit=commit_of(found.folder if found.adapter is None else found.adapter.folder),
        base_commit=None if found.adapter is None else commit_of(found.folder),
    )


def _read_parts(
    found: ResolvedModel, config: PretrainedConfig, read_out: ReadOut | None, labels: LabelChoice, *, is_decoder: bool
) -> tuple[PreTrainedModel, HeadRows | None, WholeHead | None]:
    """A decoder's backbone and the rows of its head; or a whole classifier, or the backbone of a module chain."""
    folder, options, is_chain = found.folder, found.spec.load_options, read_module_chain(found.texts) is not None
    head_rows = _read_rows(folder, config, read_out, labels) if is_decoder else None
    has_own_head = head_rows is None or read_out is None
    whole_head = None if has_own_head else WholeHead(folder, bool(config.tie_word_embeddings))
    model = load_model(folder, config, options, is_backbone=is_decoder or is_chain)
    return model, head_rows, whole_head


def _merged_parts(
    found: ResolvedModel, config: PretrainedConfig, read_out: ReadOut | None, labels: LabelChoice, *, is_decoder: bool
) -> tuple[PreTrainedModel, HeadRows | None, WholeHead | None]:
    """As `_read_parts`, of a model with an adapter."""
    is_chain = read_module_chain(found.texts) is not None
    if read_out is None and found.adapter is not None and found.adapter.settings.get("task_type") == "CAUSAL_LM":
        message = "%s was trained as an adapter of a language model, but its base model's own head gives the logit"
        logger.warning(message, found.name)
    parts = load_merged_parts(found, found.spec.load_options, config, is_chain=is_chain, is_decoder=is_decoder)
    if parts.head is None:
        return parts.model, None, None
    if read_out is not None:
        ids = _answer_ids(read_out)
    else:
        rows = labels.rows(len(parts.head.weight))
        ids = [0] if rows is None else [rows.relevant, rows.irrelevant]
    return parts.model, parts.rows(ids), parts.whole_head


def _answer_ids(read_out: ReadOut) -> list[int]:
    return [id for id in (read_out.true, read_out.false) if isinstance(id, int)]


def _read_rows(folder: Path, config: PretrainedConfig, read_out: ReadOut | None, labels: LabelChoice) -> HeadRows:
    if read_out is not None:
        return read_head_rows(folder, _answer_ids(read_out), is_tied=bool(config.tie_word_embeddings))
    check_label_count(folder, count := count_own_rows(folder))
    rows = labels.rows(count)
    return read_head_rows(folder, [0] if rows is None else [rows.relevant, rows.irrelevant], is_own=True)


def _read_pooled_head(model: ResolvedModel) -> PooledHead | None:
    try:
        return read_pooled_head(model.texts)
    except (CheckpointError, UnsupportedModelError) as error:
        raise type(error)(f"{model.name!r}: {error}") from error


def load_config(folder: Path, options: LoadOptions) -> PretrainedConfig:
    """The checkpoint's configuration.

    Raises:
        CheckpointError: the architecture is unknown to this version of transformers, or needs its own Python code.
    """
    try:
        config: PretrainedConfig = native_config(folder) or AutoConfig.from_pretrained(
            folder, trust_remote_code=options.get("trust_remote_code", False)
        )
        if not isinstance(config.get_text_config(), PretrainedConfig):
            raise TypeError("the part for texts (text_config) is none of a model")
    except Exception as error:  # transformers' configuration checks raise errors of many classes
        reason = f"transformers cannot read {folder / 'config.json'}: {first_line(error)}"
        raise CheckpointError(_why_untrusted(folder, error) or reason) from error
    quantisation = getattr(config, "quantization", None)
    if isinstance(quantisation, dict) and "quant_method" not in (getattr(config, "quantization_config", None) or {}):
        raise CheckpointError(
            f"the weights in {folder} are quantised for MLX ({quantisation.get('bits')} bits), which only MLX reads; "
            "use the model that they were made from"
        )
    return config


def _why_untrusted(folder: Path, error: Exception) -> str | None:
    if "trust_remote_code" not in str(error):
        return None
    missing = why_not_native(folder)
    reason = "auto_map in its files" if missing is None else f"auto_map in its files, and {missing}"
    return (
        f"{folder} needs its own Python code ({reason}); read that code, and if you trust it, pass "
        "trust_remote_code=True (for a command: --trust-remote-code)"
    )


def load_tokenizer(folder: Path, options: LoadOptions) -> PreTrainedTokenizerFast:
    """The checkpoint's own tokenizer.

    Raises:
        CheckpointError: it is missing, damaged, or has no fast backend.
    """
    try:
        with paused_collection():
            tokenizer = AutoTokenizer.from_pretrained(
                folder, config=native_config(folder), trust_remote_code=options.get("trust_remote_code", False)
            )
    except Exception as error:  # tokenizers raises only Exception for a damaged file
        reason = f"the tokenizer in {folder} cannot be read: {first_line(error)}"
        raise CheckpointError(_why_untrusted(folder, error) or why_no_tokenizer(folder) or reason) from error
    if not _has_words(tokenizer):
        raise CheckpointError(why_no_tokenizer(folder) or f"{folder} has no tokenizer (tokenizer.json)")
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise CheckpointError(f"{type(tokenizer).__name__} is a slow tokenizer; onelogit needs a tokenizer.json")
    stop_sampling(tokenizer.backend_tokenizer)
    check_tokenizer(tokenizer.backend_tokenizer, folder)
    return tokenizer


def _has_words(tokenizer: Any) -> bool:
    """Whether the vocabulary has more than added tokens."""
    added, backend = tokenizer.get_added_vocab(), getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None and backend.get_vocab_size(with_added_tokens=False) > len(added):
        return True  # without a copy of the vocabulary, which takes a tenth of a second
    return bool(tokenizer.get_vocab().keys() - added.keys())


def _with_token_ids(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Recipe:
    if recipe.read_out is None:
        return recipe
    backend, unknown = tokenizer.backend_tokenizer, tokenizer.unk_token
    true = token_id(recipe.read_out.true, backend, unknown)
    false = None if recipe.read_out.false is None else token_id(recipe.read_out.false, backend, unknown)
    if true == false:
        raise RecipeError(f"a read-out needs a true token and, if any, a different false token, not {recipe.read_out}")
    if not isinstance(recipe.read_out.true, str) and false is not None:  # texts were compared when they were given
        warn_if_swapped(token_text(true, backend), token_text(false, backend))
    return replace(recipe, read_out=replace(recipe.read_out, true=true, false=false))


def _check_convertible(name: str, config: PretrainedConfig, read_out: ReadOut | None) -> None:
    """Check that the head's row at the last token gives the model's own logit; raises UnsupportedModelError."""
    for field in _CHANGED_LOGITS if read_out is not None else ():
        value = getattr(config, field, None)
        if value not in (None, 1, 1.0):
            raise UnsupportedModelError(f"{name!r} changes its logits after the head ({field}={value})")


def pad_token_id(tokenizer: PreTrainedTokenizerFast, config: PretrainedConfig) -> int:
    """The first that the model has: padding token of tokenizer or config, end of sequence of tokenizer or config, 0."""
    size = vocabulary_size(config)
    # Some configurations, such as Funnel's, have no such fields.
    pad, eos = (getattr(config, name, None) for name in ("pad_token_id", "eos_token_id"))
    ids = (tokenizer.pad_token_id, pad, tokenizer.eos_token_id, eos)
    known = (id[0] if isinstance(id, list) else id for id in ids if id is not None)
    return int(next((id for id in known if size is None or id < size), 0))
