"""The core and its adapters: one version, released together."""

import tomllib
from pathlib import Path

import onelogit

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT / "shared", *sorted((ROOT / "packages").iterdir())]


def project(folder: Path) -> dict:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_there_is_one_version():
    assert len(PROJECTS) >= 4
    assert {project(folder)["version"] for folder in PROJECTS} == {onelogit.__version__}


def test_an_adapter_needs_the_core_of_its_own_version():
    for folder in PROJECTS[1:]:
        assert f"onelogit=={onelogit.__version__}" in project(folder)["dependencies"]


def test_every_public_name_can_be_imported():
    assert all(getattr(onelogit, name) is not None for name in onelogit.__all__)
    assert set(onelogit.__all__) <= set(dir(onelogit))
