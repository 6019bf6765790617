"""Files and folders that appear only once they are complete."""

import os
from pathlib import Path

import pytest

from onelogit.errors import CheckpointError, InputError
from onelogit.io.atomic_write import atomic_file, atomic_folder


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


def test_a_file_replaces_the_earlier_one_after_the_block(tmp_path: Path):
    (tmp_path / "file").write_text("old")

    with atomic_file(tmp_path / "file", InputError) as temporary:
        temporary.write_text("new")
        assert (tmp_path / "file").read_text() == "old"

    assert (tmp_path / "file").read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ZeroDivisionError("a bug")])
def test_a_block_that_fails_leaves_the_earlier_file(error: Exception, tmp_path: Path):
    (tmp_path / "file").write_text("old")

    with (
        pytest.raises((InputError, ZeroDivisionError), match=r"cannot be written \(No space left|a bug"),
        atomic_file(tmp_path / "file", InputError) as temporary,
    ):
        temporary.write_text("half")
        raise error

    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_an_error_of_a_library_is_reported_with_the_advice(tmp_path: Path):
    with (
        pytest.raises(InputError, match=r"file cannot be written \(disk is odd\); try again"),
        atomic_file(tmp_path / "file", InputError, KeyError, ValueError, advice="; try again"),
    ):
        raise ValueError("disk is odd\nand more")


def test_a_folder_replaces_the_earlier_one_and_its_parents_are_created(tmp_path: Path):
    for content in ("old", "new"):
        with atomic_folder(tmp_path / "parent" / "folder", CheckpointError) as temporary:
            (temporary / content).write_text(content)

    assert names(tmp_path / "parent") == ["folder"]
    assert names(tmp_path / "parent" / "folder") == ["new"]


@pytest.mark.skipif(os.name != "posix", reason="only POSIX has these modes")
def test_the_umask_decides_who_may_enter_a_subfolder(tmp_path: Path):
    mask = os.umask(0o027)
    try:
        with atomic_folder(tmp_path / "folder", CheckpointError) as temporary:
            (temporary / "1_Dense").mkdir(mode=0o700)
            (temporary / "1_Dense" / "weights").touch(mode=0o600)
            (temporary / "weights").touch(mode=0o600)
    finally:
        os.umask(mask)

    modes = {file.name: file.stat().st_mode & 0o777 for file in (tmp_path / "folder").rglob("*")}
    assert modes == {"1_Dense": 0o750, "weights": 0o640}
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750
