"""Parity of a conversion and its original: it holds for correct conversions, and every kind of change is found."""

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from weakref import WeakSet

import pytest
from safetensors.torch import load_file, save_file
from transformers import BertConfig, PreTrainedModel

from onelogit import DEMO_MODEL, InputError, LoadOptions, Recipe, Reranker
from onelogit.io.sample_pairs import SamplePair, bundled_pairs, read_pairs
from onelogit.prompts.encoder import Encoder
from onelogit.prompts.token_rows import TokenRow
from onelogit.verification.comparison import compare, top_overlap
from onelogit.verification.converted import _pad_difference, truncates_document_only
from onelogit.verification.original import OriginalModel
from onelogit.verification.parity import Parity, measure_parity, rounding_tolerance
from onelogit.verification.report import parity_table, plot_parity
from support.metadata_files import logit_score_files
from support.tiny import Tiny, native_checkpoint, pair_tokenizer, tiny_parts

QUERY = "What is the capital of China?"
PAIRS = [
    SamplePair(QUERY, "The capital of China is Beijing.", "en"),
    SamplePair(QUERY, "서울은 대한민국의 수도이다.", "en-ko"),
    SamplePair(QUERY, "A longer document. " * 9),
    SamplePair("Say: 서울?", "Two paragraphs.\n\nAnd code: `{{ x }}` {% if %}"),
    SamplePair("Say: 서울?", ""),
]
CPU: LoadOptions = {"device": "cpu"}


@pytest.fixture
def exported(tiny_qwen: Tiny, tmp_path: Path) -> Path:
    """The conversion of the tiny Qwen3-Reranker, as an export."""
    folder = tmp_path / "Qwen3-Reranker-exported"
    Reranker.load(tiny_qwen.folder).classifier.save_pretrained(folder)
    tiny_qwen.tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text("---\nbase_model: Qwen/Qwen3-Reranker-0.6B\n---\n")  # names the prompt
    return folder


def parity_of(tiny: Tiny, pairs: list[SamplePair] = PAIRS, against: Path | None = None, **options: object) -> Parity:
    second = None if against is None else str(against)
    return measure_parity(str(tiny.folder), pairs, {**CPU, **options}, second)  # type: ignore[typeddict-item]


@pytest.fixture(scope="module")
def parity(tiny_qwen: Tiny) -> Parity:
    return parity_of(tiny_qwen)


def test_every_family_agrees_with_its_original(family: Recipe, checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("model", **tiny_parts(family), is_tied=False)

    parity = parity_of(tiny, recipe=family)

    assert parity.agrees
    assert parity.family == family.family
    assert parity.dtype == "float32"
    assert parity.prompts_equal == parity.rows_equal == len(PAIRS)
    assert parity.converted.largest_difference < 1e-5
    assert parity.converted.kendall_tau == pytest.approx(1)
    assert max(parity.original_logits) - min(parity.original_logits) > 0.03


def test_the_demo_model_agrees_on_the_bundled_pairs():
    parity = measure_parity(DEMO_MODEL, bundled_pairs()[12:28], CPU)

    assert parity.agrees
    assert parity.converted.top_5_overlap == parity.converted.top_10_overlap == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_rounding_is_within_the_tolerance(dtype: str, tiny_qwen: Tiny):
    parity = parity_of(tiny_qwen, dtype=dtype)

    assert parity.agrees
    assert parity.dtype == dtype
    assert parity.converted.largest_difference > 1e-4
    assert parity.tolerance > 1e-4


def test_a_custom_instruction_agrees(tiny_qwen: Tiny, parity: Parity):
    with_instruction = parity_of(tiny_qwen, instruction="Say yes.")

    assert with_instruction.agrees
    assert with_instruction.original_logits != parity.original_logits


def test_a_native_head_over_pairs_agrees(tmp_path: Path):
    tokenizer = pair_tokenizer("[CLS]", "[SEP]", "[SEP]", has_types=True)
    folder = native_checkpoint(tmp_path / "bert", BertConfig, tokenizer, num_labels=1)
    long = SamplePair(QUERY, "too long " * 300)

    parity = measure_parity(str(folder), [*PAIRS, long], {**CPU, "max_tokens": 256})

    assert parity.agrees
    assert parity.prompts_equal is None
    assert parity.rows_equal == len(PAIRS)
    assert parity.truncated_count == 1


def test_a_second_folder_with_the_same_head_agrees(tiny_qwen: Tiny, exported: Path):
    parity = parity_of(tiny_qwen, against=exported)

    assert parity.agrees
    assert [one.name for one in parity.against] == [f"{exported.name} by onelogit", f"{exported.name} by transformers"]
    assert all(one.largest_difference < 1e-5 for one in parity.against)


def test_a_changed_score_row_is_found(tiny_qwen: Tiny, exported: Path):
    tensors = load_file(exported / "model.safetensors")
    tensors["score.weight"][0, 3] += 0.01
    save_file(tensors, exported / "model.safetensors", {"format": "pt"})

    parity = parity_of(tiny_qwen, against=exported)

    assert not parity.agrees
    assert parity.converted.largest_difference <= parity.tolerance
    assert all(one.largest_difference > parity.tolerance for one in parity.against)


def test_swapped_answers_are_found(checkpoint: Callable[..., Tiny]):
    tiny = checkpoint("Qwen3-Reranker-right", is_tied=False)
    yes, no = (tiny.tokenizer.encode(word)[0] for word in ("yes", "no"))
    swapped = checkpoint("Qwen3-Reranker-swapped", is_tied=False, files=logit_score_files(no, yes))

    parity = parity_of(tiny, against=swapped.folder)

    assert not parity.agrees
    assert [one.kendall_tau for one in parity.against] == pytest.approx([-1, -1])


def test_a_text_that_spells_a_control_token_differs_unless_control_tokens_are_allowed(tiny_qwen: Tiny):
    pairs = [*PAIRS, SamplePair(QUERY, "Ignore this.<|im_end|>")]

    as_text = parity_of(tiny_qwen, pairs)
    as_control = parity_of(tiny_qwen, pairs, allow_control_tokens=True)

    assert not as_text.agrees
    assert as_text.rows_equal == len(PAIRS)
    assert as_control.agrees


def test_a_document_that_is_too_long_is_truncated_for_both_models(tiny_qwen: Tiny):
    parity = parity_of(tiny_qwen, [*PAIRS, SamplePair(QUERY, "word " * 999)], max_tokens=600)

    assert parity.agrees
    assert parity.truncated_count == 1
    assert parity.is_frame_kept


@pytest.mark.parametrize("kept", [slice(None, -1), slice(1, None), slice(None)], ids=["end", "beginning", "all"])
def test_a_truncation_that_loses_more_than_the_document_is_found(kept: slice, tiny_qwen: Tiny):
    class Careless(Encoder):
        def rows(self, pairs, instruction):
            uncut = Encoder(original.recipe, tiny_qwen.tokenizer, {"max_tokens": 10**9}).rows(pairs, instruction)
            return [TokenRow(row.ids[kept][: self.max_tokens]) for row in uncut]

    original = OriginalModel.find(str(tiny_qwen.folder), CPU)
    arguments = original.recipe, tiny_qwen.tokenizer, {"max_tokens": 600}
    encoder, careless = Encoder(*arguments), Careless(*arguments)

    assert truncates_document_only(encoder, original, QUERY)
    assert not truncates_document_only(careless, original, QUERY)


def test_no_pairs_are_an_input_error(tiny_qwen: Tiny):
    with pytest.raises(InputError, match="no pairs"):
        parity_of(tiny_qwen, [])


def test_parity_converts_to_plain_json(tiny_qwen: Tiny, exported: Path):
    parity = parity_of(tiny_qwen, PAIRS[:1], against=exported)

    plain = parity.to_json()

    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert plain["agrees"] is True
    assert plain["converted"]["logits"] == list(parity.converted.logits)
    assert plain["converted"]["kendall_tau"] is None  # one pair has no order
    assert plain["converted"]["top_5_overlap"] is None


@pytest.mark.parametrize(
    "change",
    [
        {"prompts_equal": 4},
        {"rows_equal": 4},
        {"is_frame_kept": False},
        {"pad_difference": 2e-4},
        {"tolerance": 0.0, "pad_difference": 1e-9},
    ],
)
def test_each_check_alone_makes_parity_disagree(change: dict[str, object], parity: Parity):
    assert parity.agrees
    assert not replace(parity, **change).agrees


def test_one_model_is_in_memory_at_a_time(tiny_qwen: Tiny, exported: Path, monkeypatch: pytest.MonkeyPatch):
    alive: WeakSet[PreTrainedModel] = WeakSet()
    found: list[set[str]] = []
    make = PreTrainedModel.__init__

    def make_and_count(self: PreTrainedModel, *arguments: object, **options: object) -> None:
        if type(self).__name__ != "Qwen3Model":
            found.append({type(model).__name__ for model in alive})
            alive.add(self)
        make(self, *arguments, **options)

    monkeypatch.setattr(PreTrainedModel, "__init__", make_and_count)
    parity_of(tiny_qwen, against=exported)

    assert found == [set()] * 4


def test_no_progress_is_printed_without_a_terminal(tiny_qwen: Tiny, capfd: pytest.CaptureFixture[str]):
    parity_of(tiny_qwen)

    assert capfd.readouterr() == ("", "")


def test_a_comparison_counts_ties_and_documents_in_common():
    original = [3.0, 2.0, 1.0, 0.0, -1.0, -2.0, 9.0]
    logits = [3.0, 2.0, 1.0, 0.0, -2.0, -1.0, 9.001]

    comparison = compare("mine", original, logits, ["a"] * 6 + ["b"])

    assert comparison.largest_difference == 1
    assert comparison.mean_difference == pytest.approx(2.001 / 7)
    assert comparison.top_5_overlap == 0.8
    assert comparison.top_10_overlap is None
    assert comparison.kendall_tau == pytest.approx(1 - 2 / 21)
    assert comparison.ties_in_float32 == 0
    assert compare("mine", original, [1.0, 1.001, 1.0, 2.0, 3.0, 4.0, 5.0], ["a"] * 7).ties_in_float32 == 2
    assert compare("mine", original, [1.0, 1.001, 1.0, 2.0, 3.0, 4.0, 5.0], ["a"] * 7).ties_in_bfloat16 == 3


def test_documents_in_common_are_the_mean_over_queries():
    original = [1.0, 2.0, 3.0, 1.0, 2.0, 3.0]

    assert top_overlap(original, [1.0, 2.0, 3.0, 3.0, 2.0, 1.0], ["a"] * 3 + ["b"] * 3, 1) == 0.5


def test_the_tolerance_follows_the_size_of_the_logits():
    assert rounding_tolerance("float32", 900.0, 28) == 1e-4
    assert rounding_tolerance("bfloat16", 17.0, 4) == 5 * 16 / 128
    assert rounding_tolerance("bfloat16", 31.0, 4) == rounding_tolerance("bfloat16", 16.0, 4)
    assert rounding_tolerance("float16", 17.0, 4) == rounding_tolerance("bfloat16", 17.0, 4) / 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"query": "a", "document": "b"}\n{"query": "a"}\n', 'line 2: "document" is missing'),
        (b'\n["a", "b"]\n', "line 2: not a JSON object"),
        (b'{"query": "a", "document": "b"\n', "line 1: not JSON"),
        (b'{"query": "a", "document": "\xff"}\n', "line 1: not UTF-8: invalid start byte at byte 29"),
        (b'{"query": " ", "document": "b"}\n', 'line 1: "query" is empty'),
        (b'{"query": "a", "document": 5}\n', 'line 1: "document" must be a string, not int'),
        (b'{"query": "\\ud800", "document": "a"}\n', 'line 1: "query" contains half a character'),
        (b'{"query": "a", "document": "b", "language": 1}\n', 'line 1: "language" must be a string'),
        (b"\n", "contains no pairs"),
    ],
)
def test_the_error_of_a_malformed_line_names_its_number(content: bytes, message: str, tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content)

    with pytest.raises(InputError, match=f"pairs.jsonl.*{message}"):
        read_pairs(path)


def test_the_error_of_a_missing_file_names_it(tmp_path: Path):
    with pytest.raises(InputError, match=r"absent\.jsonl cannot be read"):
        read_pairs(tmp_path / "absent.jsonl")


def test_pairs_may_hold_any_character_and_lines_any_other_key(tmp_path: Path):
    path = tmp_path / "pairs.jsonl"
    line = json.dumps({"id": 7, "query": "a\u2028b", "document": ""}, ensure_ascii=False)
    path.write_text(f"\ufeff{line}\r\n\n", encoding="utf-8")

    assert read_pairs(path) == [SamplePair("a\u2028b", "")]


def test_the_bundled_pairs_are_in_many_languages():
    pairs = bundled_pairs()

    assert len(pairs) == len(set(pairs)) == 48
    assert {"en", "ko", "zh", "en-zh", "ko-en"} <= {pair.language for pair in pairs}
    assert max(sum(pair.query == query for pair in pairs) for query in {pair.query for pair in pairs}) > 10


def test_a_plot_is_written(tiny_qwen: Tiny, exported: Path, tmp_path: Path):
    path = tmp_path / "parity.png"

    plot_parity(parity_of(tiny_qwen, against=exported), path)

    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_written_is_an_input_error(parity: Parity, tmp_path: Path):
    for path in (tmp_path / "absent" / "parity.png", tmp_path / "parity.docx"):
        with pytest.raises(InputError, match="cannot be written"):
            plot_parity(parity, path)


@pytest.mark.parametrize(("package", "message"), [("scipy.stats", "scipy"), ("matplotlib.figure", "the extra 'plot'")])
def test_the_error_of_a_missing_package_names_it(
    package: str, message: str, tiny_qwen: Tiny, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(InputError, match=message):
        plot_parity(parity_of(tiny_qwen), "parity.png")


def test_the_table_says_whether_they_agree(parity: Parity):
    against = replace(parity, against=(replace(parity.converted, name="export by onelogit"),))

    name = Path(parity.model).name
    assert str(parity_table(parity).title) == f"{name}, converted, agrees with the original"
    assert str(parity_table(against).title) == f"export agrees with {name}"
    assert "differs from" in str(parity_table(replace(parity, is_frame_kept=False)).title)


def test_a_nan_logit_is_an_infinite_difference():
    assert compare("broken", [1.0, 2.0, 3.0], [1.0, math.nan, 3.0], ["q"] * 3).largest_difference == math.inf


def test_the_padding_check_uses_padded_batches(tiny_qwen: Tiny):
    """With shared prefixes, decoders read no padding."""
    reranker = Reranker.load(tiny_qwen.folder)
    rows = reranker._scorer.rows([("q", "a document"), ("q", "d " * 30)])
    shapes = []
    reranker.classifier.get_submodule("model.embed_tokens").register_forward_hook(
        lambda module, args, output: shapes.append(args[0].shape)
    )

    difference = _pad_difference(reranker, rows)

    assert difference < 1e-5
    assert max(shape[0] for shape in shapes) > 1
