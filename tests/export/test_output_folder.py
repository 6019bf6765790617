"""Writing the exported folder: it appears only once it is complete, and only an earlier export is overwritten."""

import os
import signal
from pathlib import Path

import pytest

from onelogit import CheckpointError, InputError, Reranker
from support.prepared import Process, run
from support.tiny import Tiny

QUERY = "What is the capital of China?"
DOCUMENTS = ["The capital of China is Beijing.", "서울", "A longer document. " * 20, "yes"]


def test_only_an_earlier_export_is_overwritten_and_only_with_force(tiny_qwen: Tiny, tmp_path: Path):
    reranker = Reranker.load(tiny_qwen.folder)
    folder, precious = tmp_path / "mine", tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("keep me")
    (tmp_path / "file").write_text("keep me")
    (tmp_path / "link").symlink_to(precious)
    reranker.save(folder)

    with pytest.raises(InputError, match="mine exists"):
        reranker.save(folder)
    reranker.save(folder, force=True)
    for name, complaint in (
        ("precious", "is not an earlier export"),
        ("file", "is not a folder"),
        ("link", "is not a folder"),
    ):
        with pytest.raises(InputError, match=complaint):
            reranker.save(tmp_path / name, force=True)

    assert Reranker.load(folder).logits(QUERY, DOCUMENTS) == pytest.approx(reranker.logits(QUERY, DOCUMENTS), abs=1e-5)
    assert (tmp_path / "precious" / "thesis.txt").read_text() == (tmp_path / "file").read_text() == "keep me"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "link", "mine", "precious"]


def test_a_model_is_never_converted_onto_itself(tiny_qwen: Tiny, tmp_path: Path):
    Reranker.load(tiny_qwen.folder).save(tmp_path / "one")

    with pytest.raises(InputError, match="is the model that is being converted"):
        Reranker.load(tmp_path / "one").save(tmp_path / "one", force=True)


def test_the_source_is_recognised_from_any_working_directory(
    tiny_qwen: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    Reranker.load(tiny_qwen.folder).save(tmp_path / "one")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "elsewhere").mkdir()

    for name in ("one", "./one", "~/one"):
        monkeypatch.chdir(tmp_path)
        reranker = Reranker.load(name)
        monkeypatch.chdir(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="is the model that is being converted"):
            reranker.save("../one", force=True)


def test_a_rename_that_fails_puts_the_earlier_export_back(
    tiny_qwen: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    reranker = Reranker.load(tiny_qwen.folder)
    reranker.save(tmp_path / "mine")
    rename = Path.rename

    def fail_on_the_new_one(path: Path, target: Path) -> Path:
        if path.name.startswith(".mine-") and target.name == "mine":
            raise OSError(28, "No space left on device")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail_on_the_new_one)
    with pytest.raises(CheckpointError, match="No space left"):
        reranker.save(tmp_path / "mine", force=True)

    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine" / "model.safetensors").is_file()


def test_a_kill_between_the_two_renames_keeps_the_earlier_export(tiny_qwen: Tiny, tmp_path: Path):
    Reranker.load(tiny_qwen.folder).save(tmp_path / "mine")
    program = (
        "import os, signal, sys; from pathlib import Path; from onelogit import Reranker\n"
        "reranker, rename = Reranker.load(sys.argv[1]), Path.rename\n"
        "Path.rename = lambda *paths: (rename(*paths), os.kill(os.getpid(), signal.SIGKILL))\n"
        "reranker.save(sys.argv[2], force=True)"
    )

    killed = run(["-c", program, tiny_qwen.folder, tmp_path / "mine"])

    assert killed.returncode == -signal.SIGKILL
    with pytest.raises(CheckpointError, match="the earlier one at ") as caught:
        Reranker.load(tmp_path / "mine")
    assert Reranker.load(str(caught.value).rpartition(" at ")[2]).logits(QUERY, DOCUMENTS)


def test_the_umask_decides_who_may_read_the_folder(tiny_qwen: Tiny, tmp_path: Path):
    mask = os.umask(0o022)
    try:
        Reranker.load(tiny_qwen.folder).save(tmp_path / "mine")
    finally:
        os.umask(mask)

    assert (tmp_path / "mine").stat().st_mode & 0o777 == 0o755
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "mine").iterdir()} == {0o644}


def test_no_file_contains_a_path_of_this_machine(tiny_qwen: Tiny, tmp_path: Path):
    reranker = Reranker.load(tiny_qwen.folder)
    reranker.save(tmp_path / "one")
    Reranker.load(tmp_path / "one").save(tmp_path / "two")

    for folder in ("one", "two"):
        for file in (tmp_path / folder).iterdir():
            assert str(tmp_path.parent).encode() not in file.read_bytes(), file


def test_a_full_disk_leaves_only_the_earlier_export(tiny_qwen: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    reranker = Reranker.load(tiny_qwen.folder)
    old = tmp_path / "old"
    reranker.save(old)
    before = {file.name: file.read_bytes() for file in old.iterdir()}
    write_text = Path.write_text

    def fail_on_the_card(path: Path, *args: object, **options: object) -> int:
        if path.name == "README.md":
            raise OSError(28, "No space left on device")
        return write_text(path, *args, **options)

    monkeypatch.setattr(Path, "write_text", fail_on_the_card)
    with pytest.raises(CheckpointError, match=r"cannot be written.*No space left"):
        reranker.save(old, force=True)
    with pytest.raises(CheckpointError, match=r"cannot be written"):
        reranker.save(tmp_path / "new")

    assert [file.name for file in tmp_path.iterdir()] == ["old"]
    assert {file.name: file.read_bytes() for file in old.iterdir()} == before


def test_a_kill_during_an_export_leaves_no_incomplete_folder_under_its_name(tiny_qwen: Tiny, tmp_path: Path):
    program = (
        "import sys, time; from onelogit import Reranker; from onelogit.export import exporter\n"
        "reranker = Reranker.load(sys.argv[1])\n"
        "exporter._write_json = lambda *a: (print('halfway', flush=True), time.sleep(60))\n"
        "reranker.save(sys.argv[2])"
    )
    read, write = os.pipe()
    with Process(["-c", program, tiny_qwen.folder, tmp_path / "converted"], stdout=write) as process:
        os.close(write)
        with os.fdopen(read) as written:
            assert written.readline() == "halfway\n"
        assert list(tmp_path.iterdir())
        process.kill()

    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "converted").exists()
    Reranker.load(tiny_qwen.folder).save(tmp_path / "converted")
    assert (tmp_path / "converted" / "model.safetensors").is_file()
