"""Who may use a server: keys, addresses, web pages; and what it says about itself."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from onelogit import InputError, Reranker
from onelogit.serving import app
from onelogit.serving.application import FORMS
from onelogit.serving.keys import ApiKeys, check_exposure, read_keys
from support.served import served

BODY = {"query": "which?", "documents": ["a", "b"]}
KEYS = ["first-KEY", "second-KEY"]
GUARDED = [*(("POST", path) for path in FORMS), ("GET", "/v1/models"), ("GET", "/info"), ("GET", "/metrics")]


@pytest.fixture(scope="module")
def locked_url(tiny_reranker: Reranker) -> Iterator[str]:
    with served(app(tiny_reranker, api_keys=KEYS, allowed_origins=["https://example.org"])) as url:
        yield url


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", "Bearer first-KE", "Bearer first-KEYs", "Basic first-KEY", "first-KEY"],
)
def test_without_a_right_key_everything_is_answered_401(method: str, path: str, header: str | None, locked_url: str):
    headers = {} if header is None else {"Authorization": header}

    answer = httpx2.request(method, locked_url + path, json=BODY, headers=headers, trust_env=False)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert answer.json()["message"].startswith("the request has")
    assert "KEY'" in answer.json()["error"]["message"]
    assert "first" not in answer.text


def test_keys_are_not_shown():
    assert repr(ApiKeys(KEYS)) == "ApiKeys(2 keys)"


@pytest.mark.parametrize("header", ["Bearer first-KEY", "bearer second-KEY", "Bearer  first-KEY"])
def test_each_key_opens_everything(header: str, locked_url: str):
    headers = {"Authorization": header}
    with httpx2.Client(base_url=locked_url, headers=headers, trust_env=False) as client:
        answers = [client.post("/rerank", json=BODY), *(client.get(path) for _, path in GUARDED[len(FORMS) :])]

    assert {answer.status_code for answer in answers} == {200}


def test_health_needs_no_key(locked_url: str):
    paths = ("/health", "/openapi.json", "/docs")

    assert [httpx2.get(locked_url + path, trust_env=False).status_code for path in paths] == [200] * 3
    assert httpx2.get(f"{locked_url}/ready", trust_env=False).status_code in (200, 503)


def test_only_allowed_pages_may_read_answers(locked_url: str, url: str):
    ask = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,x-client-name"}
    allowed, other, none = (
        httpx2.options(f"{server}/rerank", headers={"Origin": origin, **ask}, trust_env=False)
        for server, origin in (
            (locked_url, "https://example.org"),
            (locked_url, "https://evil.example"),
            (url, "https://example.org"),
        )
    )

    assert allowed.status_code == 200
    assert allowed.headers["Access-Control-Allow-Origin"] == "https://example.org"
    assert "Access-Control-Allow-Origin" not in other.headers
    assert "Access-Control-Allow-Origin" not in none.headers


def test_the_models_and_limits_are_listed(client: httpx2.Client):
    models, info = client.get("/v1/models").json(), client.get("/info").json()

    assert [each["id"] for each in models["data"]] == ["tiny", "other-name"]
    assert {each["object"] for each in models["data"]} == {"model"}
    assert {each["max_model_len"] for each in models["data"]} == {2048}
    assert (info["model_id"], info["model_dtype"], info["max_input_length"]) == ("tiny", "float32", 2048)
    assert "reranker" in info["model_type"]


def test_a_folder_is_named_without_its_path(tiny_reranker: Reranker):
    with served(app(tiny_reranker)) as url:
        names = [each["id"] for each in httpx2.get(f"{url}/v1/models", trust_env=False).json()["data"]]

    assert names == ["Qwen3-Reranker-tiny"]


def test_the_description_names_every_path_and_field(client: httpx2.Client):
    document, page = client.get("/openapi.json").json(), client.get("/docs").text

    assert {path for path, methods in document["paths"].items() if "post" in methods} == {*FORMS}
    for path in FORMS:
        schema = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        for each in schema.get("anyOf", [schema]):
            fields = document["components"]["schemas"][each["$ref"].rpartition("/")[2]]["properties"]
            assert all(f"<code>{field}</code>" in page for field in fields)
    assert "<script" not in page
    assert "http" not in page


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_this_machine_needs_no_key(host: str):
    check_exposure(host, [], allows_no_key=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.7", "example.org", "localhost.example.org", ""])
def test_any_other_address_needs_a_key(host: str):
    with pytest.raises(InputError, match="needs an API key: give --api-key-file or set ONELOGIT_API_KEY, or pass --no"):
        check_exposure(host, [], allows_no_key=False)

    check_exposure(host, ["key"], allows_no_key=False)
    check_exposure(host, [], allows_no_key=True)


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "keys"
    file.write_text("\ufefffirst\r\n\n  second \n", encoding="utf-8")
    monkeypatch.delenv("ONELOGIT_API_KEY", raising=False)

    assert read_keys(None) == []
    monkeypatch.setenv("ONELOGIT_API_KEY", "third\n")
    assert read_keys(None) == ["third"]
    assert read_keys(file) == ["first", "second"]


def test_unusable_keys_are_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_reranker: Reranker
):
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n\n", encoding="utf-8")
    binary.write_bytes(b"\xff\xfe\x00")
    monkeypatch.setenv("ONELOGIT_API_KEY", " ")

    with pytest.raises(InputError, match="has no API key; write one on each line"):
        read_keys(empty)
    with pytest.raises(InputError, match="cannot be read: it is not UTF-8"):
        read_keys(binary)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        read_keys(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_keys(tmp_path)
    with pytest.raises(InputError, match="no such user"):
        read_keys(Path("~nobody-of-that-name/keys"))
    with pytest.raises(InputError, match="ONELOGIT_API_KEY is empty"):
        read_keys(None)
    for key in ("two words", "schlüssel", ""):
        with pytest.raises(InputError, match="API key 1 is empty, or has white space or non-ASCII") as raised:
            app(tiny_reranker, api_keys=[key])
        assert not key or key not in str(raised.value)


def test_the_description_has_all_names_of_a_field(client: httpx2.Client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    queries, documents = ("text_1", "queries", "data_1"), ("text_2", "documents", "items", "data_2")

    assert {*queries, *documents, "instruction", "instruct"} <= {*schemas["ScoreBody"]["properties"]}
    assert schemas["ScoreBody"]["required"] == []
    one_of_each = [{"anyOf": [{"required": [name]} for name in names]} for names in (queries, documents)]
    assert schemas["ScoreBody"]["allOf"] == one_of_each
    assert schemas["RerankBody"]["required"] == ["query", "documents"]
    assert len(schemas["ClassifyBody"]["properties"]["input"]["anyOf"]) == 2  # rows, or one row


@pytest.mark.parametrize(
    "origin", ["example.org", "https://example.org/", "https://example.org/page", "", "//example.org"]
)
def test_an_origin_that_no_browser_sends_is_refused(origin: str, tiny_reranker: Reranker):
    with pytest.raises(InputError, match="an allowed origin is a scheme and a host, such as https://example.org, not"):
        app(tiny_reranker, allowed_origins=[origin])


@pytest.mark.parametrize("origin", ["*", "http://localhost:3000", "chrome-extension://abcdef"])
def test_other_origins_are_allowed(origin: str, tiny_reranker: Reranker):
    app(tiny_reranker, allowed_origins=[origin])
