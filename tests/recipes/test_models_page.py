"""docs/models.md lists every family, and every kind of model that is refused, as the tables in the code have them."""

import runpy
from pathlib import Path

from onelogit.recipes.families import FAMILIES
from onelogit.recipes.unsupported import CLASSIFIER, NO_HEAD, UNSUPPORTED

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "models.md"


def test_the_page_is_what_the_tables_say():
    render = runpy.run_path(str(ROOT / "tools" / "models_page.py"))["render"]

    assert PAGE.read_text(encoding="utf-8") == render(), "run python tools/models_page.py"


def test_every_family_and_every_refused_kind_has_a_row():
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]

    for recipe in FAMILIES:
        (row,) = [each for each in rows if each.startswith(f"| `{recipe.family}` |")]
        assert all(model.rpartition("/")[2] in row for model in recipe.models)
    for kind in (*UNSUPPORTED, NO_HEAD, CLASSIFIER):
        assert len([each for each in rows if each.startswith(f"| {kind.models} |") and kind.instead in each]) == 1


def test_the_readme_links_the_page():
    assert "(docs/models.md)" in (ROOT / "README.md").read_text(encoding="utf-8")
