"""How a network is computed: measured where that pays, the same ever after, and never slower than the usual way."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from potstill import progress
from potstill.errors import RunError
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.training import autotune as plan_module
from potstill.training import devices
from potstill.training.autotune import ExecutionPlan, Trial, choose, measure, plan_of

FULL, LAST, HALF = ExecutionPlan(), ExecutionPlan("fp32", channels_last=True), ExecutionPlan("bf16", channels_last=True)


def network(name: str = "builtin:small-cnn", **options: object) -> Classifier:
    return zoo.create(name, classes=("a", "b", "c"), size=(8, 8), channels=1, options=options, seed=0)


def chosen(classifier: Classifier, **settings: object) -> ExecutionPlan:
    given = {"precision": "auto", "compile": False, "batch_size": 16, "images": 100, "training": True, **settings}
    return choose(classifier, **given)


@pytest.fixture(autouse=True)
def _nothing_measured_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path))


@pytest.fixture
def takes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Let every training be worth a measurement, and say what it finds: seconds by plan."""
    monkeypatch.setattr(plan_module, "WORTH_A_TRIAL", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)

    def set_times(times: dict[ExecutionPlan, float]) -> None:
        monkeypatch.setattr(plan_module, "_alternating", lambda steps, *_: {p: times[p] for p in steps})

    return set_times


def test_short_trainings_and_dense_networks_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "measure", lambda *_: pytest.fail("measured"))
    assert chosen(network()) == FULL
    assert chosen(network("builtin:mlp"), images=10**9) == FULL
    assert chosen(network(), precision="bf16") == HALF and chosen(
        network("builtin:mlp"), precision="bf16"
    ) == ExecutionPlan("bf16")
    assert not progress.display().notes


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ({FULL: 1.0, LAST: 0.95, HALF: 0.95}, FULL),  # not worth losing digits for
        ({FULL: 1.0, LAST: 1.2, HALF: 1.5}, FULL),
        ({FULL: 1.0, LAST: 0.9, HALF: 0.5}, HALF),
        ({FULL: 1.0, LAST: 0.7, HALF: 0.9}, LAST),
    ],
)
def test_the_usual_way_unless_another_is_clearly_faster(
    takes: Callable[..., None], times: dict[ExecutionPlan, float], expected: ExecutionPlan
) -> None:
    takes(times)
    assert chosen(network()) == expected
    told = progress.display().notes[0]
    assert told.startswith(f"Training: {expected.words}") and ("fastest on this machine" in told) == (expected == FULL)


@pytest.mark.parametrize(("one", "expected"), [(0.2, 1), (0.99, 2), (3.0, 2)])
def test_one_thread_is_taken_where_two_are_slower(
    takes: Callable[..., None], monkeypatch: pytest.MonkeyPatch, one: float, expected: int
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(plan_module._Interruptions, "_now", lambda self: 0)
    takes({FULL: 1.0, LAST: 1.0, HALF: 1.0, ExecutionPlan(threads=1): one, ExecutionPlan(threads=2): 1.0})
    assert chosen(network()).threads == expected
    assert ("1 thread (5.0x faster than 2)" in progress.display().notes[0]) == (expected == 1)
    assert chosen(network(), training=False, images=10**12).threads == 0  # inference is not a training step


@pytest.mark.parametrize(("one", "expected"), [(0.8, 2), (0.5, 1)])
def test_beside_other_programs_one_thread_has_to_be_clearly_faster(
    takes: Callable[..., None], monkeypatch: pytest.MonkeyPatch, one: float, expected: int
) -> None:
    counts = iter([0, 10**6])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(plan_module._Interruptions, "_now", lambda self: next(counts))
    takes({FULL: 1.0, LAST: 1.0, HALF: 1.0, ExecutionPlan(threads=1): one, ExecutionPlan(threads=2): 1.0})
    assert chosen(network()).threads == expected


def test_what_was_measured_is_kept(takes: Callable[..., None]) -> None:
    takes({FULL: 1.0, LAST: 1.0, HALF: 0.5})
    assert chosen(network()) == HALF
    takes({FULL: 0.1, LAST: 1.0, HALF: 0.5})
    assert chosen(network()) == HALF and "cached measurement" in progress.display().notes[1]
    assert chosen(network(), batch_size=32) == FULL and chosen(network(width=4)) == FULL  # others are measured anew
    assert chosen(network(), precision="fp32") == FULL


def test_what_another_processor_measured_is_not_used(
    takes: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    takes({FULL: 1.0, LAST: 1.0, HALF: 0.5})
    assert chosen(network()) == HALF
    monkeypatch.setattr(devices, "processor", lambda: "another one")  # its home folder, and cache, can be the same
    takes({FULL: 1.0, LAST: 1.0, HALF: 2.0})
    assert chosen(network()) == FULL


def test_a_real_measurement_leaves_the_network_and_the_dice_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "TRIAL_SECONDS", 0.01)
    classifier = network(width=4)
    before = {name: value.clone() for name, value in classifier.state_dict().items()}
    torch.manual_seed(3)
    for training in (True, False):
        found, words = measure(Trial(classifier, 16, training), "auto", False, 1000)
        assert dataclasses.replace(found, threads=0) in (FULL, LAST, HALF) and words.startswith(
            "Training:" if training else "Inference:"
        )
    assert all(torch.equal(value, before[name]) for name, value in classifier.state_dict().items())
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1)) and all(p.grad is None for p in classifier.parameters())


@pytest.mark.parametrize(("gain", "compiled"), [(1.4, True), (1.02, False)])
def test_compiled_where_it_pays(
    takes: Callable[..., None], monkeypatch: pytest.MonkeyPatch, gain: float, compiled: bool
) -> None:
    monkeypatch.setattr(Trial, "step", lambda self, plan: None)
    compiled_too = {ExecutionPlan(compiled=True): 1 / gain, ExecutionPlan("fp32", True, True): 1.0}
    takes({FULL: 1.0, LAST: 1.0, HALF: 1.0, **compiled_too})
    assert chosen(network(), compile="auto", images=16 * 1000).compiled == compiled
    assert f"speed-up {gain:.2f}x" in progress.display().notes[0]
    assert not chosen(network(), compile="auto", images=16 * 100).compiled  # a hundred seconds are over too soon


@pytest.mark.parametrize(("times", "expected"), [((0.9, 0.6), True), ((0.6, 0.6), False), ((0.6, 0.7), False)])
def test_compiled_in_the_layout_that_is_faster_then(
    takes: Callable[..., None], monkeypatch: pytest.MonkeyPatch, times: tuple[float, float], expected: bool
) -> None:
    monkeypatch.setattr(Trial, "step", lambda self, plan: None)
    compiled = {
        ExecutionPlan("bf16", channels_last=last, compiled=True): time
        for last, time in zip((True, False), times, strict=True)
    }
    takes({FULL: 1.0, LAST: 1.0, HALF: 0.8, **compiled})
    found = chosen(network(), compile="auto", images=16 * 2000)
    assert (found.compiled and not found.channels_last) == expected
    assert ("compiled contiguous (speed-up 1.33x)" in progress.display().notes[0]) == expected
    assert found.compiled == (min(times) <= 0.8 / 1.05)
    short = chosen(network(), compile="auto", images=16 * 1000)  # 800 s: the other layout is not tried
    assert short.channels_last and short.compiled == (times[0] <= 0.8 / 1.05)


def broken(self: Trial, plan: ExecutionPlan) -> Callable[[], torch.Tensor]:
    def run() -> torch.Tensor:
        if plan.compiled:
            raise OSError("no C++ compiler\nat all")
        return torch.zeros(1)

    return run


def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Trial, "step", broken)
    monkeypatch.setattr(plan_module, "WORTH_A_TRIAL", 0)
    monkeypatch.setattr(plan_module, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(plan_module, "WORTH_COMPILING", 0.0)
    assert not chosen(network(), compile="auto").compiled
    assert "torch.compile failed (no C++ compiler)" in progress.display().notes[0]
    with pytest.raises(RunError, match=r"no C\+\+ compiler.*Set train.compile=false"):
        chosen(network(), compile=True)
    with pytest.raises(RunError, match="no C"):
        chosen(network("builtin:mlp"), compile=True)


def test_a_precision_stands_for_its_usual_layout() -> None:
    assert plan_of("fp32", network()) == FULL and plan_of("bf16", network()) == HALF
    assert plan_of("bf16", lambda image: image) == ExecutionPlan("bf16") and plan_of(LAST) == LAST
    assert HALF.memory_format == torch.channels_last and ExecutionPlan(**HALF.to_json()) == HALF
