"""A Korean and an English instruction compared on Korean, English and mixed documents, from the command to the page.

    python examples/instructions.py                                  # the model that comes with onelogit
    python examples/instructions.py Qwen/Qwen3-Reranker-0.6B         # one that means it

The Korean instruction asks for answers in any language, the English one for answers in English only. The demo model was
trained on neither: with it, all figures are meaningless, and the point is how they are made.
"""

import sys
from pathlib import Path

from onelogit import DEMO_MODEL
from onelogit.cli.main import main as onelogit

DATA = Path(__file__).parent / "data" / "ko-en" / "questions.jsonl"
KOREAN = "질문에 답하는 문서를 찾으시오. 문서는 어느 언어로 쓰였든 좋다."
ENGLISH = "Find the documents that answer the question. Only documents written in English count."


def main(model: str = DEMO_MODEL, folder: str = "instructions") -> int:
    if model == DEMO_MODEL:
        print("With the demo model, quality figures are meaningless. Name another model to learn something.\n")
    options = ["--instruction", KOREAN, "--instruction", ENGLISH, "--pairwise", "--slice", "language", "-k", "3"]
    written = ["--output", folder, "--resume", "--report", f"{folder}/report.html"]
    code = onelogit(["evaluate", model, "--data", str(DATA), *options, *written])
    if code == 0:
        print(f"\nNow open {folder}/report.html: it shows which documents moved.")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
