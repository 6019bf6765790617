"""A wheel or an sdist -> what is wrong with it, as sentences; nothing if it can be published."""

import subprocess
import tarfile
import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from packaging.metadata import Metadata
from packaging.requirements import Requirement

PLACEHOLDER = "ADDRESS-OF-THIS-REPOSITORY"
URLS = {"Source", "Documentation", "Issues", "Changelog"}
ADDED_TO_SDIST = {"PKG-INFO"}
COPIED_TO_SDIST = {".gitignore"}  # by hatchling, from the root of the repository


class Project:
    """A folder with a `pyproject.toml` in a git repository.

    Args:
        folder: of the project.
        root: of the repository.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        self.settings = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        self.table: Mapping[str, Any] = self.settings["project"]
        self.name: str = self.table["name"]
        self.version: str = self.table["version"]

    @cached_property
    def tracked(self) -> set[PurePosixPath]:
        """The files that git knows, relative to the folder."""
        listed = subprocess.run(["git", "ls-files", "-z"], cwd=self.folder, capture_output=True, check=True, text=True)
        return {PurePosixPath(name) for name in listed.stdout.split("\0") if name}

    @property
    def wheel_roots(self) -> Iterator[tuple[PurePosixPath, PurePosixPath]]:
        """Each package's folder in the project, and in the wheel."""
        for package in self.settings["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
            path = PurePosixPath(package)
            yield path, PurePosixPath(path.name)

    @property
    def packaged(self) -> set[str]:
        """The names that the files of the project's packages have in the wheel."""
        return {
            str(there / path.relative_to(here))
            for here, there in self.wheel_roots
            for path in self.tracked
            if path.is_relative_to(here)
        }


def problems_of(file: Path, project: Project, *, is_release: bool = False) -> list[str]:
    """What is wrong with a wheel or an sdist of a project.

    Args:
        file: ends in .whl or .tar.gz.
        project: from which it was built.
        is_release: also refuse the placeholder of the repository's address.
    """
    contents = dict(_contents(file))
    is_wheel = file.suffix == ".whl"
    info = f"{project.name.replace('-', '_')}-{project.version}{'.dist-info' if is_wheel else ''}"
    headers = contents.get(f"{info}/{'METADATA' if is_wheel else 'PKG-INFO'}", b"")
    problems = [
        *_metadata_problems(headers, project, is_release=is_release),
        *_secrets_of_the_machine(contents, project.root),
        *(_wheel_problems if is_wheel else _sdist_problems)(contents, info, project),
    ]
    return [f"{file.name}: {problem}" for problem in problems]


def _contents(file: Path) -> Iterator[tuple[str, bytes]]:
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            yield from ((name, archive.read(name)) for name in archive.namelist() if not name.endswith("/"))
        return
    with tarfile.open(file) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            yield member.name, b"" if content is None else content.read()


def _metadata_problems(headers: bytes, project: Project, *, is_release: bool) -> Iterator[str]:
    try:
        metadata = Metadata.from_email(headers, validate=True)
    except ExceptionGroup as errors:
        yield f"its metadata is invalid: {'; '.join(map(str, errors.exceptions))}"
        return
    if (metadata.name, str(metadata.version)) != (project.name, project.version):
        yield f"it is {metadata.name} {metadata.version}, not {project.name} {project.version}"
    for field in (
        "summary",
        "description",
        "author",
        "requires_python",
        "license_expression",
        "license_files",
        "keywords",
    ):
        if not getattr(metadata, field):
            yield f"its metadata has no {field}"
    if metadata.description_content_type != "text/markdown":
        yield f"its description is {metadata.description_content_type}, not text/markdown"
    if missing := URLS - set(metadata.project_urls or ()):
        yield f"project.urls lacks {', '.join(sorted(missing))}"
    if is_release and PLACEHOLDER in headers.decode():
        yield f"its metadata has {PLACEHOLDER} in place of the address"
    if "Typing :: Typed" not in (metadata.classifiers or ()):
        yield "it lacks the classifier Typing :: Typed"
    yield from _dependency_problems(metadata, project)


def _dependency_problems(metadata: Metadata, project: Project) -> Iterator[str]:
    extras: Mapping[str, list[str]] = project.table.get("optional-dependencies", {})
    if set(metadata.provides_extra or ()) != set(extras):
        yield f"its extras are {metadata.provides_extra}, not {sorted(extras)}"
    found = {str(each) for each in metadata.requires_dist or ()}
    wanted = {str(Requirement(each)) for each in project.table["dependencies"]}
    for extra, requirements in extras.items():
        wanted |= {str(Requirement(f"{each}; extra == '{extra}'")) for each in requirements}
    if found != wanted:
        yield f"its requirements differ from pyproject.toml: {sorted(found ^ wanted)}"
    if project.name != "onelogit" and f"onelogit=={project.version}" not in found:
        yield f"it does not require onelogit=={project.version}"


def _secrets_of_the_machine(contents: Mapping[str, bytes], root: Path) -> Iterator[str]:
    """Files that contain a path of the machine that built them."""
    paths = [f"{path}/".encode() for path in (root, Path.home()) if path != Path("/")]
    for name, content in contents.items():
        if any(path in content for path in paths):
            yield f"{name} contains a path of this machine"


def _wheel_problems(contents: Mapping[str, bytes], info: str, project: Project) -> Iterator[str]:
    packaged = {name for name in contents if not name.startswith(f"{info}/")}
    yield from _difference(packaged, project.packaged)
    if not any(PurePosixPath(name).name == "py.typed" for name in packaged):
        yield "it has no py.typed"
    for licence in project.table["license-files"]:
        if f"{info}/licenses/{licence}" not in contents:
            yield f"its licence file {licence} is missing"
    if contents.get(f"{info}/WHEEL", b"").count(b"Tag: py3-none-any") != 1:
        yield "its tag is not py3-none-any"


def _sdist_problems(contents: Mapping[str, bytes], info: str, project: Project) -> Iterator[str]:
    found = {name.removeprefix(f"{info}/") for name in contents} - COPIED_TO_SDIST
    yield from _difference(found, {*map(str, project.tracked), *ADDED_TO_SDIST})


def _difference(found: Iterable[str], wanted: Iterable[str]) -> Iterator[str]:
    if extra := sorted({*found} - {*wanted}):
        yield f"it contains {', '.join(extra)}, which git does not know as a part of it"
    if missing := sorted({*wanted} - {*found}):
        yield f"it lacks {', '.join(missing)}"
