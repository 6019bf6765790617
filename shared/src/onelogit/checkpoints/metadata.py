"""The texts of a checkpoint's small files -> the reranker that they declare. Reads no disk, knows no model family."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onelogit.errors import CheckpointError, RecipeError, UnsupportedModelError
from onelogit.io.nested_json import parsed_json
from onelogit.recipes.recipe import Activation, ReadOut
from onelogit.recipes.unsupported import EMBEDDER

SmallFiles = Mapping[str, str]
"""The text of each small file by its path in the checkpoint, with forward slashes."""

BASE_CARD = "base_model/README.md"
"""The model card of an adapter's base model, among the texts of both; see `adapter`."""

_READ_OUT_MODULES = {"LogitScore", "CausalScoreHead"}
_LAYER_MODULES = {"Dense", "LayerNorm"}  # after a Pooling; see `module_chain`
_ACTIVATIONS: dict[str, Activation] = {"Sigmoid": "sigmoid", "Identity": "identity"}

# Put before a template that expects contents as lists of parts, so that it accepts strings as well. The plus sign of
# the last tag keeps a newline at the template's beginning.
_STRUCTURING = (
    "{%- set structured = namespace(messages=[]) -%}{%- for message in messages -%}"
    "{%- set content = message.content -%}"
    '{%- set content = [{"type": "text", "text": content}] if content is string else content -%}'
    '{%- set structured.messages = structured.messages + [{"role": message.role, "content": content}] -%}'
    "{%- endfor -%}{%- set messages = structured.messages +%}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RerankerMetadata:
    """The reranker that a checkpoint's files declare; fields that they do not declare are None.

    Attributes:
        files: which files declare it, for messages.
        read_out: None for the checkpoint's own head.
        chat_template: for contents that are strings; it begins by setting the variables that the files fix.
        max_tokens: of the reranker; the tokenizer's limit may be larger or smaller.
        is_encoder: whether the architecture reads pairs that the tokenizer joins.
        reads_pairs: whether there is no prompt, because the tokenizer joins query and document.
        joins_plainly: whether vLLM is told to write the document directly after the query.
    """

    files: str
    read_out: ReadOut | None
    chat_template: str | None = None
    default_instruction: str | None = None
    activation: Activation | None = None
    max_tokens: int | None = None
    tokenizer_max_tokens: int | None = None
    adds_special_tokens: bool = True
    is_encoder: bool = False
    reads_pairs: bool = False
    joins_plainly: bool = False


def read_sentence_transformers_metadata(texts: SmallFiles) -> RerankerMetadata | None:
    """The metadata in `modules.json` and the files it points to; None if there is no such file.

    Raises:
        RecipeError: a required field is missing.
        UnsupportedModelError: the files declare something other than a single read-out.

    Source: sentence_transformers 6.2, base/model.py and cross_encoder/modules/logit_score.py.
    """
    modules = parse_json(texts, "modules.json", kind=list)
    if not modules:
        return None
    settings = parse_json(texts, "config_sentence_transformers.json")
    if settings.get("model_type") == "SentenceTransformer":
        raise UnsupportedModelError(str(EMBEDDER))
    if not all(isinstance(module, dict) for module in modules):
        raise RecipeError("modules.json must list objects")
    names = [str(module.get("type", "")).rpartition(".")[2] for module in modules]
    folders = [str(module.get("path", "")) for module in modules]
    is_read_out = len(names) == 2 and names[1] in _READ_OUT_MODULES
    is_chain = names[1:2] == ["Pooling"] and set(names[2:]) <= _LAYER_MODULES
    if names[:2] == ["Transformer", "Pooling"] and names[-1] in ("Pooling", "Normalize"):
        chain = " -> ".join(names)
        raise UnsupportedModelError(
            f"{EMBEDDER.reason} ({chain} ends in a pooled state instead of a score). {EMBEDDER.instead}"
        )
    if names[:1] != ["Transformer"] or not (len(names) == 1 or is_read_out or is_chain):
        raise UnsupportedModelError(
            f"modules.json chains {' -> '.join(names)}, which is not a single read-out; "
            "sentence_transformers.CrossEncoder can run it"
        )
    return RerankerMetadata(
        files=f"modules.json: {' -> '.join(names)}",
        read_out=_logit_score(texts, folders[1]) if is_read_out else None,
        chat_template=_chat_template(texts, folders[0]),
        default_instruction=_default_instruction(settings, has_own_head=not is_read_out),
        activation=read_activation(texts),
        max_tokens=parse_json(texts, join_path(folders[0], "sentence_bert_config.json")).get("max_seq_length"),
        tokenizer_max_tokens=tokenizer_max_tokens(texts, folders[0]),
        adds_special_tokens=False,  # as transformers' chat templates, which contain the special tokens they need
        reads_pairs=_reads_pairs(texts, folders[0]),
    )


def read_vllm_metadata(texts: SmallFiles) -> RerankerMetadata | None:
    """The metadata in the fields of `config.json` that make vLLM convert a model; None if there are none.

    Raises:
        RecipeError: the fields contradict each other.

    Source: vllm 0.33, config/model.py and model_executor/models/adapters.py.
    """
    config = parse_json(texts, "config.json")
    config = {**(config.get("text_config") or {}), **config}
    tokens, method = config.get("classifier_from_token"), config.get("method")
    if config.get("is_original_qwen3_reranker"):
        tokens, method = tokens or ["no", "yes"], "from_2_way_softmax"
    if not tokens:
        return None
    read_out = vllm_read_out(tokens, method)
    if read_out is None:
        raise RecipeError(f"config.json asks for {method!r} of {tokens}, which is not a single logit")
    return RerankerMetadata(
        files=f"config.json: classifier_from_token {tokens}, {method}",
        read_out=read_out,
        activation=read_activation(texts),
    )


def vllm_read_out(tokens: Sequence[str | int], method: str | None) -> ReadOut | None:
    """The read-out of answer tokens that vLLM's conversion combines by a method; None if it is not a single logit."""
    if method == "from_2_way_softmax" and len(tokens) == 2:
        return ReadOut(true=tokens[1], false=tokens[0])
    return ReadOut(true=tokens[0]) if method == "no_post_processing" and len(tokens) == 1 else None


def read_activation(texts: SmallFiles) -> Activation | None:
    """The activation that the files name for Sentence Transformers, or None; fields of newer versions take precedence.

    Raises:
        RecipeError: the activation is neither a sigmoid nor the identity.
    """
    config = parse_json(texts, "config.json")
    path = (
        parse_json(texts, "config_sentence_transformers.json").get("activation_fn")
        or (config.get("sentence_transformers") or {}).get("activation_fn")
        or config.get("sbert_ce_default_activation_function")
    )
    if path is None:
        return None
    name = str(path).rpartition(".")[2]
    if name not in _ACTIVATIONS:
        raise RecipeError(f"its files declare the activation {path!r}; pass activation='sigmoid' or 'identity'")
    return _ACTIVATIONS[name]


def tokenizer_max_tokens(texts: SmallFiles, folder: str = "") -> int | None:
    """The longest input of the tokenizer, in tokens; None if it has no limit."""
    limit = parse_json(texts, join_path(folder, "tokenizer_config.json")).get("model_max_length")
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float)):
        raise CheckpointError(f"tokenizer_config.json must give model_max_length as a number, not {limit!r}")
    return int(limit) if limit is not None and limit < 10**9 else None  # transformers writes 1e30 for no limit


def parse_json(texts: SmallFiles, path: str, kind: type = dict) -> Any:
    """The content of a JSON file; an empty `kind` if there is no such file.

    Raises:
        CheckpointError: the file is not JSON, or its content is not an instance of `kind`.
    """
    if path not in texts:
        return kind()
    if texts[path].startswith("\ufeff"):
        raise CheckpointError(f"{path} begins with a byte order mark (BOM); save it as UTF-8 without one")
    try:
        content = parsed_json(texts[path])
    except ValueError as error:  # too large numbers, and values in too many others, too
        what = "is empty" if not texts[path].strip() else f"is not JSON: {error}"
        raise CheckpointError(f"{path} {what}; copy it again from the original") from error
    if not isinstance(content, kind):
        raise CheckpointError(f"{path} must contain a JSON {kind.__name__}, not a {type(content).__name__}")
    return content


def join_path(folder: str, name: str) -> str:
    """The path of a file in a module's folder; "" is the checkpoint's own folder."""
    return f"{folder.rstrip('/')}/{name}" if folder.strip("/") else name


def _default_instruction(settings: dict[str, Any], *, has_own_head: bool) -> str | None:
    prompts = settings.get("prompts")
    if has_own_head and prompts == {}:
        return ""  # a conversion that was saved without an instruction
    return (prompts or {}).get(settings.get("default_prompt_name"))


def _logit_score(texts: SmallFiles, folder: str) -> ReadOut:
    path = join_path(folder, "config.json")
    ids = parse_json(texts, path)
    true, false = ids.get("true_token_id"), ids.get("false_token_id")
    if type(true) is not int or type(false) not in (int, type(None)):
        raise RecipeError(f"{path} must name true_token_id, an integer, but contains {ids}")
    return ReadOut(true=true, false=false)


def _chat_template(texts: SmallFiles, folder: str) -> str | None:
    settings = parse_json(texts, join_path(folder, "sentence_bert_config.json"))
    forms = settings.get("modality_config") or {}
    if "message" not in forms:
        return None
    variables = dict((settings.get("processing_kwargs") or {}).get("chat_template") or {})
    variables.pop("restore_suffix", None)
    name = variables.pop("chat_template", None)
    tokenizer_settings = parse_json(texts, join_path(folder, "tokenizer_config.json"))
    template = _named_template(texts, folder, tokenizer_settings, name)
    if template is None:
        return None
    for token in ("bos_token", "eos_token", "pad_token"):
        value = tokenizer_settings.get(token)
        variables.setdefault(token, value.get("content") if isinstance(value, dict) else value)
    used = {key: value for key, value in variables.items() if value is not None and _uses(template, key)}
    setting = "".join(f"{{%- set {key} = {json.dumps(value, ensure_ascii=False)} +%}}" for key, value in used.items())
    return f"{setting}{_STRUCTURING if forms['message'].get('format') == 'structured' else ''}{template}"


def _uses(template: str, name: str) -> bool:
    """Whether a template may use a variable; raises RecipeError if that is not the name of one."""
    if not name.isidentifier():
        raise RecipeError(f"sentence_bert_config.json gives the chat template a variable {name!r}, which is not a name")
    return re.search(rf"\b{name}\b", template) is not None


def _reads_pairs(texts: SmallFiles, folder: str) -> bool:
    """Whether the files say that the model reads texts and no messages; older files say neither."""
    forms = parse_json(texts, join_path(folder, "sentence_bert_config.json")).get("modality_config") or {}
    return "text" in forms and "message" not in forms


def read_tokenizer_template(texts: SmallFiles) -> str | None:
    """The default chat template of the tokenizer, or None."""
    return _named_template(texts, "", parse_json(texts, "tokenizer_config.json"), None)


def _named_template(texts: SmallFiles, folder: str, tokenizer_settings: dict[str, Any], name: str | None) -> str | None:
    file = "chat_template.jinja" if name is None else f"additional_chat_templates/{name}.jinja"
    if join_path(folder, file) in texts:
        return texts[join_path(folder, file)]
    template = tokenizer_settings.get("chat_template")
    if isinstance(template, list):
        return {entry["name"]: entry["template"] for entry in template}.get("default" if name is None else name)
    return template if name is None else None


def read_position_limit(texts: SmallFiles) -> int | None:
    """The number of tokens that the model has positions for, as its config.json says; None if it does not.

    RoBERTa and similar models number positions from the one after the padding index.
    """
    config = parse_json(texts, "config.json")
    config = {**(config.get("text_config") or {}), **config}
    limit = config.get("max_position_embeddings")
    if not isinstance(limit, int):
        return None
    is_numbered_from_padding = config.get("model_type") in ("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert")
    return limit - (config.get("pad_token_id") or 0) - 1 if is_numbered_from_padding else limit
