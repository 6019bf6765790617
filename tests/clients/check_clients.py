"""Real clients against the running server, each in an environment of its own: `nox -s clients` runs this.

`CLIENTS` names the environments' interpreters, as JSON: the name of a script in `scripts` -> its Python. After an "@",
a name may say which version of the client it is.
"""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from onelogit import DEMO_MODEL, Reranker
from onelogit.serving import app
from support.served import served

SCRIPTS = Path(__file__).parent / "scripts"
PYTHONS: dict[str, str] = json.loads(os.environ.get("CLIENTS", "{}"))
NAMES = {file.stem for file in SCRIPTS.glob("*.py") if file.stem != "exchange"}
KEY = "the-KEY"
QUERY = "What is the capital of China?"
DOCUMENTS = ["Bananas are yellow.", "The capital of China is Beijing.", "Paris is in France.", "서울", "Beijing"]
# What is no ranking: the errors that a client raises, by what they must contain.
REFUSALS = {
    "wrong_key": "the request has a wrong API key",
    "wrong_model": "The model `absent` does not exist; this server has demo",
    "no_documents": "documents is empty",
    "other_field": "rank_fields must be ['text'], not ['title']",
    "too_many": "the request has 2500 documents; this server takes at most 1000 a request",
    "tei_wrong_key": "the request has a wrong API key",
    "jina_wrong_model": "The model `absent` does not exist; this server has demo",
}


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.load(DEMO_MODEL) as reranker:
        yield reranker


@pytest.fixture(scope="module")
def server(reranker: Reranker) -> Iterator[str]:
    with served(app(reranker, api_keys=[KEY])) as url:
        yield url


def results_of(name: str, url: str) -> dict[str, Any]:
    environment = {**os.environ, "CHECK_URL": url, "CHECK_KEY": KEY, "CHECK_MODEL": "demo"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [PYTHONS[name], SCRIPTS / f"{name.partition('@')[0]}.py"],
        input=json.dumps([QUERY, DOCUMENTS]),
        capture_output=True,
        text=True,
        env=environment,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("environment", sorted(NAMES | PYTHONS.keys()))
def test_a_client_gets_the_local_ranking_and_readable_errors(environment: str, server: str, reranker: Reranker):
    local = reranker.rank(QUERY, DOCUMENTS)

    results = results_of(environment, server)

    refusals = {name: results.pop(name) for name in REFUSALS.keys() & results.keys()}
    texts = results.pop("texts", [])
    assert results
    for name, ranking in results.items():
        expected = local[: len(ranking)] if name == "v2_top" else local
        assert [index for index, _ in ranking] == [each.index for each in expected], name
        numbers = [each.logit if name == "logits" else each.score for each in expected]
        assert [number for _, number in ranking] == pytest.approx(numbers, abs=1e-5), name
    for name, told in refusals.items():
        assert REFUSALS[name] in str(told), name
    assert all(DOCUMENTS[index] == text for index, text in texts)
