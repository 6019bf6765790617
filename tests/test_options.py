"""ModelSpec: what makes two of them equal, what it refuses, and that options are checked and models resolved once."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onelogit import DEMO_MODEL, InputError, ModelSpec, Recipe, Reranker
from onelogit import options as options_module
from onelogit.checkpoints import hub, resolve
from onelogit.cli.main import main
from onelogit.recipes.families import FAMILIES
from support.adapters import ADAPTERS, Adapter
from support.tiny import Tiny

QUERY = "What is the capital of China?"
TEXTS = ["Beijing.", "Paris."]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ModelSpec("m"), ModelSpec(Path("m"))),  # type: ignore[arg-type]
        (ModelSpec("m", options={"device": None}), ModelSpec("m")),
        (ModelSpec("m", options={"token": "hf_x"}), ModelSpec("m")),
        (ModelSpec("m", options={"trust_remote_code": False}), ModelSpec("m")),
        (ModelSpec.of("http://a", {"model": "m"}), ModelSpec.of("m", {"url": "http://a"})),
        (ModelSpec("m", options={"recipe": FAMILIES[0]}), ModelSpec("m", options={"recipe": FAMILIES[0]})),
        (ModelSpec.of("http://a", {"url": "http://a"}), ModelSpec(None, "http://a")),
        (ModelSpec("m", "http://a", {"timeout_s": 60}), ModelSpec("m", "http://a", {"timeout_s": 60.0})),
        (ModelSpec("m", options={"max_tokens": 50}), ModelSpec("m", options={"max_tokens": np.int64(50)})),
    ],
)
def test_specs_of_the_same_model_and_options_are_equal(one: ModelSpec, other: ModelSpec):
    assert one == other
    assert hash(one) == hash(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ModelSpec("m"), ModelSpec("n")),
        (ModelSpec("m"), ModelSpec("m", "http://a")),
        (ModelSpec("m", options={"max_tokens": 5}), ModelSpec("m", options={"max_tokens": 6})),
        (ModelSpec("m", options={"document_cache_bytes": 9}), ModelSpec("m")),
    ],
)
def test_specs_of_another_model_or_other_options_differ(one: ModelSpec, other: ModelSpec):
    assert one != other


def test_a_spec_shows_no_secrets():
    secret = "a-secret"
    options = {"api_key": secret, "token": secret, "headers": {"X-Api-Key": secret, "X-Route": "gpu"}}

    shown = repr(ModelSpec("m", "http://a", options))

    assert shown == "ModelSpec(model='m', url='http://a', options={'headers': {'X-Route': 'gpu'}})"


def test_a_spec_survives_pickling():
    spec = ModelSpec("m", "http://a", {"headers": {"X-Team": "search"}, "timeout_s": 3.0})

    assert pickle.loads(pickle.dumps(spec)) == spec


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelSpec(None), "the model must be a hub id or a path, not a NoneType"),
        (lambda: ModelSpec("m", options={"devise": "cpu"}), r"unknown option 'devise' \(did you mean 'device'\?\)"),
        (lambda: ModelSpec("m", options=3), "options must be a dictionary, not 3"),  # type: ignore[arg-type]
        (lambda: ModelSpec("m", options={"attempts": 3}), "'attempts' is not an option of a local model"),
        (lambda: ModelSpec("m", "http://a", {"dtype": "float32"}), "'dtype' is not an option of a server"),
        (lambda: ModelSpec.of("m", {"model": "n"}), "two models are named"),
        (lambda: ModelSpec.of("http://a", {"url": "http://b"}), "two servers are named"),
        (lambda: Reranker.load(ModelSpec(DEMO_MODEL), dtype="float32"), "a spec already contains its options"),
        (lambda: ModelSpec.of(ModelSpec("m"), {"max_tokens": 5}), "a spec already contains its options"),
    ],
)
def test_contradictions_are_refused_when_a_spec_is_made(make: Any, message: str):
    with pytest.raises(InputError, match=message):
        make()


def test_options_of_a_spec_cannot_be_changed():
    spec = ModelSpec("m", options={"max_tokens": 5})

    with pytest.raises(TypeError):
        spec.options["max_tokens"] = 6  # type: ignore[index]


def test_a_recipe_reaches_the_reranker_as_it_was_given(tiny_qwen: Tiny):
    recipe: Recipe = FAMILIES[0]

    with Reranker.load(ModelSpec(str(tiny_qwen.folder), options={"recipe": recipe})) as reranker:
        assert reranker.recipe.family == recipe.family


@pytest.mark.parametrize("framework", ADAPTERS, ids=lambda framework: type(framework).__name__)
def test_an_adapter_checks_its_options_once_and_never_in_later_calls(
    framework: Adapter, tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch
):
    made: list[ModelSpec] = []
    check = ModelSpec.__post_init__

    def noted(spec: ModelSpec) -> None:
        check(spec)
        made.append(spec)

    monkeypatch.setattr(ModelSpec, "__post_init__", noted)
    adapter = framework.kind(model=str(tiny_qwen.folder), options={"max_tokens": 811})
    assert len(made) <= 1

    framework.run(adapter, QUERY, framework.documents(TEXTS))
    first = len(made)
    framework.run(adapter, QUERY, framework.documents(TEXTS))

    assert first == len(made) == 1
    adapter.close()


def test_ranking_on_the_command_line_finds_and_reads_the_model_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    calls: list[str] = []

    def counted(name: str) -> Any:
        function = getattr(hub, name)

        def call(*args: Any, **options: Any) -> Any:
            calls.append(name)
            return function(*args, **options)

        return call

    for name in ("find_folder", "read_texts"):
        monkeypatch.setattr(resolve, name, counted(name))

    assert main(["rank", QUERY, *TEXTS]) == 0
    assert calls == ["find_folder", "read_texts"]
    assert options_module.DEMO_NOTE in capsys.readouterr().err


def test_a_server_cannot_be_loaded_as_a_model():
    for load in (ModelSpec, Reranker.load):
        with pytest.raises(InputError, match=r"the model is the url of a server; use RemoteReranker\(url, model\)"):
            load("https://example.org/v1")
