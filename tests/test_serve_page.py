"""docs/serve.md and examples/serving: requests, settings, the unit and the image fit the server and the command."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from onelogit import Reranker
from onelogit.cli.main import _parse_arguments
from onelogit.serving import app
from support.served import served
from support.tiny import Tiny

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8")
UNIT = ROOT / "examples" / "serving" / "onelogit.service"
IMAGE = ROOT / "examples" / "serving" / "Dockerfile"
REQUESTS = re.findall(r"^\$ (curl .*)$", PAGE, re.MULTILINE)
MODEL = "Qwen/Qwen3-Reranker-0.6B"


@pytest.fixture(scope="module")
def url(tiny_qwen: Tiny) -> Iterator[str]:
    with Reranker.load(tiny_qwen.folder) as reranker, served(app(reranker, served_names=[MODEL])) as url:
        yield url


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("command", REQUESTS, ids=lambda command: command.split()[1].rpartition("8000")[2])
def test_each_request_of_the_page_is_answered(command: str, url: str):
    words = shlex.split(command.replace("http://127.0.0.1:8000", url))

    done = subprocess.run(
        [*words, "--silent", "--noproxy", "*"], capture_output=True, text=True, timeout=30, check=True
    )

    answer = json.loads(done.stdout)
    results = answer if isinstance(answer, list) else answer.get("results") or answer["data"]
    assert len(results) == (1 if "top_n" in command else 2)
    assert all("logit" in each for each in results)
    if "/v1/rerank" in command:  # the page prints this answer
        printed = json.loads(re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)[0])
        assert {**printed, "results": None} == {**answer, "results": None} | {
            name: printed[name] for name in ("id", "created", "usage")
        }
        assert printed["usage"].keys() == answer["usage"].keys()
        assert printed["results"][0].keys() == answer["results"][0].keys()


def test_every_form_has_a_request():
    assert len(REQUESTS) == 4


def test_the_settings_are_yaml():
    settings: dict[str, list[dict[str, Any]]] = {}
    for block in re.findall(r"```yml\n(.*?)```", PAGE, re.DOTALL):
        settings |= yaml.safe_load(block)

    (proxy,), (model,) = settings["model_list"], settings["models"]
    assert proxy["litellm_params"] == {
        "model": f"cohere/{MODEL}",
        "api_base": "http://127.0.0.1:8000",
        "api_key": "KEY",
    }
    assert (model["model"], model["apiBase"], model["roles"]) == (MODEL, "http://127.0.0.1:8000/v1/", ["rerank"])


def test_the_commands_of_the_unit_and_the_image_have_valid_arguments():
    (unit,) = re.findall(r"^ExecStart=\S+ (.*)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    image = IMAGE.read_text(encoding="utf-8")
    (entry,), (command,) = (re.findall(rf"^{name} (.*)$", image, re.MULTILINE) for name in ("ENTRYPOINT", "CMD"))

    for words in (shlex.split(unit), [*json.loads(entry)[1:], *json.loads(command)]):
        assert _parse_arguments(words).model == MODEL


def test_both_wait_for_accepted_requests():
    timeout_s = _parse_arguments(["serve", MODEL]).timeout_s

    (unit,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(encoding="utf-8"), re.MULTILINE)
    (image,) = re.findall(r"--stop-timeout (\d+)", IMAGE.read_text(encoding="utf-8"))
    assert int(unit) == int(image) > timeout_s


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path):
    unit = UNIT.read_text(encoding="utf-8").replace("/opt/onelogit/bin/onelogit", sys.executable)
    (tmp_path / UNIT.name).write_text(unit, encoding="utf-8")

    done = subprocess.run(
        ["systemd-analyze", "verify", tmp_path / UNIT.name], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")
