"""Read-outs in a wrong form, or with their answers the wrong way round."""

import logging
import re
from collections.abc import Callable

import pytest

from onelogit import ReadOut, Recipe, RecipeError, Reranker, recipe_from
from onelogit.recipes.answer_names import are_swapped, relevant_name
from onelogit.recipes.families import FAMILIES
from onelogit.recipes.templates import PLAIN_TEMPLATE
from support.tiny import Tiny

FIELDS = {"family": "mine", "chat_template": PLAIN_TEMPLATE, "source": "a test"}
SWAPPED = [
    ("no", "yes"), ("No", "Yes"), (" NO", " YES"), ("▁no", "▁yes"), ("Ġno", "Ġyes"), ("false", "true"), ("0", "1"),
    ("irrelevant", "relevant"), ("Not relevant", "Relevant"), ("non-relevant", "relevant"), ("negative", "positive"),
    ("否", "是"), ("아니오", "예"), ("nein", "ja"),
]  # fmt: skip
RIGHT = [("yes", "no"), ("1", "0"), ("true", None), ("no", None), ("5", "no"), ("a", "b"), ("no", "maybe"), (0, 1)]


@pytest.mark.parametrize(("true", "false"), SWAPPED)
def test_answers_the_wrong_way_round_are_one_warning(true: str, false: str, caplog: pytest.LogCaptureFixture):
    ReadOut(true=true, false=false)

    (message,) = caplog.messages
    assert f"the answer {true!r} counts as relevant, and {false!r} as irrelevant" in message
    assert f"write ReadOut(true={false!r}, false={true!r})" in message
    assert relevant_name(true, false) == 1
    caplog.clear()
    ReadOut(true=false, false=true)
    assert not caplog.messages


@pytest.mark.parametrize(("true", "false"), RIGHT)
def test_other_answers_give_no_warning(true: object, false: object, caplog: pytest.LogCaptureFixture):
    ReadOut(true=true, false=false)  # type: ignore[arg-type]

    assert not caplog.messages


def test_no_family_is_the_wrong_way_round():
    read_outs = [recipe.read_out for recipe in FAMILIES if recipe.read_out is not None]

    assert not any(are_swapped(read_out.true, read_out.false) for read_out in read_outs)


def test_ids_the_wrong_way_round_are_noticed_by_their_texts(
    checkpoint: Callable[..., Tiny], caplog: pytest.LogCaptureFixture
):
    tiny = checkpoint("model")
    yes, no = (tiny.tokenizer.get_vocab()[token] for token in ("yes", "no"))
    for true, false, count in ((no, yes, 1), (yes, no, 0)):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            Reranker.load(tiny.folder, recipe=Recipe(**FIELDS, read_out=ReadOut(true=true, false=false))).close()
        assert len([each for each in caplog.messages if "the answer 'no' counts as relevant" in each]) == count


@pytest.mark.parametrize(
    ("read_out", "written"),
    [
        (("yes", "no"), "ReadOut(true='yes', false='no')"),
        (("no", "yes"), "ReadOut(true='yes', false='no')"),
        (["0", "1"], "ReadOut(true='1', false='0')"),
        ([9693, 2152], "ReadOut(true=9693, false=2152)"),
        ("yes", "ReadOut(true='yes')"),
        (("Yes",), "ReadOut(true='Yes')"),
        (0, "ReadOut(true=0)"),
        ({"true": "yes", "false": "no"}, "ReadOut(true='yes', false='no')"),
        (("a", "b", "c"), "ReadOut(true='yes', false='no')"),
        ((), "ReadOut(true='yes', false='no')"),
        ((None, "yes"), "ReadOut(true='yes', false='no')"),
    ],
)
def test_a_read_out_in_another_form_is_told_how_to_write_it(read_out: object, written: str):
    with pytest.raises(RecipeError, match=re.escape(f"read_out cannot be {read_out!r}: write {written}")):
        Recipe(**FIELDS, read_out=read_out)  # type: ignore[arg-type]


@pytest.mark.parametrize("read_out", [["yes", "no"], "yes", ["no", "yes"]])
def test_so_is_one_in_plain_data(read_out: object):
    with pytest.raises(RecipeError, match=r"read_out cannot be .*: write ReadOut\(true='yes'"):
        recipe_from({**FIELDS, "read_out": read_out})


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (Recipe, {"chat_template": b"x"}, "chat_template cannot be b'x': write a text or None"),
        (Recipe, {"activation": "Sigmoid"}, "activation cannot be 'Sigmoid': write 'sigmoid' or 'identity'"),
        (Recipe, {"max_tokens": "512"}, "max_tokens cannot be '512': write an integer"),
        (Recipe, {"models": "a/b"}, "models cannot be 'a/b': write a list of texts"),
        (Recipe, {"default_instruction": 3}, "default_instruction cannot be 3: write a text or None"),
        (ReadOut, {"true": ["yes"]}, "true cannot be ['yes']: write an integer or a text"),
        (ReadOut, {"true": True}, "true cannot be True: write an integer or a text; in YAML, put"),
        (ReadOut, {"true": None}, "true cannot be None"),
        (ReadOut, {"true": "yes", "scale": "2"}, "scale cannot be '2': write a number"),
        (ReadOut, {"true": "yes", "scale": 0}, "scale cannot be 0: write a number other than 0"),
        (ReadOut, {"true": "yes", "scale": float("nan")}, "scale cannot be nan: write a number other than 0"),
    ],
)
def test_a_field_of_the_wrong_type_is_named(kind: type, fields: dict, message: str):
    whole = {**FIELDS, "read_out": None, **fields} if kind is Recipe else fields

    with pytest.raises(RecipeError, match=re.escape(f"invalid recipe: {message}")):
        kind(**whole)


@pytest.mark.parametrize("missing", ["family", "chat_template", "read_out", "source"])
def test_a_missing_field_is_named(missing: str):
    whole = {**FIELDS, "read_out": {"true": "yes"}}
    del whole[missing]

    with pytest.raises(RecipeError, match=missing):
        recipe_from(whole)
