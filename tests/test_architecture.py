"""What import-linter cannot say: what an import loads, in a fresh interpreter, and the form of the packages."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "shared" / "src" / "onelogit"
PACKAGES = ROOT / "packages"
ADAPTERS_WITHOUT_TORCH = ("langchain_onelogit", "llama_index.postprocessor.onelogit_rerank")
ADAPTER_FOLDERS = sorted(file.parent for file in PACKAGES.rglob("__init__.py"))
WITHOUT_TORCH = (
    "onelogit",
    "onelogit.adapters",
    "onelogit.bulk",
    "onelogit.cli.main",
    "onelogit.evaluation.job",
    "onelogit.serving",
)


def run(program: str) -> int:
    return subprocess.run([sys.executable, "-c", program], check=False).returncode


def imports_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return imported | {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("module", [*WITHOUT_TORCH, *ADAPTERS_WITHOUT_TORCH])
def test_an_import_loads_no_torch(module: str):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"

    assert run(program) == 0


@pytest.mark.parametrize("folder", ADAPTER_FOLDERS, ids=lambda folder: folder.name)
def test_an_adapter_loads_no_torch_unless_its_framework_does(folder: Path):
    """`import haystack` itself loads torch if it is installed, but not transformers."""
    module = ".".join(folder.relative_to(PACKAGES).parts[1:]).removeprefix("src.")
    imported = {name for file in folder.glob("*.py") for name in imports_of(file)} - {"onelogit", "onelogit.adapters"}
    framework = sorted(name for name in imported if not name.startswith(module))
    program = (
        f"import sys, {', '.join(framework)}; before = set(sys.modules); import {module}; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "sys.exit(bool(new & {'torch', 'transformers'}) or 'transformers' in sys.modules)"
    )

    assert run(program) == 0


@pytest.mark.parametrize("module", ["ray", "pyarrow", "starlette", "uvicorn", "prometheus_client"])
def test_the_command_line_and_bulk_load_no_optional_package(module: str):
    assert run(f"import sys, onelogit.cli.main, onelogit.bulk; sys.exit({module!r} in sys.modules)") == 0


def test_evaluating_needs_no_package_of_another_extra():
    absent = "for name in ('pyarrow', 'ray', 'matplotlib'): sys.modules[name] = None"

    assert run(f"import sys\n{absent}\nimport onelogit.evaluation.job") == 0
    assert run("import sys, onelogit.evaluation.job; sys.exit('scipy' in sys.modules)") == 0


@pytest.mark.parametrize("file", sorted(PACKAGES.rglob("*.py")), ids=lambda file: file.parent.name + "/" + file.name)
def test_an_adapter_imports_the_cores_public_names_and_its_framework(file: Path):
    imported = imports_of(file)

    assert {name for name in imported if name.startswith("onelogit.")} <= {"onelogit.adapters"}
    assert not {name.partition(".")[0] for name in imported} & {"torch", "transformers", "sentence_transformers"}


def test_every_file_opens_with_what_it_is():
    for file in [*CORE.rglob("*.py"), *PACKAGES.rglob("*.py")]:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_no_file_is_longer_than_three_hundred_lines():
    long = {file.name: len(file.read_text(encoding="utf-8").splitlines()) for file in CORE.rglob("*.py")}

    assert not {name: count for name, count in long.items() if count > 300}


def test_namespace_packages_stay_open_to_others():
    above = ["llama_index", "llama_index/postprocessor", "haystack_integrations", "haystack_integrations/components"]
    for folder in [*above, "haystack_integrations/components/rankers"]:
        assert not list(PACKAGES.rglob(f"{folder}/__init__.py"))


def test_every_package_is_typed():
    assert len(ADAPTER_FOLDERS) == len([*PACKAGES.glob("*/pyproject.toml")])
    assert all((folder / "py.typed").is_file() for folder in (CORE, *ADAPTER_FOLDERS))
