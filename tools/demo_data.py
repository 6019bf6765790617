"""A folder of BEIR data sets -> examples of one query with several documents, as token ids. Needs no model."""

import json
import random
import re
from pathlib import Path
from typing import NamedTuple

import bm25s
import torch
from tokenizers import Tokenizer
from torch import Tensor

OVERLAP_SCALE = 1.5
OVERLAP_SHARE = 0.3
SENTENCE_END = re.compile(r"(?<=[.!?。؟])\s+|(?<=。)")


class DataSet(NamedTuple):
    """Documents and queries by id, and the ids of the documents that answer each query."""

    documents: dict[str, str]
    queries: dict[str, str]
    answers: dict[str, set[str]]


class TrainingExample(NamedTuple):
    """One query with its documents; `target` is the wanted softmax over their logits, `labels` the wanted sigmoid."""

    query: list[int]
    documents: list[list[int]]
    target: list[float]
    labels: list[float]


def read_data_set(folder: Path) -> DataSet:
    """Read corpus.jsonl, queries.jsonl and qrels.tsv."""
    answers: dict[str, set[str]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query_id, document_id, grade = line.split("\t")
        if int(grade) > 0:
            answers.setdefault(query_id, set()).add(document_id)
    return DataSet(_read_texts(folder / "corpus.jsonl"), _read_texts(folder / "queries.jsonl"), answers)


def _read_texts(path: Path) -> dict[str, str]:
    with path.open(encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    return {record["_id"]: record["text"] for record in records}


def bm25_candidates(queries: list[str], documents: dict[str, str], top: int) -> list[list[str]]:
    """The ids of the documents that BM25 ranks highest for each query, best first."""
    ids = list(documents)
    index = bm25s.BM25()
    index.index(bm25s.tokenize(list(documents.values()), stopwords=None, show_progress=False), show_progress=False)
    tokens = bm25s.tokenize(queries, stopwords=None, show_progress=False)
    found, _ = index.retrieve(tokens, k=min(top, len(ids)), show_progress=False)
    return [[ids[position] for position in row] for row in found]


def split_data_set(data: DataSet, share: float) -> tuple[DataSet, DataSet]:
    """Split off the last documents, and their queries, for development; returns (training, development)."""
    ids = list(data.documents)
    kept = set(ids[: round(len(ids) * (1 - share))])

    def part(is_kept: bool) -> DataSet:
        documents = {key: text for key, text in data.documents.items() if (key in kept) == is_kept}
        queries = {key: text for key, text in data.queries.items() if data.answers[key] <= documents.keys()}
        return DataSet(documents, queries, {key: data.answers[key] for key in queries})

    return part(True), part(False)


class Overlap:
    """How many of a query's words are in a document: the sum of their rarities."""

    def __init__(self, rarity: Tensor, word_ids: Tensor) -> None:
        self.weights = (rarity / rarity.mean()).tolist()
        self.word_ids = word_ids.tolist()

    def __call__(self, query: list[int], document: list[int]) -> float:
        shared = {self.word_ids[token] for token in query} & {self.word_ids[token] for token in document}
        return sum(self.weights[word] for word in shared)

    def target(self, query: list[int], documents: list[list[int]]) -> Tensor:
        """The wanted softmax over logits, from the overlaps."""
        return torch.softmax(torch.tensor([self(query, row) for row in documents]) * OVERLAP_SCALE, dim=0)


class ExampleEncoder:
    """Makes examples from texts, with the token ids that they have in the prompt, after a space."""

    def __init__(self, tokenizer: Tokenizer, overlap: Overlap, max_document_tokens: int) -> None:
        self.tokenizer = tokenizer
        self.overlap = overlap
        self.max_document_tokens = max_document_tokens

    def query(self, text: str) -> list[int]:
        return self.tokenizer.encode(" " + text).ids

    def document(self, text: str) -> list[int]:
        return self.tokenizer.encode(" " + text).ids[: self.max_document_tokens]

    def example(self, query: str, documents: list[str]) -> TrainingExample:
        """The first document is the answer; the target also favours others that share words with the query."""
        ids, rows = self.query(query), [self.document(text) for text in documents]
        labels = [1.0] + [0.0] * (len(rows) - 1)
        target = (1 - OVERLAP_SHARE) * torch.tensor(labels) + OVERLAP_SHARE * self.overlap.target(ids, rows)
        return TrainingExample(ids, rows, target.tolist(), labels)


class Synthetic:
    """Documents of random tokens; a document with more of the query's tokens, or rarer ones, is better."""

    def __init__(self, overlap: Overlap, usable_ids: list[int]) -> None:
        self.overlap = overlap
        self.usable_ids = usable_ids

    def example(self, rng: random.Random, documents: int, document_tokens: int) -> TrainingExample:
        query = rng.sample(self.usable_ids, rng.randint(2, 9))
        rows = [self._row(rng, query, document_tokens) for _ in range(documents)]
        whole = self.overlap(query, query)
        labels = [self.overlap(query, row) / max(whole, 1e-6) for row in rows]
        return TrainingExample(query, rows, self.overlap.target(query, rows).tolist(), labels)

    def _row(self, rng: random.Random, query: list[int], tokens: int) -> list[int]:
        row = rng.choices(self.usable_ids, k=tokens)
        held = rng.sample(query, rng.randint(0, len(query)))
        for place, token in zip(rng.sample(range(tokens), len(held)), held, strict=True):
            row[place] = token
        return row


class Questions:
    """Real questions; negatives are documents that answer other questions, most of them ranked high by BM25."""

    def __init__(self, data: DataSet, encoder: ExampleEncoder) -> None:
        self.encoder = encoder
        self.data = data
        self.query_ids = list(data.queries)
        self.document_ids = list(data.documents)
        found = bm25_candidates(list(data.queries.values()), data.documents, 20)
        self.near = dict(zip(self.query_ids, found, strict=True))

    def example(self, rng: random.Random, documents: int) -> TrainingExample:
        query_id = rng.choice(self.query_ids)
        answers = self.data.answers[query_id]
        near = [key for key in self.near[query_id] if key not in answers]
        negatives = _negatives(rng, near, self.document_ids, answers, documents - 1)
        keys = [rng.choice(sorted(answers)), *negatives]
        return self.encoder.example(self.data.queries[query_id], [self.data.documents[key] for key in keys])


class InverseCloze:
    """A sentence, or some of its words, is the query; its text, with or without the sentence, is the answer."""

    def __init__(self, documents: dict[str, str], encoder: ExampleEncoder, *, max_sentences: int = 6) -> None:
        self.encoder = encoder
        self.max_sentences = max_sentences
        texts = {key: [part for part in SENTENCE_END.split(text) if part] for key, text in documents.items()}
        self.texts = {key: sentences for key, sentences in texts.items() if len(sentences) > 1}
        self.ids = list(self.texts)
        found = bm25_candidates([self.texts[key][0] for key in self.ids], documents, 16)
        self.near = {
            key: [other for other in row if other in self.texts and other != key]
            for key, row in zip(self.ids, found, strict=True)
        }

    def example(self, rng: random.Random, documents: int) -> TrainingExample:
        key = rng.choice(self.ids)
        sentences = self._window(rng, key)
        place = rng.randrange(len(sentences))
        query = _some_words(rng, sentences[place])
        if rng.random() < 0.25:
            sentences = sentences[:place] + sentences[place + 1 :]
        negatives = _negatives(rng, self.near[key], self.ids, {key}, documents - 1)
        texts = [" ".join(sentences), *(" ".join(self._window(rng, other)) for other in negatives)]
        return self.encoder.example(query, texts)

    def _window(self, rng: random.Random, key: str) -> list[str]:
        sentences = self.texts[key]
        count = rng.randint(2, self.max_sentences)
        start = rng.randrange(max(1, len(sentences) - count + 1))
        return sentences[start : start + count]


def _some_words(rng: random.Random, sentence: str) -> str:
    words = sentence.split()
    if rng.random() < 0.2 or len(words) < 4:
        return sentence
    places = sorted(rng.sample(range(len(words)), min(len(words), rng.randint(3, 9))))
    return " ".join(words[place] for place in places)


def _negatives(rng: random.Random, near: list[str], every: list[str], answers: set[str], count: int) -> list[str]:
    """Three of four from the near documents, the rest at random."""
    chosen = rng.sample(near, min(len(near), round(count * 0.75)))
    while len(chosen) < count:
        key = rng.choice(every)
        if key not in answers and key not in chosen:
            chosen.append(key)
    return chosen
