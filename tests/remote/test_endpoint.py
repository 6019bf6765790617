"""Which urls, API keys and headers are accepted; and that no error, log message or repr shows a secret."""

import logging
import re
import traceback
from typing import Any

import pytest

from onelogit import DEMO_MODEL, InputError, OnelogitError, RemoteReranker, ServerError
from support.servers import Response, serving

QUERY = "What is the capital of China?"
SECRET = "sk-a-secret-that-nobody-may-read"


def everything_shown(error: BaseException) -> str:
    """The text that a log of the error contains, including causes and contexts."""
    contexts = "".join(map(repr, [error, error.__cause__, error.__context__]))
    return "".join(traceback.format_exception(error)) + contexts + repr(error.args)


@pytest.mark.parametrize(
    "url",
    [
        None,
        5,
        "127.0.0.1:8000",
        "ftp://a/",
        "http://",
        "http://a b",
        "http://127.0.0.1:8000\n",
        "http://[::1",
        "http://a:port",
        "http://a:99999",
        "http://a:0",
        f"ftp://me:{SECRET}@a",
        f"http://me:{SECRET}@a:port",
        f"http://me:{SECRET}@",
        f"http:/me:{SECRET}@a",
        f"me:{SECRET}@a:8000",
        f"http://a:port/?key={SECRET}",
        f"http://a b/#{SECRET}",
        f"http://me:#{SECRET}\n@a b",
    ],
)
def test_an_invalid_url_is_refused_and_its_secrets_are_not_shown(url: Any):
    with pytest.raises(InputError, match="must be an http or https url") as refused:
        RemoteReranker(url, DEMO_MODEL)

    assert SECRET not in everything_shown(refused.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (f"http://me:{SECRET}@a/", "contains a user name or password"),
        (f"http://{SECRET}@a/", "contains a user name or password"),
        (f"http://a/?key={SECRET}", "must be the server's root"),
        (f"http://a/#{SECRET}", "must be the server's root"),
    ],
)
def test_a_url_with_a_password_query_or_fragment_is_refused_and_not_shown(url: str, message: str):
    with pytest.raises(InputError, match=message) as refused:
        RemoteReranker(url, DEMO_MODEL)

    assert SECRET not in everything_shown(refused.value)


@pytest.mark.parametrize("url", ["http://ü..", "http://a..b"])
def test_a_host_name_that_no_http_library_accepts_is_one_clear_error(url: str):
    with RemoteReranker(url, DEMO_MODEL, attempts=1) as remote, pytest.raises(ServerError, match=re.escape(url)):
        remote.logits(QUERY, ["a"])


@pytest.mark.parametrize("key", [f"{SECRET}\n", f" {SECRET}", f"{SECRET}\x00", f"{SECRET}ü", SECRET.encode(), 5])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="remove the line break at its end") as refused:
        RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, api_key=key)

    assert SECRET not in everything_shown(refused.value)


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ([("A", SECRET)], "headers must be a dictionary of names and values, not a list"),
        ({"A:": SECRET}, "'A:' is not a valid header name"),
        ({1: SECRET}, "1 is not a valid header name"),
        ({"A": SECRET + "\r\nB: c"}, "the header A must be a string of printable ASCII"),
        ({"A": f" {SECRET}"}, "the header A must be"),
        ({"A": SECRET.encode()}, "the header A must be"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(headers: Any, message: str):
    with pytest.raises(InputError, match=message) as refused:
        RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, headers=headers)

    assert SECRET not in everything_shown(refused.value)


def classified(body: Any) -> Response:
    return Response(content={"data": [{"index": i, "probs": [1.0]} for i, _ in enumerate(body["input"])]})


def test_headers_are_sent_and_the_key_replaces_an_authorization_header():
    headers = {"authorization": "Basic eA==", "X-Route": "gpu 1", "X-Nothing": ""}
    with serving(lambda path, body: classified(body) if body else Response(code=404)) as server:
        with RemoteReranker(server.url, DEMO_MODEL, headers=headers, api_key=SECRET) as remote:
            remote.logits(QUERY, ["a"])

    sent = {name.lower(): value for name, value in server.requests.headers[0].items()}
    assert sent["authorization"] == f"Bearer {SECRET}"
    assert (sent["x-route"], sent["x-nothing"]) == ("gpu 1", "")


@pytest.mark.parametrize(
    "credentials",
    [{"api_key": SECRET}, {"headers": {"X-Api-Key": SECRET}}, {"headers": {"Authorization": f"Basic {SECRET}"}}],
    ids=["key", "header", "authorization"],
)
@pytest.mark.parametrize(
    "response",
    [
        Response(code=401, content={"error": f"no such key: {SECRET}"}),
        Response(code=400, content={"detail": [{"headers": f"Bearer {SECRET}"}]}),
        Response(code=503, content=SECRET),
        Response(code=302, raw=SECRET.encode(), headers={"Location": f"http://127.0.0.1:1/{SECRET}"}),
        Response(raw=f"<html>{SECRET}".encode()),
        Response(is_reset=True),
        Response(raw=SECRET.encode(), headers={"Content-Encoding": "gzip"}),
        Response(content={"data": []}),
        Response(content={"data": [{"index": 0, "probs": [SECRET]}]}),
        Response(content={"data": [{"index": 0, "probs": [[SECRET]]}]}),
        Response(content={"data": [{"index": SECRET, "probs": [1.0]}]}),
    ],
    ids=lambda response: f"{response.code}-{str(response.headers or response.raw)[2:5]}",
)
def test_no_error_shows_a_secret_whatever_the_server_returns(credentials: dict[str, Any], response: Response):
    with serving(lambda path, body: response) as server:
        with RemoteReranker(server.url, DEMO_MODEL, attempts=1, served_name="m", **credentials) as remote:
            with pytest.raises(OnelogitError) as raised:
                remote.logits(QUERY, ["a"])

    assert SECRET not in everything_shown(raised.value)
    assert SECRET not in repr(remote) + str(remote.options)


def test_an_error_that_lists_a_servers_models_shows_no_secret():
    listed = Response(content={"data": [{"id": SECRET}, {"id": "another"}]})
    with serving(lambda path, body: listed) as server:
        with RemoteReranker(server.url, DEMO_MODEL, attempts=1, api_key=SECRET) as remote:
            with pytest.raises(OnelogitError, match="another as served_name") as raised:
                remote.logits(QUERY, ["a"])

    assert SECRET not in everything_shown(raised.value)


def test_a_servers_message_is_shortened_to_one_printable_line():
    message = "no\r\n\x1b[31m" + "x" * 9999
    with serving(lambda path, body: Response(code=400, content={"error": message})) as server:
        with (
            RemoteReranker(server.url, DEMO_MODEL) as remote,
            pytest.raises(ServerError, match="answered 400") as raised,
        ):
            remote.logits(QUERY, ["a"])

    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


def test_a_header_without_a_secret_stays_in_the_options():
    headers = {"X-Route": "gpu", "X-Api-Key": SECRET, "Cookie": SECRET}
    with RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, headers=headers) as remote:
        assert remote.options["headers"] == {"X-Route": "gpu"}


def test_a_reranker_on_a_server_describes_itself_without_its_key():
    with RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, api_key=SECRET, headers={"X-Api-Key": SECRET}) as remote:
        assert repr(remote) == (
            f"RemoteReranker(url='http://127.0.0.1:9', model={DEMO_MODEL!r}, protocol='vllm-tokens', "
            f"max_tokens={remote._scorer.max_tokens}, licence='cc-by-sa-4.0')"
        )
    options = {"protocol": "rerank", "template": "server", "api_key": SECRET}
    with RemoteReranker("https://api.example", **options) as remote:
        assert repr(remote) == "RemoteReranker(url='https://api.example', protocol='rerank')"
    assert repr(remote).endswith("is_closed=True)")


def test_the_key_appears_only_in_the_request_header(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    unauthorized = Response(code=401, content={"error": f"no such key: {SECRET}"})

    with serving(lambda path, body: unauthorized) as server:
        with RemoteReranker(server.url, DEMO_MODEL, api_key=SECRET) as remote:
            with pytest.raises(ServerError, match=r"401: no such key: \*\*\* .*API key") as raised:
                remote.logits(QUERY, ["a"])

    assert server.requests.headers[0]["Authorization"] == f"Bearer {SECRET}"
    shown = [repr(remote), str(raised.value), caplog.text, str(remote.options), repr(raised.value.__cause__)]
    assert not any(SECRET in each for each in shown)


def test_the_key_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ONELOGIT_API_KEY", SECRET)
    with serving(lambda path, body: classified(body) if body else Response(code=404)) as server:
        with RemoteReranker(server.url, DEMO_MODEL) as remote:
            remote.logits(QUERY, ["a"])

    assert server.requests.headers[0]["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("url", "is_warned"),
    [
        ("http://example.org", True),
        ("http://127.example.org", True),
        ("http://localhost.example.org", True),
        ("https://example.org", False),
        ("http://127.0.0.1:1", False),
        ("http://127.0.0.2:1", False),
        ("http://[::1]:1", False),
        ("http://localhost:1", False),
    ],
)
def test_a_key_over_plain_http_to_another_machine_gives_a_warning(
    url: str, is_warned: bool, caplog: pytest.LogCaptureFixture
):
    RemoteReranker(url, DEMO_MODEL, api_key=SECRET).close()

    assert ("plain HTTP" in caplog.text) is is_warned
