"""The page in a real Chromium: it renders, makes no requests, logs nothing, and fits. `nox -s browser` runs this."""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from support.hostile import SCRIPT, write_hostile_page
from support.servers import NOT_FOUND, Response, serving

pytestmark = pytest.mark.browser

# The contrast of each text with its background, as WCAG 2 defines it.
CONTRASTS = """() => {
  const channels = colour => colour.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const light = colour => colour.slice(0, 3).map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const colour = channels(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
  };
  return [...document.querySelectorAll('body *')].filter(node => !node.closest('svg') && node.checkVisibility()
    && [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim())).map(node => {
    const [a, b] = [light(channels(getComputedStyle(node).color)), light(behind(node))].sort((x, y) => y - x);
    return [(a + 0.05) / (b + 0.05), node.className || node.tagName];
  });
}"""


@dataclass
class OpenPage:
    """The page, and what the browser logged and requested."""

    page: object
    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    """Chromium: CHROMIUM's, the system's, or playwright's own. A missing browser is a failure."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hostile_page(tmp_path_factory.mktemp("hostile"))


@pytest.fixture(
    params=[(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")], ids=lambda each: f"{each[0]}-{each[1]}"
)
def seen(request: pytest.FixtureRequest, browser: object, file: Path) -> Iterator[OpenPage]:
    width, scheme = request.param
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)  # type: ignore[attr-defined]
    page = context.new_page()
    seen = OpenPage(page)
    page.on("console", lambda message: seen.messages.append(message.text))
    page.on("pageerror", lambda error: seen.messages.append(str(error)))
    page.on("dialog", lambda dialog: seen.messages.append(dialog.message))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(file.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    yield seen
    context.close()


def test_the_page_renders_without_messages_or_requests(seen: OpenPage, file: Path):
    page = seen.page

    assert page.title() == "<img src=x onerror=alert(1)>.jsonl: ranking quality"  # type: ignore[attr-defined]
    assert page.locator("h1").is_visible()  # type: ignore[attr-defined]
    assert page.get_by_text(SCRIPT).first.is_visible()  # type: ignore[attr-defined]
    assert page.locator("script, img, iframe").count() == 0  # type: ignore[attr-defined]
    assert seen.messages == []
    assert seen.requests == [file.as_uri()]


def test_all_plots_are_drawn(seen: OpenPage):
    boxes = seen.page.evaluate(  # type: ignore[attr-defined]
        """[...document.querySelectorAll('svg')].map(each => each.getBoundingClientRect())
            .map(box => [box.width, box.height])"""
    )
    marks = seen.page.evaluate(  # type: ignore[attr-defined]
        """[...document.querySelectorAll('.dot, .interval, rect')].map(each => {
            const box = each.getBoundingClientRect(), frame = each.closest('svg').getBoundingClientRect();
            const isSeen = each.matches('.interval') || box.width * box.height > 0;
            return isSeen && box.left >= frame.left - 1 && box.right <= frame.right + 1;
        })"""
    )

    # A row for each of four orders and an axis, for all queries and two groups; and two plots of single queries.
    assert len(boxes) == 3 * 5 + 2
    assert all(width > 100 and height > 10 for width, height in boxes)
    assert len(marks) == 3 * 4 * 2 + 2 * 10
    assert all(marks)


def test_nothing_is_wider_than_the_window(seen: OpenPage):
    width, inner, beyond = seen.page.evaluate(  # type: ignore[attr-defined]
        """[document.documentElement.scrollWidth, innerWidth, [...document.querySelectorAll('body *')]
            .filter(each => each.getBoundingClientRect().right > innerWidth + 1)
            .map(each => each.outerHTML.slice(0, 80))]"""
    )

    assert width == inner
    assert beyond == []


def test_every_text_has_enough_contrast(seen: OpenPage):
    poor = [found for found in seen.page.evaluate(CONTRASTS) if found[0] < 4.5]  # type: ignore[attr-defined]

    assert poor == []


def test_light_and_dark_schemes_differ(browser: object, file: Path):
    backgrounds = []
    for scheme in ("light", "dark"):
        page = browser.new_page(color_scheme=scheme)  # type: ignore[attr-defined]
        page.goto(file.as_uri())
        backgrounds.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.close()

    assert backgrounds == ["rgb(250, 250, 248)", "rgb(19, 21, 25)"]


def test_the_policy_blocks_requests_of_injected_html(browser: object, file: Path):
    """Even HTML that got past the escaping could not make requests."""
    requested: list[str] = []

    def note(path: str, body: object) -> Response:
        requested.append(path)
        return NOT_FOUND

    with serving(note) as server:
        page = browser.new_page()  # type: ignore[attr-defined]
        messages: list[str] = []
        page.on("console", lambda message: messages.append(message.text))
        page.goto(file.as_uri())
        page.evaluate(
            "url => { document.body.innerHTML = `<img src='${url}/x'><p style='color: red'>x</p>`; }", server.url
        )
        page.wait_for_timeout(200)
        colour = page.evaluate("getComputedStyle(document.querySelector('p')).color")
        page.close()

    assert any("Content Security Policy" in line and "/x" in line for line in messages)
    assert requested == []
    assert colour != "rgb(255, 0, 0)"
