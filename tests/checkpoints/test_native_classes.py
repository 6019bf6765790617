"""gte-multilingual-reranker-base without its own Python code: transformers' class computes the published formulas."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import save_file
from sentence_transformers import CrossEncoder

from onelogit import CheckpointError, Reranker
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.verification.parity import measure_parity
from support.gte_new import CONFIG, gte_checkpoint, published_logit
from support.tiny import pair_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "A longer document. " * 20, ""]
TOKENIZER = pair_tokenizer("<s>", "</s> </s>", "</s>")


def expected_logits(folder: Path, **changed: object) -> list[float]:
    tensors = gte_checkpoint(folder, TOKENIZER, **changed)
    rows = TOKENIZER([(QUERY, text) for text in DOCUMENTS])["input_ids"]
    return [published_logit(tensors, {**CONFIG, **changed}, row) for row in rows]


@pytest.mark.parametrize(
    "changed",
    [
        {},
        {"rope_scaling": None},
        {"rope_scaling": {"factor": 2.0, "rope_type": "ntk"}, "rope_theta": 500000},
        {"rope_scaling": None, "rope_theta": 160000.0, "num_attention_heads": 2},
    ],
)
def test_its_logits_are_those_of_the_published_formulas(changed: dict, tmp_path: Path):
    expected = expected_logits(tmp_path / "gte", **changed)

    with Reranker.load(tmp_path / "gte") as reranker:
        together = reranker.logits(QUERY, DOCUMENTS)
        alone = [reranker.logits(QUERY, [text])[0] for text in DOCUMENTS]

    assert together == pytest.approx(expected, abs=1e-5)
    assert alone == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.03


def test_the_scaling_of_positions_matters(tmp_path: Path):
    assert expected_logits(tmp_path / "one") != pytest.approx(
        expected_logits(tmp_path / "other", rope_scaling=None), abs=1e-3
    )


def test_its_own_code_is_not_run_even_if_it_is_trusted(tmp_path: Path):
    expected = expected_logits(tmp_path / "gte")

    with Reranker.load(tmp_path / "gte", trust_remote_code=True) as reranker:
        assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


def test_what_is_saved_needs_no_code_of_its_own(tmp_path: Path):
    expected = expected_logits(tmp_path / "gte")

    with Reranker.load(tmp_path / "gte") as reranker:
        reranker.save(tmp_path / "saved")
        scores = [each.score for each in sorted(reranker.rank(QUERY, DOCUMENTS))]

    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("gte", ["GteForSequenceClassification"])
    assert "auto_map" not in config
    assert Reranker.load(tmp_path / "saved").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    theirs = CrossEncoder(str(tmp_path / "saved"), device="cpu").predict([(QUERY, text) for text in DOCUMENTS])
    assert scores == pytest.approx(theirs.tolist(), abs=1e-5)


def test_it_can_be_verified(tmp_path: Path):
    gte_checkpoint(tmp_path / "gte", TOKENIZER)

    parity = measure_parity(str(tmp_path / "gte"), bundled_pairs()[:6], {"device": "cpu", "dtype": "float32"})

    assert parity.agrees


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"position_embedding_type": "absolute"}, "no position_embedding_type='absolute'"),
        ({"layer_norm_type": "rms_norm"}, "no layer_norm_type='rms_norm'"),
        ({"logn_attention_scale": True}, "no logn_attention_scale=True"),
        ({"pack_qkv": False}, "no pack_qkv=False"),
        ({"rope_scaling": {"type": "dynamic", "factor": 2.0}}, "no rope_scaling={'type': 'dynamic', 'factor': 2.0}"),
        ({"rope_scaling": {"type": "ntk", "factor": 2.0, "mixed_b": 0.6}}, "'mixed_b': 0.6"),
    ],
)
def test_what_the_native_class_does_not_compute_is_named(changed: dict, reason: str, tmp_path: Path):
    gte_checkpoint(tmp_path / "gte", TOKENIZER, **changed)

    with pytest.raises(CheckpointError, match="pass trust_remote_code=True") as raised:
        Reranker.load(tmp_path / "gte")

    assert reason in str(raised.value)


def test_missing_weights_are_an_error_here_too(tmp_path: Path):
    tensors = gte_checkpoint(tmp_path / "gte", TOKENIZER)
    without = shutil.copytree(tmp_path / "gte", tmp_path / "without")
    rest = {name: value for name, value in tensors.items() if "classifier" not in name}
    save_file(rest, without / "model.safetensors", {"format": "pt"})

    with pytest.raises(CheckpointError, match="lacks 2 weights of its model"):
        Reranker.load(without)
