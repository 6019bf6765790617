"""A wrong value is refused where an adapter or a spec is made, by the same sentence everywhere, and never in a call."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onelogit import DEMO_MODEL, InputError, ModelSpec, OnelogitError, Recipe, Reranker, recipe_fields, recipe_from
from onelogit.adapters.parameters import PARAMETERS
from onelogit.recipes.families import FAMILIES
from support.adapters import ADAPTERS, Adapter
from support.tiny import Tiny

URL = "http://127.0.0.1:9"
COUNT = "must be a whole number from 1 up, not"
BYTES = "must be a whole number from 0 up, not"
DEVICE = "use cpu, cuda, cuda:1 or mps, or leave it out for the fastest"
DTYPE = "use one of bfloat16, float16, float32"
OWN = {"family": "mine", "chat_template": "{{ messages }}", "source": "a test", "read_out": {"true": "yes"}}

LOCAL: list[tuple[str, Any, str]] = [
    ("max_tokens", 0, f"max_tokens {COUNT} 0"),
    ("max_tokens", "0", f"max_tokens {COUNT} 0"),
    ("max_tokens", -5, f"max_tokens {COUNT} -5"),
    ("max_tokens", "abc", f"max_tokens {COUNT} 'abc'"),
    ("max_tokens", 3.5, f"max_tokens {COUNT} 3.5"),
    ("batch_tokens", -5, f"batch_tokens {COUNT} -5"),
    ("batch_tokens", "many", f"batch_tokens {COUNT} 'many'"),
    ("document_cache_bytes", -1, f"document_cache_bytes {BYTES} -1"),
    ("document_cache_host_bytes", "1GB", f"document_cache_host_bytes {BYTES} '1GB'"),
    ("document_cache_host_bytes", 9, "it needs document_cache_bytes, too"),
    ("dtype", "int8", f"unknown dtype 'int8'; {DTYPE}"),
    ("dtype", "fp8", f"unknown dtype 'fp8'; {DTYPE}"),
    ("dtype", 16, f"unknown dtype 16; {DTYPE}"),
    ("device", "gpu", f"unknown device 'gpu'; {DEVICE}"),
    ("device", "cuda:x", f"unknown device 'cuda:x'; {DEVICE}"),
    ("device", "CUDA", f"unknown device 'CUDA'; {DEVICE}"),
    ("device", "", f"unknown device ''; {DEVICE}"),
    ("device", 0, f"unknown device 0 (did you mean 'cuda:0'?); {DEVICE}"),
    ("device", ["cuda:0"], "for several devices, use device_map"),
    ("device_map", "gpu", "device_map='gpu' cannot be used: unknown device 'gpu'"),
    ("device_map", {"": -1}, "device_map={'': -1} cannot be used"),
    ("long_documents", "chunks", "unknown long_documents 'chunks'; choose one of cut, chunk_max"),
    ("long_documents", True, "unknown long_documents True"),
    ("activation", "softmax", "unknown activation 'softmax'; choose one of sigmoid, identity"),
    ("instruction", "a\ud800", "the instruction contains half a character"),
    ("compile", "maybe", "compile must be True or False, not 'maybe'"),
    ("attn_implementation", ["sdpa"], "attn_implementation must be a string, not ['sdpa']"),
    ("recipe", 5, "recipe must be a family's name, a Recipe, or its fields as a dictionary, not a int"),
    ("recipe", ["qwen3-reranker"], "not a list; a JSON file with the fields is given by its path"),
    ("recipe", "qwen4-reranker", "no family is called 'qwen4-reranker' (did you mean 'qwen3-reranker'?)"),
    ("recipe", "recipe.yaml", "no family is called 'recipe.yaml' (and there is no such file)"),
    ("recipe", "no-such.json", "the recipe no-such.json cannot be read: No such file or directory"),
    ("recipe", Path("no-such"), "the recipe no-such cannot be read: No such file or directory"),
    ("recipe", {**OWN, "max_tokens": "512"}, "max_tokens cannot be '512'"),
    ("protocol", "x", "unknown protocol 'x'; choose one of vllm-tokens, rerank, tei, sglang"),
    ("protocol", "tei", "'protocol' is not an option of a local model: use RemoteReranker or give a url"),
    ("timeout_s", 5, "'timeout_s' is not an option of a local model"),
    ("url", "127.0.0.1:8000", "the url must be an http or https url such as http://127.0.0.1:8000"),
    ("url", "http://", "the url must be an http or https url"),
]
REMOTE: list[tuple[str, Any, str]] = [
    ("protocol", "x", "unknown protocol 'x'"),
    ("max_tokens", 0, f"max_tokens {COUNT} 0"),
    ("dtype", "float32", "'dtype' is not an option of a server: leave it out"),
    ("timeout_s", 0, "timeout_s must be a number of seconds above 0, not 0"),
    ("timeout_s", float("nan"), "timeout_s must be a number of seconds above 0, not nan"),
    ("attempts", 0, f"attempts {COUNT} 0"),
    ("requests_at_once", -1, f"requests_at_once {COUNT} -1"),
    ("pairs_a_request", 0, f"pairs_a_request {COUNT} 0"),
    ("template", "both", "unknown template 'both'; choose one of client, server"),
    ("raw_logits", 1, "raw_logits must be True, False or None, not 1"),
    ("headers", {"X Route": "gpu"}, "'X Route' is not a valid header name"),
]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.mark.parametrize(("name", "value", "message"), LOCAL)
def test_a_wrong_option_is_refused_at_once(framework: Adapter, name: str, value: Any, message: str):
    makes = [lambda: framework.kind(model=DEMO_MODEL, options={name: value}, on_error="keep_order")]
    makes += [lambda: ModelSpec.of(DEMO_MODEL, {name: value})]  # type: ignore[misc]
    if name in PARAMETERS:
        makes += [lambda: framework.kind(**{"model": DEMO_MODEL, name: value, "on_error": "keep_order"})]
    for make in makes:
        with pytest.raises(ValueError, match="(?s).") as refused:
            make()
        assert message in str(refused.value)


@pytest.mark.parametrize(("name", "value", "message"), REMOTE)
def test_a_wrong_option_of_a_server_is_refused_at_once(framework: Adapter, name: str, value: Any, message: str):
    for make in (
        lambda: framework.kind(model=DEMO_MODEL, url=URL, options={name: value}, on_error="keep_order"),
        lambda: ModelSpec(DEMO_MODEL, URL, {name: value}),
    ):
        with pytest.raises(ValueError, match="(?s).") as refused:
            make()
        assert message in str(refused.value)


@pytest.mark.parametrize("model", ["", "  "])
def test_an_empty_model_is_refused_at_once(framework: Adapter, model: str):
    for make in (lambda: framework.kind(model=model), lambda: ModelSpec(model), lambda: ModelSpec(model, URL)):
        with pytest.raises(ValueError, match="the model's name is empty"):
            make()


def test_a_key_that_cannot_be_sent_is_refused_without_showing_it():
    for key in ("a secret\n", 5):
        with pytest.raises(InputError) as refused:
            ModelSpec(DEMO_MODEL, URL, {"api_key": key})
        assert "secret" not in str(refused.value)


def test_an_adapter_is_checked_without_torch():
    code = """if True:
        import sys
        from langchain_onelogit import OnelogitRerank
        for bad in ({"device": "gpu"}, {"dtype": "int8"}, {"max_tokens": 0}, {"recipe": 5}, {"options": {"device": 0}}):
            try:
                OnelogitRerank(model="m", **bad)
            except ValueError:
                continue
            sys.exit(1)
        OnelogitRerank(model="m", device="cuda:3", dtype="bf16", recipe="qwen3-reranker")
        sys.exit(2 if "torch" in sys.modules else 0)
    """
    assert subprocess.run([sys.executable, "-c", code], timeout=120, check=False).returncode == 0


@pytest.mark.parametrize("name", ["cpu", "cuda", "cuda:7", "mps", "xpu:1", "npu:0", "hpu"])
def test_a_device_of_another_machine_is_taken(framework: Adapter, name: str):
    assert framework.kind(model=DEMO_MODEL, device=name).device == name


@pytest.mark.parametrize("kind", [str, Path])
def test_a_recipe_is_read_from_a_json_file(framework: Adapter, kind: Any, tiny_qwen: Tiny, tmp_path: Path):
    file = tmp_path / "recipe.json"
    fields = {"family": "qwen3-reranker", "default_instruction": "Find the clause."}
    file.write_text(json.dumps(fields), encoding="utf-8-sig")

    adapters = [framework.kind(model="m", recipe=kind(file)), framework.kind(model="m", options={"recipe": kind(file)})]
    file_less = [framework.loaded(framework.dumped(adapter)) for adapter in adapters]
    for spec in (
        ModelSpec("m", options={"recipe": kind(file)}),
        *(adapter._spec() for adapter in adapters + file_less),
    ):
        assert spec.options["recipe"] == fields
    with Reranker.load(tiny_qwen.folder, recipe=kind(file)) as reranker:
        file.unlink()
        assert reranker.recipe.default_instruction == "Find the clause."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("family: qwen3-reranker", "recipe.json cannot be read, because it is not JSON: Expecting value"),
        ("[1]", "recipe.json must be a JSON object with the fields of a recipe"),
        ('{"family": "qwen3-reranker", "colour": 1}', "colour"),
        (None, "recipe.json cannot be read: Is a directory"),
        ("\u00fc", "recipe.json is not UTF-8; save it as UTF-8"),
    ],
)
def test_a_bad_file_of_a_recipe_is_one_sentence(text: str | None, message: str, tmp_path: Path):
    file = tmp_path / "recipe.json"
    file.mkdir() if text is None else file.write_text(text, encoding="latin-1")

    with pytest.raises(OnelogitError) as refused:
        ModelSpec("m", options={"recipe": file})

    assert message in str(refused.value)
    assert "Errno" not in str(refused.value)


def test_swapped_answers_of_a_recipe_are_one_warning(framework: Adapter, caplog: pytest.LogCaptureFixture):
    own = {**OWN, "family": type(framework).__name__, "read_out": {"true": "no", "false": "yes"}}
    with caplog.at_level(logging.WARNING):
        adapters = [framework.kind(model="m", recipe=own) for _ in range(2)]
        assert hash(adapters[0]._spec()) == hash(adapters[1]._spec())
    assert len(caplog.messages) == 1


def test_all_forms_of_a_recipe_are_one_model(tmp_path: Path):
    recipe: Recipe = recipe_from({**recipe_fields(FAMILIES[0]), "family": "mine"})
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe_fields(recipe)))

    specs = [ModelSpec("m", options={"recipe": given}) for given in (recipe, recipe_fields(recipe), file, str(file))]

    assert len({*specs}) == 1
