"""A tokenizer by strangers that would exhaust memory or time is refused before it reads a text."""

import json
import shutil
import struct
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, Tokenizer, normalizers, processors
from transformers import PreTrainedTokenizerFast

from onelogit import CheckpointError
from onelogit.checkpoints.load_encoder import read_tokenizer
from onelogit.checkpoints.untrusted_tokenizer import check_tokenizer
from support.tiny import Tiny
from support.untrusted import refused_at_once


@pytest.fixture
def folder(tiny_qwen: Tiny, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_qwen.folder, tmp_path / "Qwen3-Reranker-tiny"))


def precompiled_table(letter: str, replacement: str) -> bytes:
    """SentencePiece's table of one letter: a double-array trie, then the replacements."""
    trie, place = [0] * 2048, 0
    for depth, byte in enumerate(letter.encode(), start=1):
        trie[place] |= depth << 18  # a node's children are at its place, with 256 times its depth and their byte
        place ^= depth << 8 ^ byte
        trie[place] = byte
    trie[place] |= 1 << 18 | 1 << 8
    trie[place ^ 1 << 8] = 1 << 31
    return struct.pack(f"<{len(trie) + 1}I", 4 * len(trie), *trie) + replacement.encode() + b"\0"


def test_the_table_replaces_its_letter():
    assert normalizers.Precompiled(precompiled_table("a", "bc")).normalize_str("a-a") == "bc-bc"


GROWING = [
    normalizers.Sequence([normalizers.Replace("a", "a" * 100)] * 5),
    normalizers.Sequence([normalizers.Sequence([normalizers.Replace("a", "a" * 2000)])]),
    normalizers.Replace(Regex("[ab]"), "a" * 2000),
    normalizers.Precompiled(precompiled_table("a", "b" * 2000)),
    normalizers.Prepend("a" * 2000),
    # These match between two characters, so each rule may double a text. Python reads some of them in another way.
    *[
        normalizers.Sequence([normalizers.Replace(Regex(pattern), "a")] * 10)
        for pattern in ("b*", "$", "(?=a)", "a|", "[[:digit:]&&[^5]]?", "b{2}?", "b{,2}", r"\G", "")
    ],
]


@pytest.mark.parametrize("normalizer", GROWING)
def test_a_normalizer_that_explodes_is_refused_before_it_reads_a_text(normalizer: Any, folder: Path):
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.backend_tokenizer.normalizer = normalizer
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))

    refused_at_once(folder, "may make a text .* times as long, of at most 1,000")
    with pytest.raises(CheckpointError, match="may make a text"):
        read_tokenizer(folder, {})


@pytest.mark.parametrize("pattern", ["b", "b+", " {2,}", r"\s+", r"[^a-c\]]", r"[\p{L}]\d"])
def test_a_normalizer_may_have_many_rules_that_replace_characters(pattern: str, folder: Path):
    backend = PreTrainedTokenizerFast.from_pretrained(folder).backend_tokenizer
    backend.normalizer = normalizers.Sequence([normalizers.Replace(Regex(pattern), "a")] * 100)

    check_tokenizer(backend, folder)


def test_a_table_of_sentencepiece_may_write_some_characters_for_one(folder: Path):
    backend = PreTrainedTokenizerFast.from_pretrained(folder).backend_tokenizer
    backend.normalizer = normalizers.Precompiled(precompiled_table("\ufdfa", "\u0635" * 18))

    check_tokenizer(backend, folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_input_chars_per_word", 10**9), ("continuing_subword_prefix", "#" * 10**6)],
)
def test_a_tokenizer_whose_words_take_hours_is_refused(field: str, value: object, folder: Path):
    model = {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##", "vocab": {"a": 0, "##a": 1}}
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"] = {**model, "max_input_chars_per_word": 100, field: value}
    content["normalizer"] = content["pre_tokenizer"] = None
    backend = Tokenizer.from_str(json.dumps(content))

    with pytest.raises(CheckpointError, match=f"has a {field} of 1,000,.* characters, of at most 1,000"):
        check_tokenizer(backend, folder)


def test_a_tokenizer_that_adds_many_tokens_to_each_text_is_refused(folder: Path):
    backend = PreTrainedTokenizerFast.from_pretrained(folder).backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single=["$A", *["<|im_end|>"] * 2000],
        pair=["$A", "$B", *["<|im_end|>"] * 2000],
        special_tokens=[("<|im_end|>", backend.token_to_id("<|im_end|>"))],
    )
    backend.save(str(folder / "tokenizer.json"))

    refused_at_once(folder, "adds 2,000 tokens to each pair of texts, of at most 1,000")
