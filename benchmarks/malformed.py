"""Malformed and hostile inputs by structure: is every one read, or refused in a sentence?

Hypothesis builds recipes, overrides, tables, cards, answers, checkpoints, ONNX graphs, IDX files, archives and folders
whose *structure* is odd; random bytes find next to nothing. Each is given to the function that reads it. Counted are
tracebacks (any error that is no `UserError`), calls that take over 20 seconds, memory over 2 GB, code that was executed
and files written outside. `python benchmarks/malformed.py [INPUTS [SEED]]` prints a table and every failing input.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from potstill.config import build, override, read_yaml
from potstill.data.checks import examine
from potstill.data.formats import read_manifest
from potstill.errors import UserError
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.onnx import OnnxModel
from potstill.models import zoo
from potstill.models.card_record import card_from_json
from potstill.models.weights import read_state
from potstill.progress import Display, use
from potstill.stages.compare.settings import CompareConfig
from potstill.stages.finetune import FinetuneConfig
from potstill.stages.recipe import Recipe
from potstill.teachers.prediction_files import read_predictions

SECONDS, MEMORY = 20, 2 * 2**30
CHECKS = list(HealthCheck)

pick = st.sampled_from
SCALARS = (
    st.none()
    | st.booleans()
    | pick([0, -1, 1, 2, 10**30, 1e308, -0.0, float("nan"), float("inf"), 1.5])
    | pick(["", " ", "a", "b", "../x", "/etc/passwd", "x" * 300, "é", "\x00", "\x1b[2J", "[/b]", "=1+1"])
    | pick(["nan", "None", "2026-01-31", "1e3", "evil.py:f", "builtin:cnn", "kd", "auto", "NULL", "a|b", "01"])
)
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
    memory = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(memory, "PNG")
    return memory.getvalue()


@st.composite
def changed(draw: Callable, base: dict[str, Any]) -> Any:
    """Return a JSON value with some of its parts replaced, removed or added."""
    value = json.loads(json.dumps(base))
    for _ in range(draw(st.integers(1, 3))):
        inner = value
        while isinstance(inner, dict) and inner:
            key = draw(pick(sorted(inner)) | KEYS)
            if isinstance(inner.get(key), dict) and draw(st.booleans()):
                inner = inner[key]
                continue
            if draw(st.integers(0, 3)) == 0:
                inner.pop(key, None)
            else:
                inner[key] = draw(TREES)
            break
    return value if draw(st.integers(0, 9)) else draw(TREES)


CARD = zoo.create("builtin:mlp", classes=("a", "b"), size=(8, 8), channels=3).card.to_json()
RECIPES = {
    kind: kind.model_validate(least).to_json()
    for kind, least in (
        (Recipe, {"data": {"path": "x"}}),
        (FinetuneConfig, {"data": {"path": "x"}, "model": "resnet18"}),
        (CompareConfig, {"data": {"path": "x"}, "students": {"s": {}}, "methods": {"kd": {}}}),
    )
}


@st.composite
def recipe(draw: Callable, folder: Path) -> Callable[[], Any]:
    kind = draw(pick(sorted(RECIPES, key=lambda one: one.__name__)))
    text = json.dumps(draw(changed(RECIPES[kind])))
    if draw(st.booleans()):
        text = draw(pick(["", "a: &a [*a]\n", "? [1]\n: 2\n", "- 1\n", "1: 2\n", "<<: 3\n", "a: !!set {1}\n"])) + text
    (folder / "r.yaml").write_text(text)
    return lambda: build(kind, read_yaml(folder / "r.yaml"))


@st.composite
def assignment(draw: Callable, folder: Path) -> Callable[[], Any]:
    keys = pick(["train.epochs", "data", "a.b.c", "", ".", "objective.terms.0.loss", "seed", "students.x.y", "é"])
    values = pick(["[", "{", "3", "null", "&a [*a]", "2026-01-31", "!!python/x 1", "a: b: c", "'", "- x", "\t"])
    given_ = draw(st.lists(st.tuples(keys, values), max_size=3))
    text = [f"{key}={value}" if draw(st.integers(0, 9)) else key for key, value in given_]
    return lambda: build(Recipe, override(RECIPES[Recipe], text))


@st.composite
def table(draw: Callable, folder: Path) -> Callable[[], Any]:
    columns = draw(st.lists(KEYS | pick(["Path", "class", "labels", "y", "cat", "dog", "file_name"]), max_size=4))
    paths = pick(["a/0.png", "a/1.png", "b/2.png", "./a/0.png", "a\\0.png", "none.png", "", "\x00", "/dev/zero", "a"])
    rows = [
        [draw(paths) if "path" in name.lower() or name == "image" else draw(SCALARS | TREES) for name in columns]
        for _ in range(draw(st.integers(0, 6)))
    ]
    if draw(st.booleans()):
        file = folder / "t.jsonl"
        lines = [json.dumps(dict(zip(columns, row, strict=True))) for row in rows] + draw(
            st.lists(st.just("[" * 2000), max_size=1)
        )
        file.write_text("\n".join(lines))
    else:
        file = folder / draw(pick(["t.csv", "t.tsv"]))
        separator = draw(pick([",", ";", "\t", "|"]))
        quote = draw(pick(["", '"']))
        text = "\n".join(separator.join(f"{quote}{cell}{quote}" for cell in row) for row in [columns, *rows])
        file.write_bytes(text.encode(draw(pick(["utf-8", "utf-16", "utf-8-sig"])), "replace"))
    return lambda: (examine(file), read_manifest(file))


@st.composite
def card(draw: Callable, folder: Path) -> Callable[[], Any]:
    value = draw(changed(CARD))
    save_model(zoo.create("builtin:mlp", classes=("a", "b"), size=(8, 8), channels=3), folder)
    (folder / "card.json").write_text(json.dumps(value))
    return lambda: (card_from_json(value), load_model(folder))


@st.composite
def answers(draw: Callable, folder: Path) -> Callable[[], Any]:
    if draw(st.booleans()):
        names = draw(st.lists(pick("logits probabilities labels names rows classes x".split()), max_size=4))
        shapes = pick([(), (0,), (3,), (3, 2), (3, 0), (2, 2, 2), (1, 1)])
        kinds = pick(["f4", "i8", "U3", "?", "c8", "S2", "f2", "M8[s]", "O"])
        made = {name: np.full(draw(shapes), draw(pick([0, 1, 7]))).astype(draw(kinds)) for name in names}
        np.savez(folder / "p.npz", **made)
        return lambda: read_predictions(folder / "p.npz")
    columns = draw(st.lists(pick(["", *"image row a b label prediction".split()]), max_size=4))
    cells = pick(["", "1", "0.5", "nan", "inf", "-1e999", "a", "a/0.png", '"', "'=1", "1,2"])
    rows = [[draw(cells) for _ in range(draw(st.integers(0, 4)))] for _ in range(draw(st.integers(0, 4)))]
    text = "\n".join(",".join(row) for row in [columns, *rows])
    (folder / "p.csv").write_bytes(text.encode(draw(pick(["utf-8", "latin-1", "utf-16"]))))
    return lambda: read_predictions(folder / "p.csv")


@st.composite
def checkpoint(draw: Callable, folder: Path) -> Callable[[], Any]:
    leaves = (
        SCALARS
        | st.builds(Evil)
        | st.builds(lambda: torch.ones(2))
        | st.builds(lambda: np.float64(1))
        | st.just(Path("x"))
    )
    keys = KEYS | pick(["module.w", "net", "optimizer", "w", "b"]) | pick([1, None, (1, 2)])
    value = draw(
        st.recursive(
            leaves, lambda one: st.lists(one, max_size=3) | st.dictionaries(keys, one, max_size=4), max_leaves=10
        )
    )
    if isinstance(value, dict) and draw(st.booleans()):
        value["itself"] = value
    torch.save(value, folder / "w.pth", _use_new_zipfile_serialization=draw(st.booleans()))
    content = (folder / "w.pth").read_bytes()
    (folder / "w.pth").write_bytes(content[: draw(pick([len(content), len(content) // 2, 20]))])
    return lambda: read_state(folder / "w.pth")


@st.composite
def graph(draw: Callable, folder: Path) -> Callable[[], Any]:
    sides = pick([0, 1, 2, 3, 8, "b", "h"])
    shape = draw(st.lists(sides, max_size=5)) if draw(st.booleans()) else ["b", 3, 8, 8]
    kind = draw(pick([TensorProto.FLOAT, TensorProto.UINT8, TensorProto.STRING, TensorProto.FLOAT16]))
    operators = draw(
        st.lists(pick(["Flatten", "Softmax", "Relu", "GlobalAveragePool", "Shape", "NoSuchOp", "Neg"]), max_size=3)
    )
    names = ["x", *(f"n{i}" for i in range(len(operators)))]
    nodes = [helper.make_node(op, [a], [b]) for op, a, b in zip(operators, names, names[1:], strict=False)]
    outputs = [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, draw(st.lists(sides, max_size=4)))]
    weight = numpy_helper.from_array(np.ones(draw(st.integers(0, 3)), np.float32), "w")
    made = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("x", kind, shape)], outputs, [weight])
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", draw(pick([1, 17, 99])))], ir_version=9)
    value = draw(changed(CARD))
    if draw(st.booleans()):
        model.metadata_props.add(key="potstill.card", value=json.dumps(value))
        model.metadata_props.add(key="potstill.temperature", value=draw(pick(["1", "x", "nan", ""])))
    (folder / "m.card.json").write_text(
        json.dumps(draw(changed({k: CARD[k] for k in ("classes", "mean", "std", "size")})))
    )
    onnx.save(model, folder / "m.onnx")
    return lambda: OnnxModel(folder / "m.onnx", threads=1)(torch.zeros(2, 3, 8, 8))


@st.composite
def idx(draw: Callable, folder: Path) -> Callable[[], Any]:
    for split in ("train", "t10k"):
        for what, dimensions in (("images-idx3", 3), ("labels-idx1", 1)):
            if draw(st.integers(0, 9)) == 0:
                continue
            shape = draw(st.lists(pick([0, 1, 2, 4, 2**32 - 1]), min_size=dimensions, max_size=dimensions))
            size = draw(pick([0, 1, 4, 64, int(np.prod(shape, dtype=object)) % 4096]))
            head = bytes([0, 0, draw(pick([8, 9, 13])), dimensions]) + np.array(shape, ">u4").tobytes()
            (folder / f"{split}-{what}-ubyte").write_bytes(head + bytes(i % 3 for i in range(size)))
    return lambda: (examine(folder), read_manifest(folder))


@st.composite
def archive(draw: Callable, folder: Path) -> Callable[[], Any]:
    ending = draw(pick(["", ".gz", ".bz2", ".xz"]))
    file = folder / f"x.tar{ending}"
    with tarfile.open(file, f"w:{ending[1:]}") as made:
        for i in range(draw(st.integers(0, 6))):
            parts = draw(st.lists(NAMES | pick(["..", "", "."]), min_size=1, max_size=3))
            info = tarfile.TarInfo("/".join(parts) + draw(pick([".png", "/0.png", ".cls", ".json", ""])))
            info.type = draw(pick([tarfile.REGTYPE] * 6 + [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE]))
            info.linkname = draw(pick(["/etc/passwd", "../x", "a"]))
            content = draw(pick([picture(i), b"", b"{", b'{"label": [1]}', b"cat"])) if info.isreg() else b""
            info.size = len(content)
            made.addfile(info, io.BytesIO(content))
    content = file.read_bytes()
    place = draw(st.integers(0, len(content)))
    file.write_bytes(content if draw(st.booleans()) else content[:place])
    return lambda: (examine(file), read_manifest(file))


@st.composite
def tree(draw: Callable, folder: Path) -> Callable[[], Any]:
    for i in range(draw(st.integers(0, 8))):
        place = folder.joinpath(*draw(st.lists(NAMES, max_size=3)))
        kind = draw(pick(["png"] * 5 + ["empty", "pipe", "link", "loop", "bytes"]))
        with contextlib.suppress(OSError, ValueError):
            place.mkdir(parents=True, exist_ok=True)
            file = place / f"{i}.png"
            if kind == "png":
                file.write_bytes(picture(draw(st.integers(0, 3))))
            elif kind == "empty":
                file.touch()
            elif kind == "pipe":
                os.mkfifo(file)
            elif kind == "bytes":
                Path(os.fsdecode(os.fsencode(place) + b"/\xff\xfe.png")).write_bytes(picture(i))
                if draw(st.booleans()):
                    odd = Path(os.fsdecode(os.fsencode(folder) + b"/\xe9"))
                    odd.mkdir(exist_ok=True)
                    (odd / "x.png").write_bytes(picture(i))
            else:
                file.symlink_to(folder if kind == "link" else file)
    group = draw(pick([None, None, "near-copies", "exif", "(", "{class}/(.)", "(.*)", "x"]))
    return lambda: (examine(folder, group=group), read_manifest(folder, group=group, allow_empty=True))


KINDS = {one.__name__: one for one in (recipe, assignment, table, card, answers, checkpoint, graph, idx, archive, tree)}


class Hang(BaseException):
    """A call that took longer than `SECONDS`."""


def _late(*_: Any) -> None:
    raise Hang


def judged(work: Callable[[], Any]) -> tuple[str, str]:
    """Return what became of a call (read, refused, traceback, hang), and the text of the error."""
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    try:
        with use(Display()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except UserError as error:
        return "refused", str(error)
    except Hang:
        return "hang", ""
    except Exception:
        return "traceback", traceback.format_exc()
    finally:
        signal.alarm(0)
    return "read", ""


def tried(kind: str, inputs: int, start: int) -> tuple[Counter[str], list[str]]:
    """Return the outcomes of so many inputs of a kind, and the text of the bad ones."""
    outcomes: Counter[str] = Counter()
    bad: list[str] = []

    @seed(start)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one(data: Any) -> None:
        with tempfile.TemporaryDirectory() as outer:
            folder = Path(outer) / "in"
            folder.mkdir()
            os.chdir(outer)
            work = data.draw(KINDS[kind](folder))
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            outcome, text = judged(work)
            if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 > MEMORY and before * 1024 <= MEMORY:
                outcome, text = "memory", text
            if {path.name for path in Path(outer).iterdir()} != {"in"}:
                outcome, text = "wrote outside", str(list(Path(outer).iterdir()))
            os.chdir("/")
        outcomes[outcome] += 1
        if outcome not in ("read", "refused"):
            bad.append(f"{kind}: {outcome}\n{text}")

    one()
    return outcomes, bad


def main(inputs: int, start: int) -> int:
    """Print a table of outcomes by kind, then what is wrong; return how many inputs are."""
    os.environ["POTSTILL_CACHE"] = tempfile.mkdtemp()
    began, wrong = time.perf_counter(), []
    for kind in KINDS:
        outcomes, bad = tried(kind, max(inputs // len(KINDS), 1), start)
        print(f"{kind:<12}", "  ".join(f"{name} {count}" for name, count in sorted(outcomes.items())), flush=True)
        wrong += bad
    shown = {text.rstrip().splitlines()[-1]: text for text in wrong}
    print(f"{len(wrong)} of {inputs} wrong, {len(shown)} different, {time.perf_counter() - began:.0f} s")
    for text in shown.values():
        print(text[-1500:])
    return len(wrong)


if __name__ == "__main__":
    numbers = [int(text) for text in sys.argv[1:3]]
    sys.exit(bool(main(*(numbers + [1000, 0][len(numbers) :]))))
