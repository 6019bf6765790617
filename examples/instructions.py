"""Compare a Korean and an English instruction on Korean, English and mixed documents, and write an HTML report.

    python examples/instructions.py                                  # the included demo model
    python examples/instructions.py Qwen/Qwen3-Reranker-0.6B         # a real model

The Korean instruction asks for answers in any language, the English one for answers in English only. The demo model was
not trained on either: its results are meaningless, and only show how the comparison works.
Needs the extra `evaluate`: run `pip install "./shared[evaluate]"` in the folder of your clone.
"""

import sys
from pathlib import Path

from onelogit import DEMO_MODEL
from onelogit.cli.main import main as onelogit

DATA = Path(__file__).parent / "data" / "ko-en" / "questions.jsonl"
KOREAN = "질문에 답하는 문서를 찾으시오. 문서는 어느 언어로 쓰였든 좋다."
ENGLISH = "Find the documents that answer the question. Only documents written in English count."


def main(model: str = DEMO_MODEL, folder: str = "build/instructions") -> int:
    if model == DEMO_MODEL:
        print("The results of the demo model are meaningless. Pass a real model for results that count.\n")
    options = ["--instruction", KOREAN, "--instruction", ENGLISH, "--pairwise", "--slice", "language", "-k", "3"]
    output = ["--output", folder, "--resume", "--report", f"{folder}/report.html"]
    code = onelogit(["evaluate", model, "--data", str(DATA), *options, *output])
    if code == 0:
        print(f"\nNow open {folder}/report.html: it shows which documents moved.")
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
