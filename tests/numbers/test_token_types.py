"""A pair's logit is that of transformers with the token_type_ids of the checkpoint's own tokenizer."""

from pathlib import Path

import pytest
import torch
from tokenizers import processors
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    FunnelConfig,
    PretrainedConfig,
    XLNetConfig,
)

from onelogit import Reranker
from support.tiny import pair_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "", "no", "A much longer document. " * 12, "서울"]
BERT = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
XLNET = {"d_model": 64, "n_layer": 2, "n_head": 2, "d_inner": 96}
FUNNEL = {"d_model": 64, "n_head": 2, "d_head": 32, "d_inner": 96, "block_sizes": [1, 1], "num_decoder_layers": 1}

# Those of XLNet and Funnel are as in convert_slow_tokenizer.py of transformers.
PAIRS: dict[str, tuple[type[PretrainedConfig], dict[str, object], str]] = {
    "bert": (BertConfig, BERT, "[CLS] $A [SEP] $B:1 [SEP]:1"),
    "separator of the second text": (BertConfig, BERT, "[CLS] $A [SEP]:1 $B:1 [SEP]:1"),
    "last separator of no text": (BertConfig, BERT, "[CLS] $A [SEP] $B:1 [SEP]"),
    "reversed": (BertConfig, BERT, "[CLS]:1 $A:1 [SEP]:1 $B [SEP]"),
    "more than two": (BertConfig, {**BERT, "type_vocab_size": 4}, "[CLS]:3 $A:2 [SEP]:2 $B:1 [SEP]:1"),
    "xlnet": (XLNetConfig, XLNET, "$A [SEP] $B:1 [SEP]:1 [CLS]:2"),
    "funnel": (FunnelConfig, FUNNEL, "[CLS]:2 $A [SEP] $B:1 [SEP]:1"),
}


def saved(folder: Path, config_class: type[PretrainedConfig], fields: dict[str, object], pair: str) -> Path:
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=pair[: pair.index(" $B")], pair=pair, special_tokens=special
    )
    torch.manual_seed(2)
    vocabulary = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
    config = config_class(num_labels=1, initializer_range=0.3, **vocabulary, **fields)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", PAIRS)
@torch.inference_mode()
def test_a_pair_has_the_token_types_of_its_tokenizer(name: str, tmp_path: Path):
    folder = saved(tmp_path / "model", *PAIRS[name])
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    inputs = [tokenizer([QUERY], [text], return_tensors="pt") for text in DOCUMENTS]
    expected = [float(model(**each).logits) for each in inputs]

    logits = Reranker.load(folder, dtype="float32").logits(QUERY, DOCUMENTS)

    assert logits == pytest.approx(expected, abs=1e-4)
    assert max(expected) - min(expected) > 0.01  # equal logits would prove nothing
