"""Texts -> a small tokenizer that works like Qwen3's, and the words and rarities of its tokens."""

from collections import Counter
from collections.abc import Iterable

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

SPECIAL = [
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|object_ref_start|>",
    "<|object_ref_end|>",
    "<|box_start|>",
    "<|box_end|>",
    "<|quad_start|>",
    "<|quad_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
]
NOT_SPECIAL = [
    "<tool_call>",
    "</tool_call>",
    "<|fim_prefix|>",
    "<|fim_middle|>",
    "<|fim_suffix|>",
    "<|fim_pad|>",
    "<|repo_name|>",
    "<|file_sep|>",
    "<tool_response>",
    "</tool_response>",
    "<think>",
    "</think>",
]

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def train_tokenizer(texts: Iterable[str], vocabulary_tokens: int) -> Tokenizer:
    """A byte-level BPE tokenizer that differs from Qwen3's only in its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(QWEN_SPLIT), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.post_processor = processors.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_tokens - len(SPECIAL) - len(NOT_SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in NOT_SPECIAL])
    return tokenizer


def one_token_id(tokenizer: Tokenizer, text: str) -> int:
    """The id of a text that is one token.

    Raises:
        ValueError: the tokenizer splits it.
    """
    ids = tokenizer.encode(text).ids
    if len(ids) != 1:
        raise ValueError(f"{text!r} must be one token, but it splits into {len(ids)}")
    return ids[0]


def token_words(tokenizer: Tokenizer) -> Tensor:
    """One id per token, equal for tokens that differ only in case and spaces."""
    spellings = [tokenizer.id_to_token(token).lstrip("Ġ").lower() for token in range(tokenizer.get_vocab_size())]
    first = {spelling: token for token, spelling in reversed(list(enumerate(spellings)))}
    return torch.tensor([first[spelling] for spelling in spellings])


def token_rarity(tokenizer: Tokenizer, word_ids: Tensor, documents: list[str]) -> Tensor:
    """For each token, the logarithm of the number of documents over the number of those with its word; at least 0."""
    counts: Counter[int] = Counter()
    for encoding in tokenizer.encode_batch(documents):
        counts.update(set(word_ids[encoding.ids].tolist()))
    frequency = torch.tensor([counts[word] for word in word_ids.tolist()])
    return torch.log(len(documents) / (frequency + 1.0)).clamp(min=0.0)
