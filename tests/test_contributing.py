"""CONTRIBUTING.md and AGENTS.md name layers, sessions and files that exist; the templates have the right form."""

import ast
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
CORE = ROOT / "shared" / "src" / "onelogit"
GUIDES = ("CONTRIBUTING.md", "AGENTS.md")
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def test_contributing_shows_the_layers_that_import_linter_checks():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    lines = text.partition("## The packages")[2].split("```")[1].strip().splitlines()

    shown = [re.split(r"\s{2,}", line.strip())[0] for line in lines]

    layers = settings["tool"]["importlinter"]["contracts"][0]["layers"]
    assert shown == [layer.replace("onelogit.", "") for layer in layers]


def sessions() -> set[str]:
    """The names of nox's sessions."""
    tree = ast.parse((ROOT / "noxfile.py").read_text(encoding="utf-8"))
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    return {each.name for each in functions if any("nox.session" in ast.unparse(line) for line in each.decorator_list)}


def text_of(guide: str) -> str:
    return (ROOT / guide).read_text(encoding="utf-8")


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_names_existing_files(guide: str):
    found = re.findall(
        r"(?<![\w./-])((?:[a-z_.]+/)*[a-z_]+\.(?:py|md|toml|txt|ipynb))\b", text_of(guide), re.IGNORECASE
    )
    named = {name for name in found if "NAME" not in name and name != "a_b.py"}
    folders = (ROOT, CORE, ROOT / "shared", *(ROOT / "packages").iterdir())

    assert len(named) > 5
    assert [name for name in named if not any((folder / name).exists() for folder in folders)] == []


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_names_existing_sessions(guide: str):
    commands = re.findall(r"nox -s ((?:[a-z_]+ ?)+)", text_of(guide))
    named = {name for command in commands for name in command.split()}

    assert named <= sessions()
    if guide == "CONTRIBUTING.md":
        assert named == sessions()


def test_the_first_change_makes_the_named_tests_fail():
    """CONTRIBUTING.md lets a stranger sort the worst document first, in a line that must exist."""
    assert "`rank_logits` sort the worst document first" in text_of("CONTRIBUTING.md").replace("let ", "")
    assert "key=lambda index: -logits[index]" in (CORE / "ranking.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", [each for each in FORMS if each.name != "config.yml"], ids=lambda file: file.stem)
def test_an_issue_form_has_the_fields_that_github_requires(file: Path):
    form = yaml.safe_load(file.read_text(encoding="utf-8"))

    assert form["name"] and form["description"] and form["body"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert {field["type"] for field in fields} <= {"input", "textarea", "dropdown", "checkboxes"}
    assert (
        len({field["id"] for field in fields}) == len({field["attributes"]["label"] for field in fields}) == len(fields)
    )
    assert any(field.get("validations", {}).get("required") for field in fields)
