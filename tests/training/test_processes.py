"""Several processes do the same as one: the same losses, answers and stores, and a whole run; only one writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from potstill import distributed
from potstill.errors import UserError
from potstill.objectives.objective import check, check_parts, lecture_terms
from potstill.teachers import prediction_store as store_module
from potstill.teachers.prediction_store import Store
from tests.test_road import write_tree
from tests.training import job
from tests.worlds import shapes

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """What the job leaves behind when it is done by one process, and by two."""
    parent = tmp_path_factory.mktemp("processes")
    tree = write_tree(parent / "tree", count=60)
    one, two = parent / "one", parent / "two"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(job.engine.__file__).parents[2])]),
        "OMP_NUM_THREADS": "1",
        "POTSTILL_CACHE": str(parent / "cache"),
        "PYTHONWARNINGS": "ignore",
    }
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "training" / "job.py"), str(two), str(tree)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    before = store_module.PART_ROWS
    try:
        job.main(one, tree)
    finally:
        store_module.PART_ROWS = before
    return one, two


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", ["dense", "convolution"])
def test_two_processes_have_the_loss_curve_of_one(folders: tuple[Path, Path], kind: str) -> None:
    one, two = (rows(folder / kind) for folder in folders)
    assert len(one) == len(two) == 3
    for ours, theirs in zip(one, two, strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["train"] == pytest.approx(theirs["train"], rel=1e-4)
        assert ours["validation"] == pytest.approx(theirs["validation"], rel=1e-3)
    weights = [load_file(folder / kind / "model.safetensors") for folder in folders]
    for name, tensor in weights[0].items():
        assert np.allclose(tensor, weights[1][name], atol=1e-4), name


def test_batchnorm_sees_its_stripe_and_learns_all_the_same(folders: tuple[Path, Path]) -> None:
    """On CPUs BatchNorm normalises over the stripe, so the curves are near and not equal."""
    one, two = (rows(folder / "batchnorm") for folder in folders)
    assert one[-1]["train"]["loss"] == pytest.approx(two[-1]["train"]["loss"], rel=0.15)
    assert two[-1]["train"]["loss"] < two[0]["train"]["loss"]


def test_two_writers_make_the_store_of_one(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PART_ROWS", 10)
    kept = shapes(231).rows("train")
    one, two = (Store(folder / "store", kept, 2, {"teacher": "t"}) for folder in folders)
    assert one.complete and two.complete
    for view in (0, 1):
        said = [store.read(kept, np.full(len(kept), view))["logits"] for store in (one, two)]
        assert np.array_equal(*said)


def files(folder: Path) -> set[Path]:
    """Return what is in a run folder, but for stores, whose names depend on the last bit of the teacher."""
    found = {file.relative_to(folder) for file in folder.rglob("*") if file.is_file()}
    return {file for file in found if file.parts[0] != "stores"}


def test_a_whole_run_is_the_same_but_for_what_is_measured(folders: tuple[Path, Path]) -> None:
    one, two = (json.loads((folder / "road" / "summary.json").read_text()) for folder in folders)
    assert files(folders[0] / "road") == files(folders[1] / "road") != set()
    assert one["recipe"] == two["recipe"] and one["data"] == two["data"]
    for kind in ("teacher", "control", "student"):
        assert one["models"][kind]["accuracy"] == pytest.approx(two["models"][kind]["accuracy"], abs=10)
        assert two["models"][kind]["parameters"] == one["models"][kind]["parameters"]
    record = json.loads((folders[1] / "road" / "distill" / "seed-0" / "manifest.json").read_text())
    assert record["computed"]["processes"] == 2


@pytest.mark.parametrize(
    "place", ["fine/tuned", "qat/trained", "self/teachers/teacher-0/fold-0/seed-0", "self/labels-only/seed-0"]
)
def test_commands_that_train_have_the_loss_curve_of_one_process(folders: tuple[Path, Path], place: str) -> None:
    one, two = (rows(folder / place) for folder in folders)
    assert len(one) == len(two) > 0
    for ours, theirs in zip(one, two, strict=True):
        assert ours["step"] == theirs["step"]
        assert ours["train"] == pytest.approx(theirs["train"], rel=1e-3)
    kind = place.partition("/")[0]
    summaries = [json.loads((folder / kind / "summary.json").read_text()) for folder in folders]
    assert summaries[0]["models"].keys() == summaries[1]["models"].keys()
    record = json.loads((folders[1] / place / "manifest.json").read_text())
    assert record["computed"]["processes"] == 2


def test_what_needs_the_whole_batch_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="The loss dist compares the images of a whole batch"):
        check(lecture_terms(alpha=0.5, temperature=2.0, loss="dist"), classes=10, teacher=True)
    check(lecture_terms(alpha=0.5, temperature=2.0), classes=10, teacher=True)


def test_losses_of_whole_batches_are_not_accumulated() -> None:
    with pytest.raises(UserError, match="The loss dist compares .* and train.accumulate=4 computes a batch in parts"):
        check_parts(lecture_terms(alpha=0.5, temperature=2.0, loss="dist"), 4)
    check_parts(lecture_terms(alpha=0.5, temperature=2.0, loss="dist"), 1)
    check_parts(lecture_terms(alpha=0.5, temperature=2.0), 4)


def test_commands_that_are_not_shared_out_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    import potstill

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert distributed.rank() == 1 and not distributed.is_main()
    with pytest.raises(UserError, match="prune works in one process. Start it without torchrun"):
        potstill.prune("model.onnx")


def test_one_process_gathers_its_own() -> None:
    assert distributed.gather("said") == ["said"] and distributed.broadcast(3) == 3
    values = np.arange(6.0).reshape(3, 2)
    assert np.array_equal(distributed.gather_rows(values, np.array([2, 0, 1]), 3), values[[1, 2, 0]])
    with pytest.raises(AssertionError, match="missing or occurs twice"):
        distributed.gather_rows(values, np.array([2, 0, 0]), 3)
