"""A program that imports every public name, ranks, saves, and runs `bulk` and `evaluate`, all with the demo model.

python everything_once.py FOLDER, an empty one; it prints what it found as JSON.
"""

import json
import sys
from pathlib import Path

import onelogit
from onelogit import DEMO_MODEL, Reranker, adapters, open_reranker
from onelogit.benchmarking import machine
from onelogit.cli.main import main
from support.evaluation_data import write_beir, write_lines

QUERY, DOCUMENTS = "What is the capital of China?", ["Paris is in France.", "Beijing is China's capital.", "서울"]

if __name__ == "__main__":
    import torch

    folder = Path(sys.argv[1])
    for module in (onelogit, adapters):
        for name in module.__all__:
            getattr(module, name)
    reranker = open_reranker(DEMO_MODEL)
    logits = reranker.logits(QUERY, DOCUMENTS)
    assert isinstance(reranker, Reranker)
    reranker.save(folder / "exported")
    reranker.save(folder / "exported", force=True)
    documents = [{"document_id": str(number), "text": text} for number, text in enumerate(DOCUMENTS)]
    write_lines(folder / "rows.jsonl", [{"query_id": "1", "query": QUERY, "documents": documents}])
    bulk = ["bulk", str(folder / "rows.jsonl"), str(folder / "ranked"), "--model", DEMO_MODEL]
    codes = [main([*bulk, *more]) for more in ([], [], ["--overwrite"])]
    evaluate = ["evaluate", DEMO_MODEL, "--data", str(write_beir(folder / "data")), "-o", str(folder / "evaluated")]
    more = ["--resume", "--report", str(folder / "report.html"), "--plot", str(folder / "plot.png")]
    codes += [main(evaluate), main([*evaluate, *more])]
    peak = machine.peak_memory(torch.device("cpu"))
    names = (machine.processor_name(), machine.load_per_core(), peak is not None and peak > 0)
    result = {"logits": logits, "exported": Reranker.load(folder / "exported").logits(QUERY, DOCUMENTS), "codes": codes}
    sys.stdout.write(f"RESULT {json.dumps(result)} {names}\n")
