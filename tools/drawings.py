"""The drawings of how-it-works.md -> docs/images/*.svg, for light and dark screens, in English and Korean.

    python tools/drawings.py

A test checks that the files are what this writes.
"""

# ruff: noqa: E501 -- a translation is one line

from collections.abc import Callable
from html import escape
from pathlib import Path

FOLDER = Path(__file__).parents[1] / "docs" / "images"

_COLOURS = {  # class -> fill and stroke on a light and on a dark screen
    "card": ("#ffffff", "#d8dee4", "#0d1117", "#30363d"),
    "plain": ("#f6f8fa", "#8c959f", "#161b22", "#7d8590"),
    "constant": ("#e3e7ec", "#8c959f", "#30363d", "#8b949e"),
    "instruction": ("#ffe7ba", "#b7791f", "#4d3a12", "#e3b341"),
    "query": ("#cfe3ff", "#2f6fd0", "#123a6b", "#6cb0ff"),
    "document": ("#d0f0d8", "#2c8a4b", "#16452a", "#56d37f"),
    "logit": ("#f6d5f0", "#a3338f", "#4a1f47", "#f08fe0"),
    "padding": ("none", "#8c959f", "none", "#7d8590"),
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Noto Sans KR', sans-serif"


def _style() -> str:
    def rules(light: bool) -> str:
        colours = "".join(
            f".{name}{{fill:{each[0 if light else 2]};stroke:{each[1 if light else 3]}}}"
            for name, each in _COLOURS.items()
        )
        ink, faint = ("#1f2328", "#59636e") if light else ("#e6edf3", "#9198a1")
        return f"{colours}text{{fill:{ink}}}.faint{{fill:{faint}}}.line{{stroke:{faint}}}.tip{{fill:{faint}}}"

    return (
        f"text{{font-family:{_FONT};font-size:14px;text-anchor:middle}}.faint{{font-size:12.5px}}"
        ".left{text-anchor:start}.bold{font-weight:600}.line{fill:none;stroke-width:1.5}.padding{stroke-dasharray:3 3}"
        f"{rules(True)}@media (prefers-color-scheme:dark){{{rules(False)}}}"
    )


class Drawing:
    """Boxes, arrows and texts, as SVG."""

    def __init__(self, title: str, width: int, height: int) -> None:
        self._head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
            f'role="img"><title>{escape(title)}</title><style>{_style()}</style>'
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path class="tip" d="M0 0L8 4L0 8z"/></marker></defs>'
        )
        self._parts: list[str] = []
        self.box("card", 0.5, 0.5, width - 1, height - 1, radius=8)

    def box(
        self, kind: str, x: float, y: float, width: float, height: float, text: str = "", *, radius: float = 4
    ) -> None:
        """A rectangle with a text in its middle."""
        self._parts.append(
            f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="{radius:g}"/>'
        )
        lines = text.split("\n") if text else []
        for number, line in enumerate(lines):
            self.text(x + width / 2, y + height / 2 + 5 + 18 * (number - (len(lines) - 1) / 2), line)

    def text(self, x: float, y: float, text: str, kind: str = "") -> None:
        """A line of text, with its middle at x, or its beginning if its kind has "left"."""
        self._parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}">{escape(text)}</text>')

    def arrow(self, *points: tuple[float, float], has_tip: bool = True) -> None:
        """A line through some points."""
        path = "L".join(f"{x:g} {y:g}" for x, y in points)
        tip = ' marker-end="url(#tip)"' if has_tip else ""
        self._parts.append(f'<path class="line" d="M{path}"{tip}/>')

    def svg(self) -> str:
        return f"{self._head}{''.join(self._parts)}</svg>\n"


def conversion(say: Callable[[str], str]) -> Drawing:
    """From a head with a row for each token of the vocabulary to a head with one row."""
    d = Drawing(say("A language-model head becomes a head with one logit"), 760, 370)
    d.box("plain", 20, 150, 120, 56, say("the prompt"))
    d.arrow((140, 178), (166, 178))
    d.box("plain", 168, 150, 130, 56, f"{say('decoder layers')}\n{say('(unchanged)')}")
    d.arrow((298, 178), (326, 178))
    d.box("constant", 328, 128, 22, 100)
    d.text(339, 183, "h", "bold")
    d.text(310, 118, say("last hidden state"), "faint")
    d.arrow((350, 160), (378, 160), (378, 118), (406, 118))
    d.box("plain", 408, 48, 104, 140)
    d.box("document", 408, 74, 104, 14, radius=0)
    d.box("query", 408, 138, 104, 14, radius=0)
    d.text(460, 68, say("yes"), "faint")
    d.text(460, 132, say("no"), "faint")
    d.text(460, 34, say("head W: 150,000 rows"))
    d.arrow((512, 118), (548, 118))
    d.box("plain", 550, 48, 18, 140)
    d.box("document", 550, 74, 18, 14, radius=0)
    d.box("query", 550, 138, 18, 14, radius=0)
    d.text(559, 208, say("150,000 logits"), "faint")
    d.arrow((568, 81), (588, 81), (588, 118), (612, 118))
    d.arrow((568, 145), (588, 145), (588, 118), has_tip=False)
    d.box("logit", 614, 96, 126, 44, "z_yes − z_no")
    d.arrow((350, 196), (378, 196), (378, 262), (406, 262))
    d.box("logit", 408, 253, 104, 18, radius=2)
    d.text(460, 244, "w = w_yes − w_no")
    d.text(460, 290, say("one row"), "faint")
    d.arrow((512, 262), (612, 262))
    d.box("logit", 614, 240, 126, 44, "w · h")
    d.text(677, 180, "=", "bold")
    d.text(677, 202, say("the same number"), "faint")
    d.text(20, 340, "z_yes − z_no  =  w_yes · h − w_no · h  =  (w_yes − w_no) · h  =  w · h", "left")
    d.text(20, 76, say("before"), "left faint")
    d.text(20, 290, say("after"), "left faint")
    return d


def prompts(say: Callable[[str], str]) -> Drawing:
    """The parts of a prompt: constant ones of the recipe, and the caller's texts."""
    d = Drawing(say("A prompt is made of the recipe's constant parts and of the caller's texts"), 760, 300)
    parts = [
        ("constant", 80, ""),
        ("instruction", 112, "instruction"),
        ("constant", 34, ""),
        ("query", 104, "query"),
        ("constant", 34, ""),
        ("document", 236, "document"),
        ("constant", 100, ""),
    ]
    d.box("plain", 150, 22, 460, 48, say("recipe: chat template, answer tokens, scale, limit, licence"))
    x, centres = 30.0, {}
    for kind, width, text in parts:
        d.box(kind, x, 130, width, 50, say(text) if text else "", radius=0)
        centres.setdefault(kind, []).append(x + width / 2)
        x += width
    for centre in centres["constant"]:
        d.arrow((380, 70), (380, 98), (centre, 98), (centre, 127))
    for kind in ("instruction", "query", "document"):
        d.arrow((380, 232), (380, 208), (centres[kind][0], 208), (centres[kind][0], 183))
    d.box("plain", 230, 232, 300, 48, f"{say('the texts of the caller,')}\n{say('without control tokens')}")
    end = x
    d.arrow((end - 108, 194), (end - 108, 118), has_tip=False)
    d.text(end - 104, 210, say("a long document is cut here"), "faint")
    d.box("logit", end - 14, 130, 14, 50, radius=0)
    d.arrow((end - 7, 183), (end - 7, 234))
    d.text(end - 62, 253, say("the logit is read"), "faint")
    d.text(end - 62, 271, say("after the last token"), "faint")
    return d


def prefixes(say: Callable[[str], str]) -> Drawing:
    """The prompts of one call, one by one with padding, and as a prefix tree."""
    shared, documents, end, scale = (40, 60), (58, 92, 36), 16, 1.45
    longest = sum(shared) + max(documents) + end
    padded, distinct = longest * len(documents), sum(shared) + sum(documents) + end * len(documents)
    d = Drawing(say("Prompts of one call share their beginning, which is computed once"), 760, 320)
    d.text(24, 36, say("in a padded batch: {} tokens").format(padded), "left bold")
    d.text(410, 36, say("as a prefix tree: {} tokens").format(distinct), "left bold")
    for row, length in enumerate(documents):
        x, y = 24.0, 58.0 + 62 * row
        for kind, tokens in (
            ("constant", shared[0]),
            ("query", shared[1]),
            ("document", length),
            ("constant", end),
            ("padding", longest - sum(shared) - length - end),
        ):
            if tokens:
                d.box(kind, x, y, tokens * scale, 34, radius=0)
            x += tokens * scale
        start = 410 + sum(shared) * scale
        d.box("document", start + 30, y, length * scale, 34, radius=0)
        d.box("constant", start + 30 + length * scale, y, end * scale, 34, radius=0)
        d.arrow((start, 137), (start + 15, 137), (start + 15, y + 17), (start + 29, y + 17))
    d.box("constant", 410, 120, shared[0] * scale, 34, radius=0)
    d.box("query", 410 + shared[0] * scale, 120, shared[1] * scale, 34, radius=0)
    names = (("constant", "template"), ("query", "query"), ("document", "document"), ("padding", "padding"))
    for number, (kind, name) in enumerate(names):
        d.box(kind, 24 + 130 * number, 268, 26, 18, radius=2)
        d.text(58 + 130 * number, 282, say(name), "left faint")
    return d


def scheduler(say: Callable[[str], str]) -> Drawing:
    """Many callers, one thread that owns the model."""
    d = Drawing(say("Requests that wait at the same time are computed together"), 760, 330)
    callers = ("a thread", "an asyncio task", "a chain or pipeline", "an HTTP request")
    for number, name in enumerate(callers):
        y = 48 + 62 * number
        d.box("plain", 24, y, 150, 42, say(name))
        d.arrow((174, y + 21), (222, y + 21), (222, 162), (248, 162), has_tip=number == 0)
    d.text(99, 34, say("callers tokenise"), "faint")
    d.box("plain", 250, 88, 120, 148)
    d.text(310, 78, say("queue"))
    for number, kind in enumerate(("query", "instruction", "document", "logit")):
        d.box(kind, 262, 100 + 33 * number, 96, 24, radius=2)
    d.arrow((370, 162), (412, 162))
    d.box("plain", 414, 66, 210, 192)
    d.text(519, 56, say("the thread that owns the model"))
    d.box("constant", 428, 150, 52, 24, radius=2)
    for number, kind in enumerate(("query", "instruction", "document", "logit")):
        y = 88 + 41 * number
        d.box(kind, 516, y, 94, 24, radius=2)
        d.arrow((480, 162), (498, 162), (498, y + 12), (514, y + 12), has_tip=False)
    d.text(519, 250, say("one batch, one prefix tree"), "faint")
    d.arrow((624, 162), (690, 162), (690, 300), (99, 300), (99, 280))
    d.text(400, 291, say("each caller gets its logits as soon as its own rows are done"), "faint")
    d.text(690, 150, say("logits"), "faint")
    return d


def caches(say: Callable[[str], str]) -> Drawing:
    """What is kept between calls: keys and values of the text that the prompt writes first."""
    d = Drawing(say("Keys and values of cached texts are not computed again"), 760, 336)
    for number, (query, kind) in enumerate((("query 1", "document"), ("query 2", "padding"))):
        y = 44 + 84 * number
        d.text(24, y + 26, say(f"call {number + 1}"), "left bold")
        d.box("constant", 92, y, 60, 40, radius=0)
        d.box(kind, 152, y, 230, 40, say("document A") if number == 0 else say("document A: from the cache"), radius=0)
        d.box("query", 382, y, 120, 40, say(query), radius=0)
        d.box("constant", 502, y, 60, 40, radius=0)
        d.text(660, y + 25, say("all is computed") if number == 0 else say("the rest is computed"), "faint")
    d.box("plain", 60, 216, 230, 84)
    d.text(175, 319, say("device: document_cache_bytes"))
    d.box("plain", 420, 216, 180, 84)
    d.text(510, 319, say("CPU: document_cache_host_bytes"))
    for number, name in enumerate("ABC"):
        d.box("document", 78 + 68 * number, 236, 56, 44, name)
    for number, name in enumerate("DE"):
        d.box("document", 448 + 68 * number, 236, 56, 44, name)
    d.arrow((290, 242), (418, 242))
    d.text(355, 234, say("longest unused"), "faint")
    d.arrow((420, 274), (292, 274))
    d.text(355, 292, say("needed again"), "faint")
    d.arrow((600, 258), (668, 258))
    d.text(704, 263, say("forgotten"), "faint")
    d.arrow((175, 216), (175, 192), (267, 192), (267, 170))
    return d


DRAWINGS = (conversion, prompts, prefixes, scheduler, caches)
KOREAN = {
    "A language-model head becomes a head with one logit": "언어 모델 헤드를 로짓이 하나인 헤드로 바꾼다",
    "the prompt": "프롬프트",
    "decoder layers": "디코더 본체",
    "(unchanged)": "(바뀌지 않음)",
    "last hidden state": "마지막 은닉 상태",
    "head W: 150,000 rows": "헤드 W: 15만 행",
    "150,000 logits": "로짓 15만 개",
    "one row": "행 하나",
    "the same number": "같은 값",
    "before": "변환 전",
    "after": "변환 후",
    "A prompt is made of the recipe's constant parts and of the caller's texts": "프롬프트는 레시피의 고정된 부분과 입력 텍스트로 이루어진다",
    "instruction": "지시문",
    "query": "질의",
    "document": "문서",
    "recipe: chat template, answer tokens, scale, limit, licence": "레시피: 템플릿, 답 토큰, 척도, 길이 제한, 라이선스",
    "the texts of the caller,": "입력 텍스트는",
    "without control tokens": "일반 텍스트로만 읽는다",
    "a long document is cut here": "긴 문서는 여기서 자른다",
    "the logit is read": "마지막 토큰에서",
    "after the last token": "로짓을 읽는다",
    "Prompts of one call share their beginning, which is computed once": "한 호출의 프롬프트는 앞부분이 같고, 그 부분은 한 번만 계산한다",
    "in a padded batch: {} tokens": "패딩한 배치: 토큰 {}개",
    "as a prefix tree: {} tokens": "프리픽스 트리: 토큰 {}개",
    "template": "템플릿",
    "padding": "패딩",
    "Requests that wait at the same time are computed together": "동시에 기다리는 요청은 함께 계산한다",
    "a thread": "스레드",
    "an asyncio task": "asyncio 태스크",
    "a chain or pipeline": "체인, 파이프라인",
    "an HTTP request": "HTTP 요청",
    "callers tokenise": "호출한 쪽이 토큰화",
    "queue": "대기열",
    "the thread that owns the model": "모델을 맡은 스레드",
    "one batch, one prefix tree": "배치 하나, 프리픽스 트리 하나",
    "each caller gets its logits as soon as its own rows are done": "자기 몫이 끝나는 대로 로짓을 받는다",
    "logits": "로짓",
    "Keys and values of cached texts are not computed again": "캐시에 있는 텍스트의 키와 값은 다시 계산하지 않는다",
    "call 1": "호출 1",
    "call 2": "호출 2",
    "query 1": "질의 1",
    "query 2": "질의 2",
    "document A": "문서 A",
    "document A: from the cache": "문서 A: 캐시에서",
    "all is computed": "모두 계산",
    "the rest is computed": "나머지만 계산",
    "device: document_cache_bytes": "장치: document_cache_bytes",
    "CPU: document_cache_host_bytes": "CPU: document_cache_host_bytes",
    "longest unused": "오래된 것",
    "needed again": "다시 필요",
    "forgotten": "버림",
}
LANGUAGES: dict[str, dict[str, str]] = {"": {}, ".ko": KOREAN}


def render() -> dict[str, str]:
    """The content of each file in docs/images."""
    return {
        f"{draw.__name__}{suffix}.svg": draw(lambda text, words=words: words.get(text, text)).svg()
        for suffix, words in LANGUAGES.items()
        for draw in DRAWINGS
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, content in render().items():
        (FOLDER / name).write_text(content, encoding="utf-8")
