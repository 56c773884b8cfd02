"""The originals that travel with a file, the script that checks it on them, and the lines that use it: both run with
numpy, pillow and onnxruntime only, on images of all kinds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import PIL
import pytest
from PIL import Image

from potstill.exporters import export_onnx
from potstill.exporters.golden import GoldenImage, write_golden
from potstill.model_files import snippets
from potstill.model_files.onnx import OnnxModel
from potstill.stages.inference.images import pictures
from potstill.stages.inference.predict import classify

from . import nets
from .test_raw_input import classifier, photo

KINDS = ("rotated.jpg", "cmyk.jpg", "alpha.png", "palette.gif", "palette.png", "grey.jpg", "grey-alpha.png", "deep.png")


def save(folder: Path, name: str) -> Path:
    """Write an image of one kind; return its file."""
    colour, grey = Image.fromarray(photo(30, 47)), Image.fromarray(photo(41, 33, 1)[:, :, 0])
    ramp = Image.fromarray(np.tile(np.linspace(0, 255, 47).astype(np.uint8), (30, 1)))
    turned = Image.Exif()
    turned[0x0112] = 6
    palette = colour.quantize(16)
    made: dict[str, tuple[Image.Image, dict[str, object]]] = {
        "rotated.jpg": (colour, {"exif": turned}),
        "cmyk.jpg": (colour.convert("CMYK"), {}),
        "alpha.png": (Image.merge("RGBA", [*colour.split(), ramp]), {}),
        "palette.gif": (palette, {}),
        "palette.png": (palette, {"transparency": 3}),
        "grey.jpg": (grey, {}),
        "grey-alpha.png": (Image.merge("LA", [colour.convert("L"), ramp]), {}),
        "deep.png": (Image.fromarray(np.asarray(grey).astype(np.uint16) * 200), {}),
    }
    image, options = made[name]
    image.save(folder / name, **options)
    return folder / name


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with numpy, pillow and onnxruntime, which is all that an isolated Python can import."""
    folder = tmp_path_factory.mktemp("three")
    for module in (np, PIL, onnxruntime):
        package = Path(str(module.__file__)).parent
        for part in (package, package.with_name(f"{package.name}.libs"), package.with_name("pillow.libs")):
            if part.is_dir() and not (folder / part.name).exists():
                (folder / part.name).symlink_to(part)
    return folder


def isolated(three: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run Python without the packages that are installed, but for the three."""
    start = f"import sys; sys.path.append({str(three)!r})\n"
    command = [sys.executable, "-I", "-S", "-c", start + code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_nothing_else_can_be_imported(three: Path) -> None:
    result = isolated(three, "import numpy, PIL, onnxruntime\nimport torch")
    assert "No module named 'torch'" in result.stderr


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw and a prepared file with golden images of all kinds."""
    folder = tmp_path_factory.mktemp("golden")
    network = classifier("letterbox")
    export_onnx(network, folder / "model.onnx", temperature=1.5)
    export_onnx(network, folder / "prepared.onnx", input="prepared", temperature=1.5)
    files = [save(folder, name) for name in KINDS]
    images = [GoldenImage(file.read_bytes(), file.suffix, "apple") for file in files]
    models = {name: OnnxModel(folder / name) for name in ("model.onnx", "prepared.onnx")}
    write_golden(folder / "golden", images, nets.images(len(files)), models, temperature=1.5)
    return folder


def test_the_script_accepts_the_files_and_refuses_others(exported: Path, three: Path, tmp_path: Path) -> None:
    script = exported / "golden" / "verify.py"
    run = f"import runpy; runpy.run_path({str(script)!r}, run_name='__main__')"
    result = isolated(three, run)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(f"{len(KINDS)} images, largest difference of a probability 0.0000") == 2
    content = json.loads((exported / "golden" / "golden.json").read_text())
    content["probabilities"]["model.onnx"][0].reverse()
    other = tmp_path / "golden"
    other.mkdir()
    for file in (exported / "golden").iterdir():
        (other / file.name).write_bytes(file.read_bytes())
    (other / "golden.json").write_text(json.dumps(content))
    for name in ("model.onnx", "prepared.onnx"):
        (tmp_path / name).write_bytes((exported / name).read_bytes())
    result = isolated(three, run.replace(str(exported), str(tmp_path)))
    assert result.returncode == 1 and "this machine decodes or computes differently" in result.stderr


def test_the_originals_travel_and_hold_what_the_network_says(exported: Path) -> None:
    golden = json.loads((exported / "golden" / "golden.json").read_text())
    assert [(exported / "golden" / one["file"]).read_bytes() for one in golden["images"]] == [
        (exported / name).read_bytes() for name in KINDS
    ]
    photos, probabilities = pictures([exported / name for name in KINDS])[0], golden["probabilities"]["model.onnx"]
    for expected, one in zip(probabilities, classify(classifier("letterbox"), photos), strict=True):
        assert nets.CLASSES[int(np.argmax(expected))] == one["class"]
        assert one["probability"] > max(expected), "the temperature of the file is 1.5"
    for expected, one in zip(probabilities, classify(OnnxModel(exported / "model.onnx"), photos), strict=True):
        assert one["probability"] == pytest.approx(max(expected), abs=1e-4)  # predict applies the file's temperature


def test_the_shown_lines_say_what_predict_says(exported: Path, three: Path) -> None:
    lines = [snippets.use(exported / "model.onnx", str(exported / name)) for name in KINDS]
    assert lines[0].count("\n") <= 16
    result = isolated(three, "\n".join(lines))
    assert result.returncode == 0, result.stderr
    golden = json.loads((exported / "golden" / "golden.json").read_text())["probabilities"]["model.onnx"]
    for line, row in zip(result.stdout.splitlines(), golden, strict=True):
        name, probability = line.split()
        assert name == nets.CLASSES[int(np.argmax(row))]
        assert float(probability) == pytest.approx(max(row), abs=0.02)


def test_the_document_shows_the_same_lines() -> None:
    text = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    assert snippets.use("model.onnx") in text
