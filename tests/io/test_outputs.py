"""Locks of output folders: one process at a time, whatever becomes of it."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import filelock
import pytest

from onelogit import InputError
from onelogit.io.outputs import locked

HOLD = """
import sys
from pathlib import Path
from onelogit.io.outputs import locked

with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_locked_folder_is_refused_to_another_process_until_the_first_one_ends(tmp_path: Path):
    for ending in (None, signal.SIGKILL):
        with subprocess.Popen(
            [sys.executable, "-c", HOLD, tmp_path / "out"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout.readline() == b"locked\n"
            with pytest.raises(InputError, match="another process is writing to .*out; wait until it has ended$"):
                with locked(tmp_path / "out"):
                    pass
            process.stdin.close() if ending is None else os.kill(process.pid, ending)

        with locked(tmp_path / "out"):
            pass
        assert [*(tmp_path / "out").iterdir()] == []


@pytest.mark.skipif(filelock.__version__ < "4", reason="earlier versions remove the file of another process")
def test_a_folder_is_locked_by_the_existence_of_a_file_if_the_file_system_has_no_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    refuse_locks(monkeypatch, errno.ENOSYS)

    with pytest.warns(UserWarning, match="flock not supported"), locked(tmp_path):
        with pytest.raises(InputError, match="another process is writing to .*; if it was killed, remove .*lock$"):
            with locked(tmp_path):
                pass
    assert [*tmp_path.iterdir()] == []


def test_a_folder_that_cannot_be_locked_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    refuse_locks(monkeypatch, errno.ENOLCK)

    with locked(tmp_path):
        pass

    assert caplog.messages == [f"{tmp_path} cannot be locked (No locks available); do not start a second run in it"]


def refuse_locks(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("fcntl.flock", refuse)


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path: Path):
    (tmp_path / "file").touch()

    with pytest.raises(InputError, match="cannot be written: Not a directory"), locked(tmp_path / "file" / "out"):
        pass
