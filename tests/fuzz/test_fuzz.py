"""Each fuzz target for a few seconds, with other cases in each run; and every case that ever failed."""

import importlib.util
import logging
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fuzz_files import check_reader, check_small_files
from support.fuzz_servers import check_answer
from support.fuzzing import FuzzTarget, fuzz, fuzz_at_random

SECONDS, RANDOM_CASES = 4.0, 1_500


def _targets() -> Any:
    file = Path(__file__).with_name("targets.py")
    spec = importlib.util.spec_from_file_location("fuzz_targets", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MODULE = _targets()
TARGETS: dict[str, FuzzTarget] = MODULE.TARGETS


@pytest.fixture(autouse=True)
def without_logs() -> Iterator[None]:
    """Files and templates at random give warnings without end."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


def test_each_target_has_a_share_of_the_cases():
    assert MODULE.SHARES.keys() == TARGETS.keys()


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_holds_for_generated_cases(name: str):
    """The failing case is in the error: keep it below."""
    seed = secrets.randbelow(10**6)

    result = fuzz(TARGETS[name], seed=seed, seconds=SECONDS)

    assert result.cases > 0
    if TARGETS[name].random_case is not None:
        fuzz_at_random(TARGETS[name], RANDOM_CASES, seed=seed)


@pytest.mark.parametrize("code", ["9" * 5000, "²", "٣", " 500", "-1"])
def test_a_code_of_an_error_that_is_no_short_number_is_quoted(code: str):
    check_answer(("rerank", 5, [([2], code)], 200, b""))


@pytest.mark.parametrize("path", ["\udfff", "\ud800/a", "a\0", "a" * 5000, "\u2028"])
def test_a_module_with_an_odd_path_is_refused_in_a_sentence(path: str):
    check_small_files((4, [(1, [2, 2], path)], None))
    check_small_files((4, [(1, [1, 2], path)], "qwen3-reranker"))


@pytest.mark.parametrize("reader", ["documents", "collection", "queries"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("content", [b'""', b'""\n""', b",", b'\n"\t"\n', b'sep=,\n""', b" ", b"\x0b", b"\xef\xbb\xbf"])
def test_a_table_of_blank_rows_is_empty(content: bytes, suffix: str, reader: str):
    check_reader((reader, content, suffix, False))
