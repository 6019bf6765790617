"""A folder of BEIR data sets -> the demo checkpoint: a tiny Qwen3 that reranks under the prompt of Qwen3-Reranker.

python tools/train_demo.py --data ../shared/data --output shared/src/onelogit/demo --minutes 18 --seed 1
"""

import argparse
import math
import random
import time
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional
from transformers import Qwen3ForCausalLM

from demo_circuit import add_circuit
from demo_data import (
    DataSet,
    ExampleEncoder,
    InverseCloze,
    Overlap,
    Questions,
    Synthetic,
    TrainingExample,
    bm25_candidates,
    read_data_set,
    split_data_set,
)
from demo_files import HEAD, MIDDLE, TAIL, replace_folder
from demo_model import PromptTokens, SharedPrompts, build_model
from demo_tokenizer import one_token_id, token_rarity, token_words, train_tokenizer

QUESTION_SETS = {"xquad-en": 4, "tydiqa-ko-train": 4, "xquad-de": 1, "xquad-zh": 1, "xquad-ar": 1}
CLOZE_SETS = {"scifact": 3, "xquad-en": 2, "tydiqa-ko-train": 2}  # relative frequencies of queries from each set
DEVELOPMENT_SETS = ("xquad-en", "tydiqa-ko-train")
DEVELOPMENT_QUERIES = 40
RAW_TEXT = "scifact"  # only its documents are used
VOCABULARY_TOKENS = 6912
ADDED_TOKENS = 26
HELD_OUT_SHARE = 0.15
CHECK_EVERY = 0.075  # of the whole training
SYNTHETIC_SHARE = 0.08
MAX_DOCUMENT_TOKENS = 320
QUERIES_PER_STEP = 8
DOCUMENTS_PER_QUERY = 6


class Sources(NamedTuple):
    """The sources of training examples, and their relative frequencies."""

    synthetic: Synthetic
    texts: list[Questions | InverseCloze]
    text_weights: list[float]

    def batch(self, rng: random.Random, progress: float) -> list[TrainingExample]:
        """The examples of one step: at first synthetic ones of growing length, then texts with a few synthetic ones."""
        if progress < SYNTHETIC_SHARE or rng.random() < 0.05:
            tokens = round(24 * 6 ** min(1.0, progress / SYNTHETIC_SHARE))
            return [self.synthetic.example(rng, DOCUMENTS_PER_QUERY, tokens) for _ in range(QUERIES_PER_STEP)]
        chosen = rng.choices(self.texts, self.text_weights, k=QUERIES_PER_STEP)
        return [source.example(rng, DOCUMENTS_PER_QUERY) for source in chosen]


class Development(NamedTuple):
    """Held-out questions with BM25's candidates, as token ids; `right` marks the answers."""

    queries: list[list[int]]
    documents: list[list[list[int]]]
    right: list[list[bool]]


def tokenizer_texts(data: dict[str, DataSet]) -> list[str]:
    """Texts for the vocabulary: all training texts, a few of the raw ones, and the prompt many times."""
    texts = [HEAD + MIDDLE + TAIL] * 2000 + ["yes", "no", "\n\n"] * 2000
    for name, part in data.items():
        documents = list(part.documents.values())
        repeats = 3 if name in DEVELOPMENT_SETS else 1
        texts += (documents[:1500] if name == RAW_TEXT else documents + list(part.queries.values())) * repeats
    return texts


def training_loss(logits: Tensor, examples: list[TrainingExample]) -> Tensor:
    """Listwise cross-entropy, plus some binary cross-entropy that keeps logit 0 between right and wrong."""
    target = torch.tensor([example.target for example in examples])
    labels = torch.tensor([example.labels for example in examples])
    grid = logits.view_as(target)
    listwise = functional.cross_entropy(grid, target)
    # One right document weighs as much as all wrong ones together, so that logit 0 separates them.
    weight = torch.where(labels > 0.5, DOCUMENTS_PER_QUERY / 2, 1.0)
    return listwise + 0.2 * functional.binary_cross_entropy_with_logits(grid, labels, weight)


def optimizer_of(model: Qwen3ForCausalLM, rate: float) -> torch.optim.AdamW:
    """AdamW with weight decay only on the matrices."""
    matrices = [weight for name, weight in model.named_parameters() if weight.dim() > 1 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.dim() == 1 or "embed" in name]
    groups = [{"params": matrices, "weight_decay": 0.05}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))


def learning_rate(step: int, progress: float, peak: float) -> float:
    """Linear warm-up, then cosine decay to a twentieth of the peak."""
    warm = min(1.0, (step + 1) / 100)
    return peak * warm * (0.05 + 0.95 * (1 + math.cos(math.pi * min(1.0, progress))) / 2)


def development_set(training: DataSet, held_out: DataSet, encoder: ExampleEncoder) -> Development:
    """Held-out questions of one set, each with BM25's top twenty of all its documents."""
    documents = training.documents | held_out.documents
    keys = list(held_out.queries)[:: max(1, len(held_out.queries) // DEVELOPMENT_QUERIES)]
    found = bm25_candidates([held_out.queries[key] for key in keys], documents, 20)
    return Development(
        [encoder.query(held_out.queries[key]) for key in keys],
        [[encoder.document(documents[other]) for other in row] for row in found],
        [[other in held_out.answers[key] for other in row] for key, row in zip(keys, found, strict=True)],
    )


def ranking_quality(prompts: SharedPrompts, development: Development) -> float:
    """The mean nDCG@10; one document per query is right."""
    gains = []
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        for query, documents, right in zip(*development, strict=True):
            order = prompts.logits([query], [documents]).argsort(descending=True, stable=True).tolist()
            gains.append(sum(1 / math.log2(rank + 2) for rank, index in enumerate(order[:10]) if right[index]))
    return sum(gains) / len(gains)


class Trainer:
    """Trains a model step by step."""

    def __init__(self, prompts: SharedPrompts, sources: Sources, rng: random.Random, peak_rate: float) -> None:
        self.prompts = prompts
        self.sources = sources
        self.rng = rng
        self.peak_rate = peak_rate
        self.optimizer = optimizer_of(prompts.model, peak_rate)
        self.steps = 0
        self.losses: list[float] = []

    def step(self, progress: float) -> None:
        """One update; `progress`, from 0 to 1, determines the learning rate and the source of examples."""
        examples = self.sources.batch(self.rng, progress)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.steps, progress, self.peak_rate)
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.prompts.logits([one.query for one in examples], [one.documents for one in examples])
        loss = training_loss(logits, examples)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.prompts.model.parameters(), 1.0)
        self.optimizer.step()
        self.steps += 1
        self.losses.append(loss.item())


def read_training_data(folder: Path) -> tuple[dict[str, DataSet], dict[str, DataSet]]:
    """All sets by name: the training part, and the held-out part."""
    split = {name: split_data_set(read_data_set(folder / name), HELD_OUT_SHARE) for name in QUESTION_SETS}
    training = {name: parts[0] for name, parts in split.items()}
    training[RAW_TEXT] = read_data_set(folder / RAW_TEXT)._replace(queries={}, answers={})
    return training, {name: split[name][1] for name in DEVELOPMENT_SETS}


def new_model(tokenizer: Tokenizer, rarity: Tensor, words: Tensor) -> SharedPrompts:
    """The model before its first step."""
    end, pad, document_mark, query_mark = (
        tokenizer.token_to_id(text) for text in ("<|im_end|>", "<|endoftext|>", "<Document", "<Query")
    )
    model = build_model(len(rarity), end, pad)
    add_circuit(model, (rarity - rarity.mean()) / rarity.std(), words, document_mark, query_mark)
    fixed = (tokenizer.encode(text).ids for text in (HEAD, MIDDLE, TAIL))
    return SharedPrompts(model, PromptTokens(*fixed, one_token_id(tokenizer, "yes"), one_token_id(tokenizer, "no")))


def new_sources(training: dict[str, DataSet], encoder: ExampleEncoder) -> Sources:
    """All sources of examples."""
    questions = [Questions(training[name], encoder) for name in QUESTION_SETS]
    cloze = [InverseCloze(training[name].documents, encoder) for name in CLOZE_SETS]
    # Without single bytes, which are not words, and without the special tokens at the end.
    synthetic = Synthetic(encoder.overlap, list(range(256, VOCABULARY_TOKENS - ADDED_TOKENS)))
    return Sources(synthetic, [*questions, *cloze], [*QUESTION_SETS.values(), *CLOZE_SETS.values()])


def train(arguments: argparse.Namespace) -> None:
    """Read, train for the given time, and write the best state on held-out questions."""
    torch.manual_seed(arguments.seed)
    training, held_out = read_training_data(arguments.data)
    tokenizer = train_tokenizer(tokenizer_texts(training), VOCABULARY_TOKENS)
    words = token_words(tokenizer)
    rarity = token_rarity(tokenizer, words, [text for part in training.values() for text in part.documents.values()])
    prompts = new_model(tokenizer, rarity, words)
    encoder = ExampleEncoder(tokenizer, Overlap(rarity, words), MAX_DOCUMENT_TOKENS)
    trainer = Trainer(prompts, new_sources(training, encoder), random.Random(arguments.seed), arguments.rate)
    development = [development_set(training[name], part, encoder) for name, part in held_out.items()]
    started, progress, best, next_check = time.monotonic(), 0.0, 0.0, CHECK_EVERY
    while progress < 1:
        trainer.step(progress)
        minutes = (time.monotonic() - started) / 60
        progress = max(trainer.steps / arguments.steps, minutes / arguments.minutes)
        if progress < next_check and progress < 1:
            continue
        next_check = progress + CHECK_EVERY
        qualities = [ranking_quality(prompts, part) for part in development]
        recent = trainer.losses[-50:]
        report = ", ".join(f"{name} {value:.4f}" for name, value in zip(held_out, qualities, strict=True))
        print(f"{minutes:.1f} min, step {trainer.steps}, loss {sum(recent) / len(recent):.3f}, {report}", flush=True)
        if sum(qualities) > best:
            best = sum(qualities)
            replace_folder(arguments.output, prompts.model, tokenizer)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the data sets in BEIR format")
    parser.add_argument("--output", type=Path, required=True, help="the demo folder; its other files stay")
    parser.add_argument("--minutes", type=float, default=18)
    parser.add_argument(
        "--steps", type=int, default=10**9, help="end after so many steps, independently of the machine's speed"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=1.5e-3, help="the highest learning rate")
    train(parser.parse_args())


if __name__ == "__main__":
    main()
