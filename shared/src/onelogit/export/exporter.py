"""A classifier, its tokenizer and its recipe -> a folder that others serve without a flag.

The folder is the same to transformers (a sequence classifier), Sentence Transformers (one Transformer module with a
chat template) and vLLM from 0.33 on, which reads the files of the latter. It appears whole or not at all.
"""

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import SafetensorError
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from onelogit.checkpoints.device import is_quantised
from onelogit.conversion.classifier import PooledClassifier
from onelogit.conversion.head import Float32Head
from onelogit.errors import CheckpointError, InputError, UnsupportedModelError, optional_import
from onelogit.export.metadata import ACTIVATION_CLASSES, exported_template, sentence_transformers_files
from onelogit.export.model_card import public_name, write_model_card
from onelogit.export.probe import PROBE_FILE
from onelogit.io.atomic_write import atomic_folder
from onelogit.prompts.template import compile_prompt
from onelogit.prompts.tokenizer import added_ids, without_limits
from onelogit.recipes.recipe import Recipe
from onelogit.validation import checked_path

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder


PROBE_PAIRS = (
    ("What is the capital of China?", "The capital of China is Beijing."),
    ("What is the capital of China?", "Bananas are yellow."),
    ("대한민국의 수도는 어디인가?", "서울은 대한민국의 수도이다."),
)


class Probe(NamedTuple):
    """One prompt by which any server can be asked whether it is sane."""

    query: str
    document: str
    token_ids: tuple[int, ...]
    logit: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportContents:
    """What an exported folder is made of.

    Attributes:
        classifier: saved in the dtype that its config names, its one-logit head in float32.
        tokenizer: saved with padding at the left; the given one is not changed.
        recipe: for templates, activation, default instruction, licence.
        source: the model that this was made from.
        max_tokens: longest prompt.
        probes: see `Probe`.
    """

    classifier: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    recipe: Recipe
    source: str
    max_tokens: int
    probes: Sequence[Probe]


def export(conversion: ExportContents, folder: Path, *, is_overwriting: bool = False) -> None:
    """Write the folder, complete, under its final name.

    Args:
        conversion: what to write.
        folder: where; its parent is made if it is not there.
        is_overwriting: replace what stands there.

    Raises:
        InputError: the folder is there already.
        CheckpointError: it cannot be written; what stood there still stands.
        UnsupportedModelError: it is quantised, no class of transformers computes this head, it has a bias, or prompts
            end in the padding token.
    """
    if is_quantised(conversion.classifier.config):
        raise UnsupportedModelError(
            "quantised weights do not all come back from a file as they are in memory, so they are not exported; "
            "export the model as it was before, and quantise that"
        )
    if isinstance(conversion.classifier, PooledClassifier):
        raise UnsupportedModelError(
            "no class of transformers has a head like this chain of modules, so it is not exported; "
            "sentence_transformers.CrossEncoder opens the original as it is"
        )
    if getattr(getattr(conversion.classifier, "score", None), "bias", None) is not None:
        raise UnsupportedModelError("the head has a bias, which transformers' sequence classifiers have no place for")
    if any(probe.token_ids[-1] == conversion.classifier.config.pad_token_id for probe in conversion.probes):
        raise UnsupportedModelError("its prompts end in the padding token, which sequence classifiers do not read")
    folder = checked_path(folder).absolute()
    check_target(folder, conversion.source, is_overwriting=is_overwriting)
    with atomic_folder(folder, CheckpointError, SafetensorError) as temporary:
        _write(conversion, temporary, folder.name)


def open_cross_encoder(conversion: ExportContents) -> "CrossEncoder":
    """A `sentence_transformers.CrossEncoder` of the conversion, by way of a folder that is gone afterwards.

    Raises:
        InputError: Sentence Transformers is not installed.
    """
    with optional_import("sentence_transformers"):
        from sentence_transformers import CrossEncoder  # noqa: PLC0415
    with TemporaryDirectory() as folder:
        export(conversion, Path(folder) / "model")
        opened: CrossEncoder = CrossEncoder(str(Path(folder) / "model"), device=str(conversion.classifier.device))
    return opened


def check_target(folder: Path, source: str, *, is_overwriting: bool) -> None:
    """Refuse to write over anything but an earlier export, and over that only when told to.

    Raises:
        InputError: something else stands there, or it is the model that is being converted.
    """
    if not folder.exists() and not folder.is_symlink():
        return
    if not is_overwriting:
        raise InputError(f"{folder} is there already; remove it, or overwrite it with force=True (--overwrite)")
    if folder.is_symlink() or not folder.is_dir():
        raise InputError(f"{folder} is no folder; only an earlier export is overwritten")
    if Path(source).is_dir() and folder.samefile(source):
        raise InputError(f"{folder} is the model that is converted; name another folder")
    if any(folder.iterdir()) and not (folder / PROBE_FILE).is_file():
        raise InputError(f"{folder} is no earlier export (it has no {PROBE_FILE}); only such a folder is overwritten")


def _write(conversion: ExportContents, folder: Path, name: str) -> None:
    recipe, labels = conversion.recipe, len(conversion.classifier.config.id2label or {})
    _save_classifier(conversion.classifier, folder)
    activation = {"activation_fn": ACTIVATION_CLASSES[recipe.activation]}
    # Of a pair, vLLM asks the tokenizer where this is not said.
    joins_plainly = {} if recipe.chat_template is None and labels == 1 else {"use_sep_token": False}
    _update_json(folder / "config.json", {**joins_plainly, "sentence_transformers": activation})
    _write_tokenizer(conversion, folder)
    for file, content in sentence_transformers_files(recipe, conversion.max_tokens).items():
        _write_json(folder / file, content)
    _write_json(folder / PROBE_FILE, _probe_file(conversion))
    card = write_model_card(recipe, conversion.source, name, labels)
    (folder / "README.md").write_text(card, encoding="utf-8")


def _saved_dtype(classifier: PreTrainedModel) -> torch.dtype:
    """The classifier's own dtype; the half precision it was stored in where the device computes that as float32."""
    dtype, stored = classifier.dtype, classifier.config.dtype
    if dtype != torch.float32 or not isinstance(stored, torch.dtype) or stored.itemsize != 2:
        return dtype
    return stored if _holds(stored, classifier) else dtype


def _holds(half: torch.dtype, classifier: PreTrainedModel) -> bool:
    """Whether the backbone's weights are still those that were stored: training would have changed them."""
    return all(torch.equal(weight.to(half).to(weight.dtype), weight) for weight in classifier.base_model.parameters())


def _save_classifier(classifier: PreTrainedModel, folder: Path) -> None:
    """Write `config.json` and safetensors; a head of ours stays in float32. The classifier is not changed."""
    config, dtype = classifier.config, _saved_dtype(classifier)
    if dtype == classifier.dtype:
        classifier.save_pretrained(folder)
        return
    classifier.save_pretrained(folder, state_dict=_tensors_in(dtype, classifier))
    config.dtype = dtype  # transformers has put down the one it found
    config.save_pretrained(folder)


def _tensors_in(dtype: torch.dtype, classifier: PreTrainedModel) -> dict[str, Tensor]:
    """The weights in a half precision where that holds them exactly: it does all that were stored in it."""
    heads = [part for part in classifier.modules() if isinstance(part, Float32Head)]
    kept = {id(weight) for head in heads for weight in head.parameters()}
    tensors = {}
    for name, tensor in classifier.state_dict(keep_vars=True).items():
        half = tensor.detach().to(dtype)
        is_exact = id(tensor) not in kept and torch.equal(half.float(), tensor)
        tensors[name] = half if is_exact else tensor.detach()
    return tensors


def _write_tokenizer(conversion: ExportContents, folder: Path) -> None:
    tokenizer = copy.deepcopy(conversion.tokenizer)
    tokenizer.chat_template = None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    side = "right" if conversion.recipe.chat_template is None else "left"
    settings: dict[str, Any] = {"padding_side": side, "model_max_length": conversion.max_tokens}
    template = exported_template(conversion.recipe)
    first, last = added_ids(without_limits(tokenizer.backend_tokenizer))
    if template is not None and (first or last):
        # Sentence Transformers adds no special tokens to a rendered template, vLLM does: so the template writes them,
        # and the tokenizer adds none. A family's own tokenizer class would add them again.
        template = _with_special_tokens(template, conversion.recipe, tokenizer, first, last)
        tokenizer.backend_tokenizer.post_processor = None
        settings |= {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "add_eos_token": False}
    tokenizer.save_pretrained(folder)
    _update_json(folder / "tokenizer_config.json", settings)
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _with_special_tokens(
    template: str, recipe: Recipe, tokenizer: PreTrainedTokenizerFast, first: list[int], last: list[int]
) -> str:
    start = compile_prompt(template, False).parts[0].text
    if not recipe.adds_special_tokens or (tokenizer.bos_token and start.startswith(tokenizer.bos_token)):
        return template
    before, after = ("".join(map(str, tokenizer.convert_ids_to_tokens(ids))) for ids in (first, last))
    # Jinja drops one newline at the end of a template, but none before a token.
    return f"{before}{template.removesuffix(chr(10))}{after}" if after else f"{before}{template}"


def _probe_file(conversion: ExportContents) -> dict[str, Any]:
    dtype = str(_saved_dtype(conversion.classifier)).removeprefix("torch.")
    return {
        "source": public_name(conversion.source),
        "family": conversion.recipe.family,
        "activation": conversion.recipe.activation,
        "instruction": conversion.recipe.default_instruction,
        "dtype": dtype,
        # Rounding of the backbone differs between engines; a wrong prompt or head is off by more than this.
        "tolerance": 1e-3 if dtype == "float32" else 0.25,
        "prompts": [probe._asdict() for probe in conversion.probes],
    }


def _update_json(path: Path, fields: dict[str, Any]) -> None:
    _write_json(path, {**json.loads(path.read_text(encoding="utf-8")), **fields})


def _write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
