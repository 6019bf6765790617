"""The most used options are parameters of every adapter, equal to the same options among `options`."""

import copy
import inspect
import pickle
from typing import Any, get_type_hints

import pytest
import yaml
from haystack import Pipeline
from llama_index.core.callbacks import CallbackManager
from transformers import BitsAndBytesConfig

from haystack_integrations.components.rankers.onelogit import OnelogitRanker
from langchain_onelogit import OnelogitRerank as LangChainRerank
from llama_index.postprocessor.onelogit_rerank import OnelogitRerank as LlamaIndexRerank
from onelogit import DEMO_MODEL, InputError, OpenOptions, Reranker, open_reranker
from onelogit.adapters import ModelFields, ModelParameters
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.recipe import ReadOut, Recipe, recipe_fields
from support.adapters import ADAPTERS, Adapter

QUERY = "What is the capital of China?"
TEXTS = ["The capital of China is Beijing.", "서울", "No."]
NAMES = [*ModelParameters.__annotations__]
OWN = Recipe(
    family="mine",
    chat_template="{{ messages[-2].content }} {{ messages[-1].content }}",
    read_out=ReadOut(true="yes", false="no"),
    source="this test",
)
GIVEN: list[dict[str, Any]] = [
    {"max_tokens": 300},
    {"max_tokens": "3e2", "long_documents": "chunk_max"},
    {"batch_tokens": 2000, "document_cache_bytes": 10**6},
    {"trust_remote_code": True},
    {"recipe": "qwen3-reranker"},
    {"recipe": FAMILIES[0]},
    {"recipe": OWN},
    {"recipe": recipe_fields(OWN)},
    {"recipe": {"family": "qwen3-reranker", "default_instruction": "Find lies."}},
    {"revision": "main"},
    {"quantization": "int8"},
]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


def test_the_parameters_are_declared_once_and_have_the_types_of_the_options():
    hints = get_type_hints(ModelFields)
    assert get_type_hints(ModelParameters) == hints
    assert {name: hints[name] for name in hints if name != "trust_remote_code"} == {
        name: OpenOptions.__annotations__[name] for name in hints if name != "trust_remote_code"
    }
    assert set(NAMES) <= LangChainRerank.model_fields.keys()
    assert inspect.signature(LangChainRerank).parameters.keys() >= set(NAMES)


@pytest.mark.parametrize("given", GIVEN, ids="-".join)
def test_a_parameter_is_the_option_of_its_name(framework: Adapter, given: dict[str, Any]):
    adapter = framework.kind(model=DEMO_MODEL, **given)

    assert adapter._spec() == framework.kind(model=DEMO_MODEL, options=given)._spec()
    text = framework.dumped(adapter)
    assert all(name in text for name in given)
    read = framework.loaded(text)
    for copied in (read, copy.copy(adapter), copy.deepcopy(adapter), pickle.loads(pickle.dumps(adapter))):
        assert copied._spec() == adapter._spec()
        assert framework.dumped(copied) == text
        assert all(getattr(copied, name) == getattr(adapter, name) for name in NAMES)


def test_adapters_with_parameters_and_with_options_share_their_weights(framework: Adapter):
    adapters = [
        framework.kind(model=DEMO_MODEL, max_tokens=290),
        framework.kind(model=DEMO_MODEL, options={"max_tokens": "290"}),
    ]

    results = [framework.run(adapter, QUERY, framework.documents(TEXTS)) for adapter in adapters]

    assert results[0] == results[1]
    assert adapters[0]._handle._held is adapters[1]._handle._held is open_reranker(DEMO_MODEL, max_tokens=290)


def test_a_parameter_that_is_changed_later_is_used(framework: Adapter):
    adapter = framework.kind(model=DEMO_MODEL, max_tokens=290)
    adapter.warm_up()

    adapter.max_tokens = 280
    framework.run(adapter, QUERY, framework.documents(TEXTS))

    assert adapter._handle._held.max_tokens == 280


def test_a_quantization_config_becomes_its_fields(framework: Adapter):
    adapter = framework.kind(model=DEMO_MODEL, quantization_config=BitsAndBytesConfig(load_in_8bit=True))

    assert adapter.quantization_config["load_in_8bit"] is True
    assert framework.loaded(framework.dumped(adapter)).quantization_config == adapter.quantization_config


def test_a_recipe_becomes_its_fields(framework: Adapter):
    assert framework.kind(model=DEMO_MODEL, recipe=FAMILIES[0]).recipe == recipe_fields(FAMILIES[0])


@pytest.mark.parametrize("name", NAMES)
def test_an_option_given_in_both_places_is_refused(framework: Adapter, name: str):
    texts = {"long_documents": "cut", "quantization": "int8", "recipe": "qwen3-reranker", "revision": "main"}
    value = {"quantization_config": {"load_in_8bit": True}, "trust_remote_code": True, **texts}.get(name, 300)
    with pytest.raises(ValueError, match=f"{name} is given twice, as a parameter and in the options; leave one out"):
        framework.kind(model=DEMO_MODEL, **{name: value}, options={name: value})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_tokens": "many"}, "max_tokens must be a whole number from 1 up, not 'many'"),
        ({"max_tokens": True}, "max_tokens must be a whole number from 1 up, not True"),
        ({"trust_remote_code": "no"}, "trust_remote_code must be True or False, not 'no'"),
        ({"revision": 12}, "revision must be a string, not 12"),
        ({"revision": {"main"}}, "the option revision contains a set, which cannot be dumped"),
        ({"quantization_config": 8}, "quantization_config must be a configuration of transformers"),
        ({"url": "http://127.0.0.1:9", "batch_tokens": 5}, "'batch_tokens' is not an option of a server"),
    ],
)
def test_a_parameter_of_a_wrong_type_is_refused_by_the_constructor(framework: Adapter, given: Any, message: str):
    with pytest.raises(ValueError, match=message):
        framework.kind(model=DEMO_MODEL, **given)


@pytest.mark.parametrize("name", NAMES)
def test_a_given_reranker_determines_the_parameters(framework: Adapter, name: str):
    with Reranker.load(DEMO_MODEL, max_tokens=300) as reranker:
        assert framework.kind.from_reranker(reranker).options == {"max_tokens": 300}
        with pytest.raises(InputError, match=f"{name} cannot be set: from_reranker takes it from the given reranker"):
            framework.kind.from_reranker(reranker, **{name: 1})


def test_parameters_stand_in_a_pipelines_yaml():
    pipeline = Pipeline()
    pipeline.add_component("ranker", OnelogitRanker(DEMO_MODEL, max_tokens=300, revision="main"))
    written = yaml.safe_load(pipeline.dumps())
    parameters = written["components"]["ranker"]["init_parameters"]
    assert (parameters["max_tokens"], parameters["revision"], parameters["options"]) == (300, "main", {})

    parameters |= {"max_tokens": "3e2", "trust_remote_code": "false", "document_cache_bytes": None}
    ranker = Pipeline.loads(yaml.safe_dump(written)).get_component("ranker")

    assert (ranker.max_tokens, ranker.trust_remote_code, ranker.document_cache_bytes) == (300, False, None)


def test_pydantic_adapters_are_equal_if_their_fields_are():
    written, meant, other = (LangChainRerank(model=DEMO_MODEL, max_tokens=count) for count in ("300", 300, 301))
    assert written == meant == copy.deepcopy(meant) == pickle.loads(pickle.dumps(meant))
    assert written != other
    meant.warm_up()
    assert written == meant
    reranker = open_reranker(DEMO_MODEL, max_tokens=300)
    assert LangChainRerank.from_reranker(reranker) == LangChainRerank.from_reranker(reranker)
    assert LangChainRerank.from_reranker(reranker) != LangChainRerank(model=DEMO_MODEL, options={"max_tokens": 300})
    manager = CallbackManager([])
    nodes = [LlamaIndexRerank(model=DEMO_MODEL, max_tokens=count, callback_manager=manager) for count in (300, "3e2")]
    assert nodes[0] == nodes[1]
