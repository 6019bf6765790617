"""The repository -> the site of mkdocs: pages and files outside docs/ that its pages link to, and no other addresses.

Pages keep the relative links that a code host follows. On the site, a link that leaves docs/ leads to the page of that
file, or else to a copy of it.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PAGES = {  # files outside docs/ -> pages of the site
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "benchmarks/README.md": "benchmarks.md",
}
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)(?P<path>[^)#\s]+)(?P<anchor>#[^)\s]*)?(?=\))")
_FENCE = re.compile(r"^( *)(```+).*?^\1\2 *$", re.MULTILINE | re.DOTALL)
_TABLE_ROW = re.compile(r"^\|.*$", re.MULTILINE)
_CODE = re.compile(r"`[^`\n]+`")
_LOADED = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*?\b(?:src|href)=\"?(?:https?:)?//[^>]*>")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages outside docs/, and the files that pages link to, and those that these link to."""
    for path, uri in PAGES.items():
        if files.get_file_from_path(uri) is None:
            files.append(File.generated(config, uri, abs_src_path=str(ROOT / path)))
    pages = [file for file in files if file.is_documentation_page()]
    for page in pages:  # copies are added to it
        for match in _LINK.finditer(_FENCE.sub("", page.content_string)):
            uri = _site_uri(page.src_uri, match["path"])
            if files.get_file_from_path(uri) is None and uri.startswith("source/"):
                source = ROOT / uri.removeprefix("source/")
                if source.is_file():
                    outside_nav = InclusionLevel.NOT_IN_NAV
                    copy = File.generated(config, uri, abs_src_path=str(source), inclusion=outside_nav)
                    files.append(copy)
                    pages += [copy] if copy.is_documentation_page() else []
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Let links lead to pages and files of the site."""
    here = page.file.src_uri

    def relink(match: re.Match[str]) -> str:
        uri = posixpath.relpath(_site_uri(here, match["path"]), posixpath.dirname(here) or ".")
        return uri + (match["anchor"] or "")

    return _TABLE_ROW.sub(_without_escapes, _LINK.sub(relink, markdown))


def _without_escapes(row: re.Match[str]) -> str:
    """A row of a table with plain bars in its code, which code hosts want escaped, and Python-Markdown does not."""
    return _CODE.sub(lambda code: code[0].replace("\\|", "|"), row[0])


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:  # noqa: ARG001
    """Refuse a page that a browser could show only with the network."""
    if found := _LOADED.search(output):
        raise PluginError(f"{page.file.src_uri} loads {found[0]} from the network")
    return output


def _site_uri(page_uri: str, link: str) -> str:
    """The place on the site of what a page's link leads to in the repository."""
    sources = {uri: path for path, uri in PAGES.items() if not (ROOT / "docs" / uri).exists()}
    is_copy = page_uri.startswith("source/")
    here = page_uri.removeprefix("source/") if is_copy else sources.get(page_uri, f"docs/{page_uri}")
    path = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return PAGES.get(path, f"source/{path}")
