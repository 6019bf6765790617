"""A model's files decide how it is used, whatever its folder is called."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, Qwen3Config

from onelogit import Recipe, RecipeError, Reranker
from onelogit.checkpoints import recipe_choice
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.cli.main import main
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.templates import CTXL_TEMPLATE, QWEN3_TEMPLATE, ZERANK_1_TEMPLATE
from support.metadata_files import logit_score_files
from support.tiny import Tiny, byte_level_tokenizer, native_checkpoint, pair_tokenizer, tiny_parts

QUERY, DOCUMENTS = "What is the capital of China?", ["The capital of China is Beijing.", "서울"]
NAMES = [
    "reranker",
    "checkpoint-1000",
    "model",
    "Qwen3-Reranker-0.6B",
    "bge-reranker-prod",
    "zerank-2",
    "ctxl-rerank-v2-1b",
]
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}<|im_start|>assistant"
LEGAL = QWEN3_TEMPLATE.replace("a web search query, retrieve relevant passages", "a law, find rulings")


@pytest.fixture(autouse=True)
def _forget_warnings():
    recipe_choice._warn_once.cache_clear()


def declared_files(recipe: Recipe, tokenizer: object) -> dict[str, object]:
    """The Sentence Transformers files that declare a family's prompt and answer tokens, and nothing else."""
    ids = [
        each if each is None or isinstance(each, int) else tokenizer.encode(each, add_special_tokens=False)[0]
        for each in (recipe.read_out.true, recipe.read_out.false)
    ]
    files = logit_score_files(*ids, template=recipe.chat_template)
    prompts = {} if recipe.default_instruction is None else {"query": recipe.default_instruction}
    files["config_sentence_transformers.json"]["prompts"] = prompts
    return files


def texts(architecture: str = "Qwen3ForCausalLM", config: dict | None = None, **files: object) -> dict[str, str]:
    content = {"config.json": {"architectures": [architecture], **(config or {})}, **files}
    return {name: text if isinstance(text, str) else json.dumps(text) for name, text in content.items()}


def test_the_same_files_give_the_same_recipe_and_scores_under_every_name(
    family: Recipe, checkpoint: Callable[..., Tiny], tmp_path: Path
):
    tiny = checkpoint("original", **tiny_parts(family))
    for name, content in declared_files(family, tiny.tokenizer).items():
        (tiny.folder / name).parent.mkdir(exist_ok=True)
        (tiny.folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    recipes, scores = [], []
    for name in NAMES:
        folder = shutil.copytree(tiny.folder, tmp_path / name)
        with Reranker.load(folder) as reranker:
            recipes.append(reranker.recipe)
            scores.append([ranked.score for ranked in sorted(reranker.rank(QUERY, DOCUMENTS))])

    assert recipes == [recipes[0]] * len(NAMES)
    assert scores == [scores[0]] * len(NAMES)
    found = recipes[0]
    assert (found.activation, found.max_tokens) == (family.activation, family.max_tokens)
    assert (found.read_out.scale, found.default_instruction) == (family.read_out.scale, family.default_instruction)
    assert found.chat_template.endswith(family.chat_template)


@pytest.mark.parametrize("name", NAMES)
def test_a_language_model_with_a_familys_template_is_one_of_that_family(name: str):
    found = resolve_recipe(f"/models/{name}", texts(**{"chat_template.jinja": QWEN3_TEMPLATE}))

    assert found.because == "its chat template, of the family qwen3-reranker"
    assert (found.recipe.read_out, found.recipe.activation) == (FAMILIES[0].read_out, "sigmoid")


@pytest.mark.parametrize(
    ("changed", "family"),
    [
        (LEGAL, "qwen3-reranker"),
        (QWEN3_TEMPLATE.rstrip("\n") + "\n", "qwen3-reranker"),  # as in vLLM's examples
        ("{{ '<s>' }}" + CTXL_TEMPLATE, "ctxl-rerank-v2"),
        (ZERANK_1_TEMPLATE.replace(" | trim", ""), "zerank-1"),
        (QWEN3_TEMPLATE.replace("Judge whether", "Decide whether"), None),
        (QWEN3_TEMPLATE.replace("<Document>", "<Passage>"), None),
    ],
)
def test_a_familys_prompt_is_recognised_by_its_words(changed: str, family: str | None):
    files = texts(**{"chat_template.jinja": changed})

    if family is None:
        with pytest.raises(RecipeError, match="no file names its answer tokens.*pass recipe="):
            resolve_recipe("/models/reranker", files)
    else:
        recipe = resolve_recipe("/models/reranker", files).recipe
        assert (recipe.family, recipe.chat_template) == (family, changed)


def test_a_template_with_its_own_default_instruction_keeps_it():
    assert resolve_recipe("m", texts(**{"chat_template.jinja": LEGAL})).recipe.default_instruction is None
    assert resolve_recipe("m", texts(**{"chat_template.jinja": QWEN3_TEMPLATE})).recipe.default_instruction


@pytest.mark.parametrize("name", NAMES)
def test_a_read_out_of_another_shape_has_another_scale(name: str):
    found = resolve_recipe(name, texts(**logit_score_files(7, 3, template=ZERANK_1_TEMPLATE)))

    assert (found.recipe.family, found.recipe.read_out.scale) == ("declared", 1.0)


@pytest.mark.parametrize(
    "evidence",
    [
        {"README.md": "---\nbase_model: zeroentropy/zerank-2\n---\n"},
        {"README.md": "---\nbase_model: [me/zerank-2-seq]\n---\n"},
        {"config": {"_name_or_path": "zeroentropy/zerank-2-reranker"}},
        {"config": {"_name_or_path": "/home/me/zerank-2"}},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_the_model_that_a_model_was_made_from_is_named_by_its_files(name: str, evidence: dict):
    found = resolve_recipe(f"/models/{name}", texts(**evidence))

    assert found.recipe.family == "zerank-2"
    assert "zerank-2" in found.because


def test_a_name_that_contradicts_the_files_is_a_warning_given_once(caplog: pytest.LogCaptureFixture):
    files = texts(**logit_score_files(0, None, template=CTXL_TEMPLATE))

    for _ in range(3):
        assert resolve_recipe("/models/Qwen3-Reranker-0.6B", files).recipe.family == "ctxl-rerank-v2"

    (message,) = caplog.messages
    assert "'/models/Qwen3-Reranker-0.6B' is named like the family qwen3-reranker, but its files show" in message


def test_a_name_that_agrees_with_the_files_is_no_warning(family: Recipe, caplog: pytest.LogCaptureFixture):
    files = texts(**declared_files(family, byte_level_tokenizer()))

    for model in [*family.models, *(f"/models/{each.rpartition('/')[2]}" for each in family.models)]:
        resolve_recipe(model, files)

    assert not caplog.messages


def test_a_name_without_evidence_in_the_files_is_a_warning_given_once(caplog: pytest.LogCaptureFixture):
    for _ in range(3):
        assert resolve_recipe("/models/Qwen3-Reranker-0.6B", texts()).recipe.family == "qwen3-reranker"
    resolve_recipe("Qwen/Qwen3-Reranker-0.6B", texts())  # a hub id of the table
    resolve_recipe("/hub/models--Qwen--Qwen3-Reranker-0.6B/snapshots/0123", texts())

    (message,) = caplog.messages
    assert "because of its name; nothing in its files says so" in message
    with pytest.raises(RecipeError, match="no recipe is known"):
        resolve_recipe("/models/reranker", texts())


def test_a_local_folder_called_like_a_hub_id_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "Qwen" / "Qwen3-Reranker-0.6B").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    files = texts(**logit_score_files(0, None, template=CTXL_TEMPLATE))

    assert resolve_recipe("Qwen/Qwen3-Reranker-0.6B", files).recipe.family == "ctxl-rerank-v2"


@pytest.mark.parametrize("template", [None, CHATML], ids=["none", "a language model's"])
@pytest.mark.parametrize(
    "name", ["reranker-prod-v3", "model", "checkpoint-1000", "Qwen3-Reranker-0.6B-seq-cls", "zerank-2-mine"]
)
def test_a_decoder_with_its_own_head_and_no_prompt_is_refused(name: str, template: str | None):
    files = {} if template is None else {"chat_template.jinja": template}

    with pytest.raises(RecipeError, match=r"no file declares the prompt .*recipe=Recipe\(.*chat_template=None if"):
        resolve_recipe(name, texts("LlamaForSequenceClassification", **files))


@pytest.mark.parametrize("name", NAMES)
def test_a_decoder_with_its_own_head_reads_the_prompt_of_its_template(name: str):
    own = QWEN3_TEMPLATE.replace("Judge whether", "Decide whether")

    found = [
        resolve_recipe(name, texts("Qwen2ForSequenceClassification", **{"chat_template.jinja": each})).recipe
        for each in (own, QWEN3_TEMPLATE)
    ]

    assert [each.chat_template for each in found] == [own, QWEN3_TEMPLATE]
    assert [each.family for each in found] == ["declared", "qwen3-reranker"]


def test_a_message_form_without_its_template_is_refused():
    files = logit_score_files(3, 5)
    files["modules.json"] = files["modules.json"][:1]
    del files["chat_template.jinja"]

    with pytest.raises(RecipeError, match="no file declares the prompt"):
        resolve_recipe("reranker", texts("Qwen3ForSequenceClassification", **files))


@pytest.mark.parametrize(
    "architecture",
    ["BertForSequenceClassification", "XLMRobertaForSequenceClassification", "ModernBertForSequenceClassification",
     "DebertaV2ForSequenceClassification", "ElectraForSequenceClassification", "GteForSequenceClassification",
     "NewForSequenceClassification", "CamembertForSequenceClassification"],
)  # fmt: skip
@pytest.mark.parametrize("name", [*NAMES, "bge-reranker-v2-gemma-distilled"])
def test_an_encoder_reads_pairs_whatever_its_name(name: str, architecture: str):
    assert resolve_recipe(name, texts(architecture)).recipe.chat_template is None


def test_an_encoder_called_like_a_decoder_scores_pairs(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]")
    folder = native_checkpoint(tmp_path / "reranker", BertConfig, tokenizer, num_labels=1)
    named = shutil.copytree(folder, tmp_path / "Qwen3-Reranker-distilled")

    assert Reranker.load(named).rank(QUERY, DOCUMENTS) == Reranker.load(folder).rank(QUERY, DOCUMENTS)
    assert "is named like the family qwen3-reranker" in caplog.text


def test_a_template_for_a_decoders_own_head_can_be_given_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    shape = {"num_labels": 1, "head_dim": 32, "num_key_value_heads": 1}
    folder = native_checkpoint(tmp_path / "reranker", Qwen3Config, byte_level_tokenizer(), **shape)
    (tmp_path / "template.jinja").write_text(QWEN3_TEMPLATE)
    command = ["rank", QUERY, *DOCUMENTS, "--model", str(folder)]

    assert main(command) == 2
    assert "--chat-template" in capsys.readouterr().err
    assert main([*command, "--json", "--chat-template", str(tmp_path / "template.jinja")]) == 0
    recipe = {"family": "mine", "chat_template": QWEN3_TEMPLATE, "read_out": None, "source": "me"}
    expected = Reranker.load(folder, recipe={**recipe, "activation": "sigmoid"}).rank(QUERY, DOCUMENTS)
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [each["score"] for each in shown] == pytest.approx([each.score for each in expected], abs=1e-6)


def test_the_template_of_the_tokenizer_completes_the_files_of_sentence_transformers():
    files = logit_score_files(9, None, template=ZERANK_1_TEMPLATE)
    del files["sentence_bert_config.json"]

    recipe = resolve_recipe("reranker", texts(**files)).recipe

    assert (recipe.family, recipe.read_out.true, recipe.read_out.scale) == ("zerank-1", 9, 0.2)


@pytest.mark.parametrize("name", NAMES)
def test_a_classifier_made_from_a_family_reads_its_prompt(name: str):
    card = "---\nbase_model: Qwen/Qwen3-Reranker-0.6B\n---\n"

    recipe = resolve_recipe(name, texts("Qwen3ForSequenceClassification", **{"README.md": card})).recipe

    assert (recipe.chat_template, recipe.read_out, recipe.activation) == (QWEN3_TEMPLATE, None, "sigmoid")


@pytest.mark.parametrize(
    ("architecture", "is_pair"),
    [("Qwen3ForSequenceClassification", False), ("ModernBertDecoderForSequenceClassification", False),
     ("SomethingNewForSequenceClassification", True)],
)  # fmt: skip
def test_an_unknown_architecture_is_an_encoder_if_its_tokenizer_joins_pairs(architecture: str, is_pair: bool):
    files = texts(architecture, **{"tokenizer_config.json": {"cls_token": "[CLS]", "sep_token": "[SEP]"}})

    if is_pair:
        assert resolve_recipe("reranker", files).recipe.chat_template is None
    else:
        with pytest.raises(RecipeError, match="no file declares the prompt"):
            resolve_recipe("reranker", files)
    with pytest.raises(RecipeError, match="no file declares the prompt"):
        resolve_recipe("reranker", texts(architecture))


def test_a_declared_instruction_that_the_declared_prompt_ignores_is_dropped(template: str):
    files = logit_score_files(7, 3, template=template)
    files["config_sentence_transformers.json"] |= {"prompts": {"query": "Find."}, "default_prompt_name": "query"}

    assert resolve_recipe("/models/reranker", texts(**files)).recipe.default_instruction is None
