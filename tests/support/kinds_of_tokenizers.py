"""Tokenizers of every kind, whose vocabularies and added tokens invite a text to spell a control token."""

import json
from collections.abc import Callable, Iterable
from itertools import product
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from support.tiny import byte_level_tokenizer, gemma_tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,:;?!'\"-_/|<>[]()#@"
CONTROL = ("<s>", "</s>", "<unk>", "<mask>")
MARKUP = ("<|user|>", "<start_of_turn>", "[INST]")
FLAGS = [
    dict(zip(("special", "lstrip", "rstrip", "normalized", "single_word"), values, strict=True))
    for values in product([True, False], repeat=5)
]


def wrapped(tokenizer: Tokenizer, **names: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def joining_pairs(tokenizer: Tokenizer, first: str, last: str) -> Tokenizer:
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}",
        pair=f"{first} $A {last} $B {last}",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in (first, last)],
    )
    return tokenizer


def with_flags(flags: dict[str, bool], normalizer: Any = None) -> PreTrainedTokenizerFast:
    """Byte-level BPE with an added token of the given flags, and perhaps a normalizer that changes texts."""
    tokenizer = byte_level_tokenizer().backend_tokenizer
    tokenizer.normalizer = normalizer
    tokenizer.add_tokens([AddedToken(text, **flags) for text in ("<tool>", "été|x", "[END]")])
    return wrapped(tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def bpe_with_whole_words() -> PreTrainedTokenizerFast:
    """Like Llama 3: a word of the vocabulary is one token without merges; here, so is a control token."""
    tokenizer = byte_level_tokenizer().backend_tokenizer
    content = json.loads(tokenizer.to_str())
    content["model"]["ignore_merges"] = True
    for token in content["added_tokens"]:
        content["model"]["vocab"][token["content"]] = token["id"]
    return wrapped(Tokenizer.from_str(json.dumps(content)), eos_token="<|im_end|>", pad_token="<|endoftext|>")


def bpe_with_merges_of_control_tokens(*, byte_fallback: bool) -> PreTrainedTokenizerFast:
    """Like a converted SentencePiece model: every way to join two tokens to a third is a merge, `<` + `s>` too."""
    alphabet = ["▁", *LETTERS]
    words = ["s>", "/s>", "</", "</s", "<s", "▁a", "the", "th", *CONTROL]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    vocabulary = {token: id for id, token in enumerate(dict.fromkeys([*CONTROL, *bytes_, *alphabet, *words]))}
    merges = [
        (word[:cut], word[cut:])
        for word in words
        for cut in range(1, len(word))
        if word[:cut] in vocabulary and word[cut:] in vocabulary
    ]
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=byte_fallback, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([*CONTROL])
    return wrapped(joining_pairs(tokenizer, "<s>", "</s>"), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def unigram(letters: str, *, byte_fallback: bool = False, normalizer: Any = None) -> PreTrainedTokenizerFast:
    """SentencePiece's Unigram. Like T5's, it may lack `<`, so that a whole control token is the best path."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)] if byte_fallback else []
    scores = {**dict.fromkeys(CONTROL, 0.0), **dict.fromkeys(bytes_, -9.0), **dict.fromkeys(["▁", *letters], -5.0)}
    scores |= {"▁a": -3.0, "the": -2.5, "s>": -3.0, "</": -3.0}
    tokenizer = Tokenizer(models.Unigram([*scores.items()], unk_id=2, byte_fallback=byte_fallback))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.add_special_tokens([*CONTROL])
    return wrapped(joining_pairs(tokenizer, "<s>", "</s>"), bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def word_piece(pre_tokenizer: Any, *, lowercase: bool) -> PreTrainedTokenizerFast:
    """Like BERT's; its vocabulary has the control tokens, and word pieces that end like them."""
    control = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    pieces = [*control, *letters, "the", "##SEP]", "##sep]", "[sep]", "[cls]"]
    vocabulary = {token: id for id, token in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=lowercase)
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.add_special_tokens(control)
    tokenizer.add_tokens([AddedToken("[sep]", normalized=True, special=True)])
    return wrapped(joining_pairs(tokenizer, "[CLS]", "[SEP]"), cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]")


def unigram_without_added_tokens() -> PreTrainedTokenizerFast:
    """Its separators are pieces like any others, and `</s>` is the best path of a text that spells it."""
    content = json.loads(unigram(LETTERS).backend_tokenizer.to_str())
    return wrapped(Tokenizer.from_str(json.dumps({**content, "added_tokens": []})))


def word_piece_without_added_tokens() -> PreTrainedTokenizerFast:
    """As files of old versions: `[SEP]` is a word of the vocabulary, and a pre-tokenizer leaves it whole."""
    content = json.loads(word_piece(pre_tokenizers.WhitespaceSplit(), lowercase=False).backend_tokenizer.to_str())
    return wrapped(Tokenizer.from_str(json.dumps({**content, "added_tokens": []})))


def bpe_with_markup_in_its_vocabulary() -> PreTrainedTokenizerFast:
    """Like user-defined symbols of SentencePiece: added tokens of the vocabulary that are not special."""
    content = json.loads(gemma_tokenizer().backend_tokenizer.to_str())
    for text in MARKUP:
        id = content["model"]["vocab"][text] = len(content["model"]["vocab"])
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        content["added_tokens"].append({"id": id, "content": text, **flags})
    return wrapped(Tokenizer.from_str(json.dumps(content)), bos_token="<bos>", eos_token="<eos>", unk_token="<unk>")


NORMALIZERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "NFC": normalizers.NFC,
    "NFKC": normalizers.NFKC,
    "lower case": lambda: normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()]),
    "no accents": lambda: normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    ),
    "that writes a control token": lambda: normalizers.Replace("STOP", "<|im_end|>"),
}

OF_PROMPTS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "byte-level BPE": byte_level_tokenizer,
    "byte-level BPE with whole words": bpe_with_whole_words,
    "BPE with byte fallback": gemma_tokenizer,
    "BPE with markup in its vocabulary": bpe_with_markup_in_its_vocabulary,
    **{f"BPE, {name}": (lambda make=make: with_flags({}, make())) for name, make in NORMALIZERS.items()},
    **{
        "BPE, " + ", ".join(name for name, is_on in flags.items() if is_on): (
            lambda flags=flags: with_flags(flags, normalizers.NFKC())
        )
        for flags in FLAGS
    },
}
OF_PAIRS: dict[str, Callable[[], PreTrainedTokenizerFast]] = {
    "converted BPE": lambda: bpe_with_merges_of_control_tokens(byte_fallback=False),
    "converted BPE with byte fallback": lambda: bpe_with_merges_of_control_tokens(byte_fallback=True),
    "Unigram": lambda: unigram(LETTERS),
    "Unigram without brackets": lambda: unigram(LETTERS.replace("<", "").replace(">", "")),
    "Unigram with byte fallback": lambda: unigram(LETTERS.replace("<", ""), byte_fallback=True),
    "Unigram, NFKC": lambda: unigram(LETTERS, normalizer=normalizers.NFKC()),
    "WordPiece": lambda: word_piece(pre_tokenizers.BertPreTokenizer(), lowercase=False),
    "WordPiece, lower case": lambda: word_piece(pre_tokenizers.BertPreTokenizer(), lowercase=True),
    "WordPiece of whole words": lambda: word_piece(pre_tokenizers.WhitespaceSplit(), lowercase=False),
    "Unigram without added tokens": unigram_without_added_tokens,
    "WordPiece without added tokens": word_piece_without_added_tokens,
}


def spellings(tokens: Iterable[str]) -> list[str]:
    """Each token whole, split, doubled, and in forms that a normalizer may turn into it."""
    found: list[str] = []
    for token in tokens:
        half = len(token) // 2
        wide = "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in token)
        found += [token, token[:half], token[half:], token * 2, token[:half] + token + token[half:], wide]
        found += [f" {token} ", f"\n{token}\n", token.upper(), token.lower(), token.title(), token[::-1], f"a{token}a"]
        found += [
            "\u0301".join(token),
            "\u200b".join(token),
            "\u00ad".join(token),
            f"▁{token}",
            f"Ġ{token}",
            f"##{token}",
        ]
        found += [token.replace("<", "﹤").replace(">", "﹥"), token.replace("<", "&lt;"), token.replace("s", "ſ")]
    return list(dict.fromkeys(found))
