"""Adapters of models with modules or a pooled head, and adapters with a chat template or modules of their own."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, ModernBertConfig
from transformers import AutoModelForCausalLM as CausalLM

from onelogit import Reranker
from onelogit.recipes.templates import QWEN3_TEMPLATE
from support.bidirectional import save_bidirectional
from support.peft_adapters import DOCUMENTS, PAIRS, QUERY, save_adapter
from support.tiny import causal_checkpoint, pair_tokenizer

peft = pytest.importorskip("peft")

CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OWN = (
    '{%- set query = messages | selectattr("role", "eq", "query") | map(attribute="content") | first -%}'
    '{%- set document = messages | selectattr("role", "eq", "document") | map(attribute="content") | first -%}'
    "Q={{ query }} D={{ document }} A="
)
MODULES = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_LogitScore",
            "type": "sentence_transformers.cross_encoder.modules.logit_score.LogitScore",
        },
    ],
    "1_LogitScore/config.json": {"true_token_id": 5, "false_token_id": 7},
}


def lora(task_type: str, *layers: str) -> Any:
    return peft.LoraConfig(r=4, lora_alpha=16, task_type=task_type, target_modules=[*layers] or ["q_proj", "v_proj"])


def write(folder: Path, files: dict[str, Any]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))


def name_base(folder: Path, base: Path) -> None:
    settings = json.loads((folder / "adapter_config.json").read_text())
    write(folder, {"adapter_config.json": {**settings, "base_model_name_or_path": str(base)}})


def test_an_adapter_of_a_module_chain(tmp_path: Path):
    sentence_transformers = pytest.importorskip("sentence_transformers")
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]")
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"), 1)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = ModernBertConfig(
        vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, initializer_range=0.3, **shape, **ids
    )
    torch.manual_seed(3)
    AutoModel.from_config(config).save_pretrained(tmp_path / "backbone")
    tokenizer.save_pretrained(tmp_path / "backbone")
    identity = torch.nn.Identity()
    dense = Dense(64, 64, bias=False, activation_function=torch.nn.GELU())
    score = Dense(64, 1, activation_function=identity, module_output_name="scores")
    chain = [Transformer(str(tmp_path / "backbone")), Pooling(64, "cls"), dense, LayerNorm(64), score]
    model = sentence_transformers.CrossEncoder(modules=chain, device="cpu")
    model.save_pretrained(str(tmp_path / "model"), create_model_card=False)
    adapted = save_adapter(
        tmp_path / "adapter", tmp_path / "model", lora("FEATURE_EXTRACTION", "Wqkv", "Wo"), kind=AutoModel
    )
    before = Reranker.load(tmp_path / "model").logits(QUERY, DOCUMENTS)

    reranker = Reranker.load(tmp_path / "adapter")
    reranker.save(tmp_path / "out")

    with torch.inference_mode():
        rows = [torch.tensor([reranker.prompt(*pair).ids]) for pair in PAIRS]
        states = [adapted(input_ids=row).last_hidden_state[:, 0] for row in rows]
        expected = [
            float(score.linear(chain[3].norm(dense.activation_function(dense.linear(each))))) for each in states
        ]
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)
    assert Reranker.load(tmp_path / "out").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)
    assert before != pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize("task_type", ["SEQ_CLS", "FEATURE_EXTRACTION"])
def test_an_adapter_of_a_decoder_with_a_pooled_head(task_type: str, tmp_path: Path):
    base = save_bidirectional(tmp_path / "base", temperature=0.5)
    native = tmp_path / "native"  # as PEFT can load it
    shutil.copytree(base, native)
    config = json.loads((base / "config.json").read_text())
    write(native, {"config.json": {**config, "auto_map": {}, "model_type": "llama", "is_causal": False}})
    kind = AutoModelForSequenceClassification if task_type == "SEQ_CLS" else AutoModel
    adapted = save_adapter(tmp_path / "adapter", native, lora(task_type), kind=kind)
    name_base(tmp_path / "adapter", base)

    reranker = Reranker.load(tmp_path / "adapter")
    reranker.save(tmp_path / "out")

    inner = adapted.base_model.model
    backbone = inner.model if task_type == "SEQ_CLS" else inner
    score = inner.score if task_type == "SEQ_CLS" else AutoModelForSequenceClassification.from_pretrained(native).score
    expected = []
    with torch.inference_mode():
        for query, document in PAIRS:
            ids = torch.tensor([reranker.prompt(query, document).ids])
            states = backbone(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
            expected.append(float(score(states.mean(dim=1))) / 0.5)
    assert reranker.logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)
    assert Reranker.load(tmp_path / "out").logits(QUERY, DOCUMENTS) == pytest.approx(expected, abs=1e-4)


def saved(folder: Path, base: Path, template: str | None) -> Path:
    """An adapter with a tokenizer and its chat template, as trainers save it."""
    save_adapter(folder, base, lora("CAUSAL_LM"), kind=CausalLM)
    (folder / "README.md").unlink()
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("template", [None, CHATML, OWN])
@pytest.mark.parametrize("keeps_in_settings", [False, True])
def test_only_a_rerankers_template_replaces_that_of_the_base(
    keeps_in_settings: bool, template: str | None, tmp_path: Path
):
    base = causal_checkpoint(tmp_path / "base").folder
    write(base, {**MODULES, "chat_template.jinja": QWEN3_TEMPLATE})
    folder = saved(tmp_path / "adapter", base, template)
    if keeps_in_settings and template is not None:  # as older versions of transformers save it
        (folder / "chat_template.jinja").unlink()
        settings = json.loads((folder / "tokenizer_config.json").read_text())
        write(folder, {"tokenizer_config.json": {**settings, "chat_template": template}})

    reranker = Reranker.load(folder)

    text = reranker.prompt("q", "d").text
    assert text == ("Q=q D=d A=" if template == OWN else Reranker.load(base).prompt("q", "d").text)
    assert (reranker.recipe.read_out.true, reranker.recipe.read_out.false) == (5, 7)


def test_the_modules_of_an_adapter_name_its_answers(tmp_path: Path):
    base = causal_checkpoint(tmp_path / "base").folder
    folder = saved(tmp_path / "adapter", base, OWN)
    write(folder, MODULES)

    reranker = Reranker.load(folder)

    assert reranker.prompt("q", "d").text == "Q=q D=d A="
    assert (reranker.recipe.read_out.true, reranker.recipe.read_out.false) == (5, 7)
