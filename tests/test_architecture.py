"""The imports run one way, adapters keep to their side, and no import loads torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = ROOT / "shared" / "src" / "onelogit"
PACKAGES = ROOT / "packages"

# Each stage may import the ones before it.
ORDER = [
    "errors",
    "prompts",
    "recipes",
    "unsupported",
    "quantisation",
    "options",
    "inputs",
    "text_files",
    "progress",
    "template",
    "declared",
    "chain",
    "recognise",
    "files",
    "placement",
    "rows",
    "weights",
    "pooled",
    "load",
    "convert",
    "assemble",
    "tokens",
    "boundaries",
    "runs",
    "recent",
    "chunks",
    "written",
    "encode",
    "scores",
    "probe",
    "model_card",
    "declaring",
    "saving",
    "export",
    "doors",
    "forest",
    "transfer",
    "keys",
    "in_turn",
    "at_once",
    "attention",
    "decoder",
    "quicken",
    "space",
    "key_memory",
    "document_cache",
    "memory",
    "compiled",
    "passes",
    "prepare",
    "forward",
    "jobs",
    "service",
    "portions",
    "scorer",
    "reranker",
    "tokenizer_file",
    "prompt_writer",
    "dialects",
    "asked",
    "address",
    "refusal",
    "line",
    "wire",
    "served",
    "remote_scorer",
    "remote",
    "open",
    "rank_request",
    "handle",
    "several_labels",
    "outputs",
    "bulk",
    "measure",
    "bench",
    "commands",
    "cli",
    "__main__",
]
FOLDERS = ["bulk", "measure", "bench", "commands"]
# The stages of measure/quality/, none of which knows torch.
QUALITY = [
    "faults",
    "judged",
    "trec",
    "lists",
    "beir",
    "first_stage",
    "contestants",
    "run_file",
    "scoring",
    "figures",
    "moves",
    "resampling",
    "pairings",
    "slices",
    "evaluation",
    "notes",
    "plain",
    "stories",
    "tables",
    "pictures",
    "page",
    "job",
]
WITH_TORCH = {
    "rows",
    "weights",
    "pooled",
    "load",
    "convert",
    "assemble",
    "saving",
    "export",
    "transfer",
    "keys",
    "in_turn",
    "at_once",
    "attention",
    "decoder",
    "quicken",
    "key_memory",
    "document_cache",
    "memory",
    "compiled",
    "passes",
    "prepare",
    "forward",
    "service",
    "scorer",
    "reranker",
    "several_labels",
    "placement",
    "measure",
    "progress",
    "bench",
    "commands",
}
WITHOUT_TORCH = set(ORDER) - WITH_TORCH
ADAPTERS = {
    "langchain_onelogit": "langchain_core",
    "llama_index.postprocessor.onelogit_rerank": "llama_index.core",
    "haystack_integrations.components.rankers.onelogit.ranker": "haystack",
}


def imports_of(file: Path) -> set[str]:
    """The modules that a file names in its import statements, wherever they stand."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def files_of(stage: str) -> list[Path]:
    """The file of a stage, or those of its folder."""
    return sorted((CORE / stage).rglob("*.py")) if stage in FOLDERS else [CORE / f"{stage}.py"]


def stages_imported_by(stage: str) -> set[str]:
    """The other stages that the files of a stage import."""
    names = {name for file in files_of(stage) for name in imports_of(file) if name.startswith("onelogit.")}
    return {name.split(".")[1] for name in names} - {stage}


def test_every_stage_of_the_core_has_its_place():
    assert {file.stem for file in CORE.glob("*.py")} == {*ORDER, "__init__"} - set(FOLDERS)


@pytest.mark.parametrize("stage", ORDER)
def test_a_stage_imports_only_what_stands_before_it(stage: str):
    assert stages_imported_by(stage) <= set(ORDER[: ORDER.index(stage)])


@pytest.mark.parametrize("stage", sorted(WITHOUT_TORCH))
def test_a_stage_of_facts_and_text_knows_no_torch(stage: str):
    assert not any(imports_of(file) & {"torch", "transformers"} for file in files_of(stage))


def test_every_stage_of_quality_has_its_place_and_knows_no_torch():
    folder = CORE / "measure" / "quality"
    assert {file.stem for file in folder.glob("*.py")} == {*QUALITY, "__init__"}
    for stage in QUALITY:
        imported = imports_of(folder / f"{stage}.py")
        mine = {name.rpartition(".")[2] for name in imported if name.startswith("onelogit.evaluation.")}

        assert mine <= set(QUALITY[: QUALITY.index(stage)]), stage
        assert not imported & {"torch", "transformers"}, stage


def test_evaluating_loads_no_torch_until_a_model_is_opened():
    program = "import sys, onelogit.evaluation.job; sys.exit('torch' in sys.modules or 'scipy' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_evaluating_needs_no_package_of_another_extra():
    absent = "for name in ('pyarrow', 'ray', 'matplotlib'): sys.modules[name] = None"
    program = f"import sys\n{absent}\nimport onelogit.evaluation.job"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("file", sorted(PACKAGES.rglob("*.py")), ids=lambda file: file.parent.name + "/" + file.name)
def test_an_adapter_imports_the_cores_public_names_and_its_framework(file: Path):
    imported = imports_of(file)

    assert not any(name.startswith("onelogit.") for name in imported)
    assert not {name.partition(".")[0] for name in imported} & {"torch", "transformers", "sentence_transformers"}


@pytest.mark.parametrize("module", ["onelogit", *(name for name in ADAPTERS if not name.startswith("haystack"))])
def test_an_import_loads_no_torch(module: str):
    program = f"import sys, {module}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_the_haystack_package_loads_no_torch_beyond_what_haystack_does():
    """`import haystack` itself loads torch where it is installed; transformers it does not."""
    program = (
        "import sys, haystack; before = set(sys.modules); "
        "import haystack_integrations.components.rankers.onelogit; "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "sys.exit(bool(new & {'torch', 'transformers'}))"
    )

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_every_file_opens_with_what_it_is():
    for file in [*CORE.rglob("*.py"), *PACKAGES.rglob("*.py")]:
        assert ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))), file


def test_namespace_packages_stay_open_to_others():
    above = ["llama_index", "llama_index/postprocessor", "haystack_integrations", "haystack_integrations/components"]
    for folder in [*above, "haystack_integrations/components/rankers"]:
        assert not list(PACKAGES.rglob(f"{folder}/__init__.py"))


def test_every_package_is_typed():
    leaves = [CORE, *(file.parent for file in PACKAGES.rglob("__init__.py"))]

    assert len(leaves) == 4
    assert all((leaf / "py.typed").is_file() for leaf in leaves)
