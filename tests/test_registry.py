"""One set of weights for all who name the same model and options, for as long as one of them holds it."""

import gc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from weakref import ref

import pytest

from onelogit import CheckpointError, InputError, Reranker, open_reranker
from onelogit.local import reranker as local_reranker
from onelogit.recipes.families import FAMILIES
from support.tiny import Tiny


def test_the_same_name_and_options_share_one_reranker(tiny_qwen: Tiny):
    model = str(tiny_qwen.folder)
    first = open_reranker(model, max_tokens=500)

    assert open_reranker(model, max_tokens=500, device=None) is first
    assert open_reranker(model) is not first


def test_threads_that_open_a_model_at_the_same_time_load_it_once(tiny_qwen: Tiny):
    with ThreadPoolExecutor(8) as pool:
        rerankers = list(pool.map(lambda _: open_reranker(str(tiny_qwen.folder), batch_tokens=123), range(8)))

    assert len({id(reranker) for reranker in rerankers}) == 1


def test_the_weights_go_with_their_last_user(tiny_qwen: Tiny):
    reranker = open_reranker(str(tiny_qwen.folder))
    classifier = ref(reranker.classifier)

    del reranker
    gc.collect()

    assert classifier() is None


def test_a_closed_reranker_is_loaded_anew(tiny_qwen: Tiny):
    closed = open_reranker(str(tiny_qwen.folder))
    closed.close()

    assert open_reranker(str(tiny_qwen.folder)) is not closed


@pytest.mark.parametrize("option", ["batch_tokens", "max_tokens"])
def test_an_option_of_zero_is_refused_though_another_reranker_is_open(option: str, tiny_qwen: Tiny):
    kept = open_reranker(str(tiny_qwen.folder))

    with pytest.raises(InputError, match=f"{option} must be a whole number from 1 up"):
        open_reranker(str(tiny_qwen.folder), **{option: 0})  # type: ignore[typeddict-item]
    assert open_reranker(str(tiny_qwen.folder), trust_remote_code=False) is kept


def test_a_model_that_could_not_be_opened_can_be_opened_later(checkpoint: Callable[..., Tiny], tmp_path: Path):
    with pytest.raises(CheckpointError, match="no folder"):
        open_reranker(str(tmp_path / "model"))
    checkpoint("model")

    assert open_reranker(str(tmp_path / "model"), recipe=FAMILIES[0]).recipe.family == FAMILIES[0].family


def test_a_model_that_cannot_be_opened_keeps_nothing_in_memory(tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch):
    class Weights:
        pass

    def damaged(*_: object) -> None:
        weights = Weights()
        kept.append(ref(weights))
        raise CheckpointError("damaged")

    kept: list[ref[Weights]] = []
    monkeypatch.setattr(local_reranker, "build_classifier", damaged)
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(CheckpointError, match="damaged"):
            open_reranker(str(tiny_qwen.folder))
        with pytest.raises(CheckpointError, match="damaged"):
            Reranker.load(tiny_qwen.folder)
        assert [each() for each in kept] == [None, None]
    finally:
        gc.enable()
