"""A folder in BEIR format, or a tokenizer -> queries, and as many different documents as a measurement needs."""

import json
import random
import re
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

SAMPLE = Path(__file__).parent.parent / "examples" / "data"
MAX_WORDS = 2000
WORD_TOKEN = re.compile(r"[Ġ▁][a-z]{2,}")


class Corpus(NamedTuple):
    """Queries and documents, each in the folder's order."""

    name: str
    queries: list[str]
    all_documents: list[str]

    def query(self, index: int) -> str:
        """A query by its number, modulo the number of queries."""
        return self.queries[index % len(self.queries)]

    def documents(self, start: int, count: int) -> list[str]:
        """Consecutive documents; thousands can be taken without a repetition.

        A corpus that is too small is used again, with the words of each document rotated, so that not even the
        beginnings are the same.
        """
        return [self._document(index) for index in range(start, start + count)]

    def of_length(self, start: int, count: int, tokens: int, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """Documents of about so many tokens each, joined from the corpus and cut."""
        documents: list[str] = []
        for _ in range(count):
            text, ids = "", []
            while len(ids) < tokens:
                text = f"{text} {self._document(start)}".strip()
                ids = tokenizer.encode(text, add_special_tokens=False)
                start += 1
            documents.append(tokenizer.decode(ids[:tokens]))
        return documents

    def _document(self, index: int) -> str:
        repeat, position = divmod(index, len(self.all_documents))
        document = self.all_documents[position]
        words = document.split(" ")
        shift = 3 * repeat % len(words)
        return " ".join([*words[shift:], *words[:shift]]) if shift else document


def read_corpus(folder: Path | None) -> Corpus:
    """The texts of a folder with corpus.jsonl and queries.jsonl; None for the small sample of the examples."""
    if folder is None:
        return Corpus("examples/data", _read(SAMPLE / "questions.jsonl", "question"), _read(SAMPLE / "passages.jsonl"))
    return Corpus(folder.name, _read(folder / "queries.jsonl"), _read(folder / "corpus.jsonl"))


def _read(file: Path, field: str = "text") -> list[str]:
    if not file.is_file():
        raise SystemExit(f"{file} does not exist; --data needs a folder with corpus.jsonl and queries.jsonl")
    texts = [json.loads(line)[field].strip() for line in file.read_text(encoding="utf-8").splitlines() if line]
    return [text for text in texts if text]


class RandomTexts:
    """Texts of an exact number of tokens, from words of one token after a space; the same texts for the same seed."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._words: list[str] = []
        for token, id in sorted(tokenizer.get_vocab().items(), key=lambda item: item[1]):
            if WORD_TOKEN.fullmatch(token) and tokenizer.encode(f" {token[1:]}", add_special_tokens=False) == [id]:
                self._words.append(token[1:])
            if len(self._words) == MAX_WORDS:
                break
        if not self._words:
            raise SystemExit("this tokenizer has no word that is one token after a space; name another --tokenizer")

    def text(self, tokens: int) -> str:
        """A text of that number of tokens, if it follows a space or a text that absorbs one."""
        return " ".join(self._random.choices(self._words, k=tokens))

    def texts(self, count: int, tokens: int) -> list[str]:
        """Several texts of so many tokens each."""
        return [self.text(tokens) for _ in range(count)]
