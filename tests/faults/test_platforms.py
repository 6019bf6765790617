"""What other systems do differently, and cannot be tried here: ports of Windows, plots, and macOS without bfloat16."""

import socket
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from onelogit import InputError
from onelogit.checkpoints.device import find_dtype
from onelogit.io.outputs import figure_in
from onelogit.serving import server


@pytest.mark.parametrize(("name", "is_set"), [("posix", True), ("nt", False)])
def test_a_port_is_taken_again_at_once_only_where_that_harms_no_running_server(
    name: str, is_set: bool, monkeypatch: pytest.MonkeyPatch
):
    """On Windows, SO_REUSEADDR lets a second server take the port of a running one; POSIX needs it after a restart."""
    monkeypatch.setattr(server, "os", SimpleNamespace(name=name))
    with server.bound_socket("127.0.0.1", 0) as bound:
        assert bool(bound.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)) is is_set


def test_a_plot_that_cannot_be_written_leaves_the_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from matplotlib.figure import Figure

    def fail_halfway(figure: Figure, path: Path, **options: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    plot = tmp_path / "plot.png"
    with figure_in(plot, 2, 2) as figure:
        figure.subplots().plot([1, 2])
    before = plot.read_bytes()
    monkeypatch.setattr(Figure, "savefig", fail_halfway)

    with pytest.raises(InputError, match="the plot cannot be written to .*No space left"), figure_in(plot, 2, 2):
        pass

    assert plot.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize(("version", "expected"), [((14, 0), torch.bfloat16), ((13, 6), torch.float32)])
def test_macos_13_computes_bfloat16_checkpoints_in_float32(
    version: tuple[int, int], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *wanted: version >= wanted)

    assert find_dtype(None, torch.bfloat16, torch.device("mps")) == expected
    assert find_dtype(None, torch.float16, torch.device("mps")) == torch.float16
