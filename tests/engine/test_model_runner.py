"""Logits of rows: the same as if each row were alone, with every shared prefix computed once, in any memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GlmConfig,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen2MoeConfig,
    Qwen3Config,
)

from onelogit import DeviceMemoryError, Reranker
from onelogit.engine.device_transfer import PendingLogits
from onelogit.engine.model_runner import ModelRunner
from onelogit.prompts.token_rows import TokenRow
from onelogit.recipes.families import FAMILIES
from support.classifiers import classifier_of, random_rows, tokens_seen
from support.tiny import byte_level_tokenizer

WINDOWS = {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
PREFIX_SHARING = {
    "qwen2": (Qwen2Config, {}),
    "qwen2, sliding window": (Qwen2Config, {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 9}),
    "qwen3": (Qwen3Config, {}),
    "llama": (LlamaConfig, {}),
    "mistral, sliding window": (MistralConfig, {"sliding_window": 16}),
    "gemma": (GemmaConfig, {}),
    "gemma3": (Gemma3TextConfig, WINDOWS),
    "glm, untested": (GlmConfig, {}),
}


@pytest.fixture(scope="module")
def qwen() -> PreTrainedModel:
    return classifier_of(Qwen3Config)


def padded(classifier: PreTrainedModel, batch_tokens: int = 10**6) -> ModelRunner:
    runner = ModelRunner(classifier, batch_tokens)
    runner.shares_prefixes = False
    return runner


@cache
def logits_alone(name: str) -> list[float]:
    """The logits of 40 random rows, each computed alone."""
    config_class, fields = PREFIX_SHARING[name]
    runner = padded(classifier_of(config_class, **fields))
    return [runner.logits([row])[0] for row in random_rows(40)]


@pytest.mark.parametrize("batch_tokens", [1, 50, 10_000])
@pytest.mark.parametrize("name", PREFIX_SHARING)
def test_a_row_in_a_prefix_tree_has_the_logit_of_the_row_alone(name: str, batch_tokens: int):
    config_class, fields = PREFIX_SHARING[name]
    rows = random_rows(12 if batch_tokens == 1 else 40)
    shared = ModelRunner(classifier_of(config_class, **fields), batch_tokens)

    logits = shared.logits(rows)

    assert shared.shares_prefixes
    assert logits == pytest.approx(logits_alone(name)[: len(rows)], abs=1e-5)
    assert max(logits) - min(logits) > 0.1


def test_padded_rows_have_the_same_logits(qwen: PreTrainedModel):
    rows = random_rows(40)

    assert padded(qwen, 100).logits(rows) == pytest.approx(ModelRunner(qwen).logits(rows), abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [10, 10_000])
def test_every_distinct_token_is_computed_once(qwen: PreTrainedModel, batch_tokens: int):
    rows = random_rows(40)
    distinct = {row.ids[: length + 1] for row in rows for length in range(len(row.ids))}

    with tokens_seen(qwen) as seen:
        ModelRunner(qwen, batch_tokens).logits(rows)

    assert sum(seen) == len(distinct)
    assert max(seen) <= batch_tokens


def test_batches_are_padded_to_recurring_lengths_within_the_budget(qwen: PreTrainedModel):
    widths = []
    hook = qwen.model.embed_tokens.register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))
    for budget in (100, 10_000):
        for count in range(1, 20):
            ModelRunner(qwen, budget).logits(random_rows(count))
    hook.remove()

    assert len(set(widths)) > 5
    assert all(width % 32 == 0 or 96 < width <= 100 for width in widths)


def test_the_last_layer_computes_only_last_tokens(qwen: PreTrainedModel):
    rows = random_rows(10)
    count = len({row.ids for row in rows})
    with tokens_seen(qwen, "model.layers.2.mlp.down_proj") as last, tokens_seen(qwen, "model.layers.1.mlp") as other:
        ModelRunner(qwen, 10_000).logits(rows)

    assert sum(last) == count < sum(other)
    for name in ("q_proj", "o_proj"):
        taken = []
        # Registered after the hook that selects the ends, so that this one sees the module's input.
        hook = qwen.get_submodule(f"model.layers.2.self_attn.{name}").register_forward_pre_hook(
            lambda module, args, taken=taken: taken.append(args[0].shape[1])
        )
        ModelRunner(qwen, 10_000).logits(rows)
        hook.remove()

        assert taken == [count]


def test_the_last_layer_always_computes_at_least_one_token(qwen: PreTrainedModel):
    with tokens_seen(qwen, "model.layers.2.mlp.down_proj") as last:
        ModelRunner(qwen, 8).logits([TokenRow(tuple(range(3, 30)))])  # no row ends in the first of its batches

    assert len(last) > 1
    assert min(last) == 1


def test_identical_rows_are_computed_once(qwen: PreTrainedModel):
    rows = [TokenRow(ids) for ids in ((1, 2, 3), (4, 5), (1, 2, 3), (1, 2, 3))]

    for runner in (ModelRunner(qwen), padded(qwen, 1)):
        with tokens_seen(qwen) as seen:
            logits = runner.logits(rows)

        assert sum(seen) == 5
        assert logits[0] == logits[2] == logits[3] != logits[1]


def test_pending_logits_of_a_cpu_are_ready_and_identical_items_share_one():
    pending = PendingLogits([[2], [0, 3], [1]], torch.tensor([1.5, -2.0, 0.25]))

    assert pending.is_ready()
    assert pending.logits() == [(2, 1.5), (0, -2.0), (3, -2.0), (1, 0.25)]


def test_token_types_do_not_affect_a_decoder(qwen: PreTrainedModel):
    rows = [TokenRow((1, 2, 3), types) for types in ((0, 1, 1), (0, 0, 1))]

    one, other = ModelRunner(qwen).logits(rows)

    assert one == other == pytest.approx(ModelRunner(qwen).logits(rows[:1])[0], abs=1e-6)


@pytest.mark.parametrize("is_padded", [False, True])
def test_every_row_is_yielded_once_batch_by_batch(qwen: PreTrainedModel, is_padded: bool):
    rows = [TokenRow((1,)), TokenRow((2, 3)), TokenRow((1,))]
    runner = ModelRunner(qwen, 2)
    runner.shares_prefixes = not is_padded

    batches = [[index for index, _ in pending.logits()] for pending in runner.compute(rows)]

    assert sorted(index for indices in batches for index in indices) == [0, 1, 2]
    assert len(batches) == 2


def test_a_model_in_use_elsewhere_attends_as_before(qwen: PreTrainedModel):
    """Left-padded, with a mask, through the forward of transformers, as other code uses the classifier."""
    batch = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
    }
    fresh = classifier_of(Qwen3Config)
    expected = fresh(**batch).logits

    runner = ModelRunner(fresh)
    runner.logits(random_rows(3))

    assert torch.allclose(fresh(**batch).logits, expected, atol=1e-6)
    assert "onelogit" not in fresh.config.to_json_string()


@pytest.mark.parametrize(
    ("config_class", "fields"),
    [
        (Gemma2Config, {}),
        (Qwen3Config, {"attn_implementation": "eager"}),
        (Qwen2MoeConfig, {"use_sliding_window": True, "sliding_window": 60, "max_window_layers": 0}),
    ],
    ids=["soft-capped scores", "attention chosen by the caller", "windows in masks alone"],
)
def test_other_models_compute_padded_rows(config_class: type[PretrainedConfig], fields: dict[str, object]):
    classifier = classifier_of(config_class, **fields)
    rows = random_rows(8)
    runner = ModelRunner(classifier, 200)

    assert not runner.shares_prefixes
    assert runner.logits(rows) == pytest.approx([runner.logits([row])[0] for row in rows], abs=1e-5)


@pytest.mark.parametrize("fault", ["rows see each other", "it fails"])
def test_an_unknown_model_that_cannot_share_prefixes_is_detected(fault: str):
    classifier = classifier_of(GlmConfig)

    def mix(module: object, args: object, output: torch.Tensor) -> torch.Tensor:
        if fault == "it fails" and output.shape[1] > 60:  # as the probe has
            raise TypeError("this code was written for padded rows")
        return output + output.cumsum(dim=1) / 10  # causal, as recurrent layers are, but blind to who is an ancestor

    classifier.base_model.layers[0].register_forward_hook(mix)
    runner = ModelRunner(classifier)
    rows = [TokenRow(row.ids[:60]) for row in random_rows(6)]

    assert not runner.shares_prefixes
    assert runner.logits(rows) == pytest.approx([runner.logits([row])[0] for row in rows], abs=1e-5)


@contextmanager
def memory_for(classifier: PreTrainedModel, most_tokens: int) -> Iterator[None]:
    """A device that holds no more than `most_tokens` tokens, and raises PyTorch's error for more."""

    def allocate(module: object, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].numel() > most_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = classifier.get_submodule("model.embed_tokens").register_forward_pre_hook(allocate)
    yield
    hook.remove()


@pytest.mark.parametrize("is_padded", [False, True])
def test_out_of_memory_halves_the_budget_and_loses_nothing(qwen: PreTrainedModel, is_padded: bool):
    rows = random_rows(40)
    expected = ModelRunner(qwen).logits(rows)
    runner = ModelRunner(qwen, 1000)
    runner.shares_prefixes = not is_padded

    with memory_for(qwen, 95):
        logits = runner.logits(rows)
        worked = runner.batch_tokens
        runner.logits(rows)

    assert logits == pytest.approx(expected, abs=1e-5)
    assert 1 < worked == runner.batch_tokens <= 95


def test_the_error_is_raised_if_not_even_the_smallest_batch_fits(qwen: PreTrainedModel):
    for runner in (ModelRunner(qwen, 100), padded(qwen, 100)):
        with memory_for(qwen, 0), pytest.raises(DeviceMemoryError, match="not even the smallest batch fits"):
            runner.logits(random_rows(5))


def test_an_error_unrelated_to_memory_is_raised_at_once(qwen: PreTrainedModel):
    runner = ModelRunner(qwen, 100)

    with pytest.raises((RuntimeError, IndexError)):
        runner.logits([TokenRow((10**6,))])

    assert runner.batch_tokens == 100


def test_the_budget_follows_the_free_memory(qwen: PreTrainedModel, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("onelogit.engine.memory.free_bytes", lambda device: 10**7)
    scarce = ModelRunner(qwen).batch_tokens
    monkeypatch.setattr("onelogit.engine.memory.free_bytes", lambda device: 10**12)

    assert 128 <= scarce < ModelRunner(qwen).batch_tokens == 2048


def test_bfloat16_is_as_close_to_float32_as_in_transformers(qwen: PreTrainedModel):
    """Norms and MLPs use other kernels in bfloat16, which must not cost precision."""
    rows = random_rows(40)
    exact = torch.tensor(ModelRunner(qwen).logits(rows))
    half = classifier_of(Qwen3Config)
    half.base_model.to(torch.bfloat16)
    with torch.inference_mode():
        theirs = torch.cat([half(torch.tensor([row.ids])).logits[:, 0] for row in rows])

    ours = torch.tensor(ModelRunner(half).logits(rows))

    assert (ours - exact).norm() <= 1.5 * (theirs - exact).norm()
    assert (ours - exact).norm() < 0.1 * exact.norm()


def test_an_attention_set_later_is_used():
    classifier = classifier_of(Qwen3Config)
    runner, rows = ModelRunner(classifier), random_rows(20)
    expected = runner.logits(rows)

    classifier.set_attn_implementation("eager")

    assert runner.logits(rows) == pytest.approx(expected, abs=1e-5)


def test_a_long_row_does_not_change_the_rotary_embedding_of_a_short_one(tmp_path: Path):
    """LongRoPE, as in Phi-3, switches its factors if the longest row of a batch exceeds the original context."""
    tokenizer = byte_level_tokenizer()
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": [1.0] * 16,
        "long_factor": [3.0 + n for n in range(16)],
        "original_max_position_embeddings": 256,
    }
    config = Phi3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=2048,
        original_max_position_embeddings=256,
        rope_parameters=rope,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.3,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    recipe = next(recipe for recipe in FAMILIES if recipe.family == "zerank-1")
    reranker = Reranker.load(tmp_path, recipe=recipe)
    documents = ["short", "a long document " * 60]

    together = reranker.logits("a query", documents)

    assert together == [reranker.logits("a query", [text])[0] for text in documents]
