"""A classifier, its tokenizer and its recipe -> a folder that other libraries and servers load without flags.

The folder is the same for transformers (a sequence classifier), Sentence Transformers (one Transformer module with a
chat template; for a pooled head, a module chain: see `pooled`) and vLLM from 0.33 on, which reads Sentence
Transformers' files.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from onelogit.checkpoints.device import is_quantised
from onelogit.checkpoints.module_chain import Pooling
from onelogit.conversion.classifier import PooledClassifier
from onelogit.conversion.head import Float32Head
from onelogit.errors import CheckpointError, InputError, UnsupportedModelError, optional_import
from onelogit.export.metadata import (
    ACTIVATION_CLASSES,
    exported_template,
    is_served_by_vllm,
    module_chain_files,
    sentence_transformers_files,
)
from onelogit.export.model_card import public_name, write_model_card
from onelogit.export.pooled import plain_classifier, pooled_fields, write_head
from onelogit.export.probe import PROBE_FILE, Probe
from onelogit.io.atomic_write import atomic_folder
from onelogit.prompts.template import compile_prompt
from onelogit.prompts.tokenizer import added_ids, without_limits
from onelogit.recipes.recipe import Recipe
from onelogit.validation import checked_path

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContents:
    """The contents of an exported folder.

    Attributes:
        classifier: saved in the dtype that its config names, with its one-logit head in float32.
        tokenizer: a copy of it is saved, with padding at the left.
        recipe: for templates, activation, default instruction, licence.
        source: hub id or path of the original model.
        source_folder: its local folder, which is never overwritten; None if it has none.
        max_tokens: maximum length of a prompt.
        base: hub id or path of the model that the source, an adapter, was merged into; None for a whole model.
        probes: see `Probe`.
        pooling: of the hidden states that the classifier's head reads; None for the last token's.
        commit: of the source on the hub; None if it was loaded from a folder.
        base_commit: of the base on the hub, likewise.
    """

    classifier: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    recipe: Recipe
    source: str
    source_folder: Path | None
    max_tokens: int
    probes: Sequence[Probe]
    pooling: Pooling | None = None
    base: str | None = None
    commit: str | None = None
    base_commit: str | None = None


def export(contents: ExportContents, folder: Path, *, is_overwriting: bool = False) -> None:
    """Write the folder, which appears only once it is complete.

    Args:
        contents: what to write.
        folder: its parents are created.
        is_overwriting: replace an earlier export.

    Raises:
        InputError: as `check_target`.
        CheckpointError: the folder cannot be written; an earlier export is unchanged.
        UnsupportedModelError: the classifier is quantised, no class of transformers computes its head, the head has a
            bias or pools plain pairs, or prompts end in the padding token.
    """
    if isinstance(contents.classifier, PooledClassifier) and not is_quantised(contents.classifier.config):
        pooled = contents.classifier
        contents = replace(contents, classifier=plain_classifier(pooled), pooling=pooled.pooling)
    _check_exportable(contents)
    folder = checked_path(folder).absolute()
    check_target(folder, contents.source_folder, is_overwriting=is_overwriting)
    with atomic_folder(folder, CheckpointError, SafetensorError) as temporary:
        _write(contents, temporary, folder.name)


def open_cross_encoder(contents: ExportContents) -> "CrossEncoder":
    """A `sentence_transformers.CrossEncoder` of the contents, loaded from a temporary export.

    Raises:
        InputError: Sentence Transformers is not installed.
    """
    with optional_import("sentence_transformers"):
        from sentence_transformers import CrossEncoder  # noqa: PLC0415
    with TemporaryDirectory() as folder:
        export(contents, Path(folder) / "model")
        opened: CrossEncoder = CrossEncoder(str(Path(folder) / "model"), device=str(contents.classifier.device))
    return opened


def check_target(folder: Path, source: Path | None, *, is_overwriting: bool, option: str = "force=True") -> None:
    """Check that an export may be written to the folder: only an earlier export is ever overwritten.

    Args:
        folder: to write to.
        source: the local folder of the original model; None if it has none.
        is_overwriting: replace an earlier export.
        option: the way to overwrite one, which the error names.

    Raises:
        InputError: the folder exists and `is_overwriting` is False, or it is not an earlier export, or it is the model
            that is being converted.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not is_overwriting:
        raise InputError(f"{folder} exists; remove it, or overwrite it with {option}")
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder} is not a folder; only an earlier export is overwritten")
    if source is not None and source.is_dir() and folder.samefile(source):
        raise InputError(f"{folder} is the model that is being converted; write to another folder")
    if any(folder.iterdir()) and not (folder / PROBE_FILE).is_file():
        raise InputError(f"{folder} is not an earlier export (it has no {PROBE_FILE}), so it is not overwritten")


def _check_exportable(contents: ExportContents) -> None:
    classifier = contents.classifier
    if is_quantised(classifier.config):
        raise UnsupportedModelError(
            "quantised weights cannot be exported, because files do not support all kinds of them; export the "
            "unquantised model, and quantise the export"
        )
    if getattr(getattr(classifier, "score", None), "bias", None) is not None:
        raise UnsupportedModelError("the head has a bias, which transformers' sequence classifiers do not support")
    if contents.pooling is not None:
        if contents.recipe.chat_template is None:
            raise UnsupportedModelError(
                "it reads plain pairs and pools all their tokens, which no server does; pass a recipe with its prompt"
            )
    elif any(probe.token_ids[-1] == classifier.config.pad_token_id for probe in contents.probes):
        raise UnsupportedModelError("its prompts end in the padding token, which sequence classifiers ignore")


def _write(contents: ExportContents, folder: Path, name: str) -> None:
    recipe, labels = contents.recipe, len(contents.classifier.config.id2label or {})
    _save_classifier(contents.classifier, folder)
    activation = {"activation_fn": ACTIVATION_CLASSES[recipe.activation]}
    # Without this field, vLLM asks the tokenizer how to join a pair.
    joining = {} if recipe.chat_template is None and labels == 1 else {"use_sep_token": False}
    fields = {} if contents.pooling is None else pooled_fields(contents.classifier, contents.pooling)
    _update_json(folder / "config.json", {**joining, **fields, "sentence_transformers": activation})
    _write_tokenizer(contents, folder)
    files = sentence_transformers_files(recipe, contents.max_tokens)
    if contents.pooling is not None:
        files = module_chain_files(files, contents.pooling, contents.classifier.config.get_text_config().hidden_size)
    for file, content in files.items():
        (folder / file).parent.mkdir(exist_ok=True)
        _write_json(folder / file, content)
    if contents.pooling is not None:
        write_head(contents.classifier, folder)
    _write_json(folder / PROBE_FILE, _probe_file(contents))
    for_vllm = is_served_by_vllm(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    card = write_model_card(
        recipe,
        contents.source,
        name,
        labels,
        contents.pooling,
        contents.base,
        for_vllm=for_vllm,
        commits=(contents.commit, contents.base_commit),
    )
    (folder / "README.md").write_text(card, encoding="utf-8", newline="\n")


def _save_classifier(classifier: PreTrainedModel, folder: Path) -> None:
    """Write `config.json` and safetensors in the stored dtype (a `Float32Head` in float32). Changes no classifier."""
    config, dtype = classifier.config, _saved_dtype(classifier)
    if dtype == classifier.dtype:
        classifier.save_pretrained(folder)
        return
    heads = [module for module in classifier.modules() if isinstance(module, Float32Head)]
    kept = {id(weight) for head in heads for weight in head.parameters()}
    tensors = {
        name: tensor.detach() if id(tensor) in kept else _rounded_if_exact(tensor.detach(), dtype)
        for name, tensor in classifier.state_dict(keep_vars=True).items()
    }
    classifier.save_pretrained(folder, state_dict=tensors)
    config.dtype = dtype  # save_pretrained set it to the dtype in memory
    config.save_pretrained(folder)


def _saved_dtype(classifier: PreTrainedModel) -> torch.dtype:
    """The classifier's dtype, or the half precision that it was stored in if the device computes it as float32.

    If backbone weights were changed after loading, for example by training, half precision would round them.
    """
    dtype, stored = classifier.dtype, classifier.config.dtype
    if dtype != torch.float32 or not isinstance(stored, torch.dtype) or stored.itemsize != 2:
        return dtype
    weights = classifier.base_model.parameters()
    return stored if all(torch.equal(weight.to(stored).to(weight.dtype), weight) for weight in weights) else dtype


def _rounded_if_exact(tensor: Tensor, half: torch.dtype) -> Tensor:
    rounded = tensor.to(half)
    return rounded if torch.equal(rounded.float(), tensor) else tensor


def _write_tokenizer(contents: ExportContents, folder: Path) -> None:
    tokenizer = copy.deepcopy(contents.tokenizer)
    tokenizer.chat_template = None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    side = "right" if contents.recipe.chat_template is None else "left"
    settings: dict[str, Any] = {"padding_side": side, "model_max_length": contents.max_tokens}
    template = exported_template(contents.recipe)
    first, last = added_ids(without_limits(tokenizer.backend_tokenizer))
    if template is not None and (first or last):
        # vLLM adds special tokens to a rendered template, but Sentence Transformers does not. So the template contains
        # them, and the tokenizer adds none. The model family's own tokenizer class would add them again.
        template = _with_special_tokens(template, contents.recipe, tokenizer, first, last)
        tokenizer.backend_tokenizer.post_processor = None
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_eos_token": False}
    tokenizer.save_pretrained(folder)
    _update_json(folder / "tokenizer_config.json", settings)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="\n")


def _with_special_tokens(
    template: str, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, first: list[int], last: list[int]
) -> str:
    start = compile_prompt(template, False)[0].text
    if not recipe.adds_special_tokens or (tokenizer.bos_token and start.startswith(tokenizer.bos_token)):
        return template
    before, after = ("".join(map(str, tokenizer.convert_ids_to_tokens(ids))) for ids in (first, last))
    # Jinja drops a newline at the end of a template; with a token after it, the newline would be kept.
    return f"{before}{template.removesuffix(chr(10))}{after}" if after else f"{before}{template}"


def _probe_file(contents: ExportContents) -> dict[str, Any]:
    dtype = str(_saved_dtype(contents.classifier)).removeprefix("torch.")
    return {
        "source": public_name(contents.source),
        "revision": contents.commit,
        **_base_fields(contents),
        "family": contents.recipe.family,
        "activation": contents.recipe.activation,
        "instruction": contents.recipe.default_instruction,
        "dtype": dtype,
        # Engines round the backbone differently; a wrong prompt or head changes logits by more than this.
        "tolerance": 1e-3 if dtype == "float32" else 0.25,
        "prompts": [probe._asdict() for probe in contents.probes],
    }


def _base_fields(contents: ExportContents) -> dict[str, Any]:
    base = contents.base
    return {} if base is None else {"base": public_name(base), "base_revision": contents.base_commit}


def _update_json(path: Path, fields: dict[str, Any]) -> None:
    _write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **fields})


def _write_json(path: Path, content: object) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")
