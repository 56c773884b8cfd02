"""The benchmarks: figures by hand, sides that work, a record true to its figures, scripts that can be used."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import multiprocessing
import os
import runpy
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.peers import accuracy, loading, rivals, scale, sides, speed, until
from benchmarks.peers.bars import Bar, judge, table, where
from benchmarks.peers.world import STUDENT, TEACHER, World, generated, load, save
from potstill import runtime
from potstill.errors import RunError
from potstill.training.autotune import ExecutionPlan

ROOT = Path(__file__).parents[2]
RATES = {
    "none": [1100.0, 900.0],
    "stored": [1000.0, 1000.0],
    "hand": [1020.0, 1010.0],
    "forward": [4000.0, 4000.0],
    "store": [3600.0, 4000.0],
    "plain, no workers": [100.0, 100.0],
    "plain, 2 workers": [250.0, 200.0],
    "torchdistill": [125.0, 200.0],
}


def test_figures_by_hand() -> None:
    found = speed.figures(RATES, start=50.0)
    assert found["stored_over_none"] == pytest.approx((1.1 + 0.9) / 2)
    assert found["over_plain"] == pytest.approx((4 + 5) / 2)  # of the faster plain loop
    seconds = 500 + 100_000 / 3600 + 50, 500 + 100_000 / 4000 + 50
    assert found["over_plain_with_writing"] == pytest.approx((2000 / seconds[0] + 2500 / seconds[1]) / 2, abs=1e-3)
    assert found["over_torchdistill"] == pytest.approx((8 + 5) / 2)
    assert found["overhead"] == pytest.approx(0.015)  # a fraction
    assert found["store_over_forward"] == pytest.approx(0.95)


def test_what_is_absent_is_null() -> None:
    found = speed.figures({name: rates for name, rates in RATES.items() if name != "torchdistill"}, start=0.0)
    assert found["over_torchdistill"] is None and list(found) == list(speed.BARS)


def test_bars_are_met_or_missed() -> None:
    bars = {"a": Bar(0.03, True, "A", percent=True), "b": Bar(5.0, False, "B"), "c": Bar(1.0, False, "C")}
    judged = judge(bars, {"a": 0.031, "b": 5.0, "c": None})
    assert [bar["verdict"] for bar in judged.values()] == ["missed", "met", "not measured"]
    assert judged["a"]["measured"] == "3.1 %" and judged["a"]["bar"] == "at most 3.0 %"
    assert "| `b` | B | 5.00 | at least 5.00 | met |" in table(judged)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small networks in place of the ResNets, computed in a plan that needs no measuring: as right, and sooner done."""
    for module in (accuracy, rivals, sides):
        monkeypatch.setattr(module, "TEACHER", "builtin:small-cnn")
        monkeypatch.setattr(module, "STUDENT", "builtin:small-cnn")
    monkeypatch.setattr(sides, "student_plan", lambda world: ExecutionPlan("bf16", channels_last=True))
    monkeypatch.setattr(sides, "teacher_plan", lambda world: ExecutionPlan())


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("name", ["none", "stored", "hand", "store", "forward", "plain, no workers"])
def test_every_side_works(tmp_path: Path, name: str) -> None:
    save(generated(256), tmp_path / "world.npz")
    step = sides.SIDES[name](load(tmp_path / "world.npz"), tmp_path)
    images = {"store": 256, "forward": 256}.get(name, 128)
    assert [step() for _ in range(2)] == [images, images]


@pytest.mark.usefixtures("small")
def test_both_loops_are_trained_and_compared() -> None:
    world = generated(128)
    found = accuracy.measure(world, World(world.images[:50], world.label[:50]), epochs=1, seeds=2, threads=1)
    assert {name: len(values) for name, values in found["accuracy"].items()} == {"plain": 2, "potstill": 2}
    assert all(took > 0 for took in found["seconds"].values())
    assert found["figures"]["lower_end"] <= found["figures"]["difference"] <= found["figures"]["upper_end"]
    assert found["verdict"]["result"] in accuracy.table(found) and "128 training images, 1 epoch, " in accuracy.table(
        found
    )


@pytest.mark.usefixtures("small")
def test_each_difference_is_trained_alone() -> None:
    world = generated(128)
    test = World(world.images[:20], world.label[:20])
    found = accuracy.explain(world, test, epochs=1, seeds=1, threads=1)
    assert list(found["accuracy"]) == list(rivals.VARIANTS)
    assert all(len(values) == 1 for values in found["accuracy"].values())
    assert f"| nesterov | {found['accuracy']['nesterov'][0]:.2f} |" in accuracy.explained(found)
    one, two = (rivals.InMemory(world, rivals.Variant(views=1))[0][0] for _ in range(2))
    assert (one == two).all() and not (one == rivals.InMemory(world)[0][0]).all()


@pytest.mark.usefixtures("small")
def test_minutes_until_an_accuracy_are_measured_and_kept(tmp_path: Path) -> None:
    world = generated(128)
    test = World(world.images[:20], world.label[:20])
    settings = {"loops": ("potstill", "plain"), "budgets": (1, 2), "views": (1, 2), "threads": 1, "keep": tmp_path}
    settings["apart"] = False
    found = until.measure(world, test, 0.0, **settings)
    assert [[one["epochs"] for one in loop] for loop in found["loops"].values()] == [[1], [1]]
    minutes = [loop[0]["minutes"] for loop in found["loops"].values()]
    assert minutes[0] > 0 and found["figures"]["over_plain"] == pytest.approx(minutes[1] / minutes[0])
    assert found["figures"]["over_torchdistill"] is None and "| plain | 1 | 1 | " in until.table(found)
    never = until.measure(world, test, 101.0, **settings)
    assert [[one["epochs"] for one in loop] for loop in never["loops"].values()] == [[1, 1, 2, 2], [1, 2]]
    assert [one["views"] for one in never["loops"]["potstill"]] == [1, 2, 1, 2]
    assert never["loops"]["plain"][0]["minutes"] == minutes[1], "a finished training is not repeated"
    assert never["figures"]["over_plain"] is None and until.table(never).count("not reached") == 6


def _environment() -> dict[str, str]:
    return {**os.environ, "start method": multiprocessing.get_start_method()}


def test_only_our_loops_run_in_the_environment_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    ours, published = (until.run_apart(_environment, ours=ours) for ours in (True, False))
    assert runtime.environment({}).keys() & ours.keys() and ours["THP_MEM_ALLOC_ENABLE"] == "1"
    assert ours.get("OMP_WAIT_POLICY") != "ACTIVE" and not {*runtime.VARIABLES} & published.keys()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    assert published["start method"] == multiprocessing.get_start_method()
    one = until.Training("plain", 1, None, 1e-4)
    assert not one.ours and until.Training(until.BLOCKS, 1, 2, 1e-4).ours


def test_one_loop_starts_with_blocks_of_the_teacher(tmp_path: Path) -> None:
    teacher = generated(20).network(TEACHER, 1)
    save_file(teacher.network.state_dict(), tmp_path / "teacher.safetensors")
    world = World(*(getattr(generated(20), name) for name in ("images", "label")), tmp_path / "teacher.safetensors")
    started, other = (world.network(STUDENT, 0, blocks=blocks).network.state_dict() for blocks in (True, False))
    known = list(teacher.network.state_dict().values())
    assert all(any(torch.equal(value, one) for one in known) for value in started.values())
    assert not all(torch.equal(started[name], other[name]) for name in started)
    assert until.BLOCKS in until.LOOPS and f"over_{until.BLOCKS}" not in until.BARS


@pytest.mark.parametrize("loop", ["plain", "torchdistill"])
def test_an_interrupted_training_of_a_rival_goes_on(loop: str, tmp_path: Path) -> None:
    if loop == "torchdistill":
        pytest.importorskip("torchdistill")
    world, training = generated(256), until.Training(loop, 2, None, 1e-4)
    whole, _, machines = training.trained(world, None)
    torch.manual_seed(0)
    student = world.network(until.STUDENT, 0)
    if loop == "plain":
        student, step = until.Plain(world, 2, sgd=rivals.SGD).begun(0)
    else:
        step = rivals.Theirs(world, student, epochs=2)
    seconds, _ = until.by_epochs(step, 1, 2, tmp_path / "going.pt")
    torch.manual_seed(5)
    resumed, total, known = training.trained(world, tmp_path / "going.pt")
    assert total > seconds > 0 and known == machines
    weights = whole.state_dict()
    if loop == "plain":  # the workers of the other one draw from seeds of their own
        assert all(torch.equal(value, weights[name]) for name, value in resumed.state_dict().items())
    ends = torch.load(tmp_path / "going.pt", weights_only=False)
    assert ends["done"] == 2 and ends["machines"] == machines


def test_torchdistill_works() -> None:
    pytest.importorskip("torchdistill")
    world = generated(256)
    assert sides.SIDES["torchdistill"](world, Path())() == 128
    assert until.Training("torchdistill", 1, None, 1e-4).trained(world, None)[0].network is not None


def test_worlds_are_saved(tmp_path: Path) -> None:
    made = World(generated(16).images, np.arange(16) % 10, Path("weights.safetensors"))
    save(made, tmp_path / "w.npz")
    again = load(tmp_path / "w.npz")
    assert np.array_equal(again.images, made.images) and again.weights == made.weights
    assert len(again.manifest.rows("train")) == 16


@pytest.mark.slow
def test_a_side_that_dies_is_told(tmp_path: Path) -> None:
    side = speed.Side("stored", tmp_path / "no.npz", tmp_path / "side", threads=1, python=sys.executable)
    side.prepare()
    with pytest.raises(ChildProcessError, match=r"FileNotFoundError.*no\.npz"):
        side.ready()
    side.close()


@pytest.mark.slow
def test_a_store_in_a_process_of_its_own(tmp_path: Path) -> None:
    found = scale.measure((1000,), folder=tmp_path, threads=1)
    (size,) = found["sizes"]
    assert size["images"] == 1000 and 66 * 1000 < size["bytes"] < 1.2 * 66 * 1000
    assert 0 < size["start_bytes"] <= size["peak_bytes"] < 1.5 * scale.GIB
    assert found["figures"] == {"peak_gib": pytest.approx(size["peak_bytes"] / 2**30, abs=1e-3), "growth": None}
    assert not list(tmp_path.iterdir()) and scale.table(found).count("\n") == 2


def test_time_that_grows_with_the_square_is_missed() -> None:
    sizes = [{"images": n, "write_seconds": n**2, "read_seconds": 0, "peak_bytes": 2**30} for n in (10, 100, 1000)]
    found = scale.figures(sizes)
    assert found == {"peak_gib": 1.0, "growth": 2.0} and judge(scale.BARS, found)["growth"]["verdict"] == "missed"
    assert scale.figures(sizes[:1])["growth"] is None


def test_a_full_disk_is_told_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: namedtuple("Usage", "free")(10**6))
    with pytest.raises(RunError, match=r"1,000,000 images needs 74 MB in .*, and 1 MB are free"):
        scale.measure(folder=tmp_path)


@pytest.mark.slow
def test_loading_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = loading.generated(tmp_path, 70, (32, 32))
    monkeypatch.setattr(loading, "TASKS", {"small_images": dataclasses.replace(loading.CIFAR, batch=32)})
    monkeypatch.setattr(loading, "WORKERS", 1)
    monkeypatch.setattr(loading, "generated", lambda *_: made)
    found = loading.measure(repeats=1, seconds=0.01, threads=1)
    assert found["figures"]["small_images"] > 0 and "32 px" in loading.table(found)


@pytest.fixture
def measured() -> dict[str, Any]:
    found = {"peak_gib": 2.0, "growth": 1.0}
    machine = {"cpu": "C", "cores": 2, "threads": 2, "device": "cpu"}
    size = {"images": 10, "write_seconds": 1.0, "read_seconds": 2.0, "peak_bytes": 2**31, "bytes": 10**6}
    return {
        "figures": found, "bars": judge(scale.BARS, found), "sizes": [size], "machine": machine, "load": 0.1,
        "versions": {"torch": "2"}, "date": "2026-11-21", "commit": None,
    }  # fmt: skip


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Any:
    """benchmarks/results.py, which is a script's helper and no part of the package."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("results", ROOT / "benchmarks" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_record_replaces_its_own_section_only(tmp_path: Path, measured: dict[str, Any], recorder: Any) -> None:
    for name in ("RESULTS.json", "RESULTS.md"):
        shutil.copy(ROOT / "benchmarks" / name, tmp_path)
    before = json.loads((tmp_path / "RESULTS.json").read_text())
    lines = (tmp_path / "RESULTS.md").read_text().splitlines()
    recorder.record("store", measured, table(measured["bars"]), folder=tmp_path)
    recorded, text = json.loads((tmp_path / "RESULTS.json").read_text()), (tmp_path / "RESULTS.md").read_text()
    assert recorded["store"]["figures"]["peak_gib"] == 2.0
    assert {**recorded, "store": None} == {**before, "store": None}
    assert "| 2.00 | at most 1.50 | missed |" in text
    outside = lines[: lines.index("<!-- store -->")], lines[lines.index("## Data loading throughput") :]
    assert text.splitlines()[: len(outside[0])] == outside[0] and text.splitlines()[-len(outside[1]) :] == outside[1]


def test_a_script_tells_figures_by_name(
    tmp_path: Path, measured: dict[str, Any], recorder: Any, capsys: pytest.CaptureFixture
) -> None:
    recorder.tell("store", measured, scale.table(measured), recorder.parser("x").parse_args(["--json"]))
    told = json.loads(capsys.readouterr().out)
    assert told["peak_gib"] == 2.0 and told["bars"]["peak_gib"]["verdict"] == "missed" and "sizes" in told["details"]
    recorder.tell("store", measured, scale.table(measured), recorder.parser("x").parse_args([]))
    assert "| 10 | 1.0 | 2.0 | 2.00 | 1.0 |" in capsys.readouterr().out
    assert "commit unknown" in where(measured)


def test_the_recorded_page_shows_the_recorded_figures() -> None:
    page = (ROOT / "benchmarks" / "RESULTS.md").read_text()
    details = {"speed": speed.table, "store": scale.table, "data": loading.table, "accuracy": accuracy.table}
    recorded = json.loads((ROOT / "benchmarks" / "RESULTS.json").read_text())
    for name in details.keys() & recorded.keys():
        section = page.partition(f"<!-- {name} -->\n")[2].partition("<!-- end -->")[0]
        assert table(recorded[name]["bars"]) in section and details[name](recorded[name]) in section


@pytest.mark.parametrize(
    ("load", "cores", "idle"),
    [
        ("0.00 0.00 0.00 1/84 7", 2, True),  # a process that looks runs itself
        ("0.00 0.00 0.00 2/84 7", 2, False),
        ("9.00 9.00 9.00 9/84 7", 16, True),  # 8 others on 14 cores that are not ours
        ("no numbers", 2, False),
    ],
)
def test_threads_sleep_while_they_wait_where_others_use_the_cores(
    load: str, cores: int, idle: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loadavg").write_text(load)
    monkeypatch.setattr(runtime, "_LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert runtime.cores_are_idle() == idle
    waiting = {"GOMP_SPINCOUNT": "10000"} if idle else {"OMP_WAIT_POLICY": "PASSIVE"}
    assert runtime.environment({}) == {**waiting, "THP_MEM_ALLOC_ENABLE": "1"}
    assert runtime.environment({"GOMP_SPINCOUNT": "1", "THP_MEM_ALLOC_ENABLE": "0"}) == {}


@pytest.mark.parametrize("script", ["speed", "accuracy"])
def test_a_script_explains_itself(script: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_path(str(ROOT / "benchmarks" / f"{script}.py"), run_name="__main__")
    assert "--record" in capsys.readouterr().out


def test_the_user_s_environment_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    for name in ("GOMP_SPINCOUNT", "THP_MEM_ALLOC_ENABLE"):
        monkeypatch.setenv(name, "")  # so that it is taken away again
        monkeypatch.delenv(name)
    runtime.set_environment()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE" and os.environ["THP_MEM_ALLOC_ENABLE"] == "1"
    assert "GOMP_SPINCOUNT" not in os.environ
    runtime.keep_freed()  # nothing to see but that the C library takes it
