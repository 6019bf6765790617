"""`onelogit convert`: the folder it writes, what it prints, and what it refuses."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification

from onelogit import DEMO_MODEL, Reranker
from onelogit.cli.main import main
from onelogit.errors import InputError
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.commands import failure, output
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "yes"]
TOKENS = "--classifier_from_tokens"


def test_it_writes_a_folder_and_says_how_to_serve_it(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    folder = tmp_path / "converted"

    printed = output(capsys, "convert", tiny_qwen.folder, "--output", folder)

    assert f'CrossEncoder("{folder}")' in printed
    headings = ["with transformers, for raw logits:", "with Sentence Transformers (5.4 or newer):", "it with vLLM:"]
    texts = re.split("|".join(map(re.escape, headings)), printed)
    assert [text.strip().splitlines()[0] for text in texts[1:]] == [
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
        "from sentence_transformers import CrossEncoder",
        f"vllm serve {folder} --runner pooling  # before vLLM 0.33 add: --chat-template {folder}/chat_template.jinja",
    ]
    assert f"vllm serve {folder} --runner pooling" in printed
    assert Reranker.load(folder).logits(QUERY, DOCUMENTS) == pytest.approx(
        Reranker.load(tiny_qwen.folder).logits(QUERY, DOCUMENTS), abs=1e-5
    )


def test_it_accepts_the_arguments_of_vllms_script(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny], tmp_path: Path
):
    tiny = checkpoint("some-model", files={"chat_template.jinja": QWEN3_TEMPLATE})
    template = tiny.folder / "chat_template.jinja"
    folder = tmp_path / "converted"

    output(
        capsys, "convert", "--model_name", tiny.folder, TOKENS, '["no", "yes"]', "--method", "from_2_way_softmax",
        "--path", folder, "--chat-template", template,
    )  # fmt: skip

    head = tiny.model.get_output_embeddings().weight
    no, yes = (tiny.tokenizer.encode(word)[0] for word in ("no", "yes"))
    assert torch.equal(load_file(folder / "model.safetensors")["score.weight"][0], head[yes] - head[no])


def test_several_answer_tokens_give_one_label_each(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path):
    folder = tmp_path / "labels"

    printed = output(
        capsys, "convert", tiny_qwen.folder, TOKENS, '["no", "yes", "Yes", 7]', "--method", "no_post_processing",
        "-o", folder,
    )  # fmt: skip

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    ids = tiny_qwen.tokenizer(QUERY, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0]
        expected = tiny_qwen.model(input_ids=ids).logits[0, -1]
    rows = [*(tiny_qwen.tokenizer.encode(word)[0] for word in ("no", "yes", "Yes")), 7]
    assert "4 labels" in printed
    assert model.config.id2label == {0: "no", 1: "yes", 2: "Yes", 3: "7"}
    assert logits.tolist() == pytest.approx(expected[rows].tolist(), abs=1e-5)
    assert len(CrossEncoder(str(folder), device="cpu").predict([(QUERY, "a document")])[0]) == 4


def test_the_card_of_several_labels_says_that_it_is_not_a_reranker(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    folder = tmp_path / "labels"

    printed = output(
        capsys, "convert", tiny_qwen.folder, TOKENS, '["no", "yes"]', "--method", "no_post_processing", "-o", folder,
    )  # fmt: skip

    card = (folder / "README.md").read_text("utf-8")
    assert "It is not a reranker" in " ".join(card.split())
    assert "/rerank" not in card
    assert "chat_template" not in printed


def test_it_prints_json(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path):
    result = json.loads(output(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "converted", "--json"))

    assert result["labels"] == 1
    assert set(result) == {"folder", "labels", "transformers", "sentence_transformers", "vllm"}


def test_the_printed_python_code_runs(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path):
    result = json.loads(output(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "converted", "--json"))
    names: dict = {"query": QUERY, "document": DOCUMENTS[0], "documents": DOCUMENTS}

    exec(result["transformers"], names)
    exec(result["sentence_transformers"], names)

    reranker = Reranker.load(tiny_qwen.folder)
    assert float(names["logit"].detach()) == pytest.approx(reranker.logits(QUERY, DOCUMENTS)[0], abs=1e-4)
    by_index = [ranked.score for ranked in sorted(reranker.rank(QUERY, DOCUMENTS))]
    assert names["scores"].tolist() == pytest.approx(by_index, abs=1e-4)


def test_the_printed_transformers_code_does_not_round_the_head_of_a_bfloat16_export(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    folder = tmp_path / "converted"
    result = json.loads(output(capsys, "convert", tiny_qwen.folder, "--dtype", "bfloat16", "-o", folder, "--json"))
    names: dict = {"query": QUERY, "document": DOCUMENTS[0]}

    exec(result["transformers"], names)

    stored = load_file(folder / "model.safetensors")["score.weight"]
    assert not torch.equal(stored, stored.bfloat16().float())
    assert torch.equal(names["model"].score.weight, stored)
    assert '"converted", dtype="float32")' in (folder / "README.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ((TOKENS, "no, yes", "--method", "from_2_way_softmax"), "is not JSON"),
        ((TOKENS, '{"no": 1}', "--method", "from_2_way_softmax"), "must be a list"),
        ((TOKENS, '["no", "yes"]'), "needs a --method"),
        ((TOKENS, '["a", "b", "c"]', "--method", "from_2_way_softmax"), "takes two"),
        ((TOKENS, '["yes and no"]', "--method", "no_post_processing"), "must be one token"),
        ((TOKENS, "[1000000]", "--method", "no_post_processing"), "outside the vocabulary"),
        (("--method", "no_post_processing"), "needs --classifier-from-tokens"),
        ((TOKENS, "[true]", "--method", "no_post_processing"), "must be a list"),
        (("--chat-template", "/nowhere.jinja"), "cannot be read"),
        (("--dtype", "int3"), "unknown dtype"),
    ],
)
def test_wrong_options_are_refused_and_nothing_is_written(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    printed = failure(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "converted", *arguments)

    assert complaint in printed
    assert list(tmp_path.iterdir()) == []


def test_exactly_one_model_must_be_named(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "name one model" in failure(capsys, "convert", "-o", tmp_path / "converted")
    printed = failure(capsys, "convert", "one", "--model-name", "other", "-o", tmp_path / "converted")
    assert "name one model" in printed


def test_an_existing_folder_is_refused_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "--overwrite" in failure(capsys, "convert", "no-such/model", "-o", tmp_path)


def test_the_folder_is_uploaded(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, *args, **options: calls.append((args, options)))
    monkeypatch.setattr(
        HfApi, "upload_folder", lambda self, **options: calls.append(sorted(Path(options["folder_path"]).iterdir()))
    )
    folder = tmp_path / "converted"

    output(capsys, "convert", tiny_qwen.folder, "-o", folder, "--push-to-hub", "me/mine", "--private")

    assert calls == [(("me/mine",), {"private": True, "exist_ok": True}), sorted(folder.iterdir())]


def test_a_failed_upload_keeps_the_folder(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def refuse(self: HfApi, *args: object, **options: object) -> None:
        raise OSError("403 Forbidden: you may not write there\nrequest id: 123")

    monkeypatch.setattr(HfApi, "create_repo", refuse)

    code = main(["convert", str(tiny_qwen.folder), "-o", str(tmp_path / "converted"), "--push-to-hub", "me/mine"])

    printed = capsys.readouterr()
    assert code == 2
    assert "vllm serve" in printed.out
    assert "is written, but cannot be uploaded to 'me/mine': 403 Forbidden" in printed.err
    assert (tmp_path / "converted" / "model.safetensors").is_file()


def test_answer_tokens_keep_the_scale_of_a_known_family(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny], tmp_path: Path
):
    folder = checkpoint("zerank-2").folder

    output(capsys, "convert", folder, TOKENS, '["Yes"]', "--method", "no_post_processing", "-o", tmp_path / "one")

    assert Reranker.load(tmp_path / "one").rank(QUERY, DOCUMENTS) == Reranker.load(folder).rank(QUERY, DOCUMENTS)


def test_an_existing_folder_is_refused_with_the_flag_or_the_argument_to_overwrite_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "mine").mkdir()

    message = failure(capsys, "convert", DEMO_MODEL, "-o", tmp_path / "mine")
    assert message.endswith("mine exists; remove it, or overwrite it with --overwrite\n")
    with Reranker.load(DEMO_MODEL) as reranker, pytest.raises(InputError, match=r"overwrite it with force=True$"):
        reranker.save(tmp_path / "mine")


def test_the_verification_is_recorded_in_the_card(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path):
    arguments = ("convert", tiny_qwen.folder, "-o", tmp_path / "converted")
    printed = json.loads(output(capsys, *arguments, "--verify", "--json"))["verification"]
    assert printed["agrees"]
    assert [each["name"] for each in printed["against"]] == ["converted by onelogit", "converted by transformers"]
    assert max(each["largest_difference"] for each in printed["against"]) <= printed["tolerance"]
    assert "verification" not in json.loads(output(capsys, *arguments, "--overwrite", "--json"))
    assert "Compared with the original on 48 pairs" in output(capsys, *arguments, "--overwrite", "--verify")

    card = (tmp_path / "converted" / "README.md").read_text("utf-8")
    assert "Compared with the original on 48 pairs" in card
    assert "largest difference of a logit" in card


@pytest.mark.parametrize("further", [("--verify",), ("--max-tokens", "9"), ("--instruction", "")])
def test_options_of_a_reranker_are_refused_for_several_labels(
    further: tuple[str, ...], capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    labels = (TOKENS, '["no", "yes"]', "--method", "no_post_processing")

    printed = failure(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "labels", *labels, *further)

    assert f"{further[0]} does not apply to several labels" in printed
    assert list(tmp_path.iterdir()) == []
