"""A model in float32, bfloat16 and float16: how far do its logits and rankings differ, and how far among other rows?

    python benchmarks/dtypes.py --model DIR --data DIR --json dtypes.json

Each query is ranked with its documents in each dtype, computed with shared prefixes, then padded without them; and each
document once more alone. Prints, per dtype, the greatest and mean differences of a logit from float32, Kendall's tau
and equal first places; and the greatest difference of a logit between its row alone and among the others. The model is
a language model that answers "yes" or "no", unless its files name a recipe.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path
from statistics import mean
from typing import Any

from scipy.stats import kendalltau
from texts import Corpus, read_corpus

from onelogit import DEMO_MODEL, ReadOut, Recipe, Reranker
from onelogit.benchmarking.machine import processor_name
from onelogit.errors import RecipeError
from onelogit.io.outputs import versions

DTYPES = ("float32", "bfloat16", "float16")
TEMPLATE = (
    "{% set query = (messages | selectattr('role', 'eq', 'query') | first).content %}"
    "{% set document = (messages | selectattr('role', 'eq', 'document') | first).content %}"
    "<|im_start|>system\nJudge whether the Document answers the Query. Answer only yes or no.<|im_end|>\n"
    "<|im_start|>user\n<Query>: {{ query }}\n<Document>: {{ document }}<|im_end|>\n<|im_start|>assistant{{ '\n' }}"
)
YES_NO = Recipe(family="given", chat_template=TEMPLATE, read_out=ReadOut(true="yes", false="no"), source="this script")


def load(model: str, dtype: str, device: str) -> Reranker:
    """The model, with its own recipe if it has one."""
    try:
        return Reranker.load(model, dtype=dtype, device=device)
    except RecipeError:
        return Reranker.load(model, dtype=dtype, device=device, recipe=YES_NO)


def measure(model: str, dtype: str, corpus: Corpus, options: argparse.Namespace) -> dict[str, Any]:
    """The logits of each query's documents: together, together without shared prefixes, each alone, and again."""
    with load(model, dtype, options.device) as reranker:
        scheduler = reranker.scorer._scheduler
        runner: Any = scheduler._compute.__self__  # type: ignore[union-attr]
        lists = [(corpus.query(n), corpus.documents(n * options.documents, options.documents)) for n in options.numbers]
        together = [reranker.logits(query, documents) for query, documents in lists]
        again = [reranker.logits(query, documents) for query, documents in lists]
        alone = [[reranker.logits(query, [each])[0] for each in documents] for query, documents in lists]
        everything = reranker.pair_logits([(query, each) for query, documents in lists for each in documents])
        shares, runner.shares_prefixes = runner.shares_prefixes, False
        padded = [reranker.logits(query, documents) for query, documents in lists]
    print(f"{dtype}: {sum(map(len, together))} pairs", flush=True)
    return {
        "together": together,
        "shares_prefixes": shares,
        "is_repeatable": together == again,
        "among_its_query": greatest(alone, together),
        "among_all": greatest(alone, [everything]),
        "padded": greatest(alone, padded),
    }


def greatest(lists: list[list[float]], others: list[list[float]]) -> float:
    """The greatest difference of two logits in the same place."""
    chained = itertools.chain.from_iterable
    return max(abs(one - other) for one, other in zip(chained(lists), chained(others), strict=True))


def compare(found: list[list[float]], exact: list[list[float]]) -> dict[str, float]:
    """Rankings of one dtype against those of float32."""
    pairs = list(zip(found, exact, strict=True))
    differences = [abs(one - other) for mine, theirs in pairs for one, other in zip(mine, theirs, strict=True)]
    return {
        "greatest_difference": max(differences),
        "mean_difference": mean(differences),
        "kendall_tau": mean(float(kendalltau(mine, theirs).statistic) for mine, theirs in pairs),
        "equal_first_places": mean(mine.index(max(mine)) == theirs.index(max(theirs)) for mine, theirs in pairs),
        "equal_top_3": mean(set(top(mine)) == set(top(theirs)) for mine, theirs in pairs),
    }


def top(logits: list[float], count: int = 3) -> list[int]:
    """The places of the greatest logits."""
    return sorted(range(len(logits)), key=lambda place: -logits[place])[:count]


def main() -> int:
    """Measure, print and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", default=DEMO_MODEL)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="in BEIR format (default: examples/data)")
    parser.add_argument("--queries", type=int, default=20)
    parser.add_argument("--documents", type=int, default=12, help="of each query")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=DTYPES)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    options.numbers = range(options.queries)
    corpus = read_corpus(options.data)
    runs = {dtype: measure(options.model, dtype, corpus, options) for dtype in options.dtypes}
    exact = runs[options.dtypes[0]]["together"]
    spread = mean(max(logits) - min(logits) for logits in exact)
    figures = {dtype: {**compare(run.pop("together"), exact), **run} for dtype, run in runs.items()}
    command = f"python benchmarks/dtypes.py {' '.join(sys.argv[1:])}"
    facts = {"model": Path(options.model).name, "data": corpus.name, "command": command, "processor": processor_name()}
    result = {**facts, "mean_spread_of_logits": spread, "dtypes": figures, "versions": versions(("onelogit", "torch"))}
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
