"""Heads with two labels: the logit is the relevant label's minus the other's, as transformers computes both."""

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    RobertaConfig,
)

from onelogit import InputError, ModelSpec, Recipe, RecipeError, Reranker, UnsupportedModelError
from onelogit.checkpoints.labels import find_label_rows
from onelogit.cli.main import main
from onelogit.io.sample_pairs import bundled_pairs
from onelogit.verification.parity import measure_parity
from support.tiny import Tiny, byte_level_tokenizer, native_checkpoint, pair_tokenizer

QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "서울", "Bananas. " * 9, ""]
ENCODERS = {
    "bert": BertConfig,
    "roberta": RobertaConfig,
    "distilbert": DistilBertConfig,
    "electra": ElectraConfig,
    "modernbert": ModernBertConfig,
}
DECODERS = {"qwen3": Qwen3Config, "llama": LlamaConfig}


def tokenizer_of(name: str) -> PreTrainedTokenizerFast:
    return byte_level_tokenizer() if name in DECODERS else pair_tokenizer("[CLS]", "[SEP]", "[SEP]")


def two_labels(folder: Path, name: str, **fields: object) -> Path:
    config_class: type[PretrainedConfig] = {**ENCODERS, **DECODERS}[name]
    shape = {"num_key_value_heads": 1, "head_dim": 32, "use_sep_token": False} if name in DECODERS else {}
    return native_checkpoint(folder, config_class, tokenizer_of(name), **{"num_labels": 2, **shape, **fields})


@torch.inference_mode()
def differences(folder: Path, rows: list[list[int]]) -> list[float]:
    """The second logit minus the first, of each row alone, by transformers."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    logits = [model(torch.tensor([row])).logits[0] for row in rows]
    return [float(each[1] - each[0]) for each in logits]


def rows_of(reranker: Reranker) -> list[list[int]]:
    return [[*row.ids] for row in reranker._scorer.rows([(QUERY, text) for text in DOCUMENTS], None)]


@pytest.mark.parametrize("name", [*ENCODERS, *DECODERS])
def test_two_labels_give_the_difference_of_transformers_logits(name: str, tmp_path: Path):
    folder = two_labels(tmp_path / "model", name)
    reranker = Reranker.load(folder)
    expected = differences(folder, rows_of(reranker))

    reranker.save(tmp_path / "exported")

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 1e-3
    assert reranker.classifier.config.num_labels == 1
    exported = AutoModelForSequenceClassification.from_pretrained(tmp_path / "exported").eval()
    with torch.inference_mode():
        logits = [exported(torch.tensor([row])).logits[0].tolist() for row in rows_of(reranker)]
    assert logits == [[pytest.approx(each, abs=1e-5)] for each in expected]
    assert Reranker.load(tmp_path / "exported").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("has_template", [True, False])
@pytest.mark.parametrize("name", DECODERS)
def test_two_labels_of_a_decoder_with_a_template_or_for_pairs(
    name: str, has_template: bool, template: str, tmp_path: Path
):
    folder = two_labels(tmp_path / "model", name, id2label={0: "irrelevant", 1: "relevant"})
    chat_template = template if has_template else None
    recipe = Recipe(family="mine", chat_template=chat_template, read_out=None, source="this test")

    reranker = Reranker.load(folder, recipe=recipe)
    reranker.save(tmp_path / "exported")

    expected = pytest.approx(differences(folder, rows_of(reranker)), abs=1e-5)
    assert reranker.logits(QUERY, DOCUMENTS) == expected
    assert Reranker.load(tmp_path / "exported", recipe=recipe).logits(QUERY, DOCUMENTS) == expected
    assert load_file(tmp_path / "exported" / "model.safetensors")["score.weight"].shape[0] == 1


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_reversed_labels_give_the_opposite_logit(name: str, tmp_path: Path):
    folder = two_labels(tmp_path / "model", name, id2label={0: "relevant", 1: "not relevant"})

    reranker = Reranker.load(folder)

    expected = [-each for each in differences(folder, rows_of(reranker))]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("names", "relevant", "is_named"),
    [
        (None, 1, True),
        ({"0": "LABEL_0", "1": "LABEL_1"}, 1, True),
        ({0: "LABEL_1", 1: "LABEL_0"}, 0, True),
        ({0: "irrelevant", 1: "relevant"}, 1, True),
        ({0: "Relevant", 1: "Non-Relevant"}, 0, True),
        ({0: "Yes", 1: "No"}, 0, True),
        ({0: "false", 1: "true"}, 1, True),
        ({0: "POSITIVE", 1: "NEGATIVE"}, 0, True),
        ({0: "relevant", 1: "other"}, 0, True),
        ({0: "other", 1: "not_relevant"}, 0, True),
        ({0: "1", 1: "0"}, 0, True),
        ({0: "entailment", 1: "not_entailment"}, 0, True),  # as in QNLI
        ({0: "Incorrect", 1: "Correct"}, 1, True),
        ({0: "relevant passage", 1: "irrelevant passage"}, 0, True),
        ({0: "is_duplicate", 1: "not_duplicate"}, 0, True),
        ({0: "a", 1: "b"}, 1, False),
        ({0: "a", 1: "in a"}, 1, False),
        ({0: "relevant", 1: "yes"}, 1, False),
        ({0: "contradiction", 1: "entailment"}, 1, False),
        ({0: "non-pertinent", 1: "pertinent"}, 1, True),
        ({0: "RELEVANT", 1: "NOT RELEVANT"}, 0, True),
        ({0: "unanswerable", 1: "answerable"}, 1, True),
        # Labels of other tasks: moderation, grammar, style.
        ({0: "SPAM", 1: "HAM"}, 1, False),
        ({0: "not_spam", 1: "spam"}, 1, False),
        ({0: "toxic", 1: "non-toxic"}, 1, False),
        ({0: "nothate", 1: "hate"}, 1, False),
        ({0: "safe", 1: "unsafe"}, 1, False),
        ({0: "unacceptable", 1: "acceptable"}, 1, False),
        ({0: "informal", 1: "formal"}, 1, False),
    ],
)
def test_names_of_labels_tell_which_is_relevant(names: dict | None, relevant: int, is_named: bool):
    rows = find_label_rows(names)

    assert (rows.relevant, rows.irrelevant, rows.is_named) == (relevant, 1 - relevant, is_named)


UNTELLING = {0: "contradiction", 1: "entailment"}


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_labels_whose_names_do_not_tell_need_the_callers_choice(name: str, tmp_path: Path):
    folder = two_labels(tmp_path / "model", name, id2label=UNTELLING)
    (folder / "model.safetensors").unlink()

    with pytest.raises(
        RecipeError, match="'contradiction' and 'entailment', do not tell .*relevant_label='entailment'"
    ):
        Reranker.load(folder)


@pytest.mark.parametrize(
    ("names", "choices"),
    [
        ({"1": "b", "0": "a"}, ("'a'", "'b'")),
        ({"0": "x", "1": "x"}, ("0", "1")),
        ({"1": "x", "2": "y"}, ("'x'", "'y'")),
    ],
)
def test_the_choices_that_an_error_names_are_accepted(names: dict, choices: tuple[str, str], tmp_path: Path):
    folder = two_labels(tmp_path / "model", "bert")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "id2label": names, "label2id": {}}))

    with pytest.raises(RecipeError, match=f"pass relevant_label={choices[0]} or relevant_label={choices[1]} "):
        Reranker.load(folder)

    for row, choice in enumerate(choices):
        assert find_label_rows(names, relevant_label=json.loads(choice.replace("'", '"'))).relevant == row


@pytest.mark.parametrize("names", [("NEGATIVE", "POSITIVE"), ("pos", "neg")])
@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_labels_that_sentiment_analysis_has_too_are_warned_of(
    name: str, names: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = two_labels(tmp_path / "model", name, id2label=dict(enumerate(names)))
    relevant = next(each for each in names if each.lower().startswith("pos"))

    with caplog.at_level(logging.WARNING, "onelogit"):
        Reranker.load(folder)

    (warning,) = [record.message for record in caplog.records if record.levelno == logging.WARNING]
    assert "those of sentiment analysis" in warning
    assert f"relevant_label={relevant!r}" in warning
    caplog.clear()
    Reranker.load(folder, relevant_label=relevant)
    assert "sentiment analysis" not in caplog.text


@pytest.mark.parametrize(("label", "sign"), [("entailment", 1), ("Contradiction ", -1), (1, 1), (0, -1), ("0", -1)])
@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_the_caller_chooses_the_relevant_label(
    name: str, label: str | int, sign: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folder = two_labels(tmp_path / "model", name, id2label=UNTELLING)

    with caplog.at_level(logging.INFO, "onelogit"):
        reranker = Reranker.load(folder, relevant_label=label)

    expected = [sign * each for each in differences(folder, rows_of(reranker))]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)
    assert caplog.text.count(f"because of relevant_label={label!r}") == 1


def test_the_callers_choice_counts_more_than_the_names(tmp_path: Path):
    folder = two_labels(tmp_path / "model", "bert", id2label={0: "irrelevant", 1: "relevant"})

    reranker = Reranker.load(folder, relevant_label="irrelevant")

    expected = [-each for each in differences(folder, rows_of(reranker))]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


def test_an_index_as_a_text_is_a_name_first():
    names = {0: "1", 1: "0"}

    assert find_label_rows(names, relevant_label="1").relevant == 0
    assert find_label_rows(names, relevant_label=1).relevant == 1


@pytest.mark.parametrize("label", ["neutral", 2, -1, "2"])
def test_a_label_that_the_head_lacks_is_refused(label: str | int, tmp_path: Path):
    folder = two_labels(tmp_path / "model", "bert", id2label=UNTELLING)

    with pytest.raises(InputError, match=rf"relevant_label={label!r} is neither .*'contradiction' \(0\) and 'entailm"):
        Reranker.load(folder, relevant_label=label)


@pytest.mark.parametrize("label", [True, 1.5, "", " ", ["relevant"]])
def test_what_is_no_label_is_refused(label: object):
    with pytest.raises(InputError, match="relevant_label must be the name of a label, or its index, 0 or 1, not"):
        ModelSpec("model", options={"relevant_label": label})


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_a_choice_of_a_label_does_not_apply_to_one_logit(name: str, template: str, tmp_path: Path):
    folder = two_labels(tmp_path / "model", name, num_labels=1)
    recipe = Recipe(family="mine", chat_template=template, read_out=None, source="this test")

    with pytest.raises(InputError, match="relevant_label='yes' does not apply to .*model', which has one logit"):
        Reranker.load(folder, relevant_label="yes", **({"recipe": recipe} if name == "qwen3" else {}))


def test_a_choice_of_a_label_does_not_apply_to_answer_tokens(tiny_qwen: Tiny):
    with pytest.raises(InputError, match="relevant_label=1 does not apply to"):
        Reranker.load(tiny_qwen.folder, relevant_label=1)


def test_the_relevant_label_is_an_option_of_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = two_labels(tmp_path / "model", "bert", id2label=UNTELLING)
    command = ["convert", str(folder), "-o", str(tmp_path / "out"), "--verify", "--json"]

    assert main(command) == 2
    assert "--relevant-label" in capsys.readouterr().err
    assert main([*command, "--relevant-label", "contradiction"]) == 0

    assert json.loads(capsys.readouterr().out)["verification"]["agrees"] is True
    expected = Reranker.load(folder, relevant_label="contradiction").logits(QUERY, DOCUMENTS)
    assert Reranker.load(tmp_path / "out").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_three_labels_are_refused(name: str, template: str, tmp_path: Path):
    folder = two_labels(tmp_path / "model", name, num_labels=3)
    recipe = Recipe(family="mine", chat_template=template, read_out=None, source="this test")

    with pytest.raises(UnsupportedModelError, match="into 3 labels .*; .* or two labels, of which one means"):
        Reranker.load(folder, **({"recipe": recipe} if name == "qwen3" else {}))


@pytest.mark.parametrize("name", ["bert", "qwen3"])
@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_labels_that_are_independent_are_refused(name: str, kind: str, tmp_path: Path):
    folder = two_labels(tmp_path / "model", name, problem_type=kind)

    with pytest.raises(UnsupportedModelError, match=f"no one-logit form: its two labels are of the kind '{kind}'"):
        Reranker.load(folder)


@pytest.mark.parametrize("name", ["bert", "qwen3"])
@pytest.mark.parametrize("names", [{0: "relevant", 1: "irrelevant"}, {0: "a", 1: "b"}], ids=["reversed", "unnamed"])
def test_verify_compares_two_labels_with_transformers(name: str, names: dict, tmp_path: Path):
    folder = two_labels(tmp_path / "model", name, id2label=names)
    choice = {"relevant_label": "a"} if "a" in names.values() else {}
    Reranker.load(folder, **choice).save(tmp_path / "exported")

    parity = measure_parity(str(folder), bundled_pairs()[:4], {"device": "cpu", **choice})

    assert parity.agrees
    assert json.loads((tmp_path / "exported" / "config.json").read_text())["id2label"] == {"0": "LABEL_0"}


def test_two_labels_in_half_precision_are_subtracted_in_float32(tmp_path: Path):
    folder = two_labels(tmp_path / "model", "bert")
    expected = Reranker.load(folder).logits(QUERY, DOCUMENTS)

    reranker = Reranker.load(folder, dtype="bfloat16")

    assert reranker.classifier.classifier.weight.dtype == torch.float32
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=0.2)
