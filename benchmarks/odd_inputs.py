"""Strategies of odd inputs for `benchmarks/malformed.py`: a valid input of each kind, with a changed structure.

Each strategy writes its input into a folder and returns the call that reads it. Most begin with an input that is right
and change some of its parts, so that the readers come far before they meet what is odd.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data
from PIL import Image

from potstill import artifacts
from potstill.config import build, override, read_yaml
from potstill.data.checks import examine
from potstill.data.formats import read_manifest, tables
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.open import find
from potstill.models import zoo
from potstill.models.card_record import card_from_json
from potstill.models.weights import read_state
from potstill.stages.compare.settings import CompareConfig
from potstill.stages.compress.prune import PruneConfig
from potstill.stages.finetune import FinetuneConfig
from potstill.stages.images_record import ImagesRecord
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import Journal, check_free
from potstill.stages.selftrain import SelftrainConfig
from potstill.stages.shrink.settings import ShrinkConfig
from potstill.stages.teacher import soft_labels
from potstill.teachers.prediction_files import read_predictions

Call = Callable[[], Any]
pick = st.sampled_from
WORDS = pick(
    [
        "",
        " ",
        "a",
        "b",
        "cat",
        "../x",
        "/etc/passwd",
        "x" * 300,
        "é",
        "\x00",
        "\x1b[2J",
        "[/b]",
        "=1+1",
        "a\nb",
        '"',
        "'",
    ]
    + ["nan", "None", "2026-01-31", "1e3", "evil.py:f", "builtin:cnn", "kd", "auto", "NULL", "a|b", "01", "1", "\ud800"]
)
NUMBERS = pick([0, -1, 1, 2, 3, 10**30, 1e308, -0.0, float("nan"), float("inf"), 1.5, 2**31, 2**63, 2**64])
SCALARS = st.none() | st.booleans() | NUMBERS | WORDS
KEYS = pick(["a", "", "path", "label", "split", "group", "image", "1", "state_dict", "model", "x.y", "on"])
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
NAMES = pick(
    [*"ab", "a ", " a", "train", "test", "val", "unlabelled", "labelled", ".x", "é", "e\u0301", "x" * 200, "a,b", "'q'"]
    + ["a\nb", "-x", "con", "[/b]", "\u202ex", "0", "00", "a.png", "__MACOSX"]
)


class Evil:
    """What runs code where a pickle is opened."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("executed"),)


def picture(i: int = 0) -> bytes:
    """Return a PNG file of noise."""
    memory = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(memory, "PNG")
    return memory.getvalue()


PICTURES = [picture(i) for i in range(8)]


def pictures(folder: Path) -> None:
    """Write eight images of two classes, as folder/a/0.png."""
    for i, content in enumerate(PICTURES):
        file = folder / "ab"[i % 2] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)


def seldom(draw: Callable, odd: st.SearchStrategy, usual: Any, share: int = 12) -> Any:
    """Return `usual`, and once in `share` times something odd."""
    return draw(odd) if draw(st.integers(1, share)) == share else usual


def text_of(value: Any) -> str:
    """Return JSON text; lone surrogates stay what they are in JSON."""
    return json.dumps(value, default=str)


def _places(value: Any, above: tuple = ()) -> list[tuple]:
    """Return the places of a JSON value: the keys that lead to each of its parts."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for key, part in inner for place in ((*above, key), *_places(part, (*above, key)))]


@st.composite
def changed(draw: Callable, base: Any) -> Any:
    """Return a JSON value with some of its parts, at any depth, replaced, removed, doubled, renamed or wrapped."""
    value = json.loads(json.dumps(base))
    for _ in range(draw(pick([0, 1, 1, 2]))):
        places = _places(value)
        if not places:
            break
        *parents, key = draw(pick(places))
        inner = value
        for parent in parents:
            inner = inner[parent]
        what = draw(pick(["replace", "replace", "remove", "wrap", "other type", "add", "double"]))
        if what == "remove":
            del inner[key]
        elif what == "wrap":
            inner[key] = draw(pick([[inner[key]], {"a": inner[key]}, [inner[key]] * 3]))
        elif what == "other type":
            inner[key] = text_of(inner[key]) if not isinstance(inner[key], str) else [*inner[key]]
        elif what == "double" and isinstance(inner, list):
            inner.append(inner[key])
        elif what == "add" and isinstance(inner, dict):
            inner[draw(KEYS)] = draw(TREES)
        else:
            inner[key] = draw(TREES)
    return value if draw(st.integers(0, 19)) else draw(TREES)


SMALL = zoo.create("builtin:mlp", classes=("a", "b"), size=(8, 8), channels=3)
CARD = SMALL.card.to_json()
TRAIN = {"epochs": 1, "lr": 0.1}
DATA = {"path": "x", "validation": 0.2}
RECIPES = {
    kind: kind.model_validate(least).to_json()
    for kind, least in (
        (Recipe, {"data": DATA, "comparisons": {"half": {"objective.alpha": 0.5}}, "train": TRAIN}),
        (FinetuneConfig, {"data": DATA, "model": "resnet18"}),
        (
            CompareConfig,
            {"data": DATA, "students": {"s": {}}, "methods": {"kd": {}, "f": {"terms": [{"loss": "fsp"}]}}},
        ),
        (SelftrainConfig, {"data": {**DATA, "unlabelled": "y"}, "teachers": [{"model": "builtin:mlp"}]}),
        (PruneConfig, {"model": "x", "keep": 0.5}),
        (ShrinkConfig, {"data": DATA, "budgets": {"max_bytes": "10kB"}}),
    )
}


@st.composite
def recipe(draw: Callable, folder: Path) -> Call:
    """A file of settings of six commands."""
    kind = draw(pick(sorted(RECIPES, key=lambda one: one.__name__)))
    text = text_of(draw(changed(RECIPES[kind])))
    if draw(st.integers(0, 8)) == 8:
        text = (
            draw(pick(["a: &a [*a]\n", "? [1]\n: 2\n", "- 1\n", "1: 2\n", "<<: 3\n", "a: !!set {1}\n", "%\n"])) + text
        )
    content = text.encode(seldom(draw, pick(["utf-16", "latin-1", "utf-8-sig"]), "utf-8"), "replace")
    (folder / "r.yaml").write_bytes(content)
    return lambda: build(kind, read_yaml(folder / "r.yaml"))


@st.composite
def assignment(draw: Callable, folder: Path) -> Call:
    """Settings on the command line: key=value."""
    keys = pick(
        ["train.epochs", "data", "a.b.c", "", ".", "objective.terms.0.loss", "seed", "students.x.y", "é", "data."]
    )
    values = pick(
        ["[", "{", "3", "null", "&a [*a]", "2026-01-31", "!!python/x 1", "a: b: c", "'", "- x", "\t", "1_0", "~"]
    )
    given_ = draw(st.lists(st.tuples(keys, values), max_size=3))
    text = [f"{key}={value}" if draw(st.integers(0, 9)) else key for key, value in given_]
    kind = draw(pick(sorted(RECIPES, key=lambda one: one.__name__)))
    return lambda: build(kind, override(RECIPES[kind], text))


COLUMNS = [
    "path",
    "label",
    "split",
    "group",
    "Path",
    "class",
    "labels",
    "y",
    "cat",
    "dog",
    "file_name",
    "image",
    "",
    " label ",
]
PATHS = [
    "a/0.png",
    "a/2.png",
    "b/1.png",
    "b/3.png",
    "./a/0.png",
    "a\\0.png",
    "none.png",
    "",
    "\x00",
    "/dev/zero",
    "a",
    "../in/a/4.png",
]
CELLS = {
    "label": st.one_of(pick(["a", "b", "b", "a", "", "nan", "N/A", "a|b", "['a']", " a", "1", "01", "é"]), SCALARS),
    "split": st.one_of(pick(["train", "test", "val", "validation", "Train", "", "dev", "holdout"]), SCALARS),
    "group": st.one_of(pick(["g", "h", "", "1"]), SCALARS),
}


@st.composite
def rows(draw: Callable) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows of a table that begins as a right one."""
    columns = ["path", *draw(st.lists(pick(["label", "label", "split", "group"]), max_size=3, unique=True))]
    columns = draw(st.permutations(columns))
    for _ in range(draw(pick([0, 0, 0, 1, 2]))):
        columns.insert(draw(st.integers(0, len(columns))), draw(pick(COLUMNS)))
    if draw(st.integers(0, 7)) == 0:
        columns = draw(st.lists(KEYS | pick(COLUMNS), max_size=4))
    table = []
    for i in range(draw(st.integers(2, 8)) if draw(st.integers(0, 11)) else 0):
        right = {"path": f"{'ab'[i % 2]}/{i}.png", "label": "ab"[i % 2], "split": "train", "group": str(i)}
        row: list[Any] = [right.get(name, str(i % 2)) for name in columns]
        for place, name in enumerate(columns):
            if draw(st.integers(1, 9)) == 9:
                row[place] = draw(pick(PATHS) if name == "path" else CELLS.get(name, SCALARS) | TREES)
        if draw(st.integers(1, 30)) == 30:
            row = draw(pick([row[:-1], [*row, "more"], [], row * 2]))
        table.append(row)
    return columns, table


@st.composite
def table(draw: Callable, folder: Path) -> Call:
    """A .csv, .tsv or .jsonl of images."""
    pictures(folder)
    columns, values = draw(rows())
    name = draw(pick(["t.csv", "t.csv", "t.tsv", "t.jsonl"]))
    file = folder / name
    if name == "t.jsonl":
        lines = [text_of(dict(zip(columns, row, strict=False))) for row in values]
        lines += draw(
            st.lists(pick(["[" * 2000, "", "{}", "[1]", "null", '{"path": "a/0.png", "path": 3}', "NaN"]), max_size=1)
        )
        text = "\n".join(draw(st.permutations(lines)))
    else:
        separator = "\t" if name == "t.tsv" else seldom(draw, pick([";", "\t", "|"]), ",", 6)
        quote = seldom(draw, pick(["'"]), draw(pick(["", '"'])))
        lines = [separator.join(f"{quote}{cell}{quote}" for cell in row) for row in [columns, *values]]
        end = seldom(draw, pick(['\n"', "\n\n\n", "\x00", "\x1a"]), "\n", 6)
        text = seldom(draw, pick(["\r\n", "\r"]), "\n", 6).join(lines) + end
        text = seldom(draw, pick(["\n", "# made by x\n", "sep=;\n"]), "") + text
    file.write_bytes(text.encode(seldom(draw, pick(["utf-16", "utf-8-sig", "latin-1"]), "utf-8", 8), "replace"))
    group = draw(pick([None, None, "(.)", "{class}/(.)", "exif"]))
    return lambda: (examine(file, group=group), read_manifest(file, group=group))


FEATURES = {"info": {"features": {"label": {"names": ["a", "b"], "_type": "ClassLabel"}, "image": {"_type": "Image"}}}}


@st.composite
def parquet(draw: Callable, folder: Path) -> Call:
    """A Parquet table with Hugging Face's metadata; without pyarrow the metadata alone."""
    metadata: dict[Any, Any] = {b"huggingface": text_of(draw(changed(FEATURES))).encode()}
    if draw(st.integers(0, 5)) == 0:
        metadata[b"huggingface"] = draw(pick([b"", b"{", b"\xff", b"[" * 3000, b"null"]))
    labels = [seldom(draw, pick([7, -1, None]), i % 2, 20) for i in range(draw(st.integers(1, 8)))]

    def named() -> list[Any]:
        names = tables._class_names(folder / "t.parquet", metadata)
        return [tables._named(label, names.get("label")) for label in labels]

    try:
        import pyarrow as pa  # pyright: ignore[reportMissingImports]  # optional
        import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]
    except ImportError:
        return named
    images = [
        draw(pick([{"bytes": PICTURES[i % 8], "path": f"{i}.png"}] * 4 + [None, {"bytes": b"x", "path": None}]))
        for i in range(len(labels))
    ]
    column: Any = images if draw(st.integers(0, 3)) else [f"a/{i}.png" for i in range(len(labels))]
    made = pa.table({draw(pick(["image", "image", "x"])): column, draw(pick(["label", "label", "y"])): labels})
    pq.write_table(made.replace_schema_metadata(metadata), folder / "t.parquet")
    content = (folder / "t.parquet").read_bytes()
    (folder / "t.parquet").write_bytes(content[: seldom(draw, pick([len(content) - 9, 8]), len(content))])
    return lambda: (named(), examine(folder / "t.parquet"), read_manifest(folder / "t.parquet"))


@st.composite
def card(draw: Callable, folder: Path) -> Call:
    """The card of a model: read, and the model used."""
    _copied(_model, folder)
    value = draw(changed(json.loads((folder / "card.json").read_text())))
    (folder / "card.json").write_text(text_of(value))

    def used() -> None:
        card_from_json(value)
        with torch.no_grad():
            load_model(folder)(torch.zeros(2, 3, 9, 7))

    return used


def _model(folder: Path) -> None:
    save_model(SMALL, folder)


def _copied(make: Callable[[Path], None], folder: Path, kept: dict[Any, dict[str, bytes]] = {}) -> None:  # noqa: B006
    """Write what `make` writes, which is made once."""
    if make not in kept:
        make(folder)
        kept[make] = {
            file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()
        }
    for name, content in kept[make].items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


PRUNE = PruneConfig(model="x", keep=0.5)
LABELS = {
    "source": {"images": "0", "augmentation": "1"},
    "card": CARD,
    "teacher": "t",
    "accuracy": 50.0,
    "known": [0, 1],
    "views": 1,
    "seed": 0,
    "own_size": 8,
}
READ = {
    "reader": "images",
    "path": "in/pictures",
    "options": {"group": "(.)"},
    "fingerprint": "0",
    "classes": ["a", "b"],
    "images": {f"{'ab'[i % 2]}/{i}.png": ["0", "ab"[i % 2], "train"] for i in range(8)},
}
RECORDS: dict[str, Any] = {
    "student.json": {"folder": "distill/seed-0", "reject": {"precision": 0.9, "threshold": 0.5}},
    "journal.json": {"seconds": {"data: Read": 1.5}, "notes": ["A note."]},
    "images.json": artifacts.sealed({"reads": [READ]}),
    "labels.json": LABELS,
    "prune.yaml": PRUNE.to_json(),
    "distill/seed-0/manifest.json": artifacts.sealed(
        {"inputs": {"seed": 0}, "files": {"card.json": {"bytes": 3, "sha256": ""}}}
    ),
}


@st.composite
def record(draw: Callable, folder: Path) -> Call:
    """One of the JSON files of a run folder."""
    _copied(_model, folder / "distill" / "seed-0")
    _copied(pictures, folder / "pictures")
    for name, content in RECORDS.items():
        (folder / name).write_text(text_of(content))
    name = draw(pick(list(RECORDS)))
    value = draw(changed(RECORDS[name]))
    if isinstance(value, dict) and "digest" in value and draw(st.booleans()):
        value = artifacts.sealed({key: part for key, part in value.items() if key != "digest"})
    text = text_of(value)
    (folder / name).write_text(draw(pick([text] * 6 + [text[: len(text) // 2], "", "\x00" * 40, "[" * 5000])))
    part = folder / "distill" / "seed-0"
    calls: dict[str, Call] = {
        "student.json": lambda: find(str(folder)),
        "journal.json": lambda: Journal(folder, []).timed("a", "b", lambda: 3),
        "images.json": lambda: ImagesRecord(folder, "potstill").compare(),
        "labels.json": lambda: soft_labels._facts(folder),
        "prune.yaml": lambda: check_free(folder, PRUNE, "prune"),
        "distill/seed-0/manifest.json": lambda: artifacts.stage(part, {"seed": 0}, lambda: {}),
    }
    return calls[name]


@st.composite
def answers(draw: Callable, folder: Path) -> Call:
    """Predictions of another program."""
    if draw(st.booleans()):
        right: dict[str, Any] = {"logits": np.eye(3, 2), "names": np.array(["a/0.png", "a/2.png", "b/1.png"])}
        names = draw(st.lists(pick("logits probabilities labels names rows classes x".split()), max_size=3))
        shapes = pick([(), (0,), (3,), (3, 2), (3, 0), (2, 2, 2), (1, 1)])
        kinds = pick(["f4", "i8", "U3", "?", "c8", "S2", "f2", "M8[s]", "O"])
        values = pick([0, 1, 7, np.nan, np.inf, -1])
        with np.errstate(all="ignore"):
            made = {name: np.full(draw(shapes), draw(values)).astype(draw(kinds)) for name in names}
        kept = right if draw(st.booleans()) else {}
        np.savez(folder / "p.npz", **{**kept, **made})
        return lambda: read_predictions(folder / "p.npz")
    columns = draw(
        st.just(["image", "a", "b"]) | st.lists(pick(["", *"image row a b label prediction".split()]), max_size=4)
    )
    cells = pick(["", "1", "0.5", "0.25", "nan", "inf", "-1e999", "a", "a/0.png", '"', "'=1", "1,2", "\x00"])
    width = max(len(columns) - 1, 0)
    few = st.lists(cells, max_size=3)
    lines = [
        [f"a/{i}.png", *seldom(draw, few, draw(st.lists(cells, min_size=width, max_size=width)))]
        for i in range(draw(st.integers(0, 4)))
    ]
    text = "\n".join(",".join(row) for row in [columns, *lines])
    (folder / "p.csv").write_bytes(text.encode(seldom(draw, pick(["latin-1", "utf-16"]), "utf-8"), "replace"))
    return lambda: read_predictions(folder / "p.csv")


@st.composite
def checkpoint(draw: Callable, folder: Path) -> Call:
    """A .pth file."""
    leaves = (
        SCALARS
        | st.builds(Evil)
        | st.builds(lambda: torch.ones(2))
        | st.builds(lambda: torch.ones(2, 2)[:, :1].to(torch.bfloat16))
        | st.builds(lambda: torch.nn.Linear(1, 1))
        | st.builds(lambda: np.float64(1))
        | st.just(Path("x"))
    )
    keys = (
        KEYS
        | pick(["module.w", "net", "optimizer", "w", "b", "_orig_mod.w", "EMA", "weights"])
        | pick([1, None, (1, 2)])
    )
    value = draw(
        st.recursive(
            leaves, lambda one: st.lists(one, max_size=3) | st.dictionaries(keys, one, max_size=4), max_leaves=10
        )
    )
    if draw(st.booleans()):
        value = {draw(pick(["state_dict", "model", "network", "x"])): {"w": torch.ones(2), "b": value}}
    if isinstance(value, dict) and draw(st.integers(0, 3)) == 0:
        value["itself"] = value
    torch.save(value, folder / "w.pth", _use_new_zipfile_serialization=draw(st.booleans()))
    content = (folder / "w.pth").read_bytes()
    (folder / "w.pth").write_bytes(content[: draw(pick([len(content)] * 4 + [len(content) // 2, 20]))])
    return lambda: read_state(folder / "w.pth")


SIDES = pick([0, 1, 2, 3, 8, "b", "h", -1])
TYPES = pick([TensorProto.UINT8, TensorProto.STRING, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.BOOL])
OPERATORS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "Flatten": ([], {}),
    "Softmax": ([], {"axis": -1}),
    "Relu": ([], {}),
    "GlobalAveragePool": ([], {}),
    "Shape": ([], {}),
    "Sigmoid": ([], {}),
    "Neg": ([], {}),
    "Cast": ([], {"to": TensorProto.INT64}),
    "Transpose": ([], {"perm": [0, 2, 3, 1]}),
    "ReduceMean": ([], {"keepdims": 0}),
    "ArgMax": ([], {"axis": 1}),
    "Gemm": (["w"], {"transB": 1}),
    "MatMul": (["w"], {}),
    "Add": (["bias"], {}),
    "Reshape": (["shape"], {}),
    "Expand": (["shape"], {}),
    "Conv": (["kernel"], {}),
    "Dropout": ([], {}),
    "NoSuchOp": ([], {}),
    "Identity": ([], {}),
}


@st.composite
def initializers(draw: Callable) -> list[onnx.TensorProto]:
    """Return the weights of a graph, some of other shapes and values than their operators need."""
    shapes = {"w": [2, 192], "bias": [2], "shape": [2], "kernel": [2, 3, 1, 1]}
    made = []
    for name, shape in shapes.items():
        odd = draw(st.integers(1, 16)) == 16
        values = np.full(
            draw(st.lists(pick([0, 1, 2, 5]), max_size=4)) if odd else shape,
            seldom(draw, pick([np.nan, 1e38, 0.0]), 1.0),
        )
        if name == "shape":
            values = np.array(
                draw(st.lists(pick([0, -1, 1, 2, 192, 2]), min_size=1, max_size=4)) if odd else [-1, 192], np.int64
            )
        tensor = numpy_helper.from_array(values if name == "shape" else values.astype(np.float32), name)
        if draw(st.integers(1, 50)) == 50:
            set_external_data(tensor, draw(pick(["w.bin", "../w.bin", "/etc/passwd", ""])))
            tensor.ClearField("raw_data")
        if draw(st.integers(1, 50)) == 50:
            tensor.dims[:] = draw(pick([[2**40], [-3], [2**31, 2**31], []]))
        made.append(tensor)
    return made


@st.composite
def graph(draw: Callable, folder: Path) -> Call:
    """An ONNX graph of another program, with a card beside it or inside."""
    odd = draw(st.integers(1, 6)) == 6
    shape = (
        draw(st.lists(SIDES, max_size=5))
        if odd
        else draw(pick([["b", 3, 8, 8], [4, 3, 8, 8], ["b", 8, 8, 3], [1, 3, 8, 8]]))
    )
    network = draw(
        pick([["Flatten", "Gemm"], ["Flatten", "Gemm", "Softmax"], ["Conv", "GlobalAveragePool"], ["Reshape", "Gemm"]])
    )
    usual = pick(["Relu", "Sigmoid", "Neg", "Identity", "Dropout"])
    extra = draw(st.lists(usual if draw(st.integers(0, 2)) else pick(sorted(OPERATORS)), max_size=2))
    place = draw(st.integers(0, len(network)))
    operators = [*network[:place], *extra, *network[place:]] if draw(st.integers(0, 2)) else network
    names = ["x", *(f"n{i}" for i in range(len(operators)))]
    nodes = [
        helper.make_node(op, [above, *OPERATORS[op][0]], [below], **OPERATORS[op][1])
        for op, above, below in zip(operators, names, names[1:], strict=False)
    ]
    if nodes and draw(st.integers(1, 30)) == 30:
        nodes[0].input[0] = draw(pick([names[-1], "nothing", "", "w"]))  # a circle, or an input that nobody gives
    if draw(st.integers(1, 30)) == 30:
        nodes = draw(st.permutations(nodes))
    result = draw(pick([["b", 2]] * 3 + [[], ["b", 2, 1, 1], [2], ["b", "k"], ["b", 1000]]))
    outputs = [helper.make_tensor_value_info(names[-1], seldom(draw, TYPES, TensorProto.FLOAT), result)]
    if draw(st.integers(0, 4)) == 0:
        outputs.append(helper.make_tensor_value_info(draw(pick(names)), TensorProto.FLOAT, None))
    inputs = [helper.make_tensor_value_info("x", seldom(draw, TYPES, TensorProto.FLOAT, 6), shape)]
    if draw(st.integers(1, 20)) == 20:
        inputs.append(helper.make_tensor_value_info("second", TensorProto.FLOAT, ["b"]))
    made = helper.make_graph(nodes, "g", inputs, outputs[: seldom(draw, st.just(0), 2, 40)], draw(initializers()))
    version = seldom(draw, pick([1, 99, 13, 11]), 17)
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid("", version)], ir_version=seldom(draw, pick([3, 99]), 9)
    )
    if draw(st.integers(0, 4)) == 0:
        model.metadata_props.add(key="potstill.card", value=text_of(seldom(draw, changed(CARD), CARD, 2)))
        model.metadata_props.add(
            key="potstill.temperature", value=draw(pick(["1", "1", "x", "nan", "", "0", "-1", "1e999"]))
        )
    beside = {k: CARD[k] for k in ("classes", "mean", "std", "size")}
    if draw(st.integers(0, 9)):
        (folder / "m.card.json").write_text(text_of(seldom(draw, changed(beside), beside, 3)))
    content = model.SerializeToString()
    content = content[: seldom(draw, pick([len(content) // 2, 9]), len(content), 30)]
    (folder / "m.onnx").write_bytes(content)
    return lambda: OnnxModel(folder / "m.onnx", threads=1)(torch.zeros(3, 3, 8, 8))


@st.composite
def idx(draw: Callable, folder: Path) -> Call:
    """MNIST's four files, plain or compressed."""
    count, side = seldom(draw, pick([0, 1]), draw(pick([4, 6]))), draw(pick([4, 28, 1]))
    for split in ("train", draw(pick(["t10k", "test"]))):
        for what, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
            if draw(st.integers(1, 30)) == 30:
                continue
            shape = [count, side, side][:dimensions]
            if draw(st.integers(1, 16)) == 16:
                shape[draw(st.integers(0, dimensions - 1))] = draw(pick([0, 1, 5, 2**31, 2**32 - 1]))
            size = seldom(draw, pick([0, 1, 64]), int(np.prod(shape, dtype=object)), 16)
            odd_magic = pick([b"\0\0\x0d\3", b"\0\0\x09\1", b"PK\3\4", b""])
            magic = seldom(draw, odd_magic, bytes([0, 0, 8, dimensions]), 20)
            values = draw(pick([2, 3, 256]))
            body = bytes(i * 7 % values for i in range(min(size, 8192)))
            content = magic + np.array(shape, ">u4").tobytes() + body + seldom(draw, pick([b"\0\0"]), b"", 20)
            right = draw(pick([(bytes, ""), (gzip.compress, ".gz")]))
            packed, ending = seldom(draw, pick([(bytes, ".gz"), (bz2.compress, ".gz")]), right, 20)
            content = packed(content)
            content = content[: seldom(draw, pick([len(content) // 2]), len(content), 20)]
            (folder / f"{split}-{what}-ubyte{ending}").write_bytes(content)
    return lambda: (examine(folder), read_manifest(folder))


@st.composite
def archive(draw: Callable, folder: Path) -> Call:
    """A tar of class folders or a WebDataset shard."""
    ending = draw(pick(["", "", ".gz", ".bz2", ".xz"]))
    file = folder / f"x.tar{ending}"
    right = draw(pick(["classes", "shard", "odd"]))
    mode: Any = f"w:{ending[1:]}"
    with tarfile.open(file, mode) as made:
        for i in range(draw(st.integers(3, 8))):
            parts = draw(st.lists(NAMES | pick(["..", "", ".", "/"]), min_size=1, max_size=3))
            name = "/".join(parts) + draw(pick([".png", "/0.png", ".cls", ".json", ""]))
            usual_names = {"classes": f"{'ab'[i % 2]}/{i}.png", "shard": f"{i // 2}.{['png', 'cls'][i % 2]}"}
            name = usual_names.get(right) or name
            odd = draw(st.integers(0, 9)) == 0 or right == "odd"
            info = tarfile.TarInfo(name)
            kinds = [tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE]
            info.type = draw(pick(kinds)) if odd else tarfile.REGTYPE
            info.linkname = draw(pick(["/etc/passwd", "../x", "a", name]))
            usual = b"1" if name.endswith(".cls") else PICTURES[i % 8]
            content = draw(pick([usual, b"", b"{", b'{"label": [1]}', b"cat"])) if odd else usual
            info.size = len(content) if info.isreg() else 0
            made.addfile(info, io.BytesIO(content))
    content = file.read_bytes()
    keep = seldom(draw, st.integers(0, len(content)), len(content), 8)
    file.write_bytes(content[:keep])
    if draw(st.integers(1, 12)) == 12:
        file = file.rename(folder / draw(pick(["x.zip", "x.tar", "x.tar.gz", "x.npz", "x.npy"])))
    return lambda: (examine(file), read_manifest(file))


@st.composite
def tree(draw: Callable, folder: Path) -> Call:
    """A folder of images."""
    if draw(st.booleans()):
        pictures(folder)
    for i in range(draw(st.integers(0, 6))):
        place = folder.joinpath(*draw(st.lists(NAMES, max_size=3)))
        kind = draw(pick(["png"] * 5 + ["empty", "pipe", "link", "loop", "bytes", "text", "cut"]))
        with contextlib.suppress(OSError, ValueError):
            place.mkdir(parents=True, exist_ok=True)
            file = place / f"{i}{draw(pick(['.png', '.png', '.jpg', '.PNG', '.gif', '.tif']))}"
            if kind == "png":
                file.write_bytes(PICTURES[draw(st.integers(0, 7))])
            elif kind == "cut":
                file.write_bytes(PICTURES[0][:60])
            elif kind == "text":
                file.write_text("<html>")
            elif kind == "empty":
                file.touch()
            elif kind == "pipe":
                os.mkfifo(file)
            elif kind == "bytes":
                Path(os.fsdecode(os.fsencode(place) + b"/\xff\xfe.png")).write_bytes(PICTURES[i])
                if draw(st.booleans()):
                    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xe9"))
                    odd.mkdir(exist_ok=True)
                    (odd / "x.png").write_bytes(PICTURES[i])
            else:
                file.symlink_to(folder if kind == "link" else file)
    group = draw(pick([None, None, None, "near-copies", "exif", "(", "{class}/(.)", "(.*)", "x"]))
    return lambda: (examine(folder, group=group), read_manifest(folder, group=group, allow_empty=True))


STRATEGIES = (
    recipe,
    assignment,
    table,
    parquet,
    card,
    record,
    answers,
    checkpoint,
    graph,
    idx,
    archive,
    tree,
)
KINDS = {one.__name__: one for one in STRATEGIES}
