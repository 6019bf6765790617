"""Values as environments, YAML and libraries write them are taken if they have one meaning, and refused otherwise."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onelogit import DEMO_MODEL, InputError, ModelSpec, RemoteReranker, Reranker, open_reranker
from onelogit.option_values import dtype_name, flag, real_number, whole_number
from onelogit.verification.original import OriginalModel
from support.adapters import ADAPTERS, Adapter, renamed

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No."]
SERVER = {"url": "http://127.0.0.1:9"}


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.mark.parametrize("value", ["512", " 512 ", "512.0", "5.12e2", 512, 512.0, np.int64(512), np.float32(512)])
def test_a_whole_number_is_read_from_its_text(value: object):
    number = whole_number(value)

    assert number == 512
    assert type(number) is int


@pytest.mark.parametrize(
    "value", ["", "five", "5.5", "0x10", "1_000", "1,000", "٣", "nan", "inf", "1e999", 5.5, math.nan, True, None, b"5"]
)
def test_what_is_no_whole_number_is_unchanged(value: object):
    assert whole_number(value) is value


@pytest.mark.parametrize(("text", "number"), [("0.25", 0.25), ("25e-2", 0.25), (" -1 ", -1.0), (np.float32(0.5), 0.5)])
def test_a_number_is_read_from_its_text(text: object, number: float):
    assert real_number(text) == number
    assert isinstance(real_number(text), float)


@pytest.mark.parametrize("text", ["", "high", "nan", "inf", "1e999", "0,5", True, None])
def test_what_is_no_number_is_unchanged(text: object):
    assert real_number(text) is text


@pytest.mark.parametrize(
    ("value", "name"),
    [
        *[(text, "bfloat16") for text in ("bfloat16", "bf16", "BF16", "torch.bfloat16", torch.bfloat16)],
        *[(text, "float16") for text in ("fp16", "half", "torch.half", torch.float16)],
        *[(text, "float32") for text in ("fp32", "float", torch.float32)],
        *[(text, None) for text in ("auto", "AUTO")],
        *[(text, text) for text in ("float64", "int8", "", 16)],
        (torch.float64, "torch.float64"),
    ],
)
def test_a_dtype_has_many_names(value: object, name: object):
    assert str(dtype_name(value)) == str(name)


def test_only_true_and_false_are_flags():
    assert [flag(text) for text in ("true", "False", " TRUE", np.bool_(False))] == [True, False, True, False]
    assert [flag(text) for text in ("yes", "0", "", 1)] == ["yes", "0", "", 1]


EQUAL: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"dtype": "bf16"}, {"dtype": "bfloat16"}),
    ({"dtype": torch.bfloat16}, {"dtype": "bfloat16"}),
    ({"dtype": "auto"}, {}),
    ({"max_tokens": "512", "batch_tokens": "1e4"}, {"max_tokens": 512, "batch_tokens": 10000}),
    ({"document_cache_bytes": 8e6}, {"document_cache_bytes": 8000000}),
    ({"trust_remote_code": "false", "compile": "False"}, {}),
    (
        {"local_files_only": "true", "allow_control_tokens": "TRUE"},
        {"local_files_only": True, "allow_control_tokens": True},
    ),
    ({**SERVER, "timeout_s": "2.5", "attempts": "3"}, {**SERVER, "timeout_s": 2.5, "attempts": 3}),
    ({**SERVER, "raw_logits": "false"}, {**SERVER, "raw_logits": False}),
]


@pytest.mark.parametrize(("written", "meant"), EQUAL)
def test_a_value_and_its_text_are_one_model(framework: Adapter, written: dict[str, Any], meant: dict[str, Any]):
    assert ModelSpec.of("m", written) == ModelSpec.of("m", meant)  # type: ignore[arg-type]
    assert hash(ModelSpec.of("m", written)) == hash(ModelSpec.of("m", meant))  # type: ignore[arg-type]
    adapters = [framework.kind(model="m", options=options) for options in (written, meant)]
    assert adapters[0]._spec() == adapters[1]._spec()
    assert framework.loaded(framework.dumped(adapters[0]))._spec() == adapters[0]._spec()


def test_a_reranker_is_shared_by_all_spellings_of_its_options():
    first = open_reranker(DEMO_MODEL, dtype="fp32", max_tokens="300", compile="false")  # type: ignore[arg-type]

    assert open_reranker(Path(DEMO_MODEL), dtype=torch.float32, max_tokens=300) is first  # type: ignore[arg-type]
    assert first.max_tokens == 300
    assert str(first.classifier.dtype) == "torch.float32"  # type: ignore[union-attr]


def test_a_private_reranker_reads_the_same_texts():
    with Reranker.load(Path(DEMO_MODEL), dtype="torch.float32", max_tokens="300", batch_tokens="2e3") as reranker:  # type: ignore[arg-type]
        expected = open_reranker(DEMO_MODEL, dtype="float32").rank(QUERY, TEXTS)

        assert reranker.max_tokens == 300
        assert reranker.rank(QUERY, TEXTS, top_n="2", score_threshold="0") == expected[:2]  # type: ignore[arg-type]
        with Reranker(reranker.classifier, reranker._scorer.tokenizer, reranker.recipe, max_tokens="200") as other:  # type: ignore[arg-type]
            assert other.max_tokens == 200


def test_verification_reads_the_same_texts():
    options = OriginalModel.find(DEMO_MODEL, {"dtype": "bf16", "max_tokens": "300"}).options  # type: ignore[typeddict-item]

    assert options == {"dtype": "bfloat16", "max_tokens": 300}


def test_an_adapter_reads_texts_in_its_own_parameters(framework: Adapter):
    written = {"model": Path(DEMO_MODEL), "top_n": "2", "score_threshold": "1e-9", "dtype": "fp32", "max_tokens": "300"}
    meant = {"model": DEMO_MODEL, "top_n": 2, "score_threshold": 1e-9, "dtype": "float32", "max_tokens": 300}
    flags = {"deduplicate": "false", "progress": "false", "trust_remote_code": "false"}

    adapters = [framework.kind(**renamed(framework, **fields)) for fields in ({**written, **flags}, meant)]
    results = [framework.run(adapter, QUERY, framework.documents(TEXTS)) for adapter in adapters]

    assert results[0] == results[1]
    assert len(results[0]) == 2
    assert adapters[0]._handle._held is adapters[1]._handle._held
    assert adapters[0].deduplicate is False
    if framework.has_call_options:
        once = framework.run(adapters[1], QUERY, framework.documents(TEXTS), top_n="1", score_threshold="0")
        assert once == results[1][:1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust_remote_code": "no"}, "trust_remote_code must be True or False, not 'no'"),
        ({"trust_remote_code": 1}, "trust_remote_code must be True or False, not 1"),
        ({"compile": ""}, "compile must be True or False, not ''"),
        ({"revision": 1234567}, "revision must be a string, not 1234567; put it in quotes"),
        ({"revision": " "}, r"revision is empty \(' '\); leave it out"),
        ({"attn_implementation": True}, "attn_implementation must be a string, not True"),
        ({"max_tokens": "many"}, "max_tokens must be a whole number from 1 up, not 'many'"),
        ({"max_tokens": "512.5"}, "max_tokens must be a whole number from 1 up, not '512.5'"),
        ({"max_tokens": ""}, "max_tokens must be a whole number from 1 up, not ''"),
        ({"max_tokens": "true"}, "max_tokens must be a whole number from 1 up, not 'true'"),
        ({"document_cache_bytes": "2GB"}, "document_cache_bytes must be a whole number from 0 up, not '2GB'"),
        ({"batch_tokens": "0"}, "batch_tokens must be a whole number from 1 up, not 0"),
        ({"dtype": "float64"}, "unknown dtype 'float64'; use one of bfloat16, float16, float32"),
        ({"dtype": torch.float64}, "unknown dtype .*float64"),
        ({"max_tokens": True}, "max_tokens must be a whole number from 1 up, not True"),
        ({"max_tokens": [5]}, r"max_tokens must be a whole number from 1 up, not \[5\]"),
        ({"dtype": ""}, "unknown dtype ''"),
        ({"url": ""}, r"the url is empty \(''\)"),
    ],
)
def test_a_text_of_another_meaning_is_refused_by_a_sentence(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        open_reranker(DEMO_MODEL, **options)
    with pytest.raises(ValueError, match=message):
        ADAPTERS[0].kind(model=DEMO_MODEL, options=options).warm_up()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout_s": "soon"}, "timeout_s must be"),
        ({"attempts": "1.5"}, "attempts must be"),
        ({"headers": "X-Route: gpu"}, "headers must be a dictionary of names and values, not a str"),
        ({"raw_logits": "0"}, "raw_"),
    ],
)
def test_a_servers_options_are_refused_likewise(options: dict[str, Any], message: str):
    with pytest.raises(InputError, match=message):
        RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, **options)


@pytest.mark.parametrize("value", ["", "two", "1.5", "0", "-1", True, [3]])
def test_a_top_n_that_is_no_count_is_refused_everywhere(framework: Adapter, value: Any):
    with pytest.raises(InputError, match=r"top_n must be a whole number from 1 up"):
        open_reranker(DEMO_MODEL).rank(QUERY, TEXTS, top_n=value)
    with pytest.raises(ValueError, match=r"top_[nk] must be a whole number from 1 up"):
        framework.kind(**renamed(framework, model=DEMO_MODEL, top_n=value))
