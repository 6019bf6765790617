"""The command `onelogit`: what it prints, what it writes, and how it fails."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from safetensors.torch import load_file
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification

from onelogit import DEMO_MODEL, Reranker, __version__
from onelogit.cli.main import _parser, main
from onelogit.options import DEMO_NOTE
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "yes"]
TOKENS = "--classifier_from_tokens"


def output(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main([str(argument) for argument in arguments]) == 0
    return capsys.readouterr().out


def failure(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line of an error."""
    assert main([str(argument) for argument in arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_the_command_helps(capsys: pytest.CaptureFixture[str]):
    for command in ((), ("recipes",), ("convert",), ("verify",), ("evaluate",), ("bulk",), ("rank",), ("bench",)):
        with pytest.raises(SystemExit) as exit:
            main([*command, "--help"])
        assert exit.value.code == 0
        assert "onelogit" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "the following arguments are required: COMMAND; see onelogit --help"),
        (("rang",), "invalid choice: 'rang'"),
        (("rank", QUERY, "a", "--topn", "2"), "unknown arguments: --topn 2; see onelogit rank --help"),
        (("rank", QUERY, "a", "--top", "2"), "unknown arguments: --top 2; see onelogit rank --help"),
        (("recipes", "a", "b"), "unknown arguments: b; see onelogit recipes --help"),
        (("bench",), "the following arguments are required: model; see onelogit bench --help"),
        (("bench", "m", "--seconds", "x"), "argument --seconds: invalid float value: 'x'; see onelogit bench --help"),
    ],
)
def test_arguments_that_are_none_are_one_line_that_says_where_to_look(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
):
    assert said in failure(capsys, *arguments)


MEANINGS = {
    "--json": argparse._StoreTrueAction,
    "--overwrite": argparse._StoreTrueAction,
    "--template": ("client", "server"),
    "--url": None,
    "--plot": Path,
    "--chat-template": Path,
}


def test_an_option_means_the_same_in_every_command():
    (commands,) = (action for action in _parser()._actions if isinstance(action, argparse._SubParsersAction))
    named: dict[str, set[object]] = {}
    for command in commands.choices.values():
        for action in command._actions:
            for name in MEANINGS.keys() & {*action.option_strings}:
                is_flag = isinstance(action, argparse._StoreTrueAction)
                named.setdefault(name, set()).add(type(action) if is_flag else action.choices or action.type)

    assert named == {name: {meaning} for name, meaning in MEANINGS.items()}


def test_it_runs_as_a_module_without_loading_torch_for_a_table():
    program = "import sys; from onelogit.cli.main import main; main(['recipes']); sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0
    ran = subprocess.run([sys.executable, "-m", "onelogit", "recipes"], capture_output=True, text=True, check=True)
    assert "zerank-2" in ran.stdout


def test_recipes_lists_families_as_a_table_and_as_json(capsys: pytest.CaptureFixture[str]):
    assert "ctxl-rerank-v2" in output(capsys, "recipes")
    listed = json.loads(output(capsys, "recipes", "--json"))

    assert "Qwen/Qwen3-Reranker-8B" in next(each for each in listed if each["family"] == "qwen3-reranker")["models"]


def test_recipes_says_what_would_be_used_for_a_model_and_why(capsys: pytest.CaptureFixture[str]):
    told = json.loads(output(capsys, "recipes", DEMO_MODEL, "--json"))

    assert told["because"].startswith("modules.json: Transformer -> LogitScore")
    assert told["chat_template"] == QWEN3_TEMPLATE
    assert "modules.json" in output(capsys, "recipes", DEMO_MODEL)


def test_recipes_of_a_model_that_is_not_known_is_an_error(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny]
):
    assert "Pass recipe=" in failure(capsys, "recipes", checkpoint("chat").folder)


def test_convert_writes_a_folder_and_says_how_to_serve_it(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    folder = tmp_path / "converted"

    said = output(capsys, "convert", tiny_qwen.folder, "--output", folder)

    assert f'CrossEncoder("{folder}")' in said
    assert f"vllm serve {folder} --runner pooling" in said
    assert Reranker.load(folder).logits(QUERY, DOCUMENTS) == pytest.approx(
        Reranker.load(tiny_qwen.folder).logits(QUERY, DOCUMENTS), abs=1e-5
    )


def test_convert_takes_the_arguments_of_vllms_script(
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


def test_convert_of_several_tokens_makes_as_many_labels_and_says_so(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    folder = tmp_path / "labels"

    said = output(
        capsys, "convert", tiny_qwen.folder, TOKENS, '["no", "yes", "Yes", 7]', "--method", "no_post_processing",
        "-o", folder,
    )  # fmt: skip

    model = AutoModelForSequenceClassification.from_pretrained(folder)
    ids = tiny_qwen.tokenizer(QUERY, return_tensors="pt")["input_ids"]
    with torch.inference_mode():
        logits = model(input_ids=ids).logits[0]
        expected = tiny_qwen.model(input_ids=ids).logits[0, -1]
    rows = [*(tiny_qwen.tokenizer.encode(word)[0] for word in ("no", "yes", "Yes")), 7]
    assert "4 labels" in said
    assert model.config.id2label == {0: "no", 1: "yes", 2: "Yes", 3: "7"}
    assert logits.tolist() == pytest.approx(expected[rows].tolist(), abs=1e-5)
    assert len(CrossEncoder(str(folder), device="cpu").predict([(QUERY, "a document")])[0]) == 4


def test_the_card_of_several_labels_claims_no_reranker(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    folder = tmp_path / "labels"

    said = output(
        capsys, "convert", tiny_qwen.folder, TOKENS, '["no", "yes"]', "--method", "no_post_processing", "-o", folder,
    )  # fmt: skip

    card = (folder / "README.md").read_text("utf-8")
    assert "It is no reranker" in " ".join(card.split())
    assert "/rerank" not in card
    assert "chat_template" not in said


def test_convert_prints_json(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path):
    told = json.loads(output(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "converted", "--json"))

    assert told["labels"] == 1
    assert set(told) == {"folder", "labels", "transformers", "sentence_transformers", "vllm"}


def test_the_printed_python_runs(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path):
    told = json.loads(output(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "converted", "--json"))
    names: dict = {"query": QUERY, "document": DOCUMENTS[0], "documents": DOCUMENTS}

    exec(told["transformers"], names)
    exec(told["sentence_transformers"], names)

    reranker = Reranker.load(tiny_qwen.folder)
    assert float(names["logit"].detach()) == pytest.approx(reranker.logits(QUERY, DOCUMENTS)[0], abs=1e-4)
    by_index = [ranked.score for ranked in sorted(reranker.rank(QUERY, DOCUMENTS))]
    assert names["scores"].tolist() == pytest.approx(by_index, abs=1e-4)


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
def test_convert_refuses_what_it_cannot_do_and_writes_nothing(
    arguments: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    said = failure(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "converted", *arguments)

    assert complaint in said
    assert list(tmp_path.iterdir()) == []


def test_convert_needs_a_model(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "name one model" in failure(capsys, "convert", "-o", tmp_path / "converted")
    said = failure(capsys, "convert", "one", "--model-name", "other", "-o", tmp_path / "converted")
    assert "name one model" in said


def test_convert_refuses_a_folder_that_is_there_before_it_loads(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    assert "--overwrite" in failure(capsys, "convert", "no-such/model", "-o", tmp_path)


def test_convert_uploads_the_folder(
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


def test_an_upload_that_fails_keeps_the_folder(
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


def test_verify_agrees_about_an_honest_conversion(capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path):
    Reranker.load(tiny_qwen.folder).save(tmp_path / "converted")
    plot = tmp_path / "parity.png"
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"query": QUERY, "document": text}) + "\n" for text in DOCUMENTS))

    arguments = ("verify", tiny_qwen.folder, "--pairs", pairs, "--against", tmp_path / "converted")
    told = json.loads(output(capsys, *arguments, "--plot", plot, "--json"))

    assert told["agrees"] is True
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "agrees" in output(capsys, *arguments)


def test_verify_says_that_figures_of_the_demo_model_mean_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": QUERY, "document": DOCUMENTS[0]}) + "\n")

    assert main(["verify", DEMO_MODEL, "--pairs", str(pairs)]) == 0

    assert capsys.readouterr().err == f"onelogit: {DEMO_NOTE}\n"


def test_verify_exits_with_1_where_they_disagree(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny], tmp_path: Path
):
    tiny, other = checkpoint("Qwen3-Reranker-one"), checkpoint("Qwen3-Reranker-other", is_tied=False)
    Reranker.load(other.folder).save(tmp_path / "converted")
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(json.dumps({"query": QUERY, "document": DOCUMENTS[0]}) + "\n")

    code = main(["verify", str(tiny.folder), "--pairs", str(pairs), "--against", str(tmp_path / "converted")])

    assert code == 1
    assert "differs" in capsys.readouterr().out


@pytest.mark.parametrize("plot", ["parity.txt", "nowhere/parity.png"])
def test_verify_refuses_a_picture_it_cannot_write_before_it_loads(
    plot: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert "--plot" in failure(capsys, "verify", "no-such/model", "--plot", tmp_path / plot)


def test_a_terminal_without_unicode_and_a_pipe_that_closes_are_no_errors():
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    command = [sys.executable, "-m", "onelogit", "recipes"]
    assert b"zerank-2" in subprocess.run(command, env=ascii_only, capture_output=True, check=True).stdout

    with subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_the_version_is_told(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["--version"])
    assert capsys.readouterr().out == f"onelogit {__version__}\n"


def test_answer_tokens_keep_the_scale_of_a_known_family(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny], tmp_path: Path
):
    folder = checkpoint("zerank-2").folder

    output(capsys, "convert", folder, TOKENS, '["Yes"]', "--method", "no_post_processing", "-o", tmp_path / "one")

    assert Reranker.load(tmp_path / "one").rank(QUERY, DOCUMENTS) == Reranker.load(folder).rank(QUERY, DOCUMENTS)


def test_convert_may_verify_and_notes_the_figures_in_the_card(
    capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    output(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "converted", "--verify")

    card = (tmp_path / "converted" / "README.md").read_text("utf-8")
    assert "Compared with the original on 48 pairs" in card
    assert "largest difference of a logit" in card


@pytest.mark.parametrize("further", [("--verify",), ("--max-tokens", "9"), ("--instruction", "")])
def test_options_of_a_reranker_are_refused_for_several_labels(
    further: tuple[str, ...], capsys: pytest.CaptureFixture[str], tiny_qwen: Tiny, tmp_path: Path
):
    labels = (TOKENS, '["no", "yes"]', "--method", "no_post_processing")

    said = failure(capsys, "convert", tiny_qwen.folder, "-o", tmp_path / "labels", *labels, *further)

    assert f"{further[0]} has no meaning for several labels" in said
    assert list(tmp_path.iterdir()) == []
