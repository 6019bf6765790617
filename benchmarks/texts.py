"""A folder of texts in BEIR form -> queries, and as many different documents as a measurement asks for."""

import json
from pathlib import Path
from typing import NamedTuple

from transformers import PreTrainedTokenizerFast

SAMPLE = Path(__file__).parent.parent / "examples" / "data"


class Texts(NamedTuple):
    """What is reranked.

    Attributes:
        name: of the folder.
        queries: in the folder's order.
        corpus: documents, in the folder's order.
    """

    name: str
    queries: list[str]
    corpus: list[str]

    def query(self, index: int) -> str:
        """A query by number; they start again where they end."""
        return self.queries[index % len(self.queries)]

    def documents(self, start: int, count: int) -> list[str]:
        """Documents from a place in the corpus on, none twice in the first thousands of a run.

        A corpus that is too small is gone through again, each document then from a later word on, so that not even
        the beginnings are the same.
        """
        return [self._document(index) for index in range(start, start + count)]

    def of_length(self, start: int, count: int, tokens: int, tokenizer: PreTrainedTokenizerFast) -> list[str]:
        """Documents of about so many tokens each, put together from the corpus and cut."""
        made: list[str] = []
        for _ in range(count):
            text, ids = "", []
            while len(ids) < tokens:
                text = f"{text} {self._document(start)}".strip()
                ids = tokenizer.encode(text, add_special_tokens=False)
                start += 1
            made.append(tokenizer.decode(ids[:tokens]))
        return made

    def _document(self, index: int) -> str:
        lap, place = divmod(index, len(self.corpus))
        words = self.corpus[place].split(" ")
        turn = 3 * lap % len(words)
        return self.corpus[place] if turn == 0 else " ".join([*words[turn:], *words[:turn]])


def read_texts(folder: Path | None) -> Texts:
    """The texts of a folder with corpus.jsonl and queries.jsonl; the small sample of the examples for None."""
    if folder is None:
        return Texts("examples/data", _read(SAMPLE / "questions.jsonl", "question"), _read(SAMPLE / "passages.jsonl"))
    return Texts(folder.name, _read(folder / "queries.jsonl"), _read(folder / "corpus.jsonl"))


def _read(file: Path, field: str = "text") -> list[str]:
    if not file.is_file():
        raise SystemExit(f"{file} is not there; --data names a folder with corpus.jsonl and queries.jsonl")
    texts = [json.loads(line)[field].strip() for line in file.read_text(encoding="utf-8").splitlines() if line]
    return [text for text in texts if text]
