"""Simulated number formats: the stage computes what rounding by hand computes, and leaves nothing like a model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import potstill
from potstill import config
from potstill.cli import app
from potstill.compress import quantize as quantizing
from potstill.compress.formats import FloatFormat, ScaledFormat, parse_format
from potstill.errors import ModelError, UserError
from potstill.evaluation import metrics
from potstill.model_files.folder import load_model
from potstill.model_files.open import find
from potstill.models.inspect.plain_layers import plain_layers
from potstill.stages import dataset
from potstill.stages.compress import simulation
from potstill.stages.compress.common import open_model
from potstill.stages.compress.quantize import quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.recipe import DataConfig

DATA = {"path": "digits", "limit": 700}


def settings(trained: Path, **more: Any) -> QuantizeConfig:
    return config.build(QuantizeConfig, {"model": str(trained), "data": DATA, "calibration": 64, **more})


@pytest.fixture(scope="module")
def fixed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("fixed") / "out"
    return folder, quantize(
        settings(trained, weight_format="fixed2.6", activation_format="e4m3", simulate=True), folder
    )


def test_accuracy_is_that_of_weights_rounded_by_hand(trained: Path, tmp_path: Path) -> None:
    summary = quantize(settings(trained, weight_format="q2.2", simulate=True), tmp_path / "out")
    data = dataset.prepare(DataConfig(**DATA))
    model = load_model(trained)
    example = model.prepare(torch.rand(2, 1, 8, 8))
    network = quantizing.fold_batchnorm(model.network, example)
    for layer in plain_layers(network).values():
        layer.weight.data = (layer.weight.data * 4).round().clamp(-8, 7) / 4  # multiples of 1/4 from -2 to 1.75
    rows = data.manifest.rows("test", labelled=True)
    with torch.inference_mode():
        logits = network(model.prepare(data.loader().clean_batch(rows).image)).numpy()
    expected = metrics.accuracy(logits, data.manifest.label[rows])
    assert summary["models"]["simulated"]["accuracy"] == pytest.approx(expected, abs=0.001)
    assert summary["models"]["simulated"]["lost"] > 0 and summary["formats"]["activations"] is None


def test_wide_formats_lose_nothing_and_narrow_ones_much(trained: Path, tmp_path: Path) -> None:
    wide = quantize(settings(trained, weight_format="fp16", activation_format="bf16", simulate=True), tmp_path / "wide")
    narrow = quantize(
        settings(trained, weight_format="e2m1", activation_format="e2m1", simulate=True), tmp_path / "nar"
    )
    assert abs(wide["models"]["simulated"]["lost"]) < 1 and wide["models"]["simulated"]["agreement"] > 98
    assert narrow["models"]["simulated"]["agreement"] < wide["models"]["simulated"]["agreement"]
    error = [one["weight_error"] for one in narrow["layers"].values()]
    assert min(error) > 0.02 and max(one["weight_error"] for one in wide["layers"].values()) < 1e-3
    assert all(one["weight_scale"] == one["input_scale"] == 1 for one in wide["layers"].values())


def test_narrow_floating_point_is_scaled_by_powers_of_two(fixed: tuple[Path, dict[str, Any]], trained: Path) -> None:
    _, summary = fixed
    for one in summary["layers"].values():
        assert one["weight_scale"] == 1.0  # fixed point is where its name says
        scaled = one["largest_input"] * one["input_scale"]
        assert 224 < scaled <= 448 and np.log2(one["input_scale"]) % 1 == 0
    given = open_model(settings(trained, weight_format="e4m3", simulate=True))
    _, layers = simulation.rounded(given, parse_format("e4m3"), None)
    assert all(one["weights_saturated"] == 0 and 0 < one["weight_error"] < 0.04 for one in layers.values())


@pytest.mark.parametrize(("largest", "scale"), [(448.0, 1.0), (449.0, 0.5), (224.0, 2.0), (225.0, 1.0), (0.0, 1.0)])
def test_the_scale_keeps_the_largest_inside(largest: float, scale: float) -> None:
    number = ScaledFormat.fit(FloatFormat(4, 3, "fn"), largest)
    assert number.scale == scale and number.range[1] >= largest
    x = torch.tensor([largest, largest / 3, 0.001])
    assert torch.equal(number.quantize(x), number.number.quantize(x * scale) / scale)
    assert torch.equal(number.encode(x), number.number.encode(x * scale))


def test_nothing_like_a_model_is_written(fixed: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = fixed
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not [name for name in files if name.endswith(".onnx") or name.startswith(("model", "card"))]
    assert {"summary.json", "manifest.json", "quantize.yaml", "logits.safetensors"} <= files
    assert "file" not in summary["models"]["simulated"] and "bytes" not in summary["models"]["simulated"]
    assert any("no file in these formats is written" in note for note in summary["notes"])
    with pytest.raises(ModelError, match="holds no saved model"):
        find(str(folder))


def test_the_same_command_finds_it_done(fixed: tuple[Path, dict[str, Any]], trained: Path) -> None:
    folder, summary = fixed
    same = settings(trained, weight_format="fixed2.6", activation_format="e4m3", simulate=True)
    assert quantize(same, folder)["models"] == json.loads(json.dumps(summary["models"]))
    with pytest.raises(UserError, match="weight_format"):
        quantize(settings(trained, weight_format="fixed4.4", simulate=True), folder)


MISTAKES = [
    ({"weight_format": "q4.4"}, ["--weight-format", "q4.4"], "add simulate=true (--simulate)"),
    ({"simulate": True}, ["--simulate"], "give weight_format or activation_format"),
    (
        {"simulate": True, "weight_format": "q4.4", "weight_bits": 8},
        ["--simulate", "--weight-format", "q4.4", "--weight-bits", "8"],
        "weight_bits: these are settings of integer",
    ),
    (
        {"simulate": True, "activation_format": "e5m2", "mode": "qat"},
        ["--simulate", "--activation-format", "e5m2", "--mode", "qat"],
        "mode: these are settings of integer",
    ),
    ({"simulate": True, "weight_format": "int4"}, ["--simulate", "--weight-format", "int4"], "give --weight-bits 4"),
    ({"simulate": True, "weight_format": "q44"}, ["--simulate", "--weight-format", "q44"], "is not a number format"),
]


@pytest.mark.parametrize(("given", "words", "told"), MISTAKES)
def test_mixed_or_wrong_settings_get_one_sentence(
    trained: Path, tmp_path: Path, given: dict[str, Any], words: list[str], told: str
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as raised:
        potstill.quantize(str(trained), data=DATA, out=out, **given)
    assert len(raised.value.problems) == 1 and told in str(raised.value)
    command = ["quantize", str(trained), "--data", "digits", *words, "--out", str(out)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2 and told in result.stderr and result.stderr.count("error:") == 1
    assert not out.exists()


def test_the_command_says_that_there_is_no_file(trained: Path, tmp_path: Path) -> None:
    words = [
        "quantize",
        str(trained),
        "--data",
        "digits",
        "--limit",
        "700",
        "--weight-format",
        "fixed4.4",
        "--simulate",
    ]
    result = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "simulated" in result.stdout and "no file in these formats" in result.stderr
