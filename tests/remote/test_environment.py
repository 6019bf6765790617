"""Environment variables that name unusable proxies or certificates: one error each, before any retry."""

import ssl
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pytest

from onelogit import InputError, RemoteReranker, ServerError
from onelogit.remote import client as client_module
from onelogit.remote import environment
from onelogit.remote.http_errors import unreachable_error
from support.servers import NOT_FOUND, Response, serving

SERVER_PROMPTS: dict[str, Any] = {"protocol": "rerank", "template": "server", "served_name": "m"}
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_FIRST_WAIT_S", 5.0)  # a retry would be noticed
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def rerank(url: str, **options: Any) -> list[float]:
    with RemoteReranker(url, **SERVER_PROMPTS, timeout_s=4, **options) as reranker:
        return reranker.logits("a query", ["a document"])


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("ALL_PROXY", "socks://127.0.0.1:1", "Unknown scheme"),
        ("all_proxy", "socks4://127.0.0.1:1", "Unknown scheme"),
        ("ALL_PROXY", "socks5://127.0.0.1:1", "needs socksio: pip install 'httpx2.socks.'"),
        ("HTTP_PROXY", "socks5h://127.0.0.1:1", "needs socksio"),
        ("HTTPS_PROXY", "garbage://x", "Unknown scheme"),
        ("HTTPS_PROXY", "http://host:port", "Invalid port|Port could not"),
        ("HTTPS_PROXY", "::::", "not the name of a host|Invalid port"),
        ("https_proxy", "http://[bad", "Invalid IPv6 URL"),
        ("HTTP_PROXY", "http://two words:80", "not the name of a host"),
        ("HTTPS_PROXY", "http://", "not the name of a host"),
        ("HTTPS_PROXY", "http://no-such-host.invalid:3128", "whose host is not found"),
        ("https_proxy", "garbage.invalid", "whose host is not found"),
    ],
)
def test_an_unusable_proxy_is_an_error_with_the_variables_name(
    variable: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(variable, value)

    with pytest.raises(InputError, match=f"the environment variable {variable} .*({reason})"):
        rerank("https://127.0.0.1:9")


def test_a_proxys_password_is_not_shown(monkeypatch: pytest.MonkeyPatch):
    for value in ("socks://me:secret@host:1", "http://me:secret@no-such-host.invalid", "me:secret@host:port"):
        monkeypatch.setenv("HTTPS_PROXY", value)
        with pytest.raises(InputError, match="HTTPS_PROXY") as raised:
            rerank("https://127.0.0.1:9")
        assert "secret" not in str(raised.value)


def test_a_proxy_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HTTP_PROXY", "127.0.0.1:9")

    with pytest.raises(ServerError, match="does not answer through the proxy that HTTP_PROXY names"):
        rerank("http://example.invalid", attempts=1)


@pytest.mark.parametrize(
    "variables",
    [
        {"HTTPS_PROXY": "http://no-such-host.invalid"},
        {"HTTP_PROXY": "http://no-such-host.invalid", "NO_PROXY": "127.0.0.1"},
        {"ALL_PROXY": "socks://no", "NO_PROXY": "*"},
        {"SSL_CERT_FILE": ""},
    ],
    ids=" ".join,
)
def test_a_proxy_that_is_not_used_does_no_harm(variables: dict[str, str], monkeypatch: pytest.MonkeyPatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)

    results = {"results": [{"index": 0, "relevance_score": 2.0}]}
    with serving(lambda path, body: NOT_FOUND if body is None else Response(content=results)) as server:
        assert rerank(server.url) == [2.0]


def test_a_proxy_is_used(monkeypatch: pytest.MonkeyPatch):
    results = {"results": [{"index": 0, "relevance_score": 2.0}]}
    with serving(lambda path, body: Response(content=results)) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert rerank("http://behind.invalid") == [2.0]

    assert proxy.requests.paths == ["http://behind.invalid/v1/rerank"]


@pytest.mark.parametrize("library", [httpx, httpx2])
@pytest.mark.parametrize("content", [None, b"", b"not PEM", b"\xff\x00" * 99, "folder"])
def test_unusable_certificates_are_an_error_with_the_variables_name(
    content: object, library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    file = tmp_path / "certificates.pem"
    if isinstance(content, bytes):
        file.write_bytes(content)
    elif content is not None:
        file.mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(file))
    monkeypatch.setattr("onelogit.remote.event_loop._installed_library", lambda: library)

    for url in ("https://127.0.0.1:9", "http://127.0.0.1:9"):
        with pytest.raises(
            InputError, match="the environment variable SSL_CERT_FILE must name readable .*PEM"
        ) as raised:
            rerank(url)
        assert str(file) in str(raised.value)


def test_a_folder_of_certificates_must_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    with pytest.raises(InputError, match="SSL_CERT_DIR must name .*none' gives: there is no such folder"):
        environment.new_http_client(httpx2)
    monkeypatch.setenv("SSL_CERT_DIR", f"{tmp_path / 'none'}:{tmp_path}")
    assert environment.new_http_client(httpx2) is not None


def test_certificates_are_read_again_if_the_variable_changes(monkeypatch: pytest.MonkeyPatch):
    assert environment.new_http_client(httpx2) is not None
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere")
    with pytest.raises(InputError, match="SSL_CERT_FILE"):
        environment.new_http_client(httpx2)
    monkeypatch.setenv("SSL_CERT_FILE", ssl.get_default_verify_paths().cafile or "")
    assert environment.new_http_client(httpx2) is not None


def test_an_untrusted_certificate_is_not_retried():
    error = unreachable_error("https://a", "[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate", "")

    assert type(error) is ServerError
    assert "set the environment variable SSL_CERT_FILE" in str(error)
