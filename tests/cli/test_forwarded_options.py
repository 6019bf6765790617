"""Options that are forwarded to transformers and to the hub."""

import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session
from transformers import BertConfig

from onelogit import CheckpointError, InputError, Reranker
from onelogit.checkpoints.hub import find_folder
from onelogit.cli.main import main
from support.tiny import Tiny, causal_checkpoint, native_checkpoint, pair_tokenizer

QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "서울"]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENS = ("--classifier-from-tokens", '["no", "yes"]', "--method")


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return native_checkpoint(tmp_path / "encoder", BertConfig, pair_tokenizer("[CLS]", "[SEP]", "[SEP]"), num_labels=1)


@pytest.mark.parametrize("name", ["decoder", "encoder"])
def test_the_attention_implementation_can_be_chosen(name: str, tiny_qwen: Tiny, encoder: Path):
    folder = tiny_qwen.folder if name == "decoder" else encoder
    default, eager = Reranker.load(folder), Reranker.load(folder, attn_implementation="eager")

    assert default.classifier.base_model.config._attn_implementation != "eager"
    assert eager.classifier.base_model.config._attn_implementation == "eager"
    assert eager.logits(QUERY, DOCUMENTS) == pytest.approx(default.logits(QUERY, DOCUMENTS), abs=1e-5)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"attn_implementation": "psychic"}, "psychic"),
        ({"quantization_config": {"quant_method": "magic"}}, "quantization type, got magic"),
    ],
)
def test_an_error_of_transformers_is_passed_on(options: dict, complaint: str, tiny_qwen: Tiny):
    with pytest.raises(CheckpointError, match=f"cannot be loaded: .*{complaint}"):
        Reranker.load(tiny_qwen.folder, **options)


SPREAD = {"embed_tokens": "cpu", "layers.0": "cpu", "layers.1": "disk", "norm": "cpu", "rotary_emb": "cpu"}


@pytest.mark.parametrize("options", [{}, {"document_cache_bytes": 2**20}], ids=str)
@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}, SPREAD], ids=["auto", "one device", "spread"])
def test_a_device_map_gives_the_same_logits(device_map: object, options: dict, tiny_qwen: Tiny):
    expected = Reranker.load(tiny_qwen.folder).logits(QUERY, DOCUMENTS)

    reranker = Reranker.load(tiny_qwen.folder, device_map=device_map, **options)

    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


def test_a_model_spread_over_devices_is_not_compiled(tiny_qwen: Tiny, caplog: pytest.LogCaptureFixture):
    reranker = Reranker.load(tiny_qwen.folder, device_map=SPREAD, compile=True)

    assert "Qwen3ForSequenceClassification is spread over devices, so it is not compiled" in caplog.text
    assert reranker.logits(QUERY, DOCUMENTS) == Reranker.load(tiny_qwen.folder, device_map=SPREAD).logits(
        QUERY, DOCUMENTS
    )


def test_embeddings_on_disk_are_refused(tiny_qwen: Tiny):
    with pytest.raises(InputError, match="has no device for the embeddings of"):
        Reranker.load(tiny_qwen.folder, device_map={"": "disk"})


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of which the hub's cache holds only the branch `v9`."""
    cache = tmp_path / "hub"
    repository = cache / "models--someone--Qwen3-Reranker-cached"
    causal_checkpoint(repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "v9").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    return "someone/Qwen3-Reranker-cached"


@pytest.mark.parametrize(
    "further",
    [
        ("recipes",),
        ("convert", "-o", "{out}"),
        ("convert", "-o", "{out}", "--verify"),
        ("convert", "-o", "{out}", *TOKENS, "from_2_way_softmax"),
        ("convert", "-o", "{out}", *TOKENS, "no_post_processing"),
        ("verify",),
    ],
    ids=["recipes", "convert", "convert-verify", "convert-tokens", "convert-labels", "verify"],
)
def test_every_command_uses_the_given_revision(
    further: tuple[str, ...], cached: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command, *rest = (argument.format(out=tmp_path / "out") for argument in further)

    assert main([command, cached, *rest, "--revision", "v9"]) == 0

    assert main([command, cached, *[argument.replace("out", "other") for argument in rest]]) == 2
    assert "found on the hub" in capsys.readouterr().err


def test_a_reranker_uses_the_given_revision(cached: str):
    assert Reranker.load(cached, revision="v9").logits(QUERY, DOCUMENTS)
    assert Reranker.load(cached, revision=COMMIT).recipe.family == "qwen3-reranker"
    with pytest.raises(CheckpointError, match="found on the hub"):
        Reranker.load(cached)


class Hub(BaseHTTPRequestHandler):
    """A hub with one model, which has one file."""

    def do_GET(self) -> None:
        files = [{"type": "file", "path": "config.json", "rfilename": "config.json", "size": 2, "oid": COMMIT}]
        content = files if "/tree/" in self.path else {"id": "someone/model", "sha": COMMIT, "siblings": files}
        body = json.dumps(content).encode()
        self.send_response(200)
        for header in (("Content-Length", str(len(body))), ("ETag", COMMIT), ("X-Repo-Commit", COMMIT)):
            self.send_header(*header)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *args: object) -> None:
        pass


def test_a_cache_that_cannot_be_written_is_the_reported_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").touch()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever).start()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        endpoint = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", endpoint + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file"))

        with pytest.raises(CheckpointError, match=r"cannot be fetched \(.*Error: .*file"):
            Reranker.load("someone/model")
        server.shutdown()


def test_no_progress_bar_is_shown_without_a_terminal(tiny_qwen: Tiny, tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_DISABLE_PROGRESS_BARS"}
    folder = tiny_qwen.folder
    command = [sys.executable, "-m", "onelogit", "convert", str(folder), "-o", str(tmp_path / "out")]

    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)

    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks://127.0.0.1:1"), ("all_proxy", "socks5://127.0.0.1:1"), ("SSL_CERT_FILE", "/nowhere")],
)
def test_a_proxy_or_certificate_that_fails_the_hub_is_named(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    close_session()  # the next session reads the variables

    try:
        with pytest.raises(CheckpointError, match=f"cannot be fetched .*correct or unset {variable}$"):
            find_folder("nobody/none", {"cache_dir": tmp_path}, with_weights=False)
    finally:
        close_session()
