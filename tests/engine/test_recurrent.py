"""Models with gated delta rules: a row in a prefix tree has its logit alone, wherever states are copied."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, Qwen3_5TextConfig, Qwen3NextConfig

from onelogit.engine.attention.delta_rule import has_states
from onelogit.engine.memory import bytes_per_token
from onelogit.engine.model_runner import ModelRunner
from onelogit.engine.scheduler import Scheduler, ScoringCall
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import classifier_of, random_rows, tokens_seen
from support.exact import exact_logits

RULE = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 32,
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
}


def layers(letters: str) -> dict[str, object]:
    return {"layer_types": [{"r": "linear_attention", "a": "full_attention"}[letter] for letter in letters]}


MODELS: dict[str, tuple[type[PretrainedConfig], dict[str, object]]] = {
    "qwen3.5": (Qwen3_5TextConfig, {**RULE, **layers("rra")}),
    "qwen3.5, recurrent at last": (Qwen3_5TextConfig, {**RULE, **layers("rar")}),
    "qwen3.5, wide kernel": (Qwen3_5TextConfig, {**RULE, **layers("rra"), "linear_conv_kernel_dim": 7}),
    "qwen3.5, narrow kernel": (Qwen3_5TextConfig, {**RULE, **layers("rra"), "linear_conv_kernel_dim": 2}),
    "qwen3-next": (Qwen3NextConfig, {**RULE, **EXPERTS, **layers("rra")}),
}


@pytest.fixture(scope="module")
def qwen() -> PreTrainedModel:
    return new("qwen3.5")


def new(name: str) -> PreTrainedModel:
    config_class, fields = MODELS[name]
    return classifier_of(config_class, **fields)


@pytest.fixture(scope="module")
def runner(qwen: PreTrainedModel) -> ModelRunner:
    return ModelRunner(qwen)


@cache
def untouched(name: str) -> PreTrainedModel:
    return new(name)


def alone(rows: list[TokenRow], name: str = "qwen3.5") -> list[float]:
    """Each row's logit, by the forward of transformers."""
    model = untouched(name)
    with torch.inference_mode():
        return [float(model(torch.tensor([row.ids])).logits[0, 0]) for row in rows]


def tokens(count: int, seed: int = 0) -> tuple[int, ...]:
    return tuple(torch.randint(3, 400, (count,), generator=torch.Generator().manual_seed(seed)).tolist())


def distinct_tokens(rows: list[TokenRow]) -> int:
    return len({row.ids[: length + 1] for row in rows for length in range(len(row.ids))})


@pytest.mark.parametrize("batch_tokens", [1, 9, 50, 10_000])
@pytest.mark.parametrize("name", MODELS)
def test_a_row_in_a_prefix_tree_has_the_logit_of_the_row_alone(name: str, batch_tokens: int):
    rows = random_rows(12 if batch_tokens == 1 else 40, seed=3)
    runner = ModelRunner(new(name), batch_tokens)

    logits = runner.logits(rows)

    assert runner.shares_prefixes
    assert logits == pytest.approx(alone(rows, name), abs=1e-5)
    assert max(logits) - min(logits) > 0.1


@pytest.mark.parametrize("name", ["qwen3.5, recurrent at last", "qwen3.5, narrow kernel"])
def test_states_copied_many_times_are_as_exact_as_rows_alone(name: str):
    """Both are compared with float64: rows alone are off by up to 1e-5, so the two may differ by twice that."""
    runner, ours, theirs = ModelRunner(new(name), 2), list[Tensor](), list[Tensor]()
    for seed in range(5):
        rows = random_rows(12, seed)
        exact = exact_logits(untouched(name), rows)
        ours.append(torch.tensor(runner.logits(rows)) - exact)
        theirs.append(torch.tensor(alone(rows, name)) - exact)

    errors = torch.cat(ours)
    assert errors.norm() <= 1.5 * torch.cat(theirs).norm()
    assert errors.abs().max() <= 2e-5


@pytest.mark.parametrize("batch_tokens", [100, 10_000])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 300])
def test_a_prefix_or_suffix_may_end_anywhere_in_a_chunk_of_the_rule(
    runner: ModelRunner, length: int, batch_tokens: int
):
    runner.batch_tokens = batch_tokens
    prefix = tokens(length)
    rows = [TokenRow((*prefix, *tokens(count, seed=count))) for count in (1, 2, 3, 63, 64, 65, 200)]
    rows += [TokenRow(prefix), TokenRow((*prefix[:1], 399)), TokenRow((399,))]

    assert runner.logits(rows) == pytest.approx(alone(rows), abs=1e-5)


@pytest.mark.parametrize("batch_tokens", [10, 10_000])
def test_every_distinct_token_is_computed_once_for_documents_behind_one_query(runner: ModelRunner, batch_tokens: int):
    runner.batch_tokens = batch_tokens
    prefix, start = tokens(60), tokens(2, seed=1)
    rows = [TokenRow((*prefix, *start[: n % 3], *tokens(3 + n % 5, seed=n + 2), 7, 8, 9)) for n in range(16)]

    with tokens_seen(runner.classifier) as seen:
        logits = runner.logits(rows)

    assert sum(seen) == distinct_tokens(rows)
    assert max(seen) <= batch_tokens
    assert logits == pytest.approx(alone(rows), abs=1e-5)


@pytest.mark.parametrize("length", [60, 61, 65])
def test_padding_of_a_batch_is_small(qwen: PreTrainedModel, length: int):
    rows = [TokenRow((*tokens(length), *tokens(4, seed=n + 2))) for n in range(16)]
    widths = []
    hook = qwen.model.embed_tokens.register_forward_hook(lambda module, args, output: widths.append(output.shape[1]))

    ModelRunner(qwen).logits(rows)
    hook.remove()

    assert widths[-1] <= 1.05 * distinct_tokens(rows)


def test_a_comb_of_many_branches_carries_few_states_and_computes_few_tokens_twice(runner: ModelRunner):
    """Each row branches off one token earlier than the row before, so each needs another state."""
    spine = (3,) * 60
    rows = [TokenRow((*spine[:length], 4, 5, 6)) for length in range(60, 0, -1)]

    runner.batch_tokens = 40
    with tokens_seen(runner.classifier) as seen:
        logits = runner.logits(rows)

    assert logits == pytest.approx(alone(rows), abs=1e-5)
    assert distinct_tokens(rows) <= sum(seen) <= 2 * distinct_tokens(rows)


def test_a_row_that_is_a_prefix_of_another_identical_rows_and_one_row(runner: ModelRunner):
    runner.batch_tokens = 2048
    longest = tokens(70)
    rows = [TokenRow(longest[:length]) for length in (70, 1, 2, 64, 64, 65, 70)]

    with tokens_seen(runner.classifier) as seen:
        logits = runner.logits(rows)

    assert sum(seen) == 70
    assert logits == pytest.approx(alone(rows), abs=1e-5)
    assert runner.logits(rows[:1]) == pytest.approx(logits[:1], abs=1e-5)


def test_out_of_memory_halves_the_budget_and_loses_nothing(qwen: PreTrainedModel):
    rows = random_rows(40, seed=3)
    runner = ModelRunner(qwen, 1000)

    def allocate(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].shape[1] > 95:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    hook = qwen.get_submodule("model.layers.1.linear_attn.out_proj").register_forward_pre_hook(allocate)
    logits = runner.logits(rows)
    hook.remove()

    assert logits == pytest.approx(alone(rows), abs=1e-5)
    assert 1 < runner.batch_tokens <= 95


def test_many_callers_at_once_get_the_logits_of_their_rows(qwen: PreTrainedModel):
    runner = ModelRunner(qwen, 64, 10**7)
    scheduler = Scheduler(runner.compute, cost_of=lambda row: len(row.ids), max_batch_cost=500)
    calls = [random_rows(8, seed) for seed in range(12)]

    def logits(rows: list[TokenRow]) -> list[float]:
        with ScoringCall(scheduler) as call:
            call.add(rows)
            return call.logits()

    with ThreadPoolExecutor(len(calls)) as threads:
        for rows, found in zip(calls, threads.map(logits, calls, timeout=60), strict=True):
            assert found == pytest.approx(alone(rows), abs=2e-5)
    scheduler.close()


def test_a_model_in_use_elsewhere_computes_as_before(qwen: PreTrainedModel):
    """Also with a cache, and left-padded with a mask, through the forward of transformers."""
    batch = {
        "input_ids": torch.tensor([[0, 0, 5, 6, 7], [9, 8, 7, 6, 5]]),
        "attention_mask": torch.tensor([[0, 0, 1, 1, 1], [1, 1, 1, 1, 1]]),
    }
    ModelRunner(qwen).logits(random_rows(3))

    for use_cache in (False, True):
        with torch.inference_mode():
            expected = untouched("qwen3.5").model(**batch, use_cache=use_cache).last_hidden_state
            assert torch.equal(qwen.model(**batch, use_cache=use_cache).last_hidden_state, expected)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copied_model_has_states_of_its_own(copied, qwen: PreTrainedModel):
    rows = random_rows(5)
    expected = ModelRunner(qwen).logits(rows)
    twin = copied(qwen)
    with torch.no_grad():
        twin.get_submodule("model.layers.0.linear_attn").A_log.add_(1.0)

    changed = ModelRunner(twin).logits(rows)

    assert has_states(twin)
    assert changed != pytest.approx(expected, abs=1e-3)
    assert ModelRunner(qwen).logits(rows) == expected


@pytest.mark.parametrize("fault", ["its forward is replaced", "its states are wrong"])
def test_a_model_whose_layers_cannot_begin_with_states_computes_padded_rows(fault: str, caplog):
    model, rows = new("qwen3.5"), random_rows(8)
    mixer = model.get_submodule("model.layers.1.linear_attn")
    if fault == "its forward is replaced":  # as accelerate does
        mixer.forward = mixer.forward
    else:
        mixer.register_forward_hook(lambda module, args, output: output + output.cumsum(dim=1) / 10)

    runner = ModelRunner(model, 200)

    assert not runner.shares_prefixes
    assert not has_states(model)
    assert runner.logits(rows) == pytest.approx([runner.logits([row])[0] for row in rows], abs=1e-5)
    assert ("a trial with shared prefixes failed" in caplog.text) == (fault == "its states are wrong")


def test_bfloat16_is_as_close_to_float32_as_in_transformers():
    rows = random_rows(40)
    exact = torch.tensor(alone(rows))
    half = new("qwen3.5")
    half.base_model.to(torch.bfloat16)
    with torch.inference_mode():
        theirs = torch.cat([half(torch.tensor([row.ids])).logits[:, 0] for row in rows])

    runner = ModelRunner(half)
    ours = torch.tensor(runner.logits(rows))

    assert runner.shares_prefixes
    assert (ours - exact).norm() <= 1.5 * (theirs - exact).norm()


def test_the_estimate_of_memory_counts_what_the_rule_needs(qwen: PreTrainedModel):
    """As many float32 numbers as one call of the rule holds for a token at its end, which is its peak at least."""
    wide = classifier_of(Qwen3_5TextConfig, **RULE | {"linear_value_head_dim": 128}, **layers("rra"))

    more = bytes_per_token(wide) - bytes_per_token(qwen)

    assert more >= RULE["linear_num_value_heads"] * (128 - 32) * 4 * 8  # query, key, value, their products, output


def test_a_recurrent_model_is_not_compiled(caplog):
    runner = ModelRunner(new("qwen3.5"), is_compiled=True)

    assert runner.shares_prefixes
    assert "recurrent layers, so it is not compiled" in caplog.text
