"""Tiny checkpoints with real architectures and tokenizers and random weights, created in milliseconds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3_5TextConfig,
    Qwen3Config,
)

from onelogit.recipes.recipe import Recipe

QWEN_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CHAT_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
THINK_TOKENS = ("<think>", "</think>", "<tool_call>", "</tool_call>")
ANSWERS = ("yes", "no", "Yes", "No")  # each is one token, as are the digits
TEXTS = ["What is the capital of China? The capital of China is Beijing. yes no Yes No 0 1 서울 北京\n\nSay: "] * 3


def byte_level_tokenizer(
    bos: str | None = None, answers: Sequence[str] = ANSWERS, largest_id: int = 0
) -> PreTrainedTokenizerFast:
    """Like Qwen's: byte-level BPE; chat tokens are special, `<think>` is added but not special. Token 0 is "!".

    Tokens that no text contains fill the vocabulary up to `largest_id`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(_regex(QWEN_PATTERN), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, initial_alphabet=sorted(alphabet), show_progress=False, min_frequency=1
    )
    tokenizer.train_from_iterator([*TEXTS, *["yes no Yes No"] * 9, *[*answers] * 99], trainer)
    if largest_id:
        content = json.loads(tokenizer.to_str())
        count = tokenizer.get_vocab_size()
        content["model"]["vocab"] |= {f"unused{id}": id for id in range(count, largest_id + 1)}
        tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.add_special_tokens([*CHAT_TOKENS, *([bos] if bos else [])])
    tokenizer.add_tokens([AddedToken(token, normalized=False, special=False) for token in THINK_TOKENS])
    if bos:
        tokenizer.post_processor = starting_with(tokenizer, bos)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token=bos
    )


def gemma_tokenizer(answers: Sequence[str] = ANSWERS) -> PreTrainedTokenizerFast:
    """Like Gemma's: BPE over characters with spaces as `▁`; `<bos>` comes first, newlines are a plain added token."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    control = ["<pad>", "<eos>", "<bos>", "<unk>"]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=[*control, "\n\n", *(f"<0x{byte:02X}>" for byte in range(256))],
        show_progress=False,
    )
    words = [word for text in TEXTS for word in text.replace(" ", "▁").split("\n")]
    tokenizer.train_from_iterator([*words, "\n", *[*answers, "A:▁", "B:▁"] * 99], trainer)
    content = json.loads(tokenizer.to_str())
    kept = [token for token in content["added_tokens"] if token["content"] in [*control, "\n\n"]]
    content["added_tokens"] = [{**token, "special": token["content"] in control} for token in kept]
    tokenizer = Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = starting_with(tokenizer, "<bos>")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>"
    )


def pair_tokenizer(first: str, between: str, last: str, *, has_types: bool = False) -> PreTrainedTokenizerFast:
    """Like an encoder's: pairs become `first query between document last`, as in BERT and RoBERTa."""
    tokenizer = byte_level_tokenizer().backend_tokenizer
    special = dict.fromkeys([first, *between.split(), last])
    tokenizer.add_special_tokens([*special])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {between} $B:1 {last}:1",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in special],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        cls_token=first,
        sep_token=last,
        model_input_names=["input_ids", *(["token_type_ids"] if has_types else []), "attention_mask"],
    )


def native_checkpoint(
    folder: Path, config_class: type[PretrainedConfig], tokenizer: PreTrainedTokenizerFast, **fields: object
) -> Path:
    """Save a sequence classifier with its own head and its tokenizer."""
    torch.manual_seed(2)
    shape = {name: value for name, value in _SHAPE.items() if name not in ("num_key_value_heads", "head_dim")}
    config = config_class(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, initializer_range=0.3, **{**shape, **fields}
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def starting_with(tokenizer: Tokenizer, bos: str) -> processors.TemplateProcessing:
    return processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )


def _regex(pattern: str) -> object:
    from tokenizers import Regex

    return Regex(pattern)


_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 2048,
}


_FURTHER_SHAPE: dict[type[PretrainedConfig], dict[str, object]] = {
    Qwen3_5TextConfig: {
        "layer_types": ["linear_attention", "full_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 2,
        "linear_key_head_dim": 32,
        "linear_value_head_dim": 32,
    }
}


BOS: dict[type[PretrainedConfig], str] = {MistralConfig: "<s>"}


@dataclass(frozen=True)
class Tiny:
    """A causal model, its tokenizer, and the folder that contains both."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    folder: Path


@lru_cache(maxsize=16)
def _parts(
    config_class: type[PretrainedConfig], is_tied: bool, answers: Sequence[str], largest_id: int
) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    torch.manual_seed(1)
    if config_class is GemmaConfig:
        tokenizer = gemma_tokenizer(answers)
    else:
        tokenizer = byte_level_tokenizer(BOS.get(config_class), answers, largest_id)
    config = config_class(
        vocab_size=len(tokenizer),
        tie_word_embeddings=is_tied,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,  # large enough that logits of different prompts are far apart
        **{**_SHAPE, **_FURTHER_SHAPE.get(config_class, {})},
    )
    return AutoModelForCausalLM.from_config(config).eval(), tokenizer


def causal_checkpoint(
    folder: Path,
    config_class: type[PretrainedConfig] = Qwen3Config,
    *,
    answers: Sequence[str] = ANSWERS,
    largest_id: int = 0,
    is_tied: bool = True,
    files: Mapping[str, object] | None = None,
    **save_options: object,
) -> Tiny:
    """Save a causal model in `folder`, with more files: a str is written unchanged, anything else as JSON.

    Its vocabulary has at least the token `largest_id`.
    """
    model, tokenizer = _parts(config_class, is_tied, answers, largest_id)
    model.save_pretrained(folder, **save_options)
    tokenizer.save_pretrained(folder)
    for name, content in (files or {}).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return Tiny(model, tokenizer, folder)


_ARCHITECTURES: dict[str, type[PretrainedConfig]] = {
    "coreb-code-reranker": LlamaConfig,
    "prism-reranker": Qwen3_5TextConfig,
    "ctxl-rerank-v2": MistralConfig,
    "mxbai-rerank-v2": Qwen2Config,
    "bge-reranker-v2-gemma": GemmaConfig,
    "followir": MistralConfig,
}


def tiny_parts(recipe: Recipe) -> dict[str, Any]:
    """A family's options of `causal_checkpoint`: its answers, and Qwen3 unless the table names another architecture."""
    read_out = recipe.read_out
    own = [] if read_out is None else [each for each in (read_out.true, read_out.false) if isinstance(each, str)]
    answers = dict.fromkeys([*ANSWERS, *(each for each in own if len(each) > 1)])
    ids = [] if read_out is None else [each for each in (read_out.true, read_out.false) if isinstance(each, int)]
    config_class = _ARCHITECTURES.get(recipe.family, Qwen3Config)
    return {"config_class": config_class, "answers": tuple(answers), "largest_id": max(ids, default=0)}
