"""An encoder's shape -> a folder with random weights and a tokenizer for pairs, and the work of a call.

Encoders are read by all targets as published: `[CLS] query [SEP] document [SEP]`, and one logit of the first token.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from cpu_targets import BenchmarkCall
from texts import Corpus
from tokenizers import processors
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)
from workload import CallWork

from checkpoints import RandomCheckpoint
from onelogit import DEMO_MODEL

DTYPES = ("bfloat16", "float32")
LONG_DOCUMENT = 1000  # characters; documents that are longer on average are measured half as many at a time


class EncoderShape(NamedTuple):
    """The configuration that determines the cost of an encoder, and its source."""

    config: PretrainedConfig
    source: str


def _bert(layers: int, hidden: int, heads: int, positions: int) -> BertConfig:
    return BertConfig(
        num_hidden_layers=layers,
        hidden_size=hidden,
        intermediate_size=4 * hidden,
        num_attention_heads=heads,
        max_position_embeddings=positions,
        num_labels=1,
    )


ENCODERS = {
    "bert-large": EncoderShape(
        _bert(layers=24, hidden=1024, heads=16, positions=8192),
        "https://huggingface.co/BAAI/bge-reranker-v2-m3: 24 layers of 1,024, 16 heads (XLM-RoBERTa, which costs the "
        "same as BERT)",
    ),
    "minilm-l6": EncoderShape(
        _bert(layers=6, hidden=384, heads=12, positions=512),
        "https://huggingface.co/cross-encoder/ms-marco-MiniLM-L6-v2: 6 layers of 384, 12 heads",
    ),
    "modernbert-base": EncoderShape(
        ModernBertConfig(num_labels=1, classifier_pooling="cls"),
        "https://huggingface.co/Alibaba-NLP/gte-reranker-modernbert-base: 22 layers of 768, 12 heads; two "
        "thirds of the layers have a window of 64 tokens to each side",
    ),
    "tiny": EncoderShape(_bert(layers=2, hidden=64, heads=4, positions=512), "not a real model"),
}


def open_encoder(folder: Path, name: str, layers: int, tokenizer: Path | None) -> RandomCheckpoint:
    """The encoder of a shape, in float32, written unless the folder exists."""
    if not folder.exists():
        pairs = _pair_tokenizer(tokenizer)
        config = ENCODERS[name].config
        pairs.model_max_length = config.max_position_embeddings
        changes = {"vocab_size": len(pairs), "pad_token_id": pairs.pad_token_id, "num_hidden_layers": layers}
        changes["layer_types"] = None  # one per layer, by default
        changes |= dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"))
        torch.manual_seed(0)
        model = AutoModelForSequenceClassification.from_config(type(config).from_dict({**config.to_dict(), **changes}))
        _spread(model)
        model.save_pretrained(folder)
        pairs.save_pretrained(folder)
    return RandomCheckpoint(folder=folder, recipe=None)


def encoder_calls(checkpoint: RandomCheckpoint, corpus: Corpus, rounds: int, limit: int | None) -> list[BenchmarkCall]:
    """Calls that share no text, of 32 short or 16 long documents, or of `limit`."""
    characters = sum(map(len, corpus.all_documents)) / len(corpus.all_documents)
    count = limit or (16 if characters > LONG_DOCUMENT else 32)
    config = AutoConfig.from_pretrained(checkpoint.folder)
    calls = []
    for number in range(rounds):
        query, documents = corpus.query(number), corpus.documents(number * count, count)
        lengths = [len(row) for row in encoder_rows(checkpoint, query, documents)]
        calls.append(BenchmarkCall(query, documents, _work(lengths, config)))
    return calls


def encoder_rows(checkpoint: RandomCheckpoint, query: str, documents: Sequence[str]) -> list[list[int]]:
    """The token ids that transformers makes of the pairs."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder)
    rows: list[list[int]] = tokenizer([query] * len(documents), list(documents), truncation="only_second")["input_ids"]
    return rows


@torch.inference_mode()
def encoder_reference(checkpoint: RandomCheckpoint, query: str, documents: Sequence[str]) -> list[float]:
    """The logits of transformers in float32, one row at a time."""
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint.folder, dtype=torch.float32).eval()
    rows = encoder_rows(checkpoint, query, documents)
    return [float(model(input_ids=torch.tensor([row])).logits[0, 0]) for row in rows]


def _pair_tokenizer(folder: Path | None) -> PreTrainedTokenizerFast:
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL if folder is None else folder)
    backend = tokenizer.backend_tokenizer
    backend.add_special_tokens(["[CLS]", "[SEP]"])
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {"pad_token": tokenizer.pad_token, "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_input_names=["input_ids", "attention_mask"], **names)


def _spread(model: Any) -> None:
    """Make all weights larger: with the usual ones, logits hardly differ, and errors would go unnoticed."""
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.mul_(3)


def _work(lengths: Sequence[int], config: PretrainedConfig) -> CallWork:
    """Two operations for each weight of a layer that a token meets, and for each product of attention."""
    with torch.device("meta"):
        layers = AutoModelForSequenceClassification.from_config(config).base_model
    weights = sum(each.numel() for name, each in layers.named_parameters() if each.dim() > 1 and "layer" in name)
    attention = 2 * config.num_hidden_layers * config.hidden_size * sum(length**2 for length in lengths)
    flop = 2 * (weights * sum(lengths) + attention)
    return CallWork(len(lengths), sum(lengths), sum(lengths), flop)
