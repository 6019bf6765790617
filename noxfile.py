"""What development and CI run, each in an environment of its own: `nox -s tests`, `lint`, `types`, `demo`."""

import nox

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
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install("-c", "constraints.txt", *nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check", *CODE)
    session.run("ruff", "format", "--check", *CODE)


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
