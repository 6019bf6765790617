"""A model that is loaded before a fork, as servers do that load an application once and fork their workers."""

import os
import subprocess
import sys

import pytest

from onelogit import DEMO_MODEL

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows does not fork")

PROGRAM = """
import faulthandler, os, sys, threading
from onelogit import Reranker, open_reranker
from onelogit.local import reranker as local
from onelogit.io.progress import _row_bars as bars
import onelogit.registry

query, documents = "What is the capital of China?", ["Beijing.", "Bananas are yellow."]
reranker = open_reranker(sys.argv[1], document_cache_bytes=1_000_000)
expected = reranker.logits(query, documents)
if sys.argv[2] == "locked":  # by another thread, at the time of the fork
    held, stop = threading.Event(), threading.Event()
    def hold():
        with reranker._scorer._encoder._token_cache._lock, onelogit.registry._lock, local._load_lock, bars._lock:
            held.set()
            stop.wait(60)
    threading.Thread(target=hold, daemon=True).start()
    held.wait(60)
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(60, exit=True)
        same = open_reranker(sys.argv[1], document_cache_bytes=1_000_000)
        new = Reranker.load(sys.argv[1])
        near = lambda logits: all(abs(a - b) < 1e-5 for a, b in zip(logits, expected, strict=True))
        with bars._lock:
            pass
        is_right = same is reranker and near(same.logits(query, documents)) and near(new.logits(query, documents))
        os._exit(0 if is_right else 3)
    children.append(child)
print([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children])
if sys.argv[2] == "locked":
    stop.set()
print(reranker.logits(query, documents) == expected)
"""


@pytest.mark.parametrize(("state", "setting"), [("idle", None), ("locked", None), ("idle", "true")])
def test_forked_workers_share_a_model_that_was_loaded_before(state: str, setting: str | None):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", PROGRAM, DEMO_MODEL, state]
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": setting, "RAYON_NUM_THREADS": "4"}
    environment = {name: value for name, value in environment.items() if value is not None}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=200, check=False, env=environment)

    assert (ran.stdout.split("\n"), ran.stderr) == (["[0, 0, 0]", "True", ""], "")
