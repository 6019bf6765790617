"""The four projects -> their wheels and sdists in dist/, which are checked and the same on every machine.

    python tools/build_distributions.py [--release]

Each is built twice: here, the wheel from the sdist; and, the wheel from the sources, in a copy of the files that git
knows, elsewhere, with other times and permissions. The bytes must be equal. SOURCE_DATE_EPOCH is the time of the last
commit if it is not set. --release refuses changes that are not committed, and the placeholder of the repository's
address. Exit code 1 if something is wrong. Needs the dependency group `build`.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parent))

from distribution_checks import Project, problems_of

ROOT = Path(__file__).parents[1]
OUTPUT = ROOT / "dist"


def find_projects(root: Path) -> list[Project]:
    """The core and its adapters."""
    files = (root / "shared" / "pyproject.toml", *sorted(root.glob("packages/*/pyproject.toml")))
    return [Project(file.parent, root) for file in files]


def git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=True, text=True).stdout


def build(project: Path, output: Path, epoch: str, *kinds: str) -> None:
    """Build a project; without kinds, an sdist, and from it a wheel."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), *kinds, str(project)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": epoch}
    built = subprocess.run(command, env=environment, capture_output=True, check=False, text=True)
    if built.returncode:
        sys.exit(f"{project.name} cannot be built:\n{built.stdout}{built.stderr}")


def build_from_copy(projects: Sequence[Project], output: Path, epoch: str) -> None:
    """Build all projects from a copy of the files that git knows."""
    before = os.umask(0o077)
    try:
        with TemporaryDirectory() as folder:
            shutil.copyfile(ROOT / ".gitignore", Path(folder, ".gitignore"))
            for project in projects:
                copy = Path(folder, project.folder.relative_to(ROOT))
                for name in project.tracked:
                    (copy / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(project.folder / name, copy / name)  # with the times and permissions of now
                build(copy, output, epoch, "--sdist")
                build(copy, output, epoch, "--wheel")
    finally:
        os.umask(before)


def differing(first: Path, second: Path) -> list[str]:
    """The names of files that are not in both folders with the same bytes."""
    names = {file.name for folder in (first, second) for file in folder.iterdir()}
    return sorted(
        name
        for name in names
        if not all((folder / name).exists() for folder in (first, second))
        or (first / name).read_bytes() != (second / name).read_bytes()
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Build the wheels and sdists twice, and check them.")
    parser.add_argument("--release", action="store_true", help="refuse what must not be published")
    is_release = parser.parse_args().release
    epoch = os.environ.get("SOURCE_DATE_EPOCH") or git("log", "-1", "--format=%ct").strip()
    projects = find_projects(ROOT)
    shutil.rmtree(OUTPUT, ignore_errors=True)
    for project in projects:
        build(project.folder, OUTPUT, epoch)
    with TemporaryDirectory() as folder:
        build_from_copy(projects, Path(folder), epoch)
        problems = [f"{name} differs when it is built again" for name in differing(OUTPUT, Path(folder))]
    for project in projects:
        files = sorted(OUTPUT.glob(f"{project.name.replace('-', '_')}-{project.version}*"))
        if [file.suffix for file in files] != [".whl", ".gz"]:
            problems.append(f"{project.name} has {[file.name for file in files]}, not a wheel and an sdist")
        problems += [each for file in files for each in problems_of(file, project, is_release=is_release)]
    if len({project.version for project in projects}) > 1:
        problems.append(f"the versions differ: {', '.join(f'{each.name} {each.version}' for each in projects)}")
    if is_release and git("status", "--porcelain"):
        problems.append("there are changes that are not committed")
    for file in sorted(OUTPUT.iterdir()):
        print(f"{file.stat().st_size:>9,} {file.name}")
    sys.exit("\n".join(problems) or 0)


if __name__ == "__main__":
    main()
