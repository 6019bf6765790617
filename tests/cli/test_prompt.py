"""`onelogit prompt`: the exact prompt, its answers, and with --weights the likeliest next tokens."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import GemmaConfig

from onelogit import DEMO_MODEL, Reranker
from onelogit.recipes.templates import QWEN3_INSTRUCTION
from support.commands import failure, output
from support.hostile import CONTROLS, MARKUP
from support.terminal import in_terminal
from support.tiny import Tiny

TEXTS = ("--query", "Which fruit is yellow?", "--document", "Bananas are yellow.")
TOKENS = ("--classifier-from-tokens", '["no", "yes"]', "--method", "from_2_way_softmax")

ONE_TOKEN = ("--classifier-from-tokens", '["yes"]', "--method", "no_post_processing")


@pytest.fixture
def own(checkpoint: Callable[..., Tiny], tmp_path: Path, template: str) -> tuple[object, ...]:
    """A model of no known family, with its recipe."""
    (tmp_path / "own.jinja").write_text(template.removesuffix("\n\n") + "{{ '\\n' }}")
    return (checkpoint("model").folder, "--chat-template", tmp_path / "own.jinja", *TOKENS)


def test_the_prompt_is_printed_with_visible_newlines_at_its_end(capsys: pytest.CaptureFixture[str]):
    printed = output(capsys, "prompt", DEMO_MODEL, *TEXTS)

    assert f"<Instruct>: {QWEN3_INSTRUCTION}\n<Query>: Which fruit is yellow?\n<Document>: Bananas" in printed
    assert "<think>\n\n</think>↵\n↵\n" in printed
    assert r"<think>\n\n</think>\n\n'" in printed
    assert "'yes' (token 480) − 'no' (token 424)" in printed
    assert "of at most 4,096" in printed
    assert "--weights shows the likeliest" in printed


@pytest.mark.parametrize("end", ["", " ", "\n\n\n", " Answer:", "\t"])
def test_any_end_of_a_prompt_is_visible(
    end: str, capsys: pytest.CaptureFixture[str], own: tuple[object, ...], tmp_path: Path
):
    (tmp_path / "own.jinja").write_text(
        f"{{{{ messages[-2].content }}}}: {{{{ messages[-1].content }}}}{{{{ {end!r} }}}}"
    )

    printed = output(capsys, "prompt", *own, "--query", "a", "--document", "b")

    marked = end.replace("\n", "↵\n").removesuffix("\n").replace("\t", r"\t")
    assert printed.startswith(f"a: b{marked}\n")
    assert repr(f"a: b{end}") in printed


def test_json_has_all_of_it(capsys: pytest.CaptureFixture[str]):
    shown = json.loads(output(capsys, "prompt", DEMO_MODEL, *TEXTS, "--instruction", "Find it.", "--json"))

    with Reranker.load(DEMO_MODEL) as reranker:
        prompt = reranker.prompt(TEXTS[1], TEXTS[3], "Find it.")
        assert shown["max_tokens"] == reranker.max_tokens
    assert shown["text"] == prompt.text
    assert shown["ids"] == [*prompt.ids]
    assert {"kind": "instruction", "text": "Find it."} in shown["parts"]
    assert [answer["text"] for answer in shown["answers"]] == ["yes", "no"]
    assert shown["family"] == "qwen3-reranker"
    assert "next_tokens" not in shown


def test_weights_show_the_next_tokens_and_doubt(capsys: pytest.CaptureFixture[str], own: tuple[object, ...]):
    printed = output(capsys, "prompt", *own, "--weights")
    shown = json.loads(output(capsys, "prompt", *own, "--weights", "--json"))

    assert "Likeliest next tokens" in printed
    assert "This is probably not the prompt that the model was trained on." in printed
    assert len(shown["next_tokens"]) == 10
    assert shown["is_prompt_doubtful"]
    assert shown["answer_share"] < 0.1
    assert f"{shown['next_tokens'][0]['probability']:.4f}" in printed


@pytest.mark.parametrize(
    ("tokens", "doubt"),
    [
        (
            ("--classifier-from-tokens", '["yes"]', "--method", "no_post_processing"),
            ", unless the document is irrelevant.",
        ),
        (TOKENS, "."),
    ],
    ids=["one answer", "two answers"],
)
def test_a_single_answer_may_be_unlikely_because_of_the_document(
    tokens: tuple[str, ...], doubt: str, capsys: pytest.CaptureFixture[str], own: tuple[object, ...]
):
    printed = output(capsys, "prompt", *own[:3], *tokens, "--weights")

    assert f"This is probably not the prompt that the model was trained on{doubt}" in printed


def test_a_familys_own_single_answer_is_not_doubted(
    capsys: pytest.CaptureFixture[str], checkpoint: Callable[..., Tiny], caplog: pytest.LogCaptureFixture
):
    card = "---\nbase_model: BAAI/bge-reranker-v2-gemma\n---\n"
    folder = checkpoint("tuned", GemmaConfig, files={"README.md": card}).folder

    printed = output(capsys, "prompt", folder, "--weights")

    assert "The answer 'Yes' has a share of" in printed
    assert "probably not" not in printed + caplog.text


def test_verify_gives_the_same_warning(
    capsys: pytest.CaptureFixture[str], own: tuple[object, ...], tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    (tmp_path / "pairs.jsonl").write_text('{"query": "which?", "document": "this"}\n')

    output(capsys, "verify", *own, "--pairs", tmp_path / "pairs.jsonl")

    warnings = [each for each in caplog.messages if "probably not the one that the model was trained on" in each]
    assert len(warnings) == 1


def test_without_weights_none_are_needed_and_no_torch_is_imported(own: tuple[object, ...]):
    next(Path(str(own[0])).glob("*.safetensors")).unlink()
    arguments = ["prompt", *map(str, own)]
    program = f"import sys; from onelogit.cli.main import main; main({arguments!r}); sys.exit('torch' in sys.modules)"

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)

    assert ran.returncode == 0, ran.stderr
    assert "<|im_start|>assistant↵" in ran.stdout


def test_it_shows_where_the_document_is_cut(capsys: pytest.CaptureFixture[str], own: tuple[object, ...]):
    document = "The capital of China is Beijing. " * 9
    arguments = ("prompt", *own, "--max-tokens", "80", "--document", document)

    printed, shown = output(capsys, *arguments), json.loads(output(capsys, *arguments, "--json"))

    assert f"[cut here: {len(shown['unread'])} more characters]<|im_end|>" in printed
    assert f"cut after {len(document) - len(shown['unread'])} of {len(document)} characters" in printed
    assert shown["token_count"] == 80
    assert shown["is_cut"]


def test_hostile_texts_do_not_control_the_terminal(capsys: pytest.CaptureFixture[str], own: tuple[object, ...]):
    hostile = f"{CONTROLS}{MARKUP}\x1b[31m\r\t\u2028"

    printed = output(capsys, "prompt", *own, "--query", hostile, "--document", hostile)

    assert printed.isprintable() or {each for each in printed if not each.isprintable()} == {"\n"}
    assert printed.count(r"a\u202eb\x07c\x9bd" + MARKUP) == 2
    assert r"\x1b[31m\r\t\u2028" in printed


def test_a_terminal_has_colours_unless_they_are_not_wanted(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    arguments = ["-m", "onelogit", "prompt", DEMO_MODEL, *TEXTS]

    coloured = in_terminal(arguments).screen
    monkeypatch.setenv("NO_COLOR", "1")
    plain = in_terminal(arguments).screen

    assert "\x1b[1;35m<|im_start|>" in coloured
    assert "\x1b[1;35m" not in plain
    assert "<|im_start|>system" in plain


def test_an_ascii_terminal_shows_newlines_too():
    arguments = [sys.executable, "-m", "onelogit", "prompt", DEMO_MODEL]

    ran = subprocess.run(
        arguments, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True, check=True
    )

    assert "</think>\\n\n\\n\n" in ran.stdout


def test_a_model_with_its_own_head_has_no_next_token(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_qwen: Tiny
):
    with Reranker.load(tiny_qwen.folder) as reranker:
        reranker.save(tmp_path / "converted")

    for further in ((), ("--weights",)):
        printed = output(capsys, "prompt", tmp_path / "converted", *further)
        assert "none, because the model has a head of its own" in printed
        assert "the model's own head" in printed
        assert "next_tokens" not in json.loads(output(capsys, "prompt", tmp_path / "converted", "--json", *further))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--query", " "), "the query is empty (' ')"),
        (("--max-tokens", "3"), "leaves no room for a document"),
        (("extra",), "unknown arguments: extra"),
        (("--recipe", "qwen"), "no family is called 'qwen'"),
    ],
)
def test_wrong_arguments_are_clear(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]):
    assert message in failure(capsys, "prompt", DEMO_MODEL, *arguments)


def test_a_server_is_refused(capsys: pytest.CaptureFixture[str]):
    assert "name the model that it serves" in failure(capsys, "prompt", "http://127.0.0.1:1")
