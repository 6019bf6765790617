"""A folder with a PEFT adapter (LoRA) -> its base model, and the small files of both as one model's. No torch."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

from onelogit.checkpoints.card import read_licence
from onelogit.checkpoints.declaration import reranking_template
from onelogit.checkpoints.hub import ADAPTER_CONFIG, find_folder, read_small_files, read_texts, refuse_adapter
from onelogit.checkpoints.metadata import BASE_CARD, SmallFiles, parse_json, read_tokenizer_template
from onelogit.checkpoints.odd_paths import PICKLED_ADAPTER, has_weights, why_unreadable
from onelogit.checkpoints.untrusted_files import is_plain_path
from onelogit.errors import CheckpointError
from onelogit.model_spec import ModelSpec
from onelogit.validation import checked_path

ADAPTER_WEIGHTS = "adapter_model.safetensors"

_TOKENIZER_FILES = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")
_TEMPLATE_FILES = re.compile(r"^(chat_template\.(jinja|json)|additional_chat_templates/.*)$")
_MORE_TEMPLATES = "additional_chat_templates/"
_MODULE_FILES = re.compile(r"^(modules|config_sentence_transformers|sentence_bert_config)\.json$|^\d+_\w+/")
_HEADS = ("score", "classifier")
_HEAD_SUFFIX = "ForSequenceClassification"
_OWN_SUFFIX = re.compile(r"(For[A-Z]\w*|LMHeadModel|Model)$")
_WAY_OUT = "name its base model, a hub id or a folder, with base_model= (for a command: --base-model)"


class Adapter(NamedTuple):
    """A PEFT adapter that was found, and where its base model is.

    Attributes:
        spec: the adapter's name, and the options.
        folder: contains at least the small files; see `with_weights`.
        settings: the content of adapter_config.json.
        base: hub id or path of the base model.
        base_options: of finding the base model.
        base_root: the folder in which a relative path of the base model begins.
        has_tokenizer: whether the adapter brings a tokenizer; else the base model's is used.
        has_modules: whether the adapter brings the modules of Sentence Transformers.
        base_licence: as the base model's card names it, or None.
        own_licence: as the adapter's card names it, or None.
        is_fetched: whether the weights are in the folder; see `with_weights`.
    """

    spec: ModelSpec
    folder: Path
    settings: Mapping[str, Any]
    base: str
    base_options: Mapping[str, Any]
    base_root: Path
    has_tokenizer: bool
    has_modules: bool
    base_licence: str | None = None
    own_licence: str | None = None
    is_fetched: bool = False

    @property
    def name(self) -> str:
        """The adapter's hub id or path."""
        return str(self.spec.model)

    @property
    def kind(self) -> str:
        """The kind of adapter, as PEFT names it: LORA, IA3 ..."""
        return str(self.settings.get("peft_type"))

    @property
    def base_spec(self) -> ModelSpec:
        """The base model, as a model of its own."""
        return ModelSpec(self.base, options=self.base_options, base=str(self.base_root))

    def find_base(self, *, with_weights: bool) -> Path:
        """The base model's folder.

        Raises:
            CheckpointError: it is not found, or it is an adapter itself.
        """
        try:
            folder = find_folder(self.base, self.base_options, with_weights=with_weights, base=self.base_root)
        except CheckpointError as error:
            raise CheckpointError(
                f"{self.name!r} is a PEFT adapter of {self.base!r}, which it needs: {error}; if it is elsewhere, "
                f"{_WAY_OUT}"
            ) from error
        if (folder / ADAPTER_CONFIG).is_file():
            raise CheckpointError(
                f"{self.name!r} is a PEFT adapter of {self.base!r}, which is or contains an adapter itself; merge that "
                "one first with `merge_and_unload()` of peft, save the result, and name it with base_model="
            )
        return folder

    def with_weights(self) -> Self:
        """The same adapter with its weights on this machine.

        Raises:
            CheckpointError: it has no weights in safetensors, or a model's weights are beside them.
        """
        if self.is_fetched:
            return self
        folder = self.folder
        if folder != self.spec.folder:
            folder = find_folder(self.name, self.spec.options, with_weights=True, base=self.spec.base_folder)
        if has_weights(folder):
            refuse_adapter(folder)
        _check_weights(folder)
        return self._replace(folder=folder, is_fetched=True)


def find_adapter(folder: Path, spec: ModelSpec) -> Adapter | None:
    """The adapter in a model's folder; None if there is none, or a model's weights are beside it.

    Its base model is the one that the options name, else the one that adapter_config.json names: a folder in the
    working directory or in the adapter's own, or a hub id, with the revision of adapter_config.json.

    Args:
        folder: of the model or adapter that the spec names.
        spec: the name and the options.

    Raises:
        CheckpointError: its settings are damaged, it has no weights in safetensors, or no base model is named.
    """
    if not os.path.isfile(folder / ADAPTER_CONFIG):  # noqa: PTH113  False for a folder that may not be read
        return None
    if has_weights(folder) or any(folder.glob("pytorch_model*.bin")):
        return None
    texts = read_small_files(folder)
    settings = parse_json(texts, ADAPTER_CONFIG)
    if not settings.get("peft_type"):
        raise CheckpointError(f"{folder / ADAPTER_CONFIG} names no peft_type, so it is not an adapter's of PEFT")
    if settings.get("megatron_config"):  # then PEFT imports whatever Python module the file names
        raise CheckpointError(f"{folder / ADAPTER_CONFIG} has a megatron_config, which makes PEFT import other code")
    if folder == spec.folder:
        _check_weights(folder)
    base, options, root = _base_of(folder, spec, settings)
    return Adapter(
        spec=spec,
        folder=folder,
        settings=settings,
        base=base,
        base_options=options,
        base_root=root,
        has_tokenizer=(folder / "tokenizer.json").is_file(),
        has_modules="modules.json" in texts,
    )


def _base_of(folder: Path, spec: ModelSpec, settings: Mapping[str, Any]) -> tuple[str, dict[str, Any], Path]:
    """The base model's name, the options of finding it, and the folder in which its relative path begins."""
    given, named = spec.options.get("base_model"), settings.get("base_model_name_or_path")
    base = named if given is None else os.fspath(given)
    if not isinstance(base, str) or not base.strip():
        raise CheckpointError(f"{folder} is a PEFT adapter whose {ADAPTER_CONFIG} names no base model; {_WAY_OUT}")
    root, local = spec.base_folder, checked_path(base)
    if given is None and spec.folder is None and not is_plain_path(base) and _is_folder(root / local):
        raise CheckpointError(
            f"{spec.name!r} is a PEFT adapter from the hub that names a folder of this machine, {base!r}, as its base "
            f"model, which it must not choose; {_WAY_OUT}"
        )
    if given is None and not _is_folder(root / local) and spec.folder is not None and _is_folder(folder / local):
        root = folder
    options = {name: spec.options[name] for name in ("token", "cache_dir", "local_files_only") if name in spec.options}
    if "cache_dir" in options:  # it begins in the working directory, even if the base model's path does not
        options["cache_dir"] = spec.base_folder / checked_path(options["cache_dir"])
    if not _is_folder(root / local) and base == named and settings.get("revision"):
        options["revision"] = settings["revision"]
    return base, options, root


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  False for a path that may not be read, which `find_base` reports


def read_adapted_texts(adapter: Adapter) -> tuple[Path, SmallFiles, Adapter | None]:
    """The base model's folder, the small files of both as those of one model, and the adapter with both licences.

    Raises:
        CheckpointError: the base model is not found, or its files are damaged.
    """
    folder = adapter.find_base(with_weights=False)
    base, own = read_texts(folder), read_small_files(adapter.folder)
    adapter = adapter._replace(base_licence=read_licence(base), own_licence=read_licence(own))
    return folder, join_texts(base, own, adapter), adapter


def join_texts(base: SmallFiles, own: SmallFiles, adapter: Adapter) -> SmallFiles:
    """The texts of the base model, replaced by those that the adapter brings: tokenizer, modules, head, model card."""
    brings_head = _brings_head(own, adapter)
    taken = {ADAPTER_CONFIG: json.dumps({**adapter.settings, "base_model_name_or_path": adapter.base})}
    texts = dict(base)
    if adapter.has_tokenizer:
        brings_template = _brings_template(base, own)
        template = None if brings_template else read_tokenizer_template(base)
        texts = {name: text for name, text in texts.items() if name not in _TOKENIZER_FILES}
        taken |= {name: text for name, text in own.items() if name in _TOKENIZER_FILES}
        if brings_template:
            texts = {name: text for name, text in texts.items() if not _TEMPLATE_FILES.match(name)}
            taken |= {name: text for name, text in own.items() if _TEMPLATE_FILES.match(name)}
        taken |= {} if template is None else {"chat_template.jinja": template}
    if adapter.has_modules or brings_head:
        texts = {name: text for name, text in texts.items() if not _MODULE_FILES.match(name)}
        taken |= {name: text for name, text in own.items() if _MODULE_FILES.match(name)}
    if "README.md" in own:
        taken |= {"README.md": own["README.md"], BASE_CARD: base.get("README.md", "")}
    if brings_head:
        texts["config.json"] = _with_head(base)
    return {**texts, **taken}


def _brings_template(base: SmallFiles, own: SmallFiles) -> bool:
    """Whether the adapter's chat template is used: a language model's does not replace a reranker's."""
    is_reranker = reranking_template(base) is not None or any(name.startswith(_MORE_TEMPLATES) for name in base)
    return read_tokenizer_template(own) is not None and (reranking_template(own) is not None or not is_reranker)


def _brings_head(own: SmallFiles, adapter: Adapter) -> bool:
    """Whether the adapter's own head gives the logit: PEFT saves one for a task of classification."""
    if len(parse_json(own, "modules.json", kind=list)) > 1:
        return False
    saved = adapter.settings.get("modules_to_save") or ()
    return adapter.settings.get("task_type") == "SEQ_CLS" or any(head in saved for head in _HEADS)


def _with_head(base: SmallFiles) -> str:
    """The base model's config.json, as that of a sequence classifier of its architecture."""
    config = parse_json(base, "config.json")
    named = config.get("architectures") or [""]
    first = str(named[0] if isinstance(named, list) else named)
    stem = _OWN_SUFFIX.sub("", first)
    kept = {name: value for name, value in config.items() if name not in ("classifier_from_token", "method")}
    return json.dumps({**kept, "architectures": [f"{stem}{_HEAD_SUFFIX}"] if stem else named})


def _check_weights(folder: Path) -> None:
    file = folder / ADAPTER_WEIGHTS
    if reason := why_unreadable(file):
        raise CheckpointError(reason)
    if not file.is_file():
        is_local = "snapshots" not in folder.parts
        is_lost = is_local and not (folder / "adapter_model.bin").is_file()
        how = "copy it from the training's output" if is_lost else PICKLED_ADAPTER
        raise CheckpointError(f"{folder} is a PEFT adapter without {ADAPTER_WEIGHTS}; {how}")
