"""Rows without padding: the same logits as if each row were alone, for encoders and bidirectional decoders."""

import pickle
import random
import subprocess
import sys
from copy import deepcopy
from functools import cache
from pathlib import Path

import pytest
import torch
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    EuroBertConfig,
    Gemma3TextConfig,
    GteConfig,
    LlamaConfig,
    ModernBertConfig,
    MPNetConfig,
    NomicBertConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen3Config,
    RobertaConfig,
    XLMRobertaConfig,
)

from onelogit.conversion.classifier import PooledClassifier
from onelogit.engine.model_runner import ModelRunner
from onelogit.prompts.token_rows import TokenRow
from support.classifiers import FIELDS, classifier_of

BOTH = {"is_causal": False}
KINDS: dict[str, tuple[type[PretrainedConfig], dict[str, object]]] = {
    "bert": (BertConfig, {}),
    "roberta": (RobertaConfig, {"pad_token_id": 1}),
    "xlm-roberta": (XLMRobertaConfig, {"pad_token_id": 1}),
    "electra": (ElectraConfig, {"embedding_size": 32}),
    "distilbert": (DistilBertConfig, {}),
    "modernbert": (ModernBertConfig, {"local_attention": 16, "classifier_pooling": "cls"}),
    "modernbert, mean": (ModernBertConfig, {"local_attention": 16, "classifier_pooling": "mean"}),
    "gte": (GteConfig, {}),
    "nomic": (NomicBertConfig, {}),
    "eurobert": (EuroBertConfig, {}),
    "llama, own head": (LlamaConfig, BOTH),
}
DECODERS = {
    "qwen3": (Qwen3Config, BOTH),
    "gemma3": (
        Gemma3TextConfig,
        {
            "use_bidirectional_attention": True,
            "sliding_window": 9,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
        },
    ),
}
POOLINGS = ("cls", "mean", "lasttoken")
NAMES = [*KINDS, *DECODERS, *(f"{each}, pooled" for each in POOLINGS)]


@cache
def model(name: str) -> PreTrainedModel:
    if name in DECODERS:
        config_class, fields = DECODERS[name]
        return classifier_of(config_class, **fields)
    if name.endswith(", pooled"):
        torch.manual_seed(3)
        backbone = AutoModel.from_config(Qwen3Config(**FIELDS, **BOTH))
        head = nn.Sequential(nn.Linear(64, 8), nn.GELU(), nn.Linear(8, 1))
        return PooledClassifier(backbone, name.removesuffix(", pooled"), head).eval().requires_grad_(False)
    return own_head(*KINDS[name])


def own_head(config_class: type[PretrainedConfig], fields: dict[str, object]) -> PreTrainedModel:
    torch.manual_seed(3)
    shape = {key: value for key, value in FIELDS.items() if "head" not in key} | {"num_attention_heads": 4}
    return AutoModelForSequenceClassification.from_config(config_class(num_labels=1, **{**shape, **fields})).eval()


def rows(count: int = 25) -> list[TokenRow]:
    chance = random.Random(7)
    lengths = [chance.choice((1, 2, 31, 32, 33, chance.randint(3, 90))) for _ in range(count)]
    return [TokenRow(tuple(chance.randrange(3, 400) for _ in range(length))) for length in lengths]


@cache
def logits_alone(name: str) -> list[float]:
    classifier = model(name)
    runner = padded(classifier)
    return [runner.logits([row])[0] for row in rows()]


def padded(classifier: PreTrainedModel) -> ModelRunner:
    runner = ModelRunner(classifier, 10**6)
    runner._packing = None
    return runner


def lengths_in(module: nn.Module) -> list[int]:
    """The number of tokens of each call of a module, padding included; filled by the calls."""
    seen: list[int] = []
    module.register_forward_hook(lambda _, args, output: seen.append(args[0].shape[:-1].numel()))
    return seen


@pytest.mark.parametrize("batch_tokens", [1, 60, 10_000])
@pytest.mark.parametrize("name", NAMES)
def test_a_packed_row_has_the_logit_of_the_row_alone(name: str, batch_tokens: int):
    runner = ModelRunner(model(name), batch_tokens)

    logits = runner.logits(rows())

    assert runner.packs_rows
    assert logits == pytest.approx(logits_alone(name), abs=1e-5)
    assert max(logits) - min(logits) > 0.1


def test_the_layers_compute_no_padding_and_the_last_one_only_what_the_head_reads():
    classifier = own_head(*KINDS["bert"])
    runner = ModelRunner(classifier, 200)
    layers = classifier.bert.encoder.layer
    inner, keys = lengths_in(layers[1].intermediate), lengths_in(layers[2].attention.self.key)
    last = [lengths_in(module) for module in (layers[2].intermediate.dense, layers[2].attention.self.query)]
    given = rows()
    distinct = {row.ids for row in given}

    runner.logits(given)

    assert all(count <= 192 and count % 32 == 0 for count in inner)
    assert sum(map(len, distinct)) <= sum(inner) < sum(map(len, distinct)) + 32 * len(inner)
    assert keys == inner
    assert [sum(each) for each in last] == [len(distinct)] * 2


@pytest.mark.parametrize(("name", "read"), [("bert", 0), ("modernbert", 0), ("modernbert, mean", None), ("qwen3", -1)])
def test_what_a_head_reads_is_found(name: str, read: int | None):
    assert ModelRunner(model(name))._packing.read == read


def test_token_types_and_padding_ids_inside_a_row_have_their_effect():
    pairs = [
        TokenRow((4, *range(20, 20 + n), 5, *range(50, 50 + m), 5), (*[0] * (n + 2), *[1] * (m + 1)))
        for n, m in ((3, 9), (5, 5), (30, 2))
    ]
    plain = [TokenRow(row.ids) for row in pairs]
    runner = ModelRunner(model("bert"))
    assert runner.logits(pairs) == pytest.approx(padded(model("bert")).logits(pairs), abs=1e-5)
    assert runner.logits(pairs) != pytest.approx(runner.logits(plain), abs=1e-3)

    with_padding = [TokenRow((0, 7, 1, 8, 1, 9)), TokenRow((0, 7, 8, 9, 10, 11, 12, 13))]  # 1 gets no position
    alone = [padded(model("roberta")).logits([row])[0] for row in with_padding]
    assert ModelRunner(model("roberta")).logits(with_padding) == pytest.approx(alone, abs=1e-5)


def test_a_row_without_token_types_may_be_in_a_batch_with_rows_that_have_them():
    ids = tuple(range(20, 50))
    given = [TokenRow(ids, (*[0] * 9, *[1] * 21)), TokenRow(ids), TokenRow(ids[:20])]
    runner = ModelRunner(model("bert"))

    assert runner.logits(given) == pytest.approx([runner.logits([row])[0] for row in given], abs=1e-5)


@pytest.mark.parametrize("name", ["llama, own head", "bert", "modernbert, mean", "lasttoken, pooled"])
def test_a_row_may_end_with_the_id_of_padding(name: str):
    """Heads of transformers read the last token that differs from it, wherever that is."""
    classifier, chance = model(name), random.Random(1)
    padding = classifier.config.pad_token_id
    given = [
        TokenRow((*(chance.randrange(3, 400) for _ in range(length)), *[padding] * count))
        for length, count in ((9, 1), (30, 2), (31, 1), (33, 0), (70, 1))
    ]
    alone = [padded(classifier).logits([row])[0] for row in given]

    for batch_tokens in (1, 64, 10_000):
        assert ModelRunner(classifier, batch_tokens).logits(given) == pytest.approx(alone, abs=1e-5)


def test_bfloat16_is_as_close_to_float32_as_padded_rows():
    given = rows()
    for name in ("bert", "modernbert", "gte", "qwen3"):
        exact = torch.tensor(logits_alone(name))
        half = deepcopy(model(name))
        (half.base_model if name in DECODERS else half).to(torch.bfloat16)

        errors = [float((torch.tensor(run.logits(given)) - exact).norm()) for run in (padded(half), ModelRunner(half))]

        assert errors[1] < 2 * errors[0] + 0.02, name


@pytest.mark.parametrize(
    ("config_class", "fields"),
    [
        (DebertaV2Config, {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}),
        (MPNetConfig, {"pad_token_id": 1}),
    ],
)
def test_other_encoders_compute_padded_rows(config_class: type[PretrainedConfig], fields: dict[str, object]):
    classifier = own_head(config_class, fields)
    runner = ModelRunner(classifier, 200)
    given = rows()
    given = [TokenRow(row.ids * 5) for row in given]

    logits = runner.logits(given)

    assert not runner.packs_rows
    assert logits == pytest.approx([runner.logits([row])[0] for row in given], abs=1e-5)


def test_a_model_whose_tokens_mix_outside_attention_is_detected(caplog: pytest.LogCaptureFixture):
    classifier = own_head(*KINDS["bert"])
    layer = classifier.bert.encoder.layer[1]
    layer.intermediate.register_forward_hook(lambda _, __, output: output + output.cumsum(1) / 50)

    runner = ModelRunner(classifier)

    assert not runner.packs_rows
    assert classifier.config._attn_implementation == "sdpa"


def test_one_token_that_mixes_with_another_row_is_detected_in_half_precision():
    classifier = own_head(*KINDS["modernbert, mean"]).to(torch.bfloat16)
    layer = classifier.model.layers[2]
    layer.mlp.register_forward_hook(lambda _, __, output: output + 2 * output.roll(1, dims=1))

    assert not ModelRunner(classifier).packs_rows


def test_unpickled_models_compute_in_a_process_that_loaded_none(tmp_path: Path):
    models = [own_head(*KINDS["bert"]), classifier_of(Qwen3Config)]  # packed rows, and a prefix tree
    for classifier in models:
        ModelRunner(classifier)
        classifier.requires_grad_(False)
    (tmp_path / "models").write_bytes(pickle.dumps(models))
    script = """
import pickle, sys, torch
for model in pickle.load(open(sys.argv[1], "rb")):
    print(model(torch.tensor([[5, 6, 7]])).logits.item())
"""

    command = [sys.executable, "-c", script, str(tmp_path / "models")]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout

    expected = [classifier(torch.tensor([[5, 6, 7]])).logits.item() for classifier in models]
    assert [*map(float, output.split())] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("name", ["bert", "qwen3"])
def test_a_model_in_training_has_no_dropout_here_and_is_in_training_afterwards(name: str):
    classifier, given = deepcopy(model(name)), rows()
    for module in classifier.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    classifier.train()
    classifier.base_model.get_submodule("encoder" if name == "bert" else "norm").eval()
    before = [module.training for module in classifier.modules()]

    runner = ModelRunner(classifier)

    assert runner.packs_rows
    assert runner.logits(given) == pytest.approx(logits_alone(name), abs=1e-5)
    assert [module.training for module in classifier.modules()] == before


def test_an_attention_set_later_is_used():
    classifier = own_head(*KINDS["bert"])
    runner = ModelRunner(classifier)
    given = rows()
    before = runner.logits(given)

    classifier.set_attn_implementation("eager")

    assert not runner.packs_rows
    assert runner.logits(given) == pytest.approx(before, abs=1e-5)


def test_out_of_memory_halves_the_budget_and_loses_nothing():
    classifier = own_head(*KINDS["modernbert"])
    runner = ModelRunner(classifier, 1000)

    def fail(_: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
        if args[0].shape[1] > 130:
            raise torch.OutOfMemoryError("out of memory")

    handle = classifier.model.layers[1].mlp.register_forward_pre_hook(fail)
    logits = runner.logits(rows())
    handle.remove()

    assert logits == pytest.approx(logits_alone("modernbert"), abs=1e-5)
    assert runner.batch_tokens == 125


def test_rows_of_very_different_lengths_do_not_fill_the_embeddings_with_padding():
    classifier = own_head(*KINDS["bert"])
    runner = ModelRunner(classifier, 400)
    seen: list[int] = []
    classifier.bert.embeddings.register_forward_hook(lambda _, __, output: seen.append(output.shape[:-1].numel()))
    short = [TokenRow((index + 3, 9)) for index in range(150)]

    runner.logits([TokenRow(tuple(range(3, 203))), *short])

    assert max(seen) <= 800
    assert len(seen) <= 3
