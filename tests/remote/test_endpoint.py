"""What can be an address, a key or a header of a server; and that no secret of these is ever shown."""

import re
import traceback
from typing import Any

import pytest

from onelogit import DEMO_MODEL, InputError, OnelogitError, RemoteReranker, ServerError
from support.servers import Response, serving

QUERY = "What is the capital of China?"
SECRET = "sk-a-secret-that-nobody-may-read"


def everything_shown(error: BaseException) -> str:
    """What a log of the error holds, causes and contexts included."""
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
def test_what_is_no_address_is_refused(url: Any):
    with pytest.raises(InputError, match="must be an http or https address") as refused:
        RemoteReranker(url, DEMO_MODEL)

    assert SECRET not in everything_shown(refused.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"http://me:{SECRET}@a/", "holds a password"),
        (f"http://{SECRET}@a/", "holds a password"),
        (f"http://a/?key={SECRET}", "must be the server's root"),
        (f"http://a/#{SECRET}", "must be the server's root"),
    ],
)
def test_an_address_with_more_than_the_root_is_refused_and_not_shown(url: str, said: str):
    with pytest.raises(InputError, match=said) as refused:
        RemoteReranker(url, DEMO_MODEL)

    assert SECRET not in everything_shown(refused.value)


@pytest.mark.parametrize("url", ["http://ü..", "http://a..b"])
def test_a_host_that_no_library_takes_is_one_clear_error(url: str):
    with RemoteReranker(url, DEMO_MODEL, attempts=1) as remote, pytest.raises(ServerError, match=re.escape(url)):
        remote.logits(QUERY, ["a"])


@pytest.mark.parametrize("key", [f"{SECRET}\n", f" {SECRET}", f"{SECRET}\x00", f"{SECRET}ü", SECRET.encode(), 5])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key: Any, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(InputError, match="a key that was read from a file may end with one") as refused:
        RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, api_key=key)

    assert SECRET not in everything_shown(refused.value)


@pytest.mark.parametrize(
    ("headers", "said"),
    [
        ([("A", SECRET)], "headers must be a dictionary of strings, not a list"),
        ({"A:": SECRET}, "'A:' is no name of a header"),
        ({1: SECRET}, "1 is no name of a header"),
        ({"A": SECRET + "\r\nB: c"}, "the header A must be a string of printable ASCII"),
        ({"A": f" {SECRET}"}, "the header A must be"),
        ({"A": SECRET.encode()}, "the header A must be"),
    ],
)
def test_a_header_that_cannot_be_sent_is_refused_and_not_shown(headers: Any, said: str):
    with pytest.raises(InputError, match=said) as refused:
        RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, headers=headers)

    assert SECRET not in everything_shown(refused.value)


def classified(body: Any) -> Response:
    return Response(content={"data": [{"index": i, "probs": [1.0]} for i, _ in enumerate(body["input"])]})


def test_headers_are_sent_and_the_key_counts_more_than_one_of_them():
    headers = {"authorization": "Basic eA==", "X-Route": "gpu 1", "X-Nothing": ""}
    with serving(lambda path, body: classified(body) if body else Response(code=404)) as server:
        with RemoteReranker(server.url, DEMO_MODEL, headers=headers, api_key=SECRET) as remote:
            remote.logits(QUERY, ["a"])

    heard = {name.lower(): value for name, value in server.requests.headers[0].items()}
    assert heard["authorization"] == f"Bearer {SECRET}"
    assert (heard["x-route"], heard["x-nothing"]) == ("gpu 1", "")


@pytest.mark.parametrize(
    "let_in",
    [{"api_key": SECRET}, {"headers": {"X-Api-Key": SECRET}}, {"headers": {"Authorization": f"Basic {SECRET}"}}],
    ids=["key", "header", "authorization"],
)
@pytest.mark.parametrize(
    "answer",
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
    ids=lambda answer: f"{answer.code}-{str(answer.headers or answer.raw)[2:5]}",
)
def test_no_error_shows_a_secret_whatever_the_server_says(let_in: dict[str, Any], answer: Response):
    with serving(lambda path, body: answer) as server:
        with RemoteReranker(server.url, DEMO_MODEL, attempts=1, served_name="m", **let_in) as remote:
            with pytest.raises(OnelogitError) as raised:
                remote.logits(QUERY, ["a"])

    assert SECRET not in everything_shown(raised.value)
    assert SECRET not in repr(remote) + str(remote.options)


def test_no_list_of_a_servers_models_shows_a_secret():
    listed = Response(content={"data": [{"id": SECRET}, {"id": "another"}]})
    with serving(lambda path, body: listed) as server:
        with RemoteReranker(server.url, DEMO_MODEL, attempts=1, api_key=SECRET) as remote:
            with pytest.raises(OnelogitError, match="another: name one") as raised:
                remote.logits(QUERY, ["a"])

    assert SECRET not in everything_shown(raised.value)


def test_what_a_server_says_is_one_line_of_a_few_words():
    said = "no\r\n\x1b[31m" + "x" * 9999
    with serving(lambda path, body: Response(code=400, content={"error": said})) as server:
        with (
            RemoteReranker(server.url, DEMO_MODEL) as remote,
            pytest.raises(ServerError, match="answered 400") as raised,
        ):
            remote.logits(QUERY, ["a"])

    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 600


def test_a_header_that_holds_no_secret_stays_in_the_options():
    headers = {"X-Route": "gpu", "X-Api-Key": SECRET, "Cookie": SECRET}
    with RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, headers=headers) as remote:
        assert remote.options["headers"] == {"X-Route": "gpu"}
