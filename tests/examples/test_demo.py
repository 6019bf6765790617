"""The demo model: small, trained, licensed, and with the same logits in onelogit, transformers and CrossEncoder."""

import json
import re
from pathlib import Path

import pytest
import torch
from sentence_transformers import CrossEncoder
from transformers import AutoModelForCausalLM, AutoTokenizer

from onelogit import DEMO_MODEL, Reranker
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.prepared import run
from support.reference import prompt_text

ROOT = Path(__file__).parents[2]
FOLDER = Path(DEMO_MODEL)
QUERY = "What is the capital of China?"
DOCUMENTS = ["Bananas are yellow.", "Beijing is the capital of China.", "서울은 대한민국의 수도이다."]


@pytest.fixture(scope="module")
def demo() -> Reranker:
    return Reranker.load(DEMO_MODEL, dtype="float32")


def test_its_logit_equals_its_causal_models(demo: Reranker):
    model = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(DEMO_MODEL)
    yes, no = (tokenizer.encode(word, add_special_tokens=False) for word in ("yes", "no"))
    assert len(yes) == len(no) == 1

    for document, logit in zip(DOCUMENTS, demo.logits(QUERY, DOCUMENTS), strict=True):
        inputs = tokenizer(prompt_text(demo.recipe, QUERY, document), return_tensors="pt")
        with torch.inference_mode():
            logits = model(input_ids=inputs["input_ids"]).logits[0, -1]
        assert logit == pytest.approx(float(logits[yes[0]] - logits[no[0]]), abs=1e-5)


def test_sentence_transformers_reads_the_same_recipe_and_gives_the_same_scores(demo: Reranker):
    theirs = CrossEncoder(DEMO_MODEL, device="cpu", model_kwargs={"dtype": "float32"})

    scores = theirs.predict([(QUERY, document) for document in DOCUMENTS])

    assert scores.tolist() == pytest.approx([ranked.score for ranked in sorted(demo.rank(QUERY, DOCUMENTS))], abs=1e-5)
    assert demo.recipe.chat_template == QWEN3_TEMPLATE


def test_it_answers_real_questions_better_than_chance(demo: Reranker):
    """The questions and passages are not among its training data."""
    lines = {
        name: [json.loads(line) for line in (ROOT / "examples" / "data" / name).read_text("utf-8").splitlines()]
        for name in ("passages.jsonl", "questions.jsonl")
    }
    passages = {line["id"]: line["text"] for line in lines["passages.jsonl"]}
    ids = list(passages)

    best = [ids[demo.rank(line["question"], passages.values(), top_n=1)[0].index] for line in lines["questions.jsonl"]]

    right = sum(first == line["answer"] for first, line in zip(best, lines["questions.jsonl"], strict=True))
    assert right >= 4  # of 6; 0.5 by chance


def test_it_is_small_and_includes_its_licence():
    assert sum(file.stat().st_size for file in FOLDER.rglob("*")) <= 5_000_000
    assert "CC BY-SA 4.0" in (FOLDER / "README.md").read_text("utf-8")
    assert "creativecommons.org/licenses/by-sa/4.0" in (FOLDER / "NOTICE").read_text("utf-8")
    assert Reranker.load(DEMO_MODEL).licence == "cc-by-sa-4.0"


def test_its_card_states_its_quality_and_that_it_is_for_demos_only():
    card = (FOLDER / "README.md").read_text("utf-8")
    results = {
        name: float(value) for name, value in re.findall(r"\| (BM25|random|this model)[^|]*\| (0\.\d+) \|", card)
    }

    assert "For demos and tests only" in card
    assert set(results) == {"BM25", "random", "this model"}


def test_the_demo_runs_and_all_frameworks_agree():
    ran = run(["examples/demo.py"], folder=ROOT)

    assert ran.returncode == 0, ran.stderr
    assert "gave the same order with the same logits each time" in " ".join(ran.stdout.split())
