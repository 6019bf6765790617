"""An evaluation of texts that try to act as HTML, template code or markup, and its page."""

import shutil
from pathlib import Path

from onelogit import DEMO_MODEL
from onelogit.cli.main import main
from support.evaluation_data import write_lines

SCRIPT = "<script>document.title='taken'</script>"
IMAGE = '"><img src=x onerror="document.title=\'taken\'">'
STYLE = "</style></title></textarea><style>*{display:none}</style>"
TEMPLATE = "{{ 7 * 7 }}{% raw %}"
MARKUP = "[red]not red[/red] [link=https://example.org]x[/link]"
CONTROLS = "a\u202eb\u0007c\u009bd"
LONG = "supercalifragilistic" * 12
HOSTILE = [SCRIPT, IMAGE, STYLE, TEMPLATE, MARKUP, LONG]


def write_hostile_page(folder: Path) -> Path:
    """Evaluate hostile data with the demo model under a hostile name; returns the path of the page."""
    model = folder / "<b onclick=alert(1)>&amp;'\""
    shutil.copytree(DEMO_MODEL, model)
    texts = [*HOSTILE, CONTROLS, "بكين هي عاصمة الصين", "서울은 대한민국의 수도이다. " * 20, ""]
    rows = [
        {
            "query": f"{text or 'nothing'} capital?",
            "documents": [*texts[place:], *texts[:place], f"{text} capital?"],
            "labels": [0, 1] * 5 + [place % 2],
            "kind": f"{SCRIPT} {place % 2}",
        }
        for place, text in enumerate(texts)
    ]
    data = write_lines(folder / "<img src=x onerror=alert(1)>.jsonl", rows)
    page = folder / "page.html"
    instructions = [part for text in ("default", SCRIPT + MARKUP) for part in ("--instruction", text)]
    outputs = ["--output", folder / "runs", "--report", page, "--plot", folder / "plot.svg"]
    command = ["evaluate", model, "--data", data, *instructions, "--slice", "kind", "--pairwise", *outputs]
    assert main([str(part) for part in command]) == 0
    return page
