"""Lists of numbers, such as 1,10,100: one form in all commands."""

import json
from pathlib import Path

import pytest

from onelogit import DEMO_MODEL
from onelogit.cli.main import main
from onelogit.cli.number_lists import joined_lists, numbers_of
from onelogit.errors import InputError
from support.commands import failure
from support.evaluation_data import list_row, write_lines


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("10", [10]), ("100, 1,10,1", [100, 1, 10, 1]), ("1 10 100", [1, 10, 100]), (" 1 ,2 ", [1, 2]), ("007", [7])],
)
def test_numbers_are_read_in_their_order(text: str, numbers: list[int]):
    assert numbers_of(text, "-k") == numbers


@pytest.mark.parametrize(
    "text", ["", " ", "0", "1,0", "-1", "1.5", "1,,2", "1,", ",", "ten", "1;2", "1_0", "²", "１", "1e3", "9" * 5000]
)
def test_anything_else_is_refused_with_the_form_to_use(text: str):
    with pytest.raises(InputError, match=r"^-k must be whole numbers from 1 up, such as 1,10,100, not '"):
        numbers_of(text, "-k")


@pytest.mark.parametrize("given", [["-k", "1,3"], ["-k", "1", "3"], ["-k", "1,", "3"], ["-k=1,3"]])
@pytest.mark.parametrize("is_first", [True, False])
def test_cutoffs_may_stand_before_or_after_the_model(
    given: list[str], is_first: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = str(write_lines(tmp_path / "x.jsonl", [list_row()]))
    model = [DEMO_MODEL, "--data", data, "--output", str(tmp_path / "o"), "--json"]

    assert main(["evaluate", *([*given, *model] if is_first else [*model, *given])]) == 0

    measured = json.loads(capsys.readouterr().out)["measures"]
    assert measured == ["nDCG@1", "MRR@1", "recall@1", "nDCG@3", "MRR@3", "recall@3", "MAP"]


def test_equal_cutoffs_are_refused(capsys: pytest.CaptureFixture[str]):
    assert "different integers, not 10, 10" in failure(capsys, "evaluate", DEMO_MODEL, "--data", "x", "-k", "10,10")


def test_only_numbers_after_the_option_belong_to_it():
    assert joined_lists(["-k", "1", "2,3", "model", "4"], "-k") == ["-k", "1 2,3", "model", "4"]
    assert joined_lists(["1", "2", "-k", "--data", "5", "6"], "-k") == ["1", "2", "-k", "--data", "5", "6"]
    assert joined_lists(["-k"], "-k") == ["-k"]
