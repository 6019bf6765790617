"""What adapters accept they can dump, without secrets, and load again; the constructor refuses the rest."""

import pickle
from copy import deepcopy
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from haystack import Pipeline
from haystack.utils import ComponentDevice, Secret
from haystack.utils.device import Device, DeviceMap
from langchain_core.load import dumps, loads
from transformers import BitsAndBytesConfig

from haystack_integrations.components.rankers.onelogit import OnelogitRanker
from langchain_onelogit import OnelogitRerank as LangChainRerank
from onelogit import DEMO_MODEL, InputError, OpenOptions, RemoteReranker
from onelogit.recipes.families import FAMILIES
from support.adapters import ADAPTERS, Adapter, make, renamed

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No."]
SECRET = "hf_a-secret-token"


class Kind(StrEnum):
    CUT = "cut"


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


ACCEPTED: list[dict[str, Any]] = [
    {"model": Path(DEMO_MODEL)},
    {"device": torch.device("cpu")},
    {"dtype": torch.float32},
    {"top_n": numpy.int64(2)},
    {"score_threshold": numpy.float32(0.25)},
    {"options": {"max_tokens": numpy.int32(512), "long_documents": Kind.CUT}},
    {"options": {"recipe": FAMILIES[0]}},
    {"options": {"cache_dir": Path("cache")}},
]


@pytest.mark.parametrize("fields", ACCEPTED, ids="-".join)
def test_what_is_accepted_is_dumped_as_plain_data_and_loaded_again(framework: Adapter, fields: dict[str, Any]):
    adapter = framework.kind(**renamed(framework, **{"model": DEMO_MODEL, **fields}))

    text = framework.dumped(adapter)
    read = framework.loaded(text)

    assert framework.dumped(read) == text
    assert read._spec() == adapter._spec()
    expected = framework.run(adapter, QUERY, framework.documents(TEXTS))
    assert framework.run(read, QUERY, framework.documents(TEXTS)) == expected
    for copied in (deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert framework.dumped(copied) == text


SECRETS = {"token", "api_key"}
LOCAL: dict[str, Any] = {
    "activation": "identity",
    "allow_control_tokens": True,
    "attn_implementation": "eager",
    "base_model": "owner/base",
    "batch_tokens": 2000,
    "cache_dir": "cache",
    "compile": True,
    "device": "cpu",
    "device_map": {"": "cpu", "layers.1": 0},
    "document_cache_bytes": 10**6,
    "document_cache_host_bytes": 0,
    "dtype": "float32",
    "instruction": "",
    "local_files_only": True,
    "long_documents": "chunk_max",
    "max_tokens": 300,
    "max_waiting": 4,
    "quantization": "int8",
    "quantization_config": {"load_in_4bit": True, "llm_int8_skip_modules": ["score"]},
    "recipe": {"family": "qwen3-reranker", "default_instruction": "거짓말을 찾으시오.\n"},
    "relevant_label": 1,
    "revision": "0123456",  # in YAML, a number if it had no quotes
    "trust_remote_code": True,
}
REMOTE: dict[str, Any] = {
    "attempts": 2,
    "headers": {"X-Route": "gpu"},
    "model": DEMO_MODEL,
    "pairs_a_request": 5,
    "path": "/rerank",
    "protocol": "rerank",
    "raw_logits": False,
    "requests_at_once": 3,
    "served_name": "mine",
    "template": "client",
    "timeout_s": 2.5,
    "url": "http://127.0.0.1:9",
}
TEXTS_TO_A_SERVER = {"url": REMOTE["url"], "protocol": "rerank", "template": "client"}
NEEDED: dict[str, dict[str, Any]] = {
    **{name: {"url": REMOTE["url"]} for name in REMOTE},
    **dict.fromkeys(("path", "protocol", "raw_logits", "template"), TEXTS_TO_A_SERVER),
}


@pytest.mark.parametrize("name", [each for each in OpenOptions.__annotations__ if each not in SECRETS])
def test_every_option_survives_dumps_and_copies(framework: Adapter, name: str):
    options = {**NEEDED.get(name, {}), name: {**LOCAL, **REMOTE}[name]}
    adapter = make(framework, DEMO_MODEL, options=options)
    text = framework.dumped(adapter)

    for read in (framework.loaded(text), deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert read.options == adapter.options == options
        assert read._spec() == adapter._spec()
        assert framework.dumped(read) == text


def test_a_quantization_config_is_dumped_as_its_fields(framework: Adapter):
    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)
    adapter = make(
        framework, DEMO_MODEL, options={"quantization_config": config, "device_map": {"": torch.device("cuda:0")}}
    )

    read = framework.loaded(framework.dumped(adapter))

    assert read.options == adapter.options
    assert read.options["quantization_config"]["bnb_4bit_compute_dtype"] == "bfloat16"
    assert read.options["device_map"] == {"": "cuda:0"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"model": 5}, "must be a hub id or a path|valid string"),
    ({"device": ["cuda:0", "cuda:1"]}, "must be a string|valid string"),
    ({"device": Device.gpu(1)}, r"contains a haystack\.utils\.device\.Device, which cannot be dumped"),
    ({"dtype": numpy.dtype("float32")}, "contains a numpy.* which cannot be dumped"),
    ({"dtype": numpy.float32}, "contains a type, which cannot be dumped"),
    ({"instruction": Secret.from_token(SECRET)}, "TokenSecret"),
    ({"options": {"revision": {"main"}}}, "the option revision contains a set, which cannot be dumped"),
    ({"options": {"device_map": {"": Device.cpu()}}}, "the option device_map contains a haystack"),
    ({"options": {"quantization_config": {"x": object()}}}, "not plain data"),
    ({"options": {"api_key": SECRET}}, "pass it as api_key="),
    ({"options": {"api_key": Secret.from_token(SECRET)}}, "the option api_key contains a"),
    ({"url": "http://h", "options": {"headers": {"X-Route": f"Bearer {SECRET}"}}}, "the header X-Route in the options"),
    ({"url": "http://h", "options": {"headers": {"X-Route": Secret.from_token(SECRET)}}}, "TokenSecret"),
    ({"url": f"http://user:{SECRET}@h"}, "the url contains a user name, password or query"),
    ({"url": f"http://h/v1?key={SECRET}"}, "the url contains a user name, password or query"),
    ({"model": f"http://{SECRET}@h"}, "the url contains a user name, password or query"),
    ({"url": "http://h", "protocol": "rerank"}, "template must be 'client'"),
]


@pytest.mark.parametrize(("fields", "message"), REFUSED)
def test_what_cannot_be_dumped_is_refused_by_the_constructor(framework: Adapter, fields: dict[str, Any], message: str):
    if "instruction" in fields and framework.kind is LangChainRerank:
        message = "valid string"
    with pytest.raises(ValueError, match=message) as refused:
        framework.kind(**{"model": DEMO_MODEL, **fields})

    assert SECRET not in str(refused.value)


def test_a_bearer_token_of_a_given_reranker_is_not_dumped(framework: Adapter):
    headers = {"X-Forward": f"Bearer {SECRET}", "X-Route": "gpu"}
    with RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, headers=headers) as remote:
        dumped = framework.dumped(framework.kind.from_reranker(remote))

    assert SECRET not in dumped
    assert "X-Route" in dumped


@pytest.mark.parametrize("name", ["token", "api_key"])
@pytest.mark.parametrize("value", [SECRET, True, b"secret", {"type": "token", "token": SECRET}])
def test_haystack_takes_a_secret_as_a_secret_only(name: str, value: object):
    with pytest.raises(InputError, match=rf"{name} must be a Secret, not a .*Secret\.from_env_var") as refused:
        OnelogitRanker(DEMO_MODEL, **{name: value})  # type: ignore[arg-type]

    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"meta_fields_to_embed": "title"},
        {"meta_fields_to_embed": {"title"}},
        {"meta_fields_to_embed": [1]},
        {"embedding_separator": 1},
        {"instruction": 5},
        {"scale_score": 1j},
        {"scale_score": "no"},
        {"deduplicate": "no"},
        {"progress_bar": [True]},
        {"score_threshold": 1j},
        {"device": DeviceMap({"": Device.cpu()})},
    ],
    ids=str,
)
def test_haystack_names_the_parameter_that_cannot_be_dumped(fields: dict[str, Any]):
    with pytest.raises(InputError, match=next(iter(fields))):
        OnelogitRanker(DEMO_MODEL, **fields)


def test_haystacks_devices_become_a_device_map():
    devices = ComponentDevice.from_multiple(DeviceMap({"model": Device.gpu(1), "score": Device.cpu()}))
    pipeline = Pipeline()
    pipeline.add_component("ranker", OnelogitRanker(DEMO_MODEL, device=devices, meta_fields_to_embed=None))

    ranker = Pipeline.loads(pipeline.dumps()).get_component("ranker")

    assert ranker.device is None
    assert ranker.options == {"device_map": {"model": 1, "score": "cpu"}}
    with pytest.raises(InputError, match="several devices are given twice"):
        OnelogitRanker(DEMO_MODEL, device=devices, options={"device_map": "auto"})


def test_a_langchain_dump_takes_its_secrets_from_the_map():
    adapter = LangChainRerank(model=DEMO_MODEL, token=SECRET)
    dumped = dumps(adapter)

    read = loads(
        dumped,
        secrets_map={"HF_TOKEN": SECRET},
        allowed_objects=[LangChainRerank],
        valid_namespaces=["langchain_onelogit"],
    )

    assert SECRET not in dumped
    assert read.token == adapter.token


def test_haystacks_choices_of_numpy_can_be_dumped():
    fields = {"on_error": numpy.str_("keep_order"), "protocol": numpy.str_("tei")}
    ranker = OnelogitRanker(DEMO_MODEL, url="http://h", options={"template": "server"}, **fields)  # type: ignore[arg-type]

    pipeline = Pipeline()
    pipeline.add_component("ranker", ranker)

    read = Pipeline.loads(pipeline.dumps()).get_component("ranker")
    assert (read.on_error, read.protocol) == ("keep_order", "tei")
