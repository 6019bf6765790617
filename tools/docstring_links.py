"""Docstrings -> docstrings for the site: an entry for each name of a group, and links to public names. For griffe."""

import re
from typing import Any

import griffe

_GROUP = re.compile(r"^(?P<indent> +)(?P<names>\w+(?:, \w+)+): (?P<text>.*\n?(?:(?P=indent) +.*\n?)*)", re.MULTILINE)
_ALSO = {"BaseReranker": "onelogit.base_reranker.BaseReranker", "ScoringOptions": "onelogit.options.ScoringOptions"}
_CODE = re.compile(r"(?<!\[)`(?:onelogit\.(?:adapters\.)?)?(?P<name>[A-Za-z_]\w+)`")


class DocstringLinks(griffe.Extension):
    """Splits `device, dtype: as in ...`, and turns the public names of onelogit into links."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Change all docstrings of a package, once it is loaded."""
        core = pkg if pkg.path == "onelogit" else loader.load("onelogit")
        public = {**_ALSO, **_public_names(core["adapters"]), **_public_names(core)}
        self._change(pkg, public)

    def _change(self, each: griffe.Object, public: dict[str, str]) -> None:
        if each.docstring is not None:
            text = _GROUP.sub(_entries, each.docstring.value)
            own = {each.name} if each.parent is None else {each.name, each.parent.name}
            each.docstring.value = _CODE.sub(lambda code: _link(code, public, own), text)
        for member in each.members.values():
            if not member.is_alias:
                self._change(member, public)


def _public_names(package: griffe.Module) -> dict[str, str]:
    """The names in `__all__`, and where the site has them: a submodule of the same name hides what is in it."""
    names = [str(name) for name in package.exports or ()]
    hidden = {name for name in names if package.members[name].is_module}
    return {name: f"{package.path}.{name}.{name}" if name in hidden else f"{package.path}.{name}" for name in names}


def _entries(group: re.Match[str]) -> str:
    text = group["text"] if group["text"].endswith("\n") else f"{group['text']}\n"
    return "".join(f"{group['indent']}{name}: {text}" for name in group["names"].split(", "))


def _link(code: re.Match[str], public: dict[str, str], own: set[str]) -> str:
    name = code["name"]
    return code[0] if name in own or name not in public else f"[`{name}`][{public[name]}]"
