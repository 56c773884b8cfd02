"""A file takes photos of any size, and gives the answer of the network: to the pixel, and as `predict` does."""

from __future__ import annotations

import re
import tarfile
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from PIL import Image

from potstill.data.augment.place import centre_crop
from potstill.data.pixels import fitted
from potstill.exporters import export_onnx, quantize_int8
from potstill.exporters.onnx_raw import preprocessing
from potstill.model_files.folder import save_model
from potstill.model_files.onnx import OnnxModel
from potstill.models import zoo
from potstill.models.card import Card
from potstill.models.outputs import Classifier
from potstill.stages import dataset
from potstill.stages.inference.evaluate import split_logits
from potstill.stages.inference.images import pictures
from potstill.stages.inference.predict import classify
from potstill.stages.recipe import DataConfig

from . import nets

FITS = ("crop", "letterbox", "stretch")
SIZES = ((31, 47), (90, 100), (120, 160), (161, 120), (16, 16), (12, 10), (5, 64), (480, 640), (160, 60), (64, 5))


def photo(height: int, width: int, channels: int = 3) -> np.ndarray:
    """Return uint8 [H, W, C] with edges and noise."""
    generator = np.random.default_rng(height * 1000 + width)
    coarse = generator.integers(0, 256, (7, 5, channels), dtype=np.uint8)
    rows, columns = np.arange(height) * 7 // height, np.arange(width) * 5 // width
    noise = generator.integers(-20, 21, (height, width, channels))
    return np.clip(coarse[rows][:, columns] + noise, 0, 255).astype(np.uint8)


def card(fit: str, channels: int, crop: tuple[int, int], resize: int) -> Card:
    return Card("test", ("a", "b"), channels, crop, (0,) * channels, (1,) * channels, resize, crop, fit=fit)


def in_code(pixels: np.ndarray, card: Card) -> np.ndarray:
    """Return the pixels that the network is trained on, uint8 [C, h, w]."""
    shown = fitted(pixels, size=card.crop, resize=card.resize, channels=card.channels, fit=card.fit)
    return centre_crop(torch.from_numpy(shown.copy())[None], card.crop)[0].numpy()


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_are_those_of_training(fit: str, channels: int) -> None:
    for crop, resize in (((16, 16), 18), ((12, 10), 14), ((24, 32), 24)):
        wanted = card(fit, channels, crop, resize)
        session = onnxruntime.InferenceSession(preprocessing(wanted, opset=18).SerializeToString())
        every = []
        for (height, width), depth in product(SIZES, (1, 3)):
            pixels = photo(height, width, depth)
            found = session.run(None, {"image": pixels[None]})[0][0] * 255
            differing = np.abs(found - in_code(pixels, wanted))
            assert differing.max() < (1.01 if crop[0] == crop[1] else 2.01), (crop, height, width)
            every += [(differing > 0.01).ravel()] if crop[0] == crop[1] else []
        assert not every or np.concatenate(every).mean() < 0.02, "only halves that are rounded up and down"


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("channels", [1, 3])
def test_the_document_prepares_the_same_pixels(fit: str, channels: int) -> None:
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", text, re.S) if "def prepare(" in block)
    documented: dict[str, Any] = {}
    exec(code, documented)  # the document's own function
    for crop, resize in (((16, 16), 18), ((12, 10), 14), ((24, 32), 24)):
        wanted = card(fit, channels, crop, resize)
        for size, depth in product(SIZES, (1, 3)):
            pixels = photo(*size, depth)
            image = Image.fromarray(pixels[:, :, 0] if depth == 1 else pixels)
            found = documented["prepare"](image, wanted.to_json())
            np.testing.assert_array_equal(np.rint(found * 255), in_code(pixels, wanted))


@pytest.mark.parametrize("fit", FITS)
def test_images_of_the_size_of_the_input_are_not_changed(fit: str) -> None:
    wanted = card(fit, 3, (32, 32), 32)
    session = onnxruntime.InferenceSession(preprocessing(wanted, opset=18).SerializeToString())
    pixels = np.stack([photo(32, 32), photo(32, 32)[::-1]])
    found = session.run(None, {"image": pixels})[0]
    np.testing.assert_array_equal(found, pixels.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255))


def classifier(fit: str, *, size: tuple[int, int] = (12, 10), channels: int = 3) -> Classifier:
    made = nets.tiny(size=size, channels=channels).eval()
    return made.with_card(made.card.replace(resize=28, crop=(24, 20), fit=fit))


@pytest.mark.parametrize(("fit", "channels"), [("crop", 3), ("letterbox", 3), ("stretch", 3), ("letterbox", 1)])
def test_the_file_answers_as_predict_does(tmp_path: Path, fit: str, channels: int) -> None:
    """Of photos of many sizes, through a network whose input is smaller than the crop."""
    network = classifier(fit, channels=channels)
    export_onnx(network, tmp_path / "model.onnx")
    photos = pictures([photo(*size, depth) for size in SIZES for depth in (1, 3)])[0]
    expected, found = classify(network, photos), classify(OnnxModel(tmp_path / "model.onnx"), photos)
    assert [one["class"] for one in found] == [one["class"] for one in expected]
    assert np.ptp([one["probability"] for one in found]) > 0.1, "the photos are told apart"
    for one, other in zip(found, expected, strict=True):
        assert one["probability"] == pytest.approx(other["probability"], abs=0.02)


def test_batches_of_equal_and_of_mixed_sizes(file: Path) -> None:
    model = OnnxModel(file, threads=1)
    photos = [photo(40, 60), photo(33, 20), photo(40, 60)[::-1], photo(40, 60, 1)]
    whole = model.of_pixels(photos)
    each = np.concatenate([model.of_pixels([one]) for one in photos])
    np.testing.assert_allclose(whole, each, atol=1e-5)
    together = model.session.run(None, {"image": np.stack(photos[::2])})[0]
    np.testing.assert_allclose(together, whole[::2], atol=1e-5)


def test_the_8_bit_copy_takes_photos_too(file: Path, tmp_path: Path) -> None:
    quantize_int8(file, tmp_path / "int8.onnx", nets.images(64).numpy())
    photos = [photo(*size) for size in SIZES]
    eight, exact = (OnnxModel(one).of_pixels(photos) for one in (tmp_path / "int8.onnx", file))
    assert (eight.argmax(1) == exact.argmax(1)).mean() >= 0.85
    assert np.abs(eight - exact).max() < 0.1 * np.ptp(exact)
    assert (tmp_path / "int8.onnx").stat().st_size < 8000


@pytest.mark.slow
@pytest.mark.parametrize("fit", ["crop", "letterbox"])
def test_the_fit_of_the_data_is_that_of_training_evaluation_and_file(tmp_path: Path, fit: str) -> None:
    """Views of training, `evaluate` of the folder, and `evaluate` of the file on original photos."""
    for number in range(16):
        file = tmp_path / "data" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(photo(70 + 7 * number, 150 - 5 * number)).save(file)
    settings = DataConfig(path=str(tmp_path / "data"), fit=fit, size=16)
    data = dataset.prepare(settings)
    network = data.model("builtin:mlp").eval()
    assert network.card.fit == data.fit == fit
    shown = data.loader().clean_batch(np.arange(16)).image.numpy()
    for row in range(16):
        np.testing.assert_array_equal(np.rint(shown[row] * 255), in_code(data.manifest.image(row), network.card))
    save_model(network, tmp_path / "model")
    export_onnx(network, tmp_path / "model.onnx")
    found = [
        split_logits(str(tmp_path / name), settings.path, split="test", limit=None).logits
        for name in ("model", "model.onnx")
    ]
    np.testing.assert_allclose(*found, atol=0.02)


@pytest.mark.slow
def test_real_photos_get_the_answer_of_predict(shared: Path, tmp_path: Path) -> None:
    """Every twentieth test photo of dogs and cats, through a network of a thousand classes: the hardest to agree in."""
    with tarfile.open(shared / "data" / "dogs-vs-cats.tar") as archive:
        members = [one for one in archive.getmembers() if one.isfile() and "/test/" in f"/{one.name}"][::20]
        archive.extractall(tmp_path, members, filter="data")
    weights = shared / "data" / "weights" / "imagenet-mobilenet_v2-fp16.safetensors"
    names = [str(number) for number in range(1000)]
    network = zoo.create("torchvision:mobilenet_v2", classes=names, size=(96, 96), weights=weights).eval()
    network = network.with_card(network.card.replace(resize=110, crop=(96, 96)))
    export_onnx(network, tmp_path / "model.onnx")
    photos = pictures(tmp_path)[0]
    expected, found = classify(network, photos), classify(OnnxModel(tmp_path / "model.onnx"), photos)
    assert len(photos) > 15
    assert np.mean([one["class"] == other["class"] for one, other in zip(found, expected, strict=True)]) >= 0.95
    difference = [one["probability"] - other["probability"] for one, other in zip(found, expected, strict=True)]
    assert np.abs(difference).max() < 0.02
