"""Rerankers that Sentence Transformers saves as a module chain: their logits, their export, and refused chains."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling
from torch import nn
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    ModernBertConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen3Config,
    XLMRobertaConfig,
)

from onelogit import CheckpointError, Reranker, UnsupportedModelError
from onelogit.checkpoints.module_chain import read_module_chain
from onelogit.cli.main import main
from onelogit.conversion.classifier import PooledClassifier
from onelogit.conversion.head import Float32Head
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.tiny import _SHAPE, byte_level_tokenizer, pair_tokenizer

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "A longer document. " * 20, ""]
SIZE = _SHAPE["hidden_size"]
PAIRS = [(QUERY, text) for text in DOCUMENTS]


def dense(*, outputs: int = SIZE, bias: bool = False, activation: nn.Module | None = None) -> Dense:
    return Dense(SIZE, outputs, bias=bias, activation_function=nn.GELU() if activation is None else activation)


def score(inputs: int = SIZE, *, bias: bool = True, activation: nn.Module | None = None) -> Dense:
    function = nn.Identity() if activation is None else activation
    return Dense(inputs, 1, bias=bias, activation_function=function, module_output_name="scores")


def norm() -> LayerNorm:
    return LayerNorm(SIZE)


def pair(has_types: bool = False) -> PreTrainedTokenizerFast:
    return pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=has_types)


def save_chain(
    folder: Path,
    modules: list[nn.Module],
    config_class: type[PretrainedConfig] = ModernBertConfig,
    tokenizer: PreTrainedTokenizerFast | None = None,
    **fields: object,
) -> Path:
    """A backbone with modules after it, saved by Sentence Transformers."""
    torch.manual_seed(3)
    tokenizer = pair() if tokenizer is None else tokenizer
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    decoder = ("num_key_value_heads", "head_dim")
    shape = {name: value for name, value in _SHAPE.items() if config_class is Qwen3Config or name not in decoder}
    shape |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "initializer_range": 0.3, **ids}
    AutoModel.from_config(config_class(**{**shape, **fields})).save_pretrained(folder / "backbone")
    tokenizer.save_pretrained(folder / "backbone")
    for module in modules:
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.5)
    model = CrossEncoder(modules=[Transformer(str(folder / "backbone")), *modules], device="cpu")
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def ettin(folder: Path, pooling: str = "cls", **fields: object) -> Path:
    return save_chain(folder, [Pooling(SIZE, pooling), dense(), norm(), score()], **fields)


def their_logits(folder: Path) -> list[float]:
    return CrossEncoder(str(folder), device="cpu").predict(PAIRS, activation_fn=nn.Identity()).tolist()


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


CHAINS: dict[str, tuple[Callable[[], list[nn.Module]], type[PretrainedConfig]]] = {
    "ettin": (lambda: [Pooling(SIZE, "cls"), dense(), norm(), score()], ModernBertConfig),
    "ettin-mean": (lambda: [Pooling(SIZE, "mean"), dense(bias=True), norm(), score(bias=False)], ModernBertConfig),
    "modernbert-relu": (lambda: [Pooling(SIZE, "cls"), dense(activation=nn.ReLU()), norm(), score()], ModernBertConfig),
    "modernbert-last": (lambda: [Pooling(SIZE, "lasttoken"), dense(), norm(), score()], ModernBertConfig),
    "modernbert-thin": (lambda: [Pooling(SIZE, "cls"), dense(outputs=32), LayerNorm(32), score(32)], ModernBertConfig),
    "bert-short": (lambda: [Pooling(SIZE, "cls"), score()], BertConfig),
    "bert-mean-tanh": (lambda: [Pooling(SIZE, "mean"), score(activation=nn.Tanh())], BertConfig),
    "xlm-roberta-last": (lambda: [Pooling(SIZE, "lasttoken"), score()], XLMRobertaConfig),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_a_module_chain_scores_as_in_sentence_transformers_alone_and_in_a_batch(name: str, tmp_path: Path):
    make, config_class = CHAINS[name]
    folder = save_chain(tmp_path, make(), config_class, pair(has_types=config_class is BertConfig))

    reranker = Reranker.load(folder)

    # Float32's rounding grows with a logit: Sentence Transformers itself is up to 1.8e-5 off from float64 at -4.2.
    expected = their_logits(folder)
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert [reranker.logits(QUERY, [text])[0] for text in DOCUMENTS] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert len({round(logit, 3) for logit in expected}) == len(DOCUMENTS)


@pytest.mark.parametrize("norm_bias", [False, True])
def test_a_modernbert_chain_is_exported_as_a_class_of_transformers(norm_bias: bool, tmp_path: Path):
    folder = ettin(tmp_path, norm_bias=norm_bias, classifier_activation="relu")
    expected = their_logits(folder)

    Reranker.load(folder).save(tmp_path / "saved")

    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved").eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    with torch.inference_mode():
        batch = tokenizer([QUERY] * len(DOCUMENTS), DOCUMENTS, padding=True, return_tensors="pt")
        by_transformers = model(**batch).logits[:, 0].tolist()
    config = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert config["architectures"] == ["ModernBertForSequenceClassification"]
    assert "use_sep_token" not in config
    assert by_transformers == pytest.approx(expected, abs=1e-5)
    assert their_logits(tmp_path / "saved") == pytest.approx(expected, abs=1e-5)
    assert Reranker.load(tmp_path / "saved").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-5)


def test_the_layers_of_a_chain_stay_in_float32(tmp_path: Path):
    folder = ettin(tmp_path)
    for file in folder.glob("*_*/model.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)

    reranker = Reranker.load(folder, dtype="bfloat16")

    assert reranker.classifier.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in reranker.classifier.head.parameters()} == {torch.float32}
    assert reranker.classifier.classifier.weight.dtype == torch.float32
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(their_logits(folder), abs=0.3)


def test_a_decoder_that_reads_its_last_token_is_a_plain_classifier(tmp_path: Path):
    """So it can be exported, and shares prefixes."""
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = QWEN3_TEMPLATE
    modules = [Pooling(SIZE, "lasttoken"), score(bias=False)]
    folder = save_chain(tmp_path, modules, Qwen3Config, tokenizer)
    reranker = Reranker.load(folder)

    reranker.save(tmp_path / "saved")

    assert isinstance(reranker.classifier.score, Float32Head)
    assert reranker.recipe.chat_template is not None
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(their_logits(folder), abs=1e-4)
    assert their_logits(tmp_path / "saved") == pytest.approx(their_logits(folder), abs=1e-4)


def test_a_decoder_with_mean_pooling_ignores_padding(tmp_path: Path):
    tokenizer = byte_level_tokenizer()
    tokenizer.chat_template = QWEN3_TEMPLATE
    folder = save_chain(tmp_path, [Pooling(SIZE, "mean"), score()], Qwen3Config, tokenizer)

    reranker = Reranker.load(folder)

    assert isinstance(reranker.classifier, PooledClassifier)
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(their_logits(folder), abs=1e-4)


@pytest.mark.parametrize(
    ("config_class", "pooling", "fields"),
    [(Qwen3Config, "lasttoken", {"is_causal": False}), (ModernBertConfig, "cls", {"norm_eps": 1e-2})],
)
def test_a_chain_that_a_class_of_transformers_would_compute_differently_uses_ours(
    config_class: type[PretrainedConfig], pooling: str, fields: dict, tmp_path: Path
):
    steps = [score(bias=False)] if config_class is Qwen3Config else [dense(), norm(), score()]
    folder = save_chain(tmp_path, [Pooling(SIZE, pooling), *steps], config_class, **fields)

    reranker = Reranker.load(folder)

    assert isinstance(reranker.classifier, PooledClassifier)
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(their_logits(folder), abs=1e-5)


def test_a_head_that_no_class_of_transformers_has_is_not_exported(tmp_path: Path):
    reranker = Reranker.load(save_chain(tmp_path, [Pooling(SIZE, "mean"), score()], BertConfig))

    with pytest.raises(UnsupportedModelError, match=r"no class of transformers.*CrossEncoder can run the original"):
        reranker.save(tmp_path / "saved")
    with pytest.raises(UnsupportedModelError, match="CrossEncoder can run the original"):
        reranker.as_cross_encoder()
    assert not (tmp_path / "saved").exists()


def test_verify_compares_a_chain_with_sentence_transformers_and_the_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = ettin(tmp_path)
    assert main(["convert", str(folder), "-o", str(tmp_path / "saved")]) == 0
    capsys.readouterr()

    assert main(["verify", str(folder), "--against", str(tmp_path / "saved"), "--json"]) == 0

    result = json.loads(capsys.readouterr().out)
    assert result["agrees"] is True
    assert result["rows_equal"] == len(result["original_logits"])
    assert len({round(logit, 3) for logit in result["original_logits"]}) > 20


@pytest.mark.parametrize(
    ("file", "fields", "complaint"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "weightedmean"}, "pooling is 'weightedmean'"),
        ("1_Pooling/config.json", {"pooling_mode": ["cls", "mean"]}, "pooling is .'cls', 'mean'."),
        ("2_Dense/config.json", {"use_residual": True}, "residual"),
        ("2_Dense/config.json", {"module_output_name": "scores"}, "to 'scores'"),
        ("2_Dense/config.json", {"activation_function": "my.GELU"}, "the activation 'my.GELU'"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.Bilinear"}, r"'torch\.nn\.Bilinear'"),
        ("2_Dense/config.json", {"in_features": None}, "no valid in_features: None"),
        ("4_Dense/config.json", {"module_output_name": None}, "to 'sentence_embedding'"),
        ("4_Dense/config.json", {"out_features": 3}, "gives 3 labels"),
        (
            "sentence_bert_config.json",
            {"modality_config": {"text": {"method_output_name": "logits"}}},
            "not the last",
        ),
    ],
)
def test_a_chain_with_unsupported_steps_is_refused(file: str, fields: dict, complaint: str, tmp_path: Path):
    folder = ettin(tmp_path)
    change(folder / file, **fields)

    with pytest.raises(UnsupportedModelError, match=rf"no one-logit form: .*{complaint}.*CrossEncoder can run it"):
        Reranker.load(folder)


@pytest.mark.parametrize(("count", "complaint"), [(2, "ends in a pooled state"), (4, "ends in a LayerNorm")])
def test_a_chain_that_does_not_end_in_a_score_is_refused(count: int, complaint: str, tmp_path: Path):
    folder = ettin(tmp_path)
    modules = json.loads((folder / "modules.json").read_text())
    (folder / "modules.json").write_text(json.dumps(modules[:count]))

    with pytest.raises(UnsupportedModelError, match=complaint):
        Reranker.load(folder)


@pytest.mark.parametrize(
    ("old", "mode"),
    [({"pooling_mode_cls_token": True}, "cls"), ({"pooling_mode_lasttoken": True}, "lasttoken"), ({}, "mean")],
)
def test_old_names_of_poolings_are_read(old: dict, mode: str):
    config = {"word_embedding_dimension": 4, "pooling_mode_mean_tokens": not old, **old}
    types = [
        {"path": "", "type": "a.Transformer"},
        {"path": "1", "type": "a.Pooling"},
        {"path": "2", "type": "a.Dense"},
    ]
    last = {"in_features": 4, "out_features": 1, "module_output_name": "scores"}

    chain = read_module_chain(
        {"modules.json": json.dumps(types), "1/config.json": json.dumps(config), "2/config.json": json.dumps(last)}
    )

    assert chain is not None
    assert chain.pooling == mode
    assert (chain.layers[0].activation, chain.layers[0].has_bias) == ("Tanh", True)  # the defaults


def test_damaged_layers_are_clear_errors(tmp_path: Path):
    folder = ettin(tmp_path)
    file = folder / "2_Dense" / "model.safetensors"
    whole = file.read_bytes()

    file.write_bytes(whole[:-50])
    with pytest.raises(CheckpointError, match=r"2_Dense.*damaged or incomplete"):
        Reranker.load(folder)
    save_file({"linear.weight": load_file(folder / "4_Dense" / "model.safetensors")["linear.weight"]}, file)
    with pytest.raises(CheckpointError, match=r"does not contain the tensors that its config\.json declares"):
        Reranker.load(folder)
    file.unlink()
    with pytest.raises(CheckpointError, match="2_Dense has no weights"):
        Reranker.load(folder)


@pytest.mark.parametrize(("module", "name"), [("2_Dense", "linear"), ("3_LayerNorm", "norm"), ("4_Dense", "linear")])
@pytest.mark.parametrize(
    ("value", "complaint"), [(0.0, "is zero, so every document"), (float("nan"), "NaN or infinite")]
)
def test_layers_that_cannot_rank_are_refused(module: str, name: str, value: float, complaint: str, tmp_path: Path):
    folder = ettin(tmp_path)
    file = folder / module / "model.safetensors"
    tensors = load_file(file)
    tensors[f"{name}.weight"].fill_(value)
    save_file(tensors, file)

    with pytest.raises(CheckpointError, match=rf"cannot rank: layer \d of its module chain .*{complaint}"):
        Reranker.load(folder)


def test_a_chain_with_an_identity_activation_scores_by_its_logit(tmp_path: Path):
    folder = ettin(tmp_path)
    change(folder / "config_sentence_transformers.json", activation_fn="torch.nn.modules.linear.Identity")

    assert all(ranked.score == ranked.logit for ranked in Reranker.load(folder).rank(QUERY, DOCUMENTS))
