"""A tokenizer -> texts of exactly so many of its tokens, each another one."""

import random
import re

from transformers import PreTrainedTokenizerFast

ENOUGH = 2000  # different words
WORD = re.compile(r"[Ġ▁][a-z]{2,}")


class RandomTexts:
    """Texts of words that are one token each, wherever they stand between spaces.

    Args:
        tokenizer: whose tokens are counted.
        seed: the same texts again.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._words: list[str] = []
        for token, id in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
            if WORD.fullmatch(token) and tokenizer.encode(f" {token[1:]}", add_special_tokens=False) == [id]:
                self._words.append(token[1:])
            if len(self._words) == ENOUGH:
                break
        if not self._words:
            raise SystemExit("this tokenizer has no word that is one token behind a space; name another --tokenizer")

    def text(self, tokens: int) -> str:
        """So many tokens, where it stands behind a space or what swallows one."""
        return " ".join(self._random.choices(self._words, k=tokens))

    def texts(self, count: int, tokens: int) -> list[str]:
        """So many of them."""
        return [self.text(tokens) for _ in range(count)]
