"""The texts of a checkpoint's small files -> the recipe that they declare. Reads no disk."""

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import yaml

from onelogit.errors import CheckpointError, RecipeError, UnsupportedModelError
from onelogit.recipes import (
    DEFAULT_MAX_TOKENS,
    FAMILIES,
    UNSUPPORTED_ARCHITECTURES,
    Activation,
    ReadOut,
    Recipe,
)

Texts = Mapping[str, str]
"""The text of each small file by its path in the checkpoint, with forward slashes."""

_READ_OUT_MODULES = {"LogitScore", "CausalScoreHead"}
_ACTIVATIONS: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}


def find_recipe(model: str, texts: Texts) -> Recipe:
    """The recipe that a checkpoint's own files declare, completed from the table of families.

    The files win in what they say: template, token ids, default instruction. The table adds what they have no
    field for: the scale of the published score, the longest prompt, the licence.

    Args:
        model: hub id or path, for the table and for errors.
        texts: the checkpoint's small files.

    Raises:
        RecipeError: nothing declares a recipe and the table does not know the model.
        UnsupportedModelError: no one-logit classifier can stand for this model.
    """
    architecture = _architecture(texts)
    _refuse_unsupported(model, architecture)
    known = _from_table(model, model_card(texts).get("base_model"))
    declared = _from_sentence_transformers(model, texts, known)
    recipe = declared if declared is not None else known
    if recipe is None:
        raise RecipeError(_unknown_message(model, architecture))
    is_native = architecture.endswith("ForSequenceClassification")
    return replace(recipe, read_out=None) if is_native else recipe


def check_architecture(model: str, texts: Texts, recipe: Recipe) -> None:
    """Refuse a recipe whose read-out is not the one that the checkpoint's architecture has.

    Raises:
        RecipeError: a native head where there is none, or head rows where there is no language-model head.
        UnsupportedModelError: no one-logit classifier can stand for this architecture.
    """
    architecture = _architecture(texts)
    _refuse_unsupported(model, architecture)
    is_native = architecture.endswith("ForSequenceClassification")
    if is_native and recipe.read_out is not None:
        raise RecipeError(f"{model!r} is a {architecture} with a head of its own: its recipe needs read_out=None")
    if not is_native and recipe.read_out is None:
        raise RecipeError(f"{model!r} ({architecture or 'no architecture named'}) has no head of its own")


def model_card(texts: Texts) -> dict[str, Any]:
    """The front matter of README.md; empty where there is none that can be read."""
    match = re.match(r"---\s*\n(.*?)\n---\s*(\n|$)", texts.get("README.md", ""), re.DOTALL)
    if match is None:
        return {}
    try:
        fields = yaml.safe_load(match.group(1))
    except yaml.YAMLError:
        return {}
    return fields if isinstance(fields, dict) else {}


def declared_licence(texts: Texts) -> str | None:
    """The licence that the model card names, or None."""
    card = model_card(texts)
    licence = card.get("license_name") if card.get("license") == "other" else None
    licence = card.get("license") if licence is None else licence
    return None if licence is None else str(licence)


def _architecture(texts: Texts) -> str:
    architectures = _parse(texts, "config.json").get("architectures") or []
    return str(architectures[0]) if architectures else ""


def _refuse_unsupported(model: str, architecture: str) -> None:
    for name, reason in UNSUPPORTED_ARCHITECTURES.items():
        if name in architecture:
            raise UnsupportedModelError(f"{model!r} ({architecture}) has no one-logit form: {reason}")


def _from_table(model: str, base_models: object) -> Recipe | None:
    names = [model, *([base_models] if isinstance(base_models, str) else base_models or ())]  # type: ignore[misc]
    for name in names:
        for recipe in FAMILIES:
            if str(name).lower() in (known.lower() for known in recipe.models):
                return recipe
    for name in names:
        last_part = str(name).replace("\\", "/").rstrip("/").rpartition("/")[2]
        for recipe in FAMILIES:
            if recipe.name_pattern and re.search(recipe.name_pattern, last_part, re.IGNORECASE):
                return recipe
    return None


def _from_sentence_transformers(model: str, texts: Texts, known: Recipe | None) -> Recipe | None:
    """What `modules.json` and the files it points to declare; None where there is no such file.

    Source: sentence_transformers 6.2, base/model.py and cross_encoder/modules/logit_score.py.
    """
    modules = _parse(texts, "modules.json", kind=list)
    if not modules:
        return None
    settings = _parse(texts, "config_sentence_transformers.json")
    if settings.get("model_type") == "SentenceTransformer":
        raise UnsupportedModelError(f"{model!r} is an embedding model: it reads a query and a document apart")
    names = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    folders = [str(module.get("path", "")) for module in modules]
    if names[:1] != ["Transformer"] or len(names) > 2 or not set(names[1:]) <= _READ_OUT_MODULES:
        raise UnsupportedModelError(f"{model!r} is the module chain {' -> '.join(names)}, which is not one read-out")
    template = _declared_template(texts, folders[0])
    if template is None:
        if known is None:
            raise RecipeError(f"{model!r} declares its modules but no chat template: pass recipe=Recipe(...)")
        template = known.chat_template
    scale = 1.0 if known is None or known.read_out is None else known.read_out.scale
    read_out = _declared_read_out(model, texts, folders[1], scale) if len(names) == 2 else None
    instruction = (settings.get("prompts") or {}).get(settings.get("default_prompt_name"))
    if known is not None:
        if instruction is None:
            instruction = known.default_instruction
        return replace(known, chat_template=template, read_out=read_out, default_instruction=instruction)
    return Recipe(
        family="declared",
        chat_template=template,
        read_out=read_out,
        activation=_declared_activation(model, settings, _parse(texts, "config.json")),
        default_instruction=instruction,
        max_tokens=_declared_max_tokens(texts, folders[0]),
        licence=declared_licence(texts),
        source=f"the files of {model}",
    )


def _declared_read_out(model: str, texts: Texts, folder: str, scale: float) -> ReadOut:
    path = _join(folder, "config.json")
    ids = _parse(texts, path)
    true, false = ids.get("true_token_id"), ids.get("false_token_id")
    if not isinstance(true, int) or not isinstance(false, int | None):
        raise RecipeError(f"{model!r}: {path} must name true_token_id, a whole number, but has {ids}")
    return ReadOut(true=true, false=false, scale=scale)


def _declared_template(texts: Texts, folder: str) -> str | None:
    """The chat template with the variables that the checkpoint fixes for it, set at its beginning."""
    settings = _parse(texts, _join(folder, "sentence_bert_config.json"))
    if "message" not in (settings.get("modality_config") or {}):
        return None
    variables = dict((settings.get("processing_kwargs") or {}).get("chat_template") or {})
    variables.pop("restore_suffix", None)
    name = variables.pop("chat_template", None)
    tokenizer_settings = _parse(texts, _join(folder, "tokenizer_config.json"))
    template = _named_template(texts, folder, tokenizer_settings, name)
    if template is None:
        return None
    for token in ("bos_token", "eos_token", "pad_token"):
        value = tokenizer_settings.get(token)
        variables.setdefault(token, value.get("content") if isinstance(value, dict) else value)
    used = {key: value for key, value in variables.items() if value is not None and re.search(rf"\b{key}\b", template)}
    return "".join(f"{{%- set {key} = {json.dumps(value)} -%}}" for key, value in used.items()) + template


def _named_template(texts: Texts, folder: str, tokenizer_settings: dict[str, Any], name: str | None) -> str | None:
    if name is not None and _join(folder, f"additional_chat_templates/{name}.jinja") in texts:
        return texts[_join(folder, f"additional_chat_templates/{name}.jinja")]
    if name is None and _join(folder, "chat_template.jinja") in texts:
        return texts[_join(folder, "chat_template.jinja")]
    template = tokenizer_settings.get("chat_template")
    if isinstance(template, list):
        return {entry["name"]: entry["template"] for entry in template}.get("default" if name is None else name)
    return template if name is None else None


def _declared_activation(model: str, settings: dict[str, Any], config: dict[str, Any]) -> Activation:
    path = settings.get("activation_fn") or (config.get("sentence_transformers") or {}).get("activation_fn")
    if path is None:
        return "sigmoid"  # what Sentence Transformers takes for one label where nothing is said
    name = str(path).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise RecipeError(f"{model!r} declares the activation {path!r}; pass activation='sigmoid' or 'identity'")
    return _ACTIVATIONS[name]


def _declared_max_tokens(texts: Texts, folder: str) -> int:
    declared = _parse(texts, _join(folder, "sentence_bert_config.json")).get("max_seq_length")
    declared = declared or _parse(texts, _join(folder, "tokenizer_config.json")).get("model_max_length")
    # Tokenizers without a limit of their own carry 1e30 here.
    return int(declared) if declared is not None and declared < 10**9 else DEFAULT_MAX_TOKENS


def _parse(texts: Texts, path: str, kind: type = dict) -> Any:
    """The parsed file, or an empty `kind` where there is no such file."""
    if path not in texts:
        return kind()
    try:
        content = json.loads(texts[path])
    except json.JSONDecodeError as error:
        raise CheckpointError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, kind):
        raise CheckpointError(f"{path} must hold a JSON {kind.__name__}, but holds a {type(content).__name__}")
    return content


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}" if folder.strip("/") else name


def _unknown_message(model: str, architecture: str) -> str:
    families = ", ".join(recipe.family for recipe in FAMILIES)
    return (
        f"no recipe is known for {model!r} ({architecture or 'no architecture named'}): it declares no reranking files "
        f"and is none of {families}. Pass recipe=Recipe(family=..., chat_template=..., "
        "read_out=ReadOut(true='yes', false='no'), source=...), with the prompt and the answer tokens of its model card"
    )
