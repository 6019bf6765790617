"""An option that nobody has is refused by a sentence that names the option that is meant, and where it belongs."""

from typing import Any

import pytest

from haystack_integrations.components.rankers.onelogit import OnelogitRanker
from langchain_onelogit import OnelogitRerank as LangChainRerank
from llama_index.postprocessor.onelogit_rerank import OnelogitRerank as LlamaIndexRerank
from onelogit import DEMO_MODEL, InputError, RemoteReranker, Reranker, open_reranker
from support.adapters import ADAPTERS, Adapter

QUERY = "What is the capital of China?"
TEXTS = ["Beijing.", "Paris."]


@pytest.fixture(params=ADAPTERS, ids=lambda adapter: type(adapter).__name__)
def framework(request: pytest.FixtureRequest) -> Adapter:
    return request.param


@pytest.fixture(scope="module")
def reranker() -> Reranker:
    return open_reranker(DEMO_MODEL)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_length", "max_length is max_tokens here"),
        ("batch_size", "batch_size is batch_tokens here, and counts tokens"),
        ("batchSize", "batchSize is batch_tokens here"),
        ("maxTokens", "maxTokens is max_tokens here"),
        ("model_name", "model_name is model here"),
        ("model_name_or_path", "model_name_or_path is model here"),
        ("torch_dtype", "torch_dtype is dtype here"),
        ("use_fp16", "use_fp16 is dtype='float16' here"),
        ("load_in_4bit", r"load_in_4bit is quantization_config=\{'load_in_4bit': True\} here"),
        ("model_kwargs", "pass what is in it by name, such as dtype="),
        ("tokenizer_kwargs", "pass what is in it by name"),
        ("device_map", r"device_map belongs in options=\{'device_map': \.\.\.\}"),
        ("attn_implementation", r"attn_implementation belongs in options=\{'attn_implementation': \.\.\.\}"),
        ("cache_folder", r"cache_folder is cache_dir here, and cache_dir belongs in options=\{'cache_dir': \.\.\.\}"),
        ("timeout", r"timeout is timeout_s here, and timeout_s belongs in options=\{'timeout_s': \.\.\.\}"),
        ("base_url", "base_url is url here"),
        ("hf_token", "hf_token is token here"),
        ("query_prefix", "leave it out, because the model's own prompt is written"),
        ("max_tokns", r"did you mean 'max_tokens'\?"),
        ("backend", "leave it out, because local models always run in PyTorch"),
        ("calibration_factor", "leave it out, because scores are on the scale of the model's card"),
        (
            "cross_encoder_kwargs",
            r"pass what is in it by name, such as dtype=\.\.\. or options=\{'attn_implementation'",
        ),
        ("num_labels", "leave it out, because the model's files say how it is built"),
        ("query_instruction_for_rerank", "query_instruction_for_rerank is instruction here"),
        ("query_max_length", "query_max_length is max_tokens here, and limits the whole prompt"),
        ("model_type", "model_type is recipe here, such as recipe='qwen3-reranker'"),
        ("devices", "devices is device here"),
        ("truncate", "truncate is long_documents='cut' here"),
        ("raise_on_failure", "raise_on_failure is on_error='raise' or 'keep_order' here"),
        ("raw_scores", "raw_scores is activation='identity' here, and activation belongs in options="),
        ("convert_to_tensor", "leave it out, because scores have one form"),
        ("use_flash_attention_2", "use_flash_attention_2 is attn_implementation='flash_attention_2' here, and"),
    ],
)
def test_an_adapter_names_what_is_meant_and_where_it_belongs(framework: Adapter, name: str, meant: str):
    with pytest.raises(ValueError, match=f"unknown option '{name}'.*{meant}"):
        framework.kind(**{"model": DEMO_MODEL, name: 1})


@pytest.mark.parametrize(
    ("kind", "name", "meant"),
    [
        (LangChainRerank, "top_k", "top_k is top_n here"),
        (LlamaIndexRerank, "top_k", "top_k is top_n here"),
        (OnelogitRanker, "top_n", "top_n is top_k here"),
        (LangChainRerank, "show_progress_bar", "show_progress_bar is progress here"),
        (LlamaIndexRerank, "progress", "progress is show_progress here"),
        (OnelogitRanker, "progress", "progress is progress_bar here"),
        (LangChainRerank, "rank_fields", "rank_fields is metadata_fields here"),
        (OnelogitRanker, "metadata_fields", "metadata_fields is meta_fields_to_embed here"),
        (OnelogitRanker, "metadata_separator", "metadata_separator is embedding_separator here"),
        (LlamaIndexRerank, "keep_retrieval_score", "leave it out, because the score before reranking is always kept"),
        (LangChainRerank, "keep_retrieval_score", "leave it out, because the metadata of documents, with any score in"),
        (OnelogitRanker, "keep_retrieval_score", "leave it out, because the new score takes the place of the old one"),
        (LangChainRerank, "meta_fields_to_embed", "meta_fields_to_embed is metadata_fields here"),
        (LangChainRerank, "scale_score", "scale_score is activation='sigmoid' or 'identity' here"),
        (LlamaIndexRerank, "rank_fields", "rank_fields is metadata_mode here"),
    ],
)
def test_an_adapter_uses_its_frameworks_names(kind: Any, name: str, meant: str):
    with pytest.raises(ValueError, match=f"unknown option '{name}': {meant}"):
        kind(**{"model": DEMO_MODEL, name: 1})


def test_a_model_under_another_name_is_named_although_the_model_is_missing(framework: Adapter):
    with pytest.raises(ValueError, match="model_name is model here"):
        framework.kind(model_name=DEMO_MODEL)


def test_an_option_of_the_constructor_is_not_one_of_a_call(framework: Adapter):
    adapter, documents = framework.kind(model=DEMO_MODEL), framework.documents(TEXTS)
    if not framework.has_call_options:
        return
    other = framework.names.get("top_n", "top_n")
    wrong = {"top_n": "top_k", "top_k": "top_n"}[other]
    for name, meant in ((wrong, f"{wrong} is {other} here"), ("max_length", "max_tokens is set when the adapter")):
        with pytest.raises(InputError, match=f"unknown option '{name}': .*{meant}"):
            if wrong == "top_n":
                adapter.run(query=QUERY, documents=documents, **{name: 1})
            else:
                adapter.compress_documents(documents, QUERY, **{name: 1})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("max_length", "max_length is max_tokens here"),
        ("batch_size", "batch_size is batch_tokens here"),
        ("top_k", "top_k is top_n here, and top_n is an argument of rank"),
        ("top_n", "top_n is an argument of rank"),
        ("model_kwargs", "pass what is in it by name"),
        ("torch_dtype", "torch_dtype is dtype here"),
        ("activation_fn", "activation_fn is activation here"),
        ("devise", r"did you mean 'device'\?"),
        ("max-length", "max-length is max_tokens here"),
        ("modelkwargs", "pass what is in it by name"),
        ("topN", "topN is top_n here, and top_n is an argument of rank"),
    ],
)
def test_the_core_names_what_is_meant(name: str, meant: str):
    for load in (lambda **options: Reranker.load(DEMO_MODEL, **options), lambda **o: open_reranker(DEMO_MODEL, **o)):
        with pytest.raises(InputError, match=f"unknown option '{name}'.*{meant}"):
            load(**{name: 1})
    with pytest.raises(InputError, match=f"unknown option '{name}'.*{meant}"):
        RemoteReranker("http://127.0.0.1:9", DEMO_MODEL, **{name: 1})


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("top_k", "top_k is top_n here"),
        ("show_progress_bar", "show_progress_bar is progress here"),
        ("prompt", "prompt is instruction here"),
        ("threshold", "threshold is score_threshold here"),
        ("batch_size", "and batch_tokens is set when the reranker is opened"),
        ("activation_fn", "and activation is set when the reranker is opened"),
        ("topn", r"did you mean 'top_n'\?.*; the options are query, documents, top_n"),
    ],
)
async def test_ranking_names_what_is_meant(reranker: Reranker, name: str, meant: str):
    with pytest.raises(InputError, match=f"unknown option '{name}'.*{meant}"):
        reranker.rank(QUERY, TEXTS, **{name: 1})
    with pytest.raises(InputError, match=f"unknown option '{name}'.*{meant}"):
        await reranker.arank(QUERY, TEXTS, **{name: 1})
