"""The projects' metadata, and the checks of what `nox -s build` makes: they pass for good files, and find faults."""

import importlib
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import yaml

from onelogit.errors import _EXTRAS, InputError, check_packages

ROOT = Path(__file__).parents[1]
PROJECTS = [ROOT / "shared", *sorted((ROOT / "packages").iterdir())]
NAME = "langchain-onelogit"


@pytest.fixture(scope="module")
def checks():
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        yield importlib.import_module("distribution_checks")
    finally:
        sys.path.remove(str(ROOT / "tools"))


@pytest.fixture
def problems(checks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Build a copy of an adapter after a change, with hatchling, and return what is wrong with it."""
    folder = tmp_path / "repository" / NAME
    shutil.copytree(ROOT / "packages" / NAME, folder, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))

    def git(*arguments: str) -> None:
        subprocess.run(["git", *arguments], cwd=folder, check=True, capture_output=True)

    def build(change: Callable[[Path], object] = lambda folder: None, target: str = "wheel") -> list[str]:
        git("init", "--quiet")
        git("add", ".")
        change(folder)
        command = [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(tmp_path / "dist")]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (file,) = (tmp_path / "dist").iterdir()
        return checks.problems_of(file, checks.Project(folder, folder.parent))

    return build


def append(name: str, text: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        file = folder / name
        file.write_text((file.read_text("utf-8") if file.exists() else "") + text, encoding="utf-8")

    return change


def replace(name: str, old: str, new: str) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text("utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


@pytest.mark.parametrize("target", ["wheel", "sdist"])
def test_an_adapter_can_be_published(problems, target: str):
    assert problems(target=target) == []


PACKAGE = "src/langchain_onelogit"
SETTINGS = "pyproject.toml"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (append(f"{PACKAGE}/test_it.py", ""), "contains langchain_onelogit/test_it.py"),
        (lambda folder: (folder / PACKAGE / "py.typed").unlink(), "lacks langchain_onelogit/py.typed"),
        (lambda folder: append(f"{PACKAGE}/relevance.py", f"# {folder}\n")(folder), "a path of this machine"),
        (replace(SETTINGS, 'license-files = ["LICENSE"]', "license-files = []"), "no license_files"),
        (replace(SETTINGS, 'authors = [{ name = "onelogit contributors" }]', ""), "no author"),
        (replace(SETTINGS, "Issues =", "Bugs ="), "lacks Issues"),
        (replace(SETTINGS, '"onelogit==0.1.0"', '"onelogit"'), "does not require onelogit=="),
        (replace(SETTINGS, '    "Typing :: Typed",\n', ""), "Typing"),
        (append("README.md", "x" * 10), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_of_a_wheel_is_found(problems, change, problem: str | None):
    found = problems(change)

    assert (problem is None and not found) or any(problem in each for each in found), found


def test_a_release_needs_a_real_address(checks, tmp_path: Path):
    project = checks.Project(ROOT / "packages" / NAME, ROOT)
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as wheel:
        wheel.writestr(
            f"langchain_onelogit-{project.version}.dist-info/METADATA",
            f"Metadata-Version: 2.4\nName: {NAME}\nVersion: 1.0\nProject-URL: Source, {checks.PLACEHOLDER}",
        )

    assert not any("ADDRESS" in each for each in checks.problems_of(tmp_path / "a.whl", project))
    assert any(
        "in place of the address" in each for each in checks.problems_of(tmp_path / "a.whl", project, is_release=True)
    )


def test_the_extras_of_the_core_are_documented_and_installed_for_the_packages_that_errors_name():
    extras = tomllib.loads((ROOT / "shared" / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    table = (ROOT / "docs" / "install.md").read_text("utf-8").partition("## Extras")[2].partition("\n## ")[0]

    assert [name for name in extras if f"`{name}`" not in table] == []
    for package, extra in _EXTRAS.items():
        assert any(each.startswith(package.replace("_", "-")) for each in extras[extra]), package


def test_an_error_names_the_packages_of_an_extra(monkeypatch: pytest.MonkeyPatch):
    declared = ["filelock>=3.24", "peft>=0.20; extra == 'lora'", "pyarrow>=18; extra == 'ray'"]
    monkeypatch.setattr("importlib.metadata.requires", lambda name: [*declared, "ray[data]>=2.50; extra == 'ray'"])
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"^this needs peft \(the extra 'lora'\): pip install 'peft>=0.20'$"):
        check_packages("peft")
    with pytest.raises(InputError, match=r"\(the extra 'ray'\): pip install 'pyarrow>=18' 'ray\[data\]>=2.50'$"):
        check_packages("pyarrow", extra="ray")
    with pytest.raises(InputError, match=r"^this needs vllm: pip install 'ray\[llm\]'$"):
        check_packages("vllm")


def test_an_error_names_the_extra_if_onelogit_has_no_metadata(monkeypatch: pytest.MonkeyPatch):
    def requires(name: str) -> list[str]:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.requires", requires)
    monkeypatch.setattr("onelogit.errors.find_spec", lambda name: None)

    with pytest.raises(InputError, match=r"^this needs peft \(the extra 'lora'\): pip install 'onelogit\[lora\]'$"):
        check_packages("peft")


def test_the_listings_name_what_the_packages_have():
    pages = {
        name: (ROOT / "listings" / name).read_text("utf-8")
        for name in (
            "langchain/onelogit.mdx",
            "haystack/onelogit.md",
            "langchain/listing-issue.md",
            "llama-index/listing-request.md",
        )
    }
    fields = {name: yaml.safe_load(text.split("---")[1]) for name, text in pages.items() if text.startswith("---")}
    row = yaml.safe_load((ROOT / "listings/langchain/integration_external_docs.yaml").read_text("utf-8"))
    settings = {folder.name: tomllib.loads((folder / SETTINGS).read_text("utf-8")) for folder in PROJECTS}

    langchain = fields["langchain/onelogit.mdx"]
    assert {"title", "description"} <= set(langchain)
    assert langchain["integration"] == {"name": "OnelogitRerank", "pypi": NAME}
    (entry,) = row["python"]["document_transformers"]
    assert (entry["name"], entry["pypi"]) == ("OnelogitRerank", NAME)
    assert entry["docs_url"] == settings[NAME]["project"]["urls"]["Documentation"]
    for value in ("OnelogitRerank", "Python", "document_transformers", NAME, entry["docs_url"]):
        assert f"\n\n{value}\n" in pages["langchain/listing-issue.md"]

    haystack = fields["haystack/onelogit.md"]
    assert {"layout", "name", "description", "authors", "type"} <= set(haystack)
    assert haystack["layout"] == "integration"
    urls = settings["onelogit-haystack"]["project"]["urls"]
    assert (haystack["repo"], haystack["report_issue"]) == (urls["Source"], urls["Issues"])
    assert haystack["authors"] == settings["onelogit-haystack"]["project"]["authors"]

    hub = settings["llama-index-postprocessor-onelogit-rerank"]["tool"]["llamahub"]
    module = importlib.import_module(hub["import_path"])
    assert all(hasattr(module, name) for name in hub["class_authors"])
    assert f"from {hub['import_path']} import OnelogitRerank" in pages["llama-index/listing-request.md"]
