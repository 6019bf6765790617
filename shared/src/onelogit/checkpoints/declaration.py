"""The texts of a checkpoint's small files -> the reranker that they declare, in any of the known forms. No torch."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from onelogit.checkpoints.metadata import (
    RerankerMetadata,
    SmallFiles,
    parse_json,
    read_activation,
    read_sentence_transformers_metadata,
    read_tokenizer_template,
    read_vllm_metadata,
    tokenizer_max_tokens,
)
from onelogit.checkpoints.module_chain import read_module_chain
from onelogit.errors import RecipeError
from onelogit.prompts.template import check_template

_HEAD_SUFFIX = "ForSequenceClassification"
# Trained on pairs that the tokenizer joins. Any other architecture is taken for a decoder, which needs a prompt.
_ENCODERS = re.compile(
    r"^(?!.*Decoder)(.*bert|.*electra|MPNet|XLM|XLNet|Longformer|BigBird|Ernie|Funnel|Nystromformer|RoFormer|FNet|"
    r"Data2VecText|Canine|Gte|NewFor|NewModel|Luke|Yoso|Mra|Splinter|Xmod|Esm)",
    re.IGNORECASE,
)
# Decoders even if their tokenizers have the special tokens of encoders, as those of unknown encoders do.
_DECODERS = re.compile(
    r"Decoder|^(Qwen|Llama|Mi[sx]tral|Ministral|Gemma|Phi|GPT|OPT|Bloom|Falcon|Mpt|StableLm|Starcoder|Olmo|Nemotron|"
    r"Cohere|Granite|SmolLM|Exaone|MiniCPM|InternLM|Glm|Deepseek|Jamba|Zamba|Mamba|Helium|Arcee|Persimmon|OpenAIGPT)",
    re.IGNORECASE,
)


def read_declaration(texts: SmallFiles) -> RerankerMetadata | None:
    """The reranker that the files declare; None if they declare none.

    The first of these that applies: the files for Sentence Transformers; the fields for vLLM; the checkpoint's own
    head; a language model's chat template, if it is for reranking (with neither read-out nor head).

    Raises:
        RecipeError: a declaration is incomplete or contradicts itself.
        UnsupportedModelError: the files declare something other than a single read-out.
    """
    metadata = read_sentence_transformers_metadata(texts) or read_vllm_metadata(texts)
    is_pair_model, is_classifier = is_encoder(texts), has_head(texts)
    template = None if is_pair_model else reranking_template(texts)
    if metadata is None and (is_classifier or template is not None):
        files = f"config.json: {read_architecture(texts)}" if is_classifier else "its chat template"
        metadata = _metadata(texts, files, template)
    if metadata is None:
        return None
    if metadata.chat_template is None and not metadata.reads_pairs:
        metadata = replace(metadata, chat_template=template)
    if metadata.read_out is not None:
        return metadata
    if not is_classifier:
        return None if metadata.chat_template is None else metadata
    separator = _uses_separator(texts)
    is_chain = read_module_chain(texts) is not None  # only Sentence Transformers runs it, and would read a pair
    return replace(
        metadata,
        is_encoder=is_pair_model,
        reads_pairs=metadata.reads_pairs or is_chain or separator is True or is_pair_model,
        joins_plainly=separator is False,
    )


def read_architecture(texts: SmallFiles) -> str:
    """The first architecture that config.json names, or ""."""
    return architecture_of(parse_json(texts, "config.json"))


def architecture_of(config: Mapping[str, Any]) -> str:
    """The first architecture that the fields of config.json name, or ""."""
    named = config.get("architectures") or [""]
    first = named[0] if isinstance(named, list) else named
    return first if isinstance(first, str) else ""


def has_head(texts: SmallFiles) -> bool:
    """Whether the checkpoint has a classification head: in its architecture, or as modules after it."""
    return read_architecture(texts).endswith(_HEAD_SUFFIX) or read_module_chain(texts) is not None


def is_encoder(texts: SmallFiles) -> bool:
    """Whether the model was trained on pairs that the tokenizer joins, by its architecture and tokenizer."""
    settings = {**parse_json(texts, "special_tokens_map.json"), **parse_json(texts, "tokenizer_config.json")}
    has_pair_tokens = bool(settings.get("cls_token") and settings.get("sep_token"))
    architecture = read_architecture(texts)
    is_known = _ENCODERS.search(architecture) is not None
    return is_known or (has_pair_tokens and _DECODERS.search(architecture) is None)


def _metadata(texts: SmallFiles, files: str, template: str | None) -> RerankerMetadata:
    return RerankerMetadata(
        files=files,
        read_out=None,
        chat_template=template,
        activation=read_activation(texts),
        tokenizer_max_tokens=tokenizer_max_tokens(texts),
    )


def _uses_separator(texts: SmallFiles) -> bool | None:
    """The field for vLLM that says how query and document are joined; None if it is missing."""
    config = parse_json(texts, "config.json")
    value = config.get("use_sep_token", config.get("use_pad_token"))
    return value if isinstance(value, bool) else None


def reranking_template(texts: SmallFiles) -> str | None:
    """The tokenizer's chat template if it is a reranker's: it names the roles, which a language model's does not."""
    template = read_tokenizer_template(texts)
    if template is None or not all(re.search(rf"""['"]{role}['"]""", template) for role in ("query", "document")):
        return None
    try:
        check_template(template)
    except RecipeError:
        return None
    return template
