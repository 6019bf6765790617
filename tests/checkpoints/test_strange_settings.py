"""Files of a model with settings that no trainer writes: the same logits, or one error of ours."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import BertConfig

from onelogit import CheckpointError, OnelogitError, RecipeError, Reranker
from onelogit.checkpoints.load_encoder import read_tokenizer
from onelogit.prompts.tokenizer import without_settings
from support.tiny import Tiny, gemma_tokenizer, native_checkpoint, pair_tokenizer
from support.untrusted import change

DOCUMENTS = ["one", "two and three"]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    return native_checkpoint(tmp_path_factory.mktemp("models") / "encoder", BertConfig, tokenizer)


@pytest.fixture(params=["encoder", "decoder"])
def folder(request: pytest.FixtureRequest, encoder: Path, tiny_qwen: Tiny, tmp_path: Path) -> Path:
    source = encoder if request.param == "encoder" else tiny_qwen.folder
    return Path(shutil.copytree(source, tmp_path / source.name))


def logits(folder: Path) -> list[float]:
    with Reranker.load(folder) as reranker:
        return reranker.logits("which?", DOCUMENTS)


def test_a_model_that_asks_for_other_outputs_has_the_same_logits(folder: Path):
    expected = logits(folder)
    asked = {"return_dict": False, "output_hidden_states": "1", "output_attentions": True, "chunk_size_feed_forward": 2}
    change(folder / "config.json", **asked)

    assert logits(folder) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("field", "value"), [("is_causal", 1), ("head_dim", "x"), ("chunk_size_feed_forward", "x"), ("dtype", {"a": 1})]
)
def test_a_setting_of_a_strange_value_is_an_error_of_ours_or_none(field: str, value: object, folder: Path):
    change(folder / "config.json", **{field: value})

    try:
        logits(folder)
    except OnelogitError as error:
        assert "\n" not in str(error)


def test_an_error_of_transformers_is_shown_with_its_reason(tiny_qwen: Tiny, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_qwen.folder, tmp_path / "model"))
    change(folder / "config.json", use_cache="x")

    with pytest.raises(CheckpointError, match="for field 'use_cache': .*expected bool"):
        Reranker.load(folder)


PADDING = {"direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0, "pad_token": "a"}
TRUNCATION = {"direction": "Right", "max_length": 0, "strategy": "LongestFirst", "stride": 0}


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": {**PADDING, "strategy": {"Fixed": 10**12}}},
        {"padding": {**PADDING, "strategy": "BatchLongest", "pad_to_multiple_of": 10**12}},
        {"truncation": TRUNCATION},
    ],
    ids=["fixed", "multiple", "truncation"],
)
def test_absurd_limits_in_a_tokenizer_change_nothing(settings: dict[str, object], folder: Path):
    expected = logits(folder)
    change(folder / "tokenizer.json", **settings)

    assert logits(folder) == expected
    assert read_tokenizer(folder, {}).backend_tokenizer is not None


def test_the_dropout_that_a_tokenizer_was_trained_with_changes_nothing(tiny_qwen: Tiny, tmp_path: Path):
    folder = Path(shutil.copytree(tiny_qwen.folder, tmp_path / tiny_qwen.folder.name))
    expected = logits(folder)
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["dropout"] = 0.5
    (folder / "tokenizer.json").write_text(json.dumps(content))
    text = "the " + " ".join(content["model"]["vocab"])
    encode = read_tokenizer(folder, {}).backend_tokenizer.encode

    assert logits(folder) == logits(folder) == expected
    assert encode(text).ids == encode(text).ids


def without_template_token(content: Any) -> None:
    del content["post_processor"]["special_tokens"]["[SEP]"]


def with_unknown_template_token(content: Any) -> None:
    content["post_processor"]["pair"][-1]["SpecialToken"]["id"] = "x"


def without_pairs(content: Any) -> None:
    content["post_processor"]["pair"] = []


def without_letters(content: Any) -> None:
    content["model"]["end_of_word_suffix"] = "x" * 100


def without_template(content: Any) -> None:
    content["post_processor"]["single"] = []


def with_pairs_that_end_with_the_query(content: Any) -> None:
    content["post_processor"]["pair"].reverse()


HARMS = [without_template_token, with_unknown_template_token, without_letters, without_template]
NO_PAIRS = [without_pairs, with_pairs_that_end_with_the_query]


@pytest.mark.parametrize("harm", HARMS + NO_PAIRS)
def test_a_tokenizer_that_contradicts_itself_is_damaged(harm: Callable[[Any], None], encoder: Path, tmp_path: Path):
    folder = Path(shutil.copytree(encoder, tmp_path / "model"))
    content = json.loads((folder / "tokenizer.json").read_text())
    harm(content)
    (folder / "tokenizer.json").write_text(json.dumps(content))

    if harm in NO_PAIRS:
        with pytest.raises(RecipeError, match="does not join two texts"):
            Reranker.load(folder)
        return
    for read in (Reranker.load, lambda path: read_tokenizer(path, {})):
        with pytest.raises(CheckpointError, match="the tokenizer in .* (cannot read a text|reads the letter)"):
            read(folder)


def test_two_merged_tokens_with_one_id_are_an_error_of_ours():
    content = json.loads(gemma_tokenizer().backend_tokenizer.to_str())
    first, second = [left for left, _ in content["model"]["merges"]][:2]
    content["model"]["vocab"][second] = content["model"]["vocab"][first]

    errors = []
    for _ in range(30):  # which of the two tokens keeps the id differs from time to time
        try:
            without_settings(Tokenizer.from_str(json.dumps(content)), ["<eos>"])
        except RecipeError as error:
            errors.append(str(error))

    assert errors
    assert all("cannot be read again" in error for error in errors)
