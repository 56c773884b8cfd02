"""Latencies scaled from the profile of a device, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import potstill
from potstill.errors import ConfigError, ModelError
from potstill.exporters.device_profile import NETS, DeviceProfile, Measured, Work, measure, read_profile
from potstill.exporters.reference_nets import reference_net
from potstill.model_files.planner import Plan, plan

RATES = {32: np.array([0.01, 0.2, 0.1, 0.5]), 8: np.array([0.02, 0.05, 0.2, 0.1])}
"""Milliseconds of an operator, and of a million multiply-accumulates, ordinary and depthwise, and elements."""


@pytest.fixture(scope="module")
def plans(tmp_path_factory: pytest.TempPathFactory) -> list[Plan]:
    file = tmp_path_factory.mktemp("nets") / "net.onnx"
    return [plan(reference_net(file, kind=kind, width=width, size=size)) for kind, width, size in NETS]


def profile(plans: list[Plan], noise: float = 0.0) -> DeviceProfile:
    """Return the profile of a device whose rates are known."""
    random = np.random.default_rng(0)
    measured = []
    for bits, rates in RATES.items():
        for one in plans:
            work = Work.of(one)
            latency = float(np.array(work.row) @ rates * np.exp(noise * random.standard_normal()))
            quartiles = latency, latency
            measured.append(Measured(net="net", bits=bits, work=work, latency_ms=latency, quartiles_ms=quartiles))
    return DeviceProfile(name="board", processor="M7", threads=1, runtime="onnxruntime", measured=tuple(measured))


def test_a_device_of_known_rates_is_predicted(plans: list[Plan], tmp_path: Path) -> None:
    made = profile(plans)
    other = plan(reference_net(tmp_path / "other.onnx", kind="separable", width=24, size=48))
    for bits, rates in RATES.items():
        assert made.latency(other, bits) == pytest.approx(float(np.array(Work.of(other).row) @ rates), rel=1e-6)
        assert made.error(bits) < 1e-6
    assert made.latency(other, 4) == made.latency(other, 8)


def test_the_stated_error_is_that_of_other_networks(plans: list[Plan], tmp_path: Path) -> None:
    made = profile(plans, noise=0.2)
    other = plan(reference_net(tmp_path / "other.onnx", kind="residual", width=12, size=48))
    assert 0.1 < made.error(32) < 0.5
    assert made.latency(other, 32) == pytest.approx(float(np.array(Work.of(other).row) @ RATES[32]), rel=0.4)


def test_a_profile_is_read_back_and_its_mistakes_are_told(plans: list[Plan], tmp_path: Path) -> None:
    file, made = tmp_path / "board.json", profile(plans)
    file.write_text(json.dumps(made.to_json()))
    assert read_profile(file) == made
    wrong = made.to_json() | {"threads": 0, "colour": "red"}
    file.write_text(json.dumps(wrong))
    with pytest.raises(ConfigError, match=r"threads: must be greater(.|\n)*colour: .*has no such key") as error:
        read_profile(file)
    assert len(error.value.problems) == 2
    file.write_text(json.dumps(made.to_json() | {"measured": made.to_json()["measured"][:10]}))
    with pytest.raises(ModelError, match="fewer than 5 networks of 8 bits"):
        read_profile(file)
    file.write_text("{")
    with pytest.raises(ModelError, match="is not a device profile"):
        read_profile(file)
    with pytest.raises(ModelError, match="There is no device profile"):
        read_profile(tmp_path / "absent.json")


@pytest.mark.slow
def test_a_machine_measures_itself(tmp_path: Path) -> None:
    made = measure("here", processor="cpu", runtime="onnxruntime", seconds=0.02)
    assert [one.bits for one in made.measured] == [32, 8] * len(NETS)
    other = reference_net(tmp_path / "other.onnx", kind="residual", width=24, size=32)
    assert made.latency(plan(other), 32) > 2 * made.latency(plan(tiny(tmp_path)), 32) > 0


def tiny(folder: Path) -> Path:
    return reference_net(folder / "tiny.onnx", kind="separable", width=8, size=16)


def test_the_cost_of_a_file_is_shown_with_the_device(plans: list[Plan], tmp_path: Path) -> None:
    file = tmp_path / "board.json"
    file.write_text(json.dumps(profile(plans).to_json()))
    shown = potstill.models(tiny(tmp_path), device=file)
    assert isinstance(shown, potstill.NetworkCost)
    assert shown.summary["bits"] == 32 and shown.summary["ram_float"] == 4 * shown.summary["ram_int8"]
    assert shown.summary["device_ms"] == pytest.approx(profile(plans).latency(plan(tiny(tmp_path)), 32))
    assert "on board" in str(shown) and "expect an error of 0 %" in str(shown)


def test_what_has_no_cost_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="weights have 2 to 8 bits(.|\n)*at least 8 pixels(.|\n)*at least 2 classes"):
        potstill.models("builtin:mlp", bits=9, size=2, classes=1)
    with pytest.raises(ConfigError, match="its size and classes are fixed"):
        potstill.models(tiny(tmp_path), size=96)
    with pytest.raises(ModelError, match="There is no model 'builtin:mpl'"):
        potstill.models("builtin:mpl", bits=8)


def test_a_profile_replaces_profiles_only(tmp_path: Path) -> None:
    other = tmp_path / "notes.json"
    other.write_text("[1]")
    with pytest.raises(ConfigError, match="this file is no device profile"):
        potstill.bench(device_profile=other)
    with pytest.raises(ConfigError, match="give the name of a .json file"):
        potstill.bench(device_profile=tmp_path / "board")
    with pytest.raises(ModelError, match="No model files are given"):
        potstill.bench()
