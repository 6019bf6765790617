"""Bulk runs on a Ray cluster of two nodes on this machine: killed workers, lost nodes, killed runs, full pools, tokens.

The nodes have the loopback address 127.0.0.2, because Ray replaces 127.0.0.1 by the machine's public address.
"""

import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onelogit import DEMO_MODEL, InputError, LoadOptions, Reranker
from onelogit.bulk import rerank
from onelogit.bulk.job import BulkEngine, RunSummary, ShardResult, WorkerSpec, run
from onelogit.bulk.shards import Shard
from support.bulk_rows import (
    Row,
    expected_results,
    pair_rows,
    query_rows,
    ranking,
    results,
    wait_until,
    write_jsonl,
    write_parquet,
)
from support.servers import Body, FakeServer, Response, serving

pytestmark = pytest.mark.ray

ADDRESS = "127.0.0.2"
OPTIONS: LoadOptions = {"dtype": "float32", "device": "cpu"}
QUICK_TO_MISS_A_NODE = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 4,
}
FEW_PROCESSES = {
    "prestart_worker_first_driver": False,
    "enable_worker_prestart": False,
    "idle_worker_killing_time_threshold_ms": 60_000,
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without CPUs and two nodes with one CPU each, which require a token."""
    import ray
    from ray.cluster_utils import Cluster

    os.environ.pop("OMP_NUM_THREADS", None)  # nodes would pass it on to workers instead of their own value
    same = {"node_ip_address": ADDRESS, "include_dashboard": False}
    cluster = Cluster(
        initialize_head=True,
        head_node_args={**same, "num_cpus": 0, "_system_config": QUICK_TO_MISS_A_NODE | FEW_PROCESSES},
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1, **same)
        ray.init(cluster.address, logging_level=logging.CRITICAL, log_to_driver=False)
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.default_hash_shuffle_parallelism = False, 2
        yield cluster
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.fixture(scope="module")
def reranker() -> Iterator[Reranker]:
    with Reranker.load(DEMO_MODEL, **OPTIONS) as reranker:
        yield reranker


def on_ray(workers: int, watch: Callable[[ShardResult], None] = lambda done: None) -> BulkEngine:
    """The engine on Ray; `watch` is called with each result."""
    from onelogit.bulk.ray_engine import WorkerPool, score_on_ray

    def engine(spec: WorkerSpec, shards: Sequence[Shard]) -> Iterator[ShardResult]:
        for done in score_on_ray(WorkerPool(workers))(spec, shards):
            watch(done)
            yield done

    return engine


def test_a_killed_run_continues_with_the_remaining_shards_and_its_workers_end(
    cluster: Any, reranker: Reranker, tmp_path: Path
):
    import ray

    rows = query_rows(120, 6)
    source, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out"
    command = [sys.executable, "-m", "onelogit", "bulk", source, out, "--model", DEMO_MODEL, "--slice-rows", "2"]
    further = ["--dtype", "float32", "--device", "cpu", "--workers", "1", "--ray-address", cluster.address]

    with subprocess.Popen([*command, *further], stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: len(list(out.glob("_scored-*/slice-*"))) >= 3 or process.poll() is not None, 240)
        finally:
            process.kill()
    written = {part.name for part in out.glob("_scored-*/slice-*")}
    wait_until(lambda: ray.available_resources().get("CPU") == 2, timeout_s=240)
    done: list[ShardResult] = []
    outcome = run(source, out, DEMO_MODEL, slice_rows=2, engine=on_ray(1, done.append), **OPTIONS)

    assert process.returncode == -signal.SIGKILL
    assert 3 <= len(written) < 60
    assert not written & {f"slice-{each.number:08}.parquet" for each in done}
    assert outcome == RunSummary(pairs=720, errors=0)
    assert ranking(results(out)) == expected_results(reranker, rows)


def test_a_dataset_is_ranked_as_by_the_reranker(cluster: Any, reranker: Reranker, tmp_path: Path):
    """From a file with a column of list<string>, by a pool that leaves one CPU for the rest of the dataset."""
    import ray

    rows = query_rows(20, 5)
    bad = {"query_id": None, "query": "q", "documents": ["d"]}
    source = write_parquet(tmp_path / "in.parquet", [*rows, bad, {**rows[0], "query_id": "empty", "query": ""}])

    reranked = rerank(ray.data.read_parquet(str(source)), DEMO_MODEL, **OPTIONS)
    found: list[Row] = reranked.take_all()

    fine = sorted(ranking(row for row in found if row["error"] is None), key=lambda row: (int(row[0][1:]), row[2]))
    assert fine == expected_results(reranker, rows)
    errors = [(row["query_id"], row["logit"], row["rank"]) for row in found if row["error"] is not None]
    assert sorted(errors, key=str) == [("empty", None, None)] * 5 + [(None, None, None)]


def test_a_dataset_of_pairs_is_ranked_by_query_and_can_be_scored_by_a_server(cluster: Any, reranker: Reranker):
    import ray

    rows = query_rows(12, 5)
    pairs = ray.data.from_items(pair_rows(rows), override_num_blocks=3)

    with serving(FakeServer(reranker=reranker)) as server:
        found = rerank(pairs, DEMO_MODEL, url=server.url).take_all()

    assert sorted(ranking(found), key=lambda row: (int(row[0][1:]), row[2])) == expected_results(reranker, rows)


def test_one_file_is_many_blocks(cluster: Any, tmp_path: Path):
    """Ray reads a file as one block, whatever number is requested, and one actor would get it."""
    import ray

    from onelogit.bulk.ray_engine import split_blocks

    file = str(write_parquet(tmp_path / "in.parquet", query_rows(40, 2)))

    assert ray.data.read_parquet(file, override_num_blocks=8).materialize().num_blocks() == 1
    assert split_blocks(ray.data.read_parquet(file)).materialize().num_blocks() == 3


def test_a_worker_has_as_many_threads_as_cpus(cluster: Any):
    import ray

    from onelogit.bulk.ray_engine import WorkerPool

    class Threads:
        def __call__(self, batch: Any) -> Any:
            return batch.append_column("threads", [[os.environ["OMP_NUM_THREADS"]]])

    (row,) = (
        ray.data.from_items([{"x": 1}])
        .map_batches(**WorkerPool(1, cpus_per_worker=1).map_arguments(Threads))
        .take_all()
    )

    assert row["threads"] == "1"


def test_a_pool_that_leaves_no_cpu_for_its_dataset_is_refused(cluster: Any):
    import ray

    with pytest.raises(InputError, match="2 workers take 2 CPUs of the cluster's 2, and the rest of the dataset needs"):
        rerank(ray.data.from_items(query_rows(1, 1)), DEMO_MODEL, workers=2)


def test_a_warning_is_logged_if_no_node_has_room_for_a_worker(cluster: Any, caplog: pytest.LogCaptureFixture):
    from onelogit.bulk.ray_engine import WorkerPool, warn_if_no_node_fits

    warn_if_no_node_fits(WorkerPool(cpus_per_worker=1))
    assert not caplog.records
    warn_if_no_node_fits(WorkerPool(gpus_per_worker=1))
    assert "no node has the 1 CPUs and 1 GPUs of a worker" in caplog.text


def test_an_error_of_a_worker_is_one_line(cluster: Any, tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", query_rows(1, 1))
    command = [sys.executable, "-m", "onelogit", "bulk", source, tmp_path / "out", "--model", DEMO_MODEL]
    further = ["--device", "cuda:7", "--workers", "1", "--ray-address", cluster.address]

    ran = subprocess.run([*command, *further], capture_output=True, text=True, timeout=240, check=False)

    assert ran.returncode == 2
    assert ran.stdout == ""
    lines = [
        line for line in ran.stderr.splitlines() if "core_worker.cc" not in line
    ]  # a log of Ray that cannot be disabled
    assert len(lines) == 1
    assert "device='cuda:7', but PyTorch finds no CUDA device here" in lines[0]


@pytest.mark.parametrize(
    ("address", "token", "message"),
    [("CLUSTER", "0" * 64, "Authentication token is missing or incorrect"), (f"{ADDRESS}:9", None, "refused")],
    ids=["token", "address"],
)
def test_a_cluster_that_cannot_be_joined_is_an_error(
    address: str, token: str | None, message: str, cluster: Any, tmp_path: Path
):
    source = write_jsonl(tmp_path / "in.jsonl", query_rows(1, 1))
    command = [sys.executable, "-m", "onelogit", "bulk", source, tmp_path / "out", "--model", DEMO_MODEL]
    further = ["--workers", "1", "--ray-address", cluster.address if address == "CLUSTER" else address]
    environment = {
        **os.environ,
        "RAY_AUTH_TOKEN": token or os.environ["RAY_AUTH_TOKEN"],
        "RAY_NUM_REDIS_GET_RETRIES": "1",
    }

    ran = subprocess.run(
        [*command, *further], capture_output=True, text=True, timeout=240, check=False, env=environment
    )

    assert ran.returncode == 2
    last = ran.stderr.splitlines()[-1]
    assert last.startswith("onelogit: Ray cannot be reached at")
    assert message in last


def test_a_local_cluster_whose_workers_would_not_start_is_an_error(tmp_path: Path):
    source = write_jsonl(tmp_path / "in.jsonl", query_rows(1, 1))
    command = [sys.executable, "-m", "onelogit", "bulk", source, tmp_path / "out", "--model", DEMO_MODEL]
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    inherited = {name: value for name, value in os.environ.items() if name not in {"RAY_ADDRESS", "RAY_TMPDIR"}}
    environment = {**inherited, "VIRTUAL_ENV": str(tmp_path), "TMPDIR": str(temporary)}

    ran = subprocess.run(
        [*command, "--workers", "1"], capture_output=True, text=True, timeout=240, check=False, env=environment
    )

    assert ran.returncode == 2
    assert ran.stderr.splitlines()[-1] == (
        f"onelogit: Ray's workers do not start with a temporary folder in the virtual environment ({temporary}); set "
        "the environment variable TMPDIR to another one, such as /tmp"
    )


def test_a_killed_worker_and_a_lost_node_lose_no_results(cluster: Any, reranker: Reranker, tmp_path: Path):
    """One file, by a pool that holds all CPUs. This test must be the last, because it leaves one node.

    A server scores slowly until both have happened, so that work is left however long a new worker takes to start.
    """
    rows = query_rows(150, 2)
    source, out = write_jsonl(tmp_path / "in.jsonl", rows), tmp_path / "out"
    served = FakeServer(reranker=reranker)
    done: list[ShardResult] = []
    left: list[int] = []

    def respond(path: str, body: Body | None) -> Response:
        return replace(served(path, body), delay_s=0.0 if left else 0.4)

    def watch(each: ShardResult) -> None:
        done.append(each)
        if len(done) == 2:
            os.kill(int(each.worker.rpartition(":")[2]), signal.SIGKILL)
        if not left and len({each.worker for each in done}) == 3:  # both nodes, and a replacement
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            left.append(150 // 2 - len(list(out.glob("_scored-*/slice-*"))))

    with serving(respond) as server:
        outcome = run(source, out, DEMO_MODEL, slice_rows=2, engine=on_ray(2, watch), url=server.url)

    assert left > [5]
    assert sorted(each.number for each in done) == [*range(75)]
    assert outcome == RunSummary(pairs=300, errors=0)
    assert ranking(results(out)) == expected_results(reranker, rows)
