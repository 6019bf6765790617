"""Fuzz targets of files: a model's small files, and the readers of texts, rows, judgements and runs."""

import gzip
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from onelogit import InputError, OnelogitError
from onelogit.checkpoints.recipe_choice import resolve_recipe
from onelogit.checkpoints.untrusted_files import check_texts
from onelogit.evaluation.data.query_rows import read_query_rows
from onelogit.io.bad_lines import BadLines
from onelogit.io.beir import query_text_of, read_corpus, read_queries
from onelogit.io.text_files import read_documents, read_text_collection
from onelogit.io.trec import read_judgements, read_run
from support.fuzzing import FuzzTarget, random_text
from support.metadata_files import LOGIT_SCORE, TRANSFORMER, logit_score_files, modules

TEXT = st.text(max_size=12)
_ODD = [
    None,
    True,
    False,
    0,
    -1,
    1,
    2,
    10**9,
    10**18,
    0.5,
    "",
    " ",
    "a",
    [],
    {},
    [[]],
    [None],
    [{}],
    {"": ""},
    {"a": 1},
]
ODD = st.sampled_from(_ODD) | TEXT | st.lists(st.sampled_from(_ODD), max_size=3)

_CHAIN = [
    {"idx": 0, "name": "0", "path": "", "type": TRANSFORMER},
    {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
]
_DENSE = {"in_features": 8, "out_features": 1, "bias": True, "activation_function": "torch.nn.modules.linear.Identity"}
_BASES: list[dict[str, Any]] = [
    {"config.json": {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3"}, **logit_score_files(17, 4)},
    {
        "config.json": {"architectures": ["Qwen3ForCausalLM"], "text_config": {"hidden_size": 8}},
        "tokenizer_config.json": {"chat_template": "{{ messages[0].content }}", "model_max_length": 512},
        "README.md": "---\nbase_model: Qwen/Qwen3-Reranker-0.6B\nlicense: other\nlicense_name: mine\n---\n",
    },
    {
        "config.json": {"architectures": ["BertForSequenceClassification"], "num_labels": 2, "id2label": {"0": "no"}},
        "tokenizer_config.json": {"cls_token": "[CLS]", "sep_token": {"content": "[SEP]"}},
        "special_tokens_map.json": {"cls_token": "[CLS]"},
    },
    {
        "config.json": {"classifier_from_token": ["no", "yes"], "method": "from_2_way_softmax", "architectures": ["A"]},
        "config_sentence_transformers.json": {"model_type": "CrossEncoder", "prompts": {"query": "a"}},
        "modules.json": modules(TRANSFORMER, LOGIT_SCORE),
    },
    {
        "config.json": {"architectures": ["ModernBertModel"], "sentence_transformers": {"activation_fn": "a.Sigmoid"}},
        "modules.json": _CHAIN,
        "1_Pooling/config.json": {"pooling_mode": "cls"},
        "2_Dense/config.json": {**_DENSE, "module_output_name": "scores"},
        "sentence_bert_config.json": {"modality_config": {"text": {"method_output_name": "last_hidden_state"}}},
    },
    {
        "config.json": {"architectures": ["LlamaBidirectionalForSequenceClassification"], "pooling": "avg"},
        "adapter_config.json": {"peft_type": "LORA", "base_model_name_or_path": "a/b", "task_type": "SEQ_CLS"},
    },
]
CHANGES = st.lists(st.tuples(st.integers(0, 99), st.lists(st.integers(0, 9), min_size=1, max_size=4), ODD), max_size=4)
SMALL_FILES = st.tuples(st.integers(0, len(_BASES) - 1), CHANGES, st.sampled_from([None, "qwen3-reranker"]))


def changed(value: Any, place: list[int], new: object) -> Any:
    """A JSON value with another one at a place: the place names an item at each depth."""
    if not place or not isinstance(value, dict | list) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[place[0] % len(keys)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[key] = changed(value[key], place[1:], new)
    return copy


def check_small_files(case: tuple[int, list[tuple[int, list[int], Any]], str | None]) -> None:
    """A model's small files give a recipe, or an error with a sentence."""
    base, changes, recipe = case
    files = dict(_BASES[base])
    for file, place, new in changes:
        name = list(files)[file % len(files)]
        is_text = isinstance(files[name], str)
        files[name] = str(new) if is_text else changed(files[name], place, new)
    texts = {name: each if isinstance(each, str) else json.dumps(each) for name, each in files.items()}
    try:
        check_texts(Path("model"), texts)
        resolve_recipe("someone/model" if recipe is None else "Qwen/Qwen3-Reranker-0.6B", texts)
    except OnelogitError as error:
        assert str(error).strip()


NAMES = st.sampled_from(
    [
        "query",
        "documents",
        "labels",
        "text",
        "title",
        "_id",
        "label",
        "positive",
        "negative",
        "qid",
        "pos",
        "neg",
        "score",
    ]
)
ROWS = st.lists(st.dictionaries(NAMES, ODD | TEXT, max_size=5), max_size=4)
IDS = st.sampled_from(["q1", "d1", "q2", "d2", "0", "Q0", "1", "", " ", "1e9", "nan", "-1", "\ufeffq1", "a\tb", "\x00"])
COLUMNS = st.lists(st.lists(IDS, max_size=7), max_size=5)


def _separated(rows: list[list[str]], separator: str, ending: str) -> bytes:
    return ending.join(separator.join(row) for row in rows).encode("utf-8", "surrogatepass")


CONTENTS = st.one_of(
    st.binary(max_size=60),
    ROWS.map(lambda rows: "\n".join(map(json.dumps, rows)).encode()),
    ROWS.map(lambda rows: json.dumps(rows, indent=1).encode()),
    ROWS.map(lambda rows: json.dumps(rows, ensure_ascii=False).encode("utf-8", "surrogatepass")),
    st.tuples(COLUMNS, st.sampled_from([" ", "\t", ",", ";", "|"]), st.sampled_from(["\n", "\r\n", "\r"])).map(
        lambda parts: _separated(*parts)
    ),
    st.tuples(
        st.lists(NAMES, max_size=4), st.lists(st.lists(TEXT, max_size=4), max_size=3), st.sampled_from(",\t;")
    ).map(lambda parts: _separated([parts[0], *parts[1]], parts[2], "\n")),
    TEXT.map(lambda text: text.encode("utf-16", "surrogatepass")),
    st.binary(max_size=20).map(gzip.compress),
    st.text('[]{}",:0n \n', max_size=30).map(str.encode),
)
_SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".txt", "", ".jsonl.gz", ".csv.gz", ".tab", ".ndjson"]
SUFFIXES = st.sampled_from(_SUFFIXES)
_KNOWN = {"q1", "q2", "d1", "d2", "0", "1"}
_MEMORY = Path("/dev/shm")  # a disk would take most of the time
_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-", dir=_MEMORY if _MEMORY.is_dir() else None))
_FILE_READERS: dict[str, Callable[[Path, BadLines], object]] = {
    "documents": lambda path, _: read_documents(path),
    "collection": lambda path, _: read_text_collection(path),
    "named column": lambda path, _: read_documents(path, "title"),
    "queries": read_query_rows,
    "judgements": lambda path, bad: read_judgements(path, _KNOWN, _KNOWN, bad),
    "run": lambda path, bad: read_run(path, _KNOWN, _KNOWN, bad),
}
_FOLDER_READERS: dict[str, Callable[[Path, BadLines], object]] = {
    "corpus": lambda folder, bad: read_corpus(folder, bad, is_logging=False),
    "queries of BEIR": lambda folder, bad: read_queries(folder, bad, lambda _, fields: query_text_of(fields)),
}


def check_reader(case: tuple[str, bytes, str, bool]) -> None:
    """A reader returns whole texts, or says in a sentence what is wrong with the file."""
    reader, content, suffix, is_skipping = case
    bad_lines = BadLines(is_skipping=is_skipping)
    try:
        if reader in _FOLDER_READERS:
            for name in ("corpus.jsonl", "queries.jsonl"):
                (_FOLDER / name).write_bytes(content)
            _FOLDER_READERS[reader](_FOLDER, bad_lines)
            return
        path = _FOLDER / f"file{suffix}"
        path.write_bytes(content)
        read: Any = _FILE_READERS[reader](path, bad_lines)
    except InputError as error:
        assert str(error).strip()
        return
    if reader in ("documents", "named column"):
        for document in read:
            document.text.encode()  # fails for half a character


def random_odd(random: Random) -> Any:
    """As `ODD`."""
    kind = random.random()
    return random.choice(_ODD) if kind < 0.6 else random_text(random) if kind < 0.8 else random.choices(_ODD, k=2)


def random_place(random: Random) -> list[int]:
    """The place of a change."""
    return random.choices(range(10), k=random.randint(1, 4))


def random_small_files(random: Random) -> tuple[int, list[tuple[int, list[int], Any]], str | None]:
    """As `SMALL_FILES`."""
    changes = [
        (random.randrange(100), random_place(random), random_odd(random)) for _ in range(random.choice((0, 1, 1, 2, 4)))
    ]
    return random.randrange(len(_BASES)), changes, random.choice((None, "qwen3-reranker"))


_NAME_LIST = ["query", "documents", "labels", "text", "title", "_id", "label", "positive", "negative", "qid", "score"]
_ID_LIST = [
    "q1",
    "d1",
    "q2",
    "d2",
    "0",
    "Q0",
    "1",
    "",
    " ",
    "1e9",
    "nan",
    "-1",
    "\ufeffq1",
    "a\tb",
    "\x00",
    '"',
    "query-id",
]


def _random_content(random: Random) -> bytes:
    kind = random.randrange(6)
    if kind == 0:
        return random.randbytes(random.randint(0, 40))
    if kind < 3:
        rows = [
            {random.choice(_NAME_LIST): random_odd(random) for _ in range(random.randint(0, 5))}
            for _ in range(random.randint(0, 4))
        ]
        text = "\n".join(map(json.dumps, rows)) if kind == 1 else json.dumps(rows, indent=1, ensure_ascii=False)
        return text.encode("utf-8", "surrogatepass")
    if kind == 3:
        return "".join(random.choices('[]{}",:0n \n', k=random.randint(0, 30))).encode()
    columns = [random.choices(_ID_LIST, k=random.randint(0, 7)) for _ in range(random.randint(0, 5))]
    if kind == 4:
        columns = [random.sample(_NAME_LIST, 3), *([random_text(random) for _ in range(3)] for _ in range(2))]
    content = _separated(columns, random.choice(" \t,;|"), random.choice(("\n", "\r\n", "\r")))
    return gzip.compress(content, 1) if random.random() < 0.05 else content


def random_file(random: Random) -> tuple[str, bytes, str, bool]:
    """A reader, the content of its file, the file's ending, and whether bad lines are skipped."""
    reader = random.choice([*_FILE_READERS, *_FOLDER_READERS])
    return reader, _random_content(random), random.choice(_SUFFIXES), random.random() < 0.5


TARGETS = [
    FuzzTarget("small files", SMALL_FILES, check_small_files, random_small_files),
    FuzzTarget(
        "readers",
        st.tuples(st.sampled_from([*_FILE_READERS, *_FOLDER_READERS]), CONTENTS, SUFFIXES, st.booleans()),
        check_reader,
        random_file,
    ),
]
