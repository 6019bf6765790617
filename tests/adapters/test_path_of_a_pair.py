"""How many files of the project run in one call of an adapter: the way that a reader has to follow.

A pair passes through eighteen; one more checks that the model's files have not changed.
"""

import subprocess
import sys

# In a fresh interpreter: the thread that computes must start after the profiler is set.
PROGRAM = """
import sys, threading
from pathlib import Path
import onelogit, langchain_onelogit
from langchain_core.documents import Document

roots = tuple(str(Path(each.__file__).parent) for each in (onelogit, langchain_onelogit))
files = set()

def note(frame, event, argument):
    if event == "call" and frame.f_code.co_filename.startswith(roots):
        files.add(frame.f_code.co_filename)

rerank = langchain_onelogit.OnelogitRerank(model=onelogit.DEMO_MODEL)
threading.setprofile(note)
sys.setprofile(note)
for query in ("load the model", "What is the capital of China?"):
    files.clear()
    rerank.compress_documents([Document(page_content="Beijing is the capital.")], query)
sys.setprofile(None)
print(*sorted(files), sep="\\n")
"""


def test_a_pair_passes_through_at_most_eighteen_files_after_the_check_of_the_models_files():
    ran = subprocess.run([sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True)

    files = ran.stdout.split()
    assert any(file.endswith("scheduler.py") for file in files)
    assert any(file.endswith("sdpa.py") for file in files)
    assert any(file.endswith("model_state.py") for file in files)
    assert len(files) <= 18 + 1, files
