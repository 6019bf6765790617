"""The sessions of development and CI, each in its own environment: `nox -s tests`, `lint`, `types`, `docs`, `demo`.

`minimums` and `frameworks` test the adapters with the oldest and the newest versions of their frameworks, and `oldest`
tests the core with the oldest version of transformers.
"""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.options.sessions = ["tests", "lint", "types"]
nox.options.default_venv_backend = "venv"  # pip honours constraints.txt; other installers may not

PYPROJECT = nox.project.load_toml("pyproject.toml")
DISTRIBUTIONS = ["shared", *sorted(str(file.parent) for file in Path().glob("packages/*/pyproject.toml"))]
CODE = ["noxfile.py", "shared", "packages", "tests", "examples", "tools", "benchmarks"]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}
CLIENTS = {  # scripts in tests/clients/scripts, up to the "@"
    "cohere_sdk": ["cohere"],
    "cohere_sdk@5": ["cohere<6"],  # which LangChain requires
    "haystack_rankers": ["cohere-haystack", "huggingface-api-haystack", "jina-haystack"],
    "infinity_clients": ["infinity-client", "langchain-community"],
    "jina_rerankers": [
        "langchain-community",
        "llama-index-postprocessor-jinaai-rerank",
        "llama-index-postprocessor-siliconflow-rerank",
    ],
    "langchain_cohere_reranker": ["langchain-cohere"],
    "litellm_library": ["litellm"],
    "litellm_proxy": ["litellm[proxy]"],
    "llama_index_rerankers": ["llama-index-postprocessor-cohere-rerank", "llama-index-postprocessor-tei-rerank"],
    "tei_client_library": ["tei-client"],
}

ADAPTER_TESTS = ["tests/adapters", "tests/test_pages.py"]
# A framework reports a deprecation at its caller, or where it gives the warning: in its own code.
DEPRECATIONS = [
    f"error::{kind}:(onelogit|langchain|langgraph|llama_index|haystack|tests)"
    for kind in ("DeprecationWarning", "PendingDeprecationWarning", "FutureWarning")
]


def install(session: nox.Session, group: str, *, editable: bool = True) -> None:
    """Install all distributions and a dependency group of pyproject.toml, in the versions of constraints.txt."""
    # Install torch first, so that other packages with looser requirements do not fetch another build.
    session.install("-c", "constraints.txt", "torch")
    distributions = [part for path in DISTRIBUTIONS for part in (["-e", path] if editable else [f"./{path}"])]
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, group), *distributions)


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests. Arguments are passed to pytest: `nox -s tests -- -k forward`."""
    install(session, "test")
    session.run("pytest", *session.posargs, env=OFFLINE)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run all tests, and report the lines and branches of the core that none of them takes. Takes 15 minutes."""
    install(session, "test")
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "coverage"))
    # Not `create_tmp`, which sets TMPDIR: Ray's workers do not start with a TMPDIR in the virtual environment.
    folder = Path(session.cache_dir).resolve()
    env = {**OFFLINE, "COVERAGE_FILE": str(folder / "measured")}
    session.run("coverage", "erase", env=env)
    # Tests with a time limit may fail, because measuring is slow; `tests` says whether they pass without it.
    session.run("coverage", "run", "-m", "pytest", *session.posargs, env=env, success_codes=[0, 1])
    session.run("coverage", "combine", "--quiet", env=env)
    session.run("coverage", "json", "--quiet", "-o", str(folder / "coverage.json"), env=env)
    session.run("python", "tools/coverage_report.py", str(folder / "coverage.json"))


@nox.session
def minimums(session: nox.Session) -> None:
    """Run the adapters' tests with the oldest allowed versions of the frameworks."""
    frameworks = [Requirement(each) for path in DISTRIBUTIONS[1:] for each in dependencies(path)]
    oldest = [f"{each.name}=={least(each)}" for each in frameworks if each.name != "onelogit"]
    test_unpinned(session, oldest, ADAPTER_TESTS)


@nox.session
def frameworks(session: nox.Session) -> None:
    """Run the adapters' tests with the newest available versions of the frameworks. Their deprecations are errors."""
    test_unpinned(session, [], ADAPTER_TESTS, ["default", *DEPRECATIONS])


@nox.session
def oldest(session: nox.Session) -> None:
    """Run all tests with the oldest version of transformers that the core allows."""
    needed = {each.name: each for each in map(Requirement, dependencies("shared"))}
    test_unpinned(session, [f"transformers=={least(needed['transformers'])}"], [])


def dependencies(path: str) -> list[str]:
    """The requirements of a distribution."""
    return nox.project.load_toml(f"{path}/pyproject.toml")["project"]["dependencies"]


def least(requirement: Requirement) -> str:
    """The oldest version that a requirement allows."""
    return next(each.version for each in requirement.specifier if each.operator == ">=")


def pinned(name: str) -> str:
    """The requirement of a package in constraints.txt."""
    lines = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def test_unpinned(session: nox.Session, pins: list[str], tests: list[str], warnings: Sequence[str] = ()) -> None:
    """Run the given tests, or all, with `pins` and the pinned torch, and the newest versions of everything else.

    `warnings` are filters as in pytest's settings; by default, no warning is an error.
    """
    torch = pinned("torch")
    session.install(torch)
    editable = [part for path in DISTRIBUTIONS for part in ("-e", path)]
    session.install(torch, *pins, *nox.project.dependency_groups(PYPROJECT, "test"), *editable)
    session.run("python", "-m", "pip", "list")
    # Old versions of one library warn about new versions of another.
    filters = "\n".join(warnings or ["default"])
    session.run("pytest", "-o", f"filterwarnings={filters}", *tests, *session.posargs, env=OFFLINE)


@nox.session
def vllm(session: nox.Session) -> None:
    """Compare exports served by vLLM, and bulk runs with vLLM, with local logits. Takes some 4 GB and minutes."""
    session.run("python", "benchmarks/install_vllm.py", session.virtualenv.location)
    # Not ray[llm], which requires another version of vLLM, built for CUDA.
    session.install(pinned("ray"), "-e", "shared[ray]", "pytest", "pytest-asyncio", "pytest-xdist", "hypothesis")
    session.run("pytest", "-W", "default", "-s", "tests/check_vllm.py", *session.posargs, env=OFFLINE)


@nox.session
def clients(session: nox.Session) -> None:
    """Rank with the clients of Cohere, TEI, Jina, Infinity and LiteLLM against the server. Takes 5 GB and minutes."""
    install(session, "test")
    pythons = {}
    for script, packages in CLIENTS.items():  # apart, because they require different versions of Cohere's SDK
        folder = Path(session.create_tmp(), script)
        session.run("python", "-m", "venv", str(folder))
        python = str(folder / "bin" / "python")
        session.run(python, "-m", "pip", "install", "--quiet", *packages, external=True)
        pythons[script] = python
    env = {**OFFLINE, "CLIENTS": json.dumps(pythons)}
    session.run("pytest", "-W", "default", "tests/clients/check_clients.py", *session.posargs, env=env)


@nox.session
def faults(session: nox.Session) -> None:
    """Try many moments of each fault: Ctrl-C, kill -9, full disks, no memory. Takes some ten minutes."""
    install(session, "test")
    session.run("pytest", "-n", "0", "tests/faults", *session.posargs, env={**OFFLINE, "FAULTS_MOMENTS": "many"})


@nox.session
def browser(session: nox.Session) -> None:
    """Test the HTML report of `onelogit evaluate` in Chromium: $CHROMIUM, the system's, or playwright's."""
    install(session, "test")
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "browser"))
    if not os.environ.get("CHROMIUM") and not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.run("playwright", "install", "--with-deps", "chromium")
    session.run("pytest", "-m", "browser", *session.posargs, env=OFFLINE)


@nox.session
def build(session: nox.Session) -> None:
    """Build the wheels and sdists, check them, and try each in an environment of its own. `-- --release` for a release.

    Takes 4 GB and some minutes.
    """
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "build"))
    session.run("python", "tools/build_distributions.py", *session.posargs)
    built = sorted(Path("dist").iterdir())
    session.run("twine", "check", "--strict", *map(str, built))
    for path in DISTRIBUTIONS:
        name = nox.project.load_toml(f"{path}/pyproject.toml")["project"]["name"]
        files = [file for file in built if file.name.startswith((f"{name.replace('-', '_')}-", "onelogit-"))]
        try_distribution(session, name, files)


def try_distribution(session: nox.Session, name: str, files: list[Path]) -> None:
    """Install a wheel, with the core's, in a fresh environment, and use it; and then the sdists in their place."""
    folder = Path(session.create_tmp(), name)
    session.run("python", "-m", "venv", "--clear", str(folder))
    python = str(folder / "bin" / "python")
    pip = [python, "-m", "pip", "install", "--quiet", "-c", "constraints.txt"]
    session.run(*pip, pinned("torch"), external=True)
    for kind in (".whl", ".gz"):
        again = [] if kind == ".whl" else ["--no-deps", "--force-reinstall"]
        session.run(*pip, *again, *(str(file) for file in files if file.suffix == kind), external=True)
        session.run(python, "-m", "pip", "check", external=True)
        session.run(python, "-I", "tools/try_distribution.py", name, external=True, env=OFFLINE)
    shutil.rmtree(folder)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Try a million generated cases on templates, tokenizers, files and HTTP: `nox -s fuzz -- --cases 9000 --seed 7`.

    Only one kind of case: `--target encoder`.
    """
    install(session, "test")
    session.run("python", "tests/fuzz/run.py", *session.posargs, env=OFFLINE)


@nox.session
def sbom(session: nox.Session) -> None:
    """Write a CycloneDX list of what an installation of all distributions depends on: sbom.json, or the path given."""
    session.install("-c", "constraints.txt", "torch")
    distributions = [f"./{path}" for path in DISTRIBUTIONS]
    session.install("-c", "constraints.txt", *distributions)
    session.run("python", "-m", "pip", "uninstall", "--yes", "pip", "setuptools")  # they are no dependencies
    output = str(Path(*session.posargs[:1] or ["sbom.json"]).absolute())
    tool = Path(session.create_tmp(), "cyclonedx")
    session.run("python", "-m", "venv", str(tool), external=True)
    python = str(tool / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", "cyclonedx-bom>=7", external=True)
    environment = str(session.virtualenv.location)
    command = [python, "-m", "cyclonedx_py", "environment", environment, "--output-format", "JSON", "-o", output]
    session.run(*command, external=True)


@nox.session
def audit(session: nox.Session) -> None:
    """Ask the advisory database of PyPI about the pinned versions of all dependencies. Needs access to it.

    It fails if a package could not be looked up, because then nothing is known of it. `-- --vulnerability-service osv`
    asks osv.dev instead.
    """
    session.install("pip-audit>=2.9")
    report = Path(session.create_tmp(), "audit.json")
    report.unlink(missing_ok=True)
    options = ["--requirement", "constraints.txt", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    command = ["pip-audit", *options, "--format", "json", "--output", str(report), *session.posargs]
    session.run(*command, success_codes=[0, 1])  # 1: faults, or no answer
    packages = json.loads(report.read_text(encoding="utf-8"))["dependencies"] if report.is_file() else []
    unknown = [each for each in packages if "skip_reason" in each]
    if not packages or unknown:
        which = f"{len(unknown)} of {len(packages)} packages were not found" if packages else "it gave no answer"
        session.error(f"NOT RUN: the advisory database could not be asked, or not about all packages: {which}")
    faults = [f"{each['name']} {each['version']}: {fault['id']}" for each in packages for fault in each["vulns"]]
    if faults:
        session.error(f"known faults: {', '.join(faults)}")
    session.log(f"no known faults in {len(packages)} packages")


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, format, the layers of imports, and the Dockerfile."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)
    session.run("lint-imports", env={"PYTHONPATH": "shared/src"})
    session.run("hadolint", "examples/serving/Dockerfile")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of all distributions, strictly."""
    install(session, "types")
    sources = [f"{path}/src" if Path(path, "src").is_dir() else path for path in DISTRIBUTIONS]
    session.run("mypy", *sources, env={"MYPYPATH": os.pathsep.join(sources)})


@nox.session
def docs(session: nox.Session) -> None:
    """Build the documentation in build/site, strictly; `nox -s docs -- serve` shows it while you write."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "docs"))
    session.run("mkdocs", *(session.posargs or ["build"]), env={"NO_MKDOCS_2_WARNING": "1"})


@nox.session
def demo(session: nox.Session) -> None:
    """Rerank passages with the core and the frameworks, with distributions installed as users do."""
    install(session, "demo", editable=False)
    session.run("python", "examples/demo.py", *session.posargs, env=OFFLINE)
