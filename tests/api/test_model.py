"""`potstill.load`: images in any form, the same answer; mistakes in one sentence; nothing of the process is changed."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import potstill
from potstill import runtime
from potstill.cli import app
from potstill.data.csv_files import numbered_records
from potstill.stages.inference import predict


@pytest.fixture(scope="module")
def model(run: potstill.RunResult) -> potstill.Model:
    return potstill.load(run.folder)


def test_it_is_a_module_with_a_card(model: potstill.Model, digits: np.ndarray) -> None:
    assert isinstance(model, torch.nn.Module) and not model.training
    assert model.classes == tuple("0123456789") and model.card.size == (8, 8)
    assert sum(p.numel() for p in model.parameters()) == 1885
    image = torch.from_numpy(digits)[:, None] / 255
    with torch.inference_mode():
        logits = model(image)
    assert logits.shape == (12, 10)
    predicted = model.predict(image)
    assert [one.class_name for one in predicted] == [model.classes[k] for k in logits.argmax(1)]
    assert predicted[0].probability == pytest.approx(float(torch.softmax(logits, 1).max(1).values[0]), abs=1e-3)


@pytest.mark.parametrize(
    "form",
    ["text", "path", "pillow", "uint8", "float", "HWC", "tensor", "tensor HW", "float16", "colour"],
)
def test_one_image_in_any_form(model: potstill.Model, digits: np.ndarray, photos: Path, form: str) -> None:
    pixels = digits[3]
    given: dict[str, Any] = {
        "text": str(photos / "3.png"),
        "path": photos / "3.png",
        "pillow": Image.fromarray(pixels),
        "uint8": pixels,
        "float": pixels / 255,
        "HWC": pixels[:, :, None],
        "tensor": torch.from_numpy(pixels)[None],
        "tensor HW": torch.from_numpy(pixels) / 255,
        "float16": (torch.from_numpy(pixels)[None] / 255).half(),
        "colour": np.repeat(pixels[:, :, None], 3, 2),
    }
    one = model.predict(given[form])
    expected = model.predict(photos / "3.png")
    assert isinstance(one, potstill.Prediction) and one.top == expected.top
    assert one.class_name == expected.class_name == next(iter(one.top)) and len(one.top) == 5


def test_several_images_in_any_form(model: potstill.Model, digits: np.ndarray, photos: Path) -> None:
    expected = [model.predict(pixels).top for pixels in digits]
    several = [
        photos,
        [str(photos / f"{n}.png") for n in range(11)] + [photos / "more" / "11.png"],
        digits[..., None],
        torch.from_numpy(digits)[:, None],
        [Image.fromarray(digits[0]), digits[1:, :, :, None]],
        (pixels for pixels in digits),
    ]
    for given in several:
        assert [one.top for one in model.predict(given)] == expected
    names = [Path(one.image).name for one in model.predict(photos)]
    assert names == [f"{number}.png" for number in range(12)]
    assert model.predict([]) == [] and len(model.predict([digits[0]])) == 1


def test_a_photo_keeps_its_orientation_and_the_user_s_image_is_left_alone(model: potstill.Model, photos: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    buffer = io.BytesIO()
    Image.open(photos / "3.png").transpose(Image.Transpose.ROTATE_90).save(buffer, "PNG", exif=exif)
    image = Image.open(io.BytesIO(buffer.getvalue()))
    assert model.predict(image).top == model.predict(photos / "3.png").top
    assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "This one is None"),
        ({"image": 1}, "This one is of type dict"),
        (3.5, "This one is of type float"),
        ([["a.png"], "b.png", 7], "There is no image at a.png"),
        ("letters", "There is no image at letters"),
        (np.zeros((8, 8), np.int64), "image has the type int64. Give uint8"),
        (np.full((8, 8), 2.0), "from 2 to 2, but they must be in 0..1"),
        (np.full((8, 8), np.nan), "from nan to nan"),
        (np.zeros((3, 8, 9)), r"transpose\(1, 2, 0\)"),
        (torch.zeros(8, 9, 3), r"permute\(2, 0, 1\)"),
        (torch.zeros(2, 5, 8, 8), r"image 0: a tensor of one image must have the shape \[1, H, W\]"),
        (np.zeros((0, 8)), "has no pixels"),
    ],
)
def test_mistakes_are_short(model: potstill.Model, given: Any, told: str) -> None:
    with pytest.raises(potstill.UserError, match=told) as error:
        model.predict(given)
    assert all(len(problem) < 260 for problem in error.value.problems)


def test_all_mistakes_at_once(model: potstill.Model, tmp_path: Path) -> None:
    with pytest.raises(potstill.UserError) as error:
        model.predict(["a.png", tmp_path, 7])
    assert len(error.value.problems) == 3 and "image 2 is of type int" in error.value.problems[2]
    (tmp_path / "1.png").write_bytes(b"<html>")
    (tmp_path / "2.png").write_bytes(b"")
    with pytest.raises(potstill.UserError) as error:
        model.predict(tmp_path)
    assert "2.png is empty" in error.value.problems[1] and error.value.problems[2:] == [
        "2 of 2 images cannot be read and have no answer. Repair, replace or remove them, and run this again."
    ]


def test_the_others_are_answered(
    model: potstill.Model, run: potstill.RunResult, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "BATCH", 2)  # the first batch has none that can be read
    shutil.copytree(photos, tmp_path / "photos")
    bad = [f"{tmp_path}/photos/{name}" for name in ("0.png", "1.png", "5.png")]
    for file in bad:
        Path(file).write_bytes(b"")
    words = ["predict", run.folder, tmp_path / "photos", tmp_path / "nosuch", "--csv", tmp_path / "answers.csv"]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 2 and [line.partition(". ")[0] for line in result.stderr.splitlines()] == [
        f"error: There is no image at {tmp_path}/nosuch",
        *(f"error: {file} is empty (0 bytes)." for file in bad),
        "error: 3 of 12 images cannot be read and have no answer; the others have one",
    ]
    readable = [f"{tmp_path}/photos/{name}.png" for name in (2, 3, 4, *range(6, 11), "more/11")]
    whole = {file: model.predict(file) for file in readable}
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()] == list(whole)
    rows = [row for _, row in numbered_records(tmp_path / "answers.csv")]
    assert len(rows) == 12
    assert [row["path"] for row in rows if not row["class"] and not row["probability"]] == bad
    assert all(row["class"] == whole[row["path"]].class_name for row in rows if row["class"])
    with pytest.raises(potstill.UserError) as error:
        model.predict(tmp_path / "photos")
    assert [one.top for one in error.value.answered] == [one.top for one in whole.values()]


def test_evaluation_is_that_of_the_run(model: potstill.Model, run: potstill.RunResult) -> None:
    measured = model.evaluate("digits")
    assert measured.accuracy == run.student.test_accuracy[0] == potstill.evaluate(run.folder, "digits").accuracy
    low, high = measured.interval
    assert low <= measured.accuracy <= high and set(measured.recall) <= set(model.classes)
    assert measured.images == run.summary["data"]["splits"]["test"]
    assert model.evaluate({"path": "digits", "limit": 200}, split="validation").images < measured.images
    with pytest.raises(potstill.UserError, match="Did you mean 'test'"):
        model.evaluate("digits", split="tset")


def test_training_mode_is_kept(run: potstill.RunResult, digits: np.ndarray) -> None:
    model = potstill.load(run.folder).train()
    model.predict(digits[0])
    assert model.training and model.classifier.training


def test_an_exported_file_is_a_module_too(
    model: potstill.Model, run: potstill.RunResult, photos: Path, tmp_path: Path
) -> None:
    written = model.to_onnx(tmp_path / "student")
    assert written == tmp_path / "student.onnx"
    exported = potstill.load(written)
    assert isinstance(exported, torch.nn.Module) and not list(exported.parameters())
    pairs = zip(exported.predict(photos), model.predict(photos), strict=True)
    assert all(one.top == pytest.approx(other.top, abs=2e-4) for one, other in pairs)
    assert exported.evaluate("digits").images == 539  # a file does not know how its run split the images
    with pytest.raises(potstill.UserError, match="is an exported file already: copy it, or load the run"):
        exported.to_onnx(tmp_path / "again.onnx")


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(potstill.UserError, match="Add --weights FILE"):
        potstill.load("builtin:mlp")
    with pytest.raises(potstill.UserError, match="holds no saved model"):
        potstill.load(tmp_path)


def test_weights_by_name(run: potstill.RunResult, digits: np.ndarray) -> None:
    stage = run.folder / "teacher" / "model.safetensors"
    named = potstill.load("builtin:small-cnn", weights=small_cnn(stage.parent.parent / "plain.safetensors"))
    assert named.classes == tuple("012")
    with pytest.raises(potstill.UserError, match="has a head for 3 classes, but --classes has 2"):
        potstill.load("builtin:small-cnn", weights=stage.parent.parent / "plain.safetensors", classes=["a", "b"])
    assert potstill.predict(
        "builtin:small-cnn", digits[0], weights=stage.parent.parent / "plain.safetensors", classes=["a", "b", "c"]
    ).class_name in ("a", "b", "c")


def small_cnn(file: Path) -> Path:
    from safetensors.torch import save_file

    from potstill.models import zoo

    save_file(zoo.create("builtin:small-cnn", classes="012").network.state_dict(), file)
    return file


def test_the_allocator_of_the_process_is_left_alone(
    run: potstill.RunResult, digits: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr(runtime, "keep_freed", lambda: calls.append(1))
    potstill.predict(run.folder, digits[0])
    potstill.evaluate(run.folder, "digits", limit=100)
    potstill.label("digits", teacher=run.folder / "teacher", limit=100, out=tmp_path / "labels")
    assert not calls
    package = Path(potstill.__file__).parent
    users = [file for file in package.rglob("*.py") if "keep_freed" in file.read_text(encoding="utf-8")]
    assert {str(file.relative_to(package)) for file in users} == {
        "runtime.py",
        "cli/common.py",
        "scheduling/worker.py",  # processes of their own
    }
