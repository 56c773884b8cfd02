"""Inputs of odd structure: those that `benchmarks/malformed.py` found, and a few new ones of every kind."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from potstill.artifacts import read_json, write_json
from potstill.data.checks import examine
from potstill.data.formats import read_manifest
from potstill.errors import DataError, ModelError
from potstill.models.weights import read_state
from potstill.teachers.prediction_files import read_predictions
from tests.data.pictures import picture

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "malformed.py"


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def malformed() -> ModuleType:
    pytest.importorskip("hypothesis")
    spec = importlib.util.spec_from_file_location("malformed", BENCHMARK)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KINDS = "recipe assignment table card answers checkpoint graph idx archive tree".split()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_inputs_of_odd_structure_are_read_or_refused(malformed, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert sorted(malformed.KINDS) == sorted(KINDS)
    outcomes, bad = malformed.tried(kind, 6, 20)
    assert not bad and sum(outcomes.values()) >= 6


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
