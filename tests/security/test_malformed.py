"""Inputs of odd structure: those that `benchmarks/malformed.py` found, and a few new ones of every kind."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from potstill.artifacts import MANIFEST, read_json, sealed, stage, write_json
from potstill.data.checks import examine
from potstill.data.formats import read_manifest
from potstill.errors import DataError, ModelError
from potstill.model_files.onnx import OnnxModel
from potstill.models.weights import read_state
from potstill.stages.images_record import ImagesRecord
from potstill.stages.run_folder import Journal
from potstill.teachers.prediction_files import read_predictions
from tests.data.pictures import picture

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "malformed.py"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def malformed() -> ModuleType:
    pytest.importorskip("hypothesis")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARK.parent)
        return importlib.import_module("malformed")


KINDS = "recipe assignment table parquet card record answers checkpoint graph idx archive tree".split()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_odd_structure_are_read_or_refused(malformed, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert sorted(malformed.KINDS) == sorted(KINDS)
    outcomes, bad = malformed.tried(kind, 6, 20)
    assert not bad and sum(outcomes.values()) >= 6


RECORDS = {
    "a list of notes": ("journal.json", {"seconds": {}, "notes": [["a"]]}),
    "seconds as text": ("journal.json", {"seconds": {"a": "x"}, "notes": []}),
    "no reads": ("images.json", {}),
    "a read that is text": ("images.json", {"reads": ["x"]}),
    "a read without images": ("images.json", {"reads": [{"reader": "images", "path": "x", "fingerprint": "0"}]}),
}


@pytest.mark.parametrize("kind", RECORDS)
def test_records_of_other_contents_are_set_aside(tmp_path: Path, kind: str) -> None:
    name, content = RECORDS[kind]
    write_json(tmp_path / name, sealed(content) if name == "images.json" else content)
    write_json(tmp_path / "part" / MANIFEST, {})
    Journal(tmp_path, []).timed("a", "b", lambda: None)
    ImagesRecord(tmp_path, "potstill").compare()
    assert (tmp_path / f"{name}.damaged").is_file()


def test_a_manifest_without_inputs_is_set_aside_and_its_part_made_again(tmp_path: Path) -> None:
    write_json(tmp_path / MANIFEST, sealed({"figure": 7}))
    assert stage(tmp_path, {"seed": 0}, lambda: {"figure": 8})["figure"] == 8
    assert (tmp_path / f"{MANIFEST}.damaged").is_file()


@pytest.mark.parametrize("size", [[1, 2, 3], 5, "88", [8]])
def test_a_card_beside_a_foreign_graph_has_two_sides(tmp_path: Path, size: object) -> None:
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["b", 1, 1, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["b", 2])],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    write_json(tmp_path / "m.card.json", {"classes": ["a", "b"], "mean": [0], "std": [1], "size": size})
    with pytest.raises(ModelError, match=r"m\.(card\.json|onnx)"):
        OnnxModel(tmp_path / "m.onnx", threads=1)


ANSWERS = {
    "no lines": {"logits": np.zeros((0, 3))},
    "no columns": {"logits": np.zeros((3, 0))},
    "no labels": {"labels": np.zeros(0, np.int64)},
    "text": {"probabilities": np.full((2, 2), "x")},
    "complex": {"logits": np.zeros((2, 2), np.complex64)},
    "names of names": {"logits": np.eye(2), "names": np.full((2, 2), "x")},
    "rows of text": {"logits": np.eye(2), "rows": np.full(2, "x")},
    "no class": {"logits": np.eye(2), "classes": np.array("x")},
}


@pytest.mark.parametrize("kind", ANSWERS)
def test_answers_of_odd_arrays_are_refused(tmp_path: Path, kind: str) -> None:
    np.savez(tmp_path / "p.npz", **ANSWERS[kind])
    with pytest.raises(DataError, match="p.npz"):
        read_predictions(tmp_path / "p.npz")


def test_answers_in_latin_1_are_told_to_be_saved_as_utf_8(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_bytes("image,label\nx.png,café\n".encode("latin-1"))
    with pytest.raises(DataError, match="is not text in UTF-8 .byte .* Save it as UTF-8"):
        read_predictions(tmp_path / "p.csv")


@pytest.mark.parametrize("keep", [20, 60, 200])
def test_a_truncated_checkpoint_of_old_torch_is_damaged(tmp_path: Path, keep: int) -> None:
    torch.save({"w": torch.ones(2)}, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    (tmp_path / "w.pth").write_bytes((tmp_path / "w.pth").read_bytes()[:keep])
    with pytest.raises(ModelError, match="truncated or damaged|contains code"):
        read_state(tmp_path / "w.pth")


def test_names_that_are_not_utf_8_are_used_or_named(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path / "x")
    for name in (b"a/\xff.png", b"a/1.png", b"b/\xfe\xff.png", b"b/2.png"):
        file = Path(os.fsdecode(root + b"/" + name))
        file.parent.mkdir(parents=True, exist_ok=True)
        picture(repr(name)).save(file)
    manifest = read_manifest(tmp_path / "x", group="/(.)")
    assert len(manifest) == 4 and len(examine(tmp_path / "x").findings) == 0
    write_json(tmp_path / "names.json", list(manifest.source.names))
    assert read_json(tmp_path / "names.json") == list(manifest.source.names)
    odd = Path(os.fsdecode(root + b"/\xe9"))
    odd.mkdir()
    picture("z").save(odd / "z.png")
    with pytest.raises(DataError, match="has a name that is not UTF-8. Rename its folder"):
        read_manifest(tmp_path / "x")
