"""Guarantees and devices in the stages: chosen on validation, checked on test, kept in card and file, chosen again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import potstill
from potstill.errors import ConfigError, DataError, ModelError
from potstill.evaluation import metrics
from potstill.evaluation.rejection import answers, lower_bound
from potstill.exporters.footprint import CODE
from potstill.model_files.folder import load_model, save_model
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.onnx_input import CARD, REJECT
from potstill.model_files.planner import plan
from potstill.models.card import Card
from potstill.stages import dataset, rejection
from potstill.stages.compress import export as export_stage
from potstill.stages.recipe import DataConfig

DATA = {"path": "digits"}
NOISE = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
SURE = "precision>=0.9"


def metadata(file: Path) -> dict[str, str]:
    return {one.key: one.value for one in onnx.load(file).metadata_props}


@pytest.fixture(scope="module")
def exported(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> potstill.CompressResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_stage, "TIMED", ((1, 1),))
        folder = tmp_path_factory.mktemp("made") / "export"
        return potstill.export(
            trained, data=DATA, calibration=32, golden=0, reject=SURE, target="cortex-m4:64k/16k", out=folder
        )


@pytest.mark.slow
def test_each_file_has_its_threshold_and_what_it_is_worth(exported: potstill.CompressResult) -> None:
    for name in ("model.onnx", "model_int8.onnx"):
        file, figures = exported.folder / name, exported.summary["models"][name]
        card = OnnxModel(file).card
        assert metadata(file)[REJECT] == repr(card.reject["threshold"]) and card.reject["precision"] == 0.9
        reject = figures["reject"]
        assert reject["validation"]["images"] == 126 and reject["validation"]["at_least"] >= 0.9
        test = reject["test"]
        assert (test["threshold"], test["images"]) == (card.reject["threshold"], 539)
        assert test["at_least"] == lower_bound(test["right"], test["answered"]) > 0.88
        assert any(f"{name}: Of what it answers, at least " in note for note in exported.summary["notes"])


@pytest.mark.slow
def test_the_threshold_is_that_of_the_file_itself(exported: potstill.CompressResult) -> None:
    data = dataset.prepare(DataConfig(**DATA))
    rows = data.manifest.rows("validation", labelled=True)
    model = OnnxModel(exported.folder / "model_int8.onnx")
    logits, label = rejection.clean_logits(model, data, rows), data.manifest.label[rows]
    probability = metrics.softmax(logits)  # as the threshold was found: it is the probability of one of the images
    made = answers(probability.max(1), logits.argmax(1) == label, model.card.reject["threshold"])
    assert made.answered == model.card.reject["validation"]["answered"]


@pytest.mark.slow
def test_files_tell_what_they_need_on_the_device(exported: potstill.CompressResult) -> None:
    device = exported.summary["device"]
    assert (device["name"], device["flash"], device["ram"]) == ("cortex-m4", 64_000, 16_000)
    for name, bits, size in (("model.onnx", 32, 4), ("model_int8.onnx", 8, 1)):
        needs, figures = plan(exported.folder / name), exported.summary["models"][name]
        assert figures["flash"] == needs.weight_bytes(bits) + CODE and figures["ram"] == size * needs.peak
        assert OnnxModel(exported.folder / name).card.device == {k: figures[k] for k in ("macs", "flash", "ram")}
    assert device["needs"] == {"bits": 8, **{k: figures[k] for k in ("flash", "ram")}}


@pytest.mark.slow
def test_predict_answers_unsure(exported: potstill.CompressResult) -> None:
    file = exported.folder / "model.onnx"
    threshold = OnnxModel(file).card.reject["threshold"]
    answer: Any = potstill.predict(file, NOISE)
    assert answer.unsure == (answer.probability < threshold)
    data = dataset.prepare(DataConfig(**DATA))
    rows = data.manifest.rows("test")[:200]
    several: Any = potstill.predict(file, [data.manifest.image(row)[:, :, 0] for row in rows])
    assert any(one.unsure for one in several) and not all(one.unsure for one in several)
    for one in several:
        assert one.unsure == (next(iter(one.top.values())) < threshold)
        assert (one.class_name == "unsure") == one.unsure and ("unsure, perhaps" in str(one)) == one.unsure


@pytest.mark.slow
def test_compression_chooses_again(trained: Path, tmp_path: Path) -> None:
    card = load_model(trained).card.replace(reject={"precision": 0.9, "threshold": 0.0, "validation": {}})
    save_model(load_model(trained).with_card(card), tmp_path / "model")
    quantized = potstill.quantize(tmp_path / "model", data=DATA, calibration=32, out=tmp_path / "q")
    for name in ("packed", "onnx"):
        assert quantized.summary["models"][name]["reject"]["precision"] == 0.9
    assert "reject" not in quantized.summary["models"]["original"]
    assert load_model(tmp_path / "q").card.reject["threshold"] > 0.1
    assert any("chosen again" in note for note in quantized.summary["notes"])
    pruned = potstill.prune(tmp_path / "model", keep=0.8, images=64, data=DATA, reject="none", out=tmp_path / "p")
    assert "reject" not in pruned.summary["models"]["pruned"] and load_model(tmp_path / "p").card.reject == {}
    assert pruned.summary["models"]["pruned"]["ram"] == 4 * plan(tmp_path / "p" / "model.onnx").peak


@pytest.mark.slow
def test_a_run_delivers_a_student_that_can_be_unsure(trained: Path, tmp_path: Path) -> None:
    settings = {"epochs": 12, "lr": 0.01, "batch_size": 32, "seeds": 1, "views": 4}
    run = potstill.distill(
        "digits", teacher=trained, student="builtin:mlp", reject=SURE, target="board:1MB/64kB",
        out=tmp_path / "run", **settings,
    )  # fmt: skip
    rows = run.summary["models"]
    card = OnnxModel(tmp_path / "run" / "student.onnx").card
    assert rows["student"]["reject"]["test"]["threshold"] == card.reject["threshold"]
    assert rows["student_int8"]["ram"] < rows["student"]["ram"] and "reject" not in rows["control"]
    assert potstill.load(tmp_path / "run").card.reject == card.reject
    assert json.loads(metadata(tmp_path / "run" / "student_int8.onnx")[CARD])["reject"]["precision"] == 0.9
    assert run.summary["device"]["needs"]["ram"] == rows["student_int8"]["ram"]
    assert rows["student"]["reject"]["sentence"].startswith("Of what it answers, at least ")
    golden = json.loads((tmp_path / "run" / "golden" / "golden.json").read_text())
    assert sorted(golden["probabilities"]) == ["student.onnx", "student_int8.onnx"] and len(golden["images"]) == 8
    photos = [tmp_path / "run" / "golden" / image["file"] for image in golden["images"]]
    predictions: Any = potstill.predict(tmp_path / "run" / "student.onnx", photos)
    for prediction, row in zip(predictions, golden["probabilities"]["student.onnx"], strict=True):
        assert next(iter(prediction.top.values())) == pytest.approx(max(row), abs=1e-4)


@pytest.mark.slow
def test_mistakes_are_told_before_any_work(trained: Path, tmp_path: Path) -> None:
    def export(**settings: Any) -> None:
        potstill.export(trained, data=DATA, out=tmp_path / "none", **settings)

    with pytest.raises(DataError, match=r"cannot be proved with 126 labelled validation images.*at least 2,995"):
        export(reject="precision>=0.999")
    with pytest.raises(
        ModelError, match=r"does not fit on tiny: in 8 bits it needs .* kB of flash where there are 9 kB and"
    ):
        export(target="tiny:9k/100B")
    with pytest.raises(ConfigError, match=r"reject: 'recall>=1' is not(.|\n)*target: 'm4:64k' is not a device"):
        export(reject="recall>=1", target="m4:64k")
    assert not (tmp_path / "none").exists()


@pytest.mark.slow
def test_what_does_not_fit_is_told_in_the_bits_of_the_command(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"in 4 bits it needs"):
        potstill.quantize(trained, weight_bits=4, data=DATA, target="tiny:9k/100B", out=tmp_path / "none")
    with pytest.raises(ModelError, match=r"in 8 bits it needs"):
        potstill.prune(trained, keep=0.5, data=DATA, target="tiny:9k/100B", out=tmp_path / "none")


def test_a_threshold_is_compared_with_the_calibrated_probability() -> None:
    logits, label = (
        np.eye(10, dtype=np.float32)[np.arange(300) % 10] * np.linspace(4, 8, 300)[:, None],
        np.arange(300) % 10,
    )
    plain, calibrated = (rejection.chosen(build_card(), logits, label, 0.9, at).reject["threshold"] for at in (1, 2))
    assert plain == pytest.approx(np.exp(4) / (np.exp(4) + 9)) and calibrated == pytest.approx(
        np.exp(2) / (np.exp(2) + 9)
    )


def test_a_model_that_is_not_good_enough_answers_everything() -> None:
    card = build_card()
    logits, label = np.eye(10, dtype=np.float32)[np.zeros(300, int)], np.arange(300) % 10
    assert rejection.chosen(card, logits, label, 0.9).reject == {}
    assert rejection.chosen(card.replace(reject={"precision": 0.9}), logits, label, None).reject == {}


def build_card() -> Card:
    return Card("builtin:mlp", tuple("0123456789"), 1, (8, 8), (0.5,), (0.5,), 8, (8, 8))
