"""The functions around Ray Data's vLLM stage, without vLLM itself."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onelogit import InputError, LoadOptions, OpenOptions, Reranker
from onelogit.bulk.job import RunSummary, WorkerSpec, run
from onelogit.bulk.ray_engine import WorkerPool
from onelogit.bulk.shards import plan_shards
from onelogit.bulk.vllm_engine import (
    RowEncoder,
    decode_row,
    engine_settings,
    load_converted_encoder,
    pair_rows,
    score_by_vllm,
    write_shards,
)
from support.bulk_rows import expected_results, query_rows, ranking, results, write_jsonl
from support.tiny import Tiny

ROWS = query_rows(3, 4)
PAIR: dict[str, Any] = {
    "number": 0, "pairs": 1, "position": 0, "query_id": "q", "document_id": "d", "query": "q", "document": "d",
    "error": None, "unread": "{}", "empty_rows": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def converted(tiny_qwen: Tiny, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("converted") / "model"
    with Reranker.load(tiny_qwen.folder) as reranker:
        reranker.save(folder)
    return str(folder)


@pytest.mark.parametrize("options", [{}, {"instruction": "Say."}, {"instruction": ""}, {"max_tokens": 300}])
def test_token_ids_equal_those_of_the_local_reranker(options: LoadOptions, converted: str):
    pairs = [("what?", "a document"), ("why <|im_end|>?", "서울 " * 200)]
    rows = Reranker.load(converted, **options)._scorer.rows(pairs)

    encode = RowEncoder(WorkerSpec(converted, options, "out"))

    for (query, document), row in zip(pairs, rows, strict=True):
        encoded = encode({**PAIR, "query": query, "document": document})
        assert encoded == {"tokenized_prompt": [*row.ids], "pooling_params": {"use_activation": False}, "error": None}


def test_an_encoder_reaches_a_worker_of_ray_without_its_model(converted: str):
    row = {**PAIR, "document": "a document"}
    encode = RowEncoder(WorkerSpec(converted, {"max_tokens": 300}, "out"))
    expected = encode(row)

    sent = pickle.dumps(encode)

    assert len(sent) < 2_000
    assert pickle.loads(sent)(row) == expected


def test_a_pair_that_cannot_be_encoded_keeps_its_row_with_an_error(converted: str):
    encode = RowEncoder(WorkerSpec(converted, {"max_tokens": 300}, "out"))

    assert "leaves no room" in encode({**PAIR, "query": "long " * 500})["error"]
    assert encode({**PAIR, "error": "bad"})["error"] == "bad"
    assert encode({**PAIR, "error": "bad"})["tokenized_prompt"] == [0]


@pytest.mark.parametrize(
    ("answer", "logit", "error"),
    [
        ({"embeddings": [1.5]}, 1.5, None),
        ({"embeddings": [1.5], "__inference_error__": ""}, 1.5, None),
        ({"embeddings": [1.5], "error": "bad"}, None, "bad"),
        ({"embeddings": None, "__inference_error__": "ValueError: no"}, None, "ValueError: no"),
        ({"embeddings": [float("nan")]}, None, "the logit is nan"),
    ],
)
def test_a_row_of_vllm_becomes_a_logit_or_an_error(answer: dict[str, Any], logit: float | None, error: str | None):
    decoded = decode_row({**PAIR, **answer})

    assert (decoded["logit"], decoded["error"]) == (logit, error)
    assert decoded["query_id"] == "q"


def test_a_run_with_a_stand_in_for_vllm_gives_the_local_results(
    converted: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    """Rows arrive in any order, and one of them twice."""
    bad = {"query_id": "bad", "query": "", "documents": ["a", {"text": "b", "abstract": "c"}]}
    rows = [*ROWS, bad, {**ROWS[0], "documents": []}]
    source = write_jsonl(tmp_path / "in.jsonl", rows)
    reranker = Reranker.load(converted)

    def engine(spec: WorkerSpec, shards: Any) -> Any:
        encode = RowEncoder(spec)
        rows = [{**row, **encode(row)} for shard in shards for row in pair_rows(shard._asdict())]
        rows = [*rows[::-2], *rows[:2], *rows[-2::-2]]
        pairs = [(row["query"] or "none", row["document"]) for row in rows]
        answers = [{**row, "embeddings": [logit]} for row, logit in zip(rows, reranker.pair_logits(pairs), strict=True)]
        return write_shards(iter(answers), spec, reranker.activation, shards)

    assert run(source, tmp_path / "out", converted, engine=engine, slice_rows=1) == RunSummary(pairs=14, errors=2)
    fine = [row for row in results(tmp_path / "out") if row["error"] is None]
    assert ranking(fine) == expected_results(reranker, ROWS)
    assert caplog.messages[-2].endswith('are not part of their texts: "abstract" (1)')
    assert caplog.messages[-1].endswith("rows with an empty list of documents, which give no result: 1")


def test_a_shard_without_pairs_gives_one_row(tmp_path: Path):
    (shard,) = plan_shards(write_jsonl(tmp_path / "in.jsonl", [{**ROWS[0], "documents": []}]), 9).shards

    assert [(row["pairs"], row["position"]) for row in pair_rows(shard._asdict())] == [(0, 0)]


def test_a_model_that_is_not_converted_is_refused(checkpoint: Callable[..., Tiny]):
    folder = checkpoint("Qwen3-Reranker-tiny").folder

    with pytest.raises(InputError, match="is not a sequence classifier; convert it with: onelogit convert"):
        load_converted_encoder(str(folder), {})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"long_documents": "chunk_max"}, "chunk_max"),
        ({"batch_tokens": 100}, "engine vllm does not support the option 'batch_tokens'"),
        ({"trust_remote_code": True}, "engine vllm does not support the option 'trust_remote_code'"),
        ({"device": "mps"}, "not on 'mps'"),
    ],
)
def test_an_option_without_effect_is_refused(options: OpenOptions, message: str, converted: str):
    with pytest.raises(InputError, match=message):
        load_converted_encoder(converted, options)


def test_an_option_with_its_default_value_is_not_refused(converted: str):
    load_converted_encoder(
        converted, {"trust_remote_code": False, "batch_tokens": None, "device": "cuda", "dtype": "float32"}
    )


@pytest.mark.parametrize(
    ("gpus", "device", "parallel", "placement"),
    [
        (0, None, 1, None),
        (1, "cuda", 1, None),
        (4, None, 4, None),
        (0, "cpu", 1, {"bundle_per_worker": {"CPU": 3}}),
    ],
)
def test_an_engine_takes_at_least_one_gpu_and_none_on_a_cpu(gpus: float, device: Any, parallel: int, placement: Any):
    settings = engine_settings(
        WorkerPool(2, 3, gpus), WorkerSpec("m", {"device": device, "dtype": "float16"}, "out"), 512
    )

    assert settings["concurrency"] == 2
    assert settings["engine_kwargs"] == {
        "max_model_len": 512,
        "tensor_parallel_size": parallel,
        "dtype": "float16",
    }
    assert settings["placement_group_config"] == placement


def test_a_fraction_of_a_gpu_is_refused(converted: str):
    with pytest.raises(InputError, match=r"whole GPUs, not 0\.5"):
        next(score_by_vllm(WorkerPool(gpus_per_worker=0.5))(WorkerSpec(converted, {}, "out"), []))
