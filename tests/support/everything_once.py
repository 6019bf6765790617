"""A program that imports everything, ranks, saves, serves, and runs `bulk` and `evaluate`, all with the demo model.

python everything_once.py FOLDER, an empty one; it prints what it found as JSON.
"""

import json
import pkgutil
import sys
from importlib import import_module
from pathlib import Path

import onelogit
from onelogit import DEMO_MODEL, RemoteReranker, Reranker, adapters, open_reranker
from onelogit.benchmarking import machine
from onelogit.cli.main import main
from support.evaluation_data import write_beir, write_lines

QUERY, DOCUMENTS = "What is the capital of China?", ["Paris is in France.", "Beijing is China's capital.", "서울"]

ROOTS = (
    "onelogit",
    "langchain_onelogit",
    "llama_index.postprocessor.onelogit_rerank",
    "haystack_integrations.components.rankers.onelogit",
)
NOT_IMPORTED = ("onelogit.__main__", "onelogit.bulk.vllm_engine")  # runs a command; needs vLLM, which is for Linux


def import_modules() -> list[str]:
    """The names of all modules of the core and the adapters, which can be imported."""
    names = []
    for root in ROOTS:
        found = [each.name for each in pkgutil.walk_packages(import_module(root).__path__, f"{root}.")]
        names += [root, *(name for name in found if name not in NOT_IMPORTED)]
    for name in names:
        import_module(name)
    return names


def rank_elsewhere() -> dict[str, list[str]]:
    """The documents, best first, by each adapter and by a server."""
    from onelogit.serving import app
    from support.adapters import ADAPTERS
    from support.served import served

    ranked = {}
    for framework in ADAPTERS:
        adapter = framework.kind(model=DEMO_MODEL)
        found = framework.run(adapter, QUERY, framework.documents(DOCUMENTS))
        ranked[type(framework).__name__] = [each.text for each in found]
    if sys.platform == "win32":  # its event loop cannot be simulated
        return ranked
    with Reranker.load(DEMO_MODEL) as behind, served(app(behind)) as url, RemoteReranker(url, DEMO_MODEL) as client:
        ranked["served"] = [DOCUMENTS[each.index] for each in client.rank(QUERY, DOCUMENTS)]
    return ranked


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
    exported = Reranker.load(folder / "exported").logits(QUERY, DOCUMENTS)
    result = {"logits": logits, "exported": exported, "codes": codes, "modules": import_modules()}
    result["ranked"] = rank_elsewhere()
    sys.stdout.write(f"RESULT {json.dumps(result)} {names}\n")
