"""The model inside a page answers as onnxruntime does, on the pixels that Pillow makes, in a real browser."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image

from potstill.data.decode import decode
from potstill.data.squares import fitted, window_of
from potstill.data.thumbnails import data_url
from potstill.evaluation.statistics import proportion_interval
from potstill.exporters import export_onnx, quantize_int8
from potstill.exporters.onnx_file import metadata_of
from potstill.model_files.onnx import OnnxModel, session
from potstill.models.card import Card
from potstill.report.runner import play as playing
from potstill.report.runner.compiler import read_program
from potstill.report.runner.program import Unsupported
from potstill.report.templates import filled
from tests.browser import Browser, Page
from tests.export import graphs, nets
from tests.export.graphs import CHANNELS, SIDE, normal, step

pytestmark = pytest.mark.slow

SCRIPTS = Path(playing.__file__).parent
IMAGES = 200


@pytest.fixture(scope="module")
def engine(chromium: Browser) -> Page:
    """An empty page with the interpreter, and helpers for base64."""
    page = chromium.page("data:text/html,<title>engine</title>")
    for name in ("runner.js", "pixels.js"):
        page.run((SCRIPTS / name).read_text(encoding="utf-8"))
    page.run("var bytes = text => Uint8Array.from(atob(text), one => one.charCodeAt(0))")
    return page


def answers(engine: Page, file: Path, images: np.ndarray) -> np.ndarray:
    """Return the logits [N, K] of the page for float32 images [N, C, H, W]."""
    program, values = read_program(file).to_json(), base64.b64encode(images.tobytes()).decode()
    script = f"""(() => {{
        const run = Runner.load({json.dumps(program)}), all = new Float32Array(bytes("{values}").buffer), size =
            all.length / {len(images)};
        return Array.from({{length: {len(images)}}}, (_, i) => [...run(all.subarray(i * size, i * size + size))]);
    }})()"""
    return np.array(engine.run(script))


def vector(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def whole(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


ONE, C = np.float32(0.5), CHANNELS
GRAPHS: dict[str, list[graphs.Step]] = {
    "convolutions": [
        step("Conv", normal(12, C, 3, 3), normal(12), pads=[1, 0, 1, 2], strides=[2, 1], dilations=[1, 2]),
        step("Relu"),
        step("Conv", normal(12, 4, 1, 3), group=3, auto_pad="SAME_UPPER"),
        step("Conv", normal(24, 1, 3, 2), normal(24), group=12, pads=[2, 1, 0, 0], strides=[1, 2]),
    ],
    "pooling": [
        step("MaxPool", kernel_shape=[3, 2], strides=[2, 1], pads=[1, 0, 1, 1]),
        step("AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], ceil_mode=1),
        step("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 0, 0], count_include_pad=1),
        step("GlobalAveragePool"),
    ],
    "means": [
        step("ReduceMean", whole(1), keepdims=0),
        step("ReduceSum", whole(0, 2), keepdims=1),
        step("ReduceMax", whole(1), keepdims=0),
    ],
    "functions": [
        step("HardSwish"),
        step("Add", normal(C, 1, 1)),
        step("Gelu"),
        step("Mul", normal(SIDE, 1)),
        step("Gelu", approximate="tanh"),
        step("Sub", ONE),
        step("Erf"),
        step("HardSigmoid", alpha=0.3, beta=0.4),
        step("Div", np.float32(0.1)),
        step("Tanh"),
        step("LeakyRelu", alpha=0.2),
        step("Elu"),
        step("Softplus"),
        step("Pow", np.float32(1.5)),
        step("Sqrt"),
        step("Neg"),
        step("Exp"),
        step("Sigmoid"),
        step("Clip", np.float32(0.55), np.float32(0.7)),
        step("Max", np.full((1, 1, 1, SIDE), 0.6, np.float32)),
        step("Add", twice=True),
    ],
    "norms": [
        step("BatchNormalization", *(normal(C, seed=n) ** 2 + 0.1 for n in range(4))),
        step("InstanceNormalization", normal(C), normal(C, seed=1)),
        step("LayerNormalization", normal(SIDE), normal(SIDE, seed=1)),
        step("Softmax", axis=-1),
    ],
    "moves": [
        step("Transpose", perm=[0, 2, 3, 1]),
        step("Slice", whole(6, 0), whole(-99, 7), whole(1, 2), whole(-2, 3)),
        step("Pad", whole(0, 1, 0, 2, 0, 0, 3, 0), np.float32(-1.5)),
        step("Concat", twice=True, axis=3),
        step("Gather", whole(1, 3, 5), axis=3),
        step("Unsqueeze", whole(2)),
        step("Expand", whole(1, 1, 2, 1, 1)),
        step("Gather", np.array(1), axis=4),
    ],
    "products": [
        step("Reshape", whole(-1, C, SIDE * SIDE)),
        step("Transpose", perm=[0, 2, 1]),
        step("MatMul", normal(C, 6)),
        step("Reshape", whole(-1, 4, 16, 6)),
        step("MatMul", normal(4, 6, 5)),
        step("Flatten"),
        step("Gemm", normal(320, 9), normal(9)),
        step("Relu"),
        step("Gemm", normal(3, 9), transB=1),
    ],
    "integers": [
        step("QuantizeLinear", np.float32(0.04), np.uint8(70)),
        step("DequantizeLinear", np.float32(0.04), np.uint8(70)),
        step("QuantizeLinear", np.float32(0.05), np.int8(3)),
        step("DequantizeLinear", np.float32(0.05), np.int8(3)),
    ],
}
BRANCHES = """
<ir_version: 10, opset_import: ["" : 20]>
branches (float[batch, 4, 5, 5] image) => (float[batch, 12] logits) {
  left, right = Split <axis = 1, num_outputs = 2> (image)
  down = Transpose <perm = [0, 1, 3, 2]> (right)
  product = MatMul (left, down)
  far = Min (product, left, down)
  one = GlobalMaxPool (far)
  joined = Concat <axis = 1> (left, right, far, product, left, right)
  two = GlobalAveragePool (joined)
  flat = Flatten (two)
  scale = Flatten (one)
  weight = Constant <value = float[2, 12] {1, 2, 3, 4, 5, 6, 7, 8, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5, 6}> ()
  gate = Gemm (scale, weight)
  logits = Mul (flat, gate)
}
"""


def test_every_operator_computes_what_onnxruntime_does(engine: Page, tmp_path: Path) -> None:
    files = {name: graphs.write(tmp_path / f"{name}.onnx", *steps) for name, steps in GRAPHS.items()}
    files["branches"] = tmp_path / "branches.onnx"
    onnx.save(onnx.parser.parse_model(BRANCHES), files["branches"])
    for name, file in files.items():
        running = session(file, threads=1, optimized=False)
        shape = [side if isinstance(side, int) else 3 for side in running.get_inputs()[0].shape]
        images = np.random.default_rng(0).random(shape, dtype=np.float32)
        expected = np.concatenate([np.asarray(running.run(None, {"image": one[None]})[0]) for one in images])
        error = np.abs(answers(engine, file, images) - expected).max() / np.abs(expected).max()
        assert error < 2e-6, name


def test_what_a_page_cannot_run_is_named(tmp_path: Path) -> None:
    file = graphs.write(tmp_path / "odd.onnx", step("Cos"), step("Sin"), step("Cos"))
    with pytest.raises(Unsupported, match="the operators Cos, Sin"):
        read_program(file)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """PNG files of many sizes, grey ones, some with transparency, one turned by its EXIF data."""
    folder, random = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    files = []
    for number in range(IMAGES):
        height, width = random.integers(4, 90, 2)
        tint = random.integers(0, 200, 3 + (number % 9 == 0))
        pixels = (tint + random.integers(0, 56, (height, width, len(tint)))).astype(np.uint8)
        image = Image.fromarray(pixels[:, :, 0] if number % 7 == 0 else pixels)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 5 else 1
        image.save(file := folder / f"{number}.png", exif=exif)
        files.append(file)
    return files


def cards() -> Iterator[Card]:
    for fit in ("crop", "letterbox", "stretch"):
        yield Card("c", ("a",), 3, (24, 24), (0.5,) * 3, (0.5,) * 3, resize=32, crop=(24, 24), fit=fit)
    yield Card("c", ("a",), 1, (20, 28), (0.5,), (0.5,), resize=24, crop=(20, 28))


def test_the_page_prepares_photos_as_pillow_does(engine: Page, photos: list[Path]) -> None:
    photos = photos[:80]
    files = json.dumps([base64.b64encode(file.read_bytes()).decode() for file in photos])
    engine.run(f"""(async () => {{
        images = [];
        for (const one of {files}) images.push(await Pixels.decode(new Blob([bytes(one)])));
    }})()""")
    decoded = [decode(file, name=file.name) for file in photos]
    for card in cards():
        spec = json.dumps(playing.preprocessing(card))
        made = engine.run(f"images.map(one => [...Pixels.prepare(one, {spec}).map(x => Math.round(255 * x))])")
        for pixels, page, number in zip(decoded, made, range(len(photos)), strict=True):
            window = window_of(card.crop, card.resize, card.fit)
            expected = fitted(pixels, window, card.channels, card.fit)
            top, left = ((window[axis] - card.crop[axis]) // 2 for axis in (0, 1))
            cut = expected[:, top : top + card.crop[0], left : left + card.crop[1]]
            wrong = np.abs(np.array(page).reshape(cut.shape) - cut)
            clear = number % 9 or pixels.shape[2] == 1  # what is half transparent may be rounded the other way
            assert wrong.max() <= (0 if clear else 1), (card.fit, number, pixels.shape, wrong.max())


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with student.onnx and student_int8.onnx, whose first class has markup in its name."""
    folder = tmp_path_factory.mktemp("exported")
    tiny = nets.tiny(size=(24, 24))
    tiny = tiny.with_card(tiny.card.replace(classes=("<script>alert(1)</script>", "birne", "Kürbis"), resize=30))
    export_onnx(tiny, folder / "student.onnx", temperature=1.7)
    quantize_int8(folder / "student.onnx", folder / "student_int8.onnx", nets.images(32, size=(24, 24)).numpy())
    return folder


@pytest.mark.parametrize(("name", "allowed"), [("student", 2e-4), ("student_int8", 2e-3)])
def test_the_page_answers_as_the_file_does(
    engine: Page, photos: list[Path], exported: Path, name: str, allowed: float
) -> None:
    """From the bytes of 200 files to logits. Of the pixels, the file rounds some halves the other way than Pillow."""
    file = exported / f"{name}.onnx"
    values = playing.play([file])
    assert values is not None and not values["problem"]
    files = json.dumps([base64.b64encode(one.read_bytes()).decode() for one in photos])
    model = json.dumps(values["model"])
    page = np.array(
        engine.run(f"""(async () => {{
        const model = {model}, run = Runner.load(model.program), out = [];
        for (const one of {files})
            out.push([...run(Pixels.prepare(await Pixels.decode(new Blob([bytes(one)])), model.card))]);
        return out;
    }})()""")
    )
    of_file = OnnxModel(file, threads=1, optimized=False).of_pixels([decode(one, name=one.name) for one in photos])
    difference = np.abs(page - of_file).max(1) / np.abs(of_file).max()
    assert np.quantile(difference, 0.9) < allowed and difference.max() < 3 * allowed
    assert (page.argmax(1) == of_file.argmax(1)).all()


def resnet20(file: Path) -> Path:
    """Write a graph with the layers of ResNet-20 for CIFAR-10: 40.5 million multiply-accumulates."""
    steps = [step("Conv", normal(16, CHANNELS, 3, 3) / 6, normal(16), pads=[1] * 4), step("Relu")]
    width = 16
    for number in range(18):
        wide, stride = (16, 32, 64)[number // 6], 2 if number in (6, 12) else 1
        weight = normal(wide, width, 3, 3, seed=number) * np.float32((2 / 9 / width) ** 0.5)
        steps += [step("Conv", weight, normal(wide), pads=[1] * 4, strides=[stride] * 2), step("Relu")]
        width = wide
    head = [step("GlobalAveragePool"), step("Flatten"), step("Gemm", normal(64, 10), normal(10))]
    return graphs.write(file, *steps, *head, size=(32, 32))


def test_resnet20_takes_less_than_300_ms(engine: Page, tmp_path: Path) -> None:
    file = resnet20(tmp_path / "r.onnx")
    program = read_program(file)
    assert 40e6 < program.macs < 42e6
    images = graphs.pixels(3, (32, 32)).astype(np.float32)
    expected = np.asarray(session(file, threads=1).run(None, {"image": images})[0])
    np.testing.assert_allclose(answers(engine, file, images), expected, rtol=1e-4, atol=1e-4)
    times = engine.run(f"""(() => {{
        const run = Runner.load({json.dumps(program.to_json())}), image = new Float32Array(3 * 32 * 32).fill(0.5);
        return Array.from({{length: 5}}, () => {{
            const began = performance.now(); run(image); return performance.now() - began;
        }});
    }})()""")
    assert min(times) < 300  # the fastest of five, because other processes may run


def folders(root: Path, photos: list[Path], classes: tuple[str, ...]) -> Path:
    """Lay 24 photos into folders named by class, except that a slash cannot be in a name; one lies elsewhere."""
    for number, photo in enumerate(photos[:25]):
        folder = root / ("elsewhere" if number == 24 else classes[1 + number % 2].upper())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / photo.name).write_bytes(photo.read_bytes())
    (root / "notes.png").write_text("no image")
    return root


def page_of(folder: Path, values: dict[str, Any] | None) -> Path:
    """Write a page with the section alone."""
    css = (SCRIPTS.parent / "report.css").read_text(encoding="utf-8")
    block = filled("blocks/play.html", play=values)
    (folder / "page.html").write_text(f"<meta charset=utf-8><style>{css}</style><main>{block}", encoding="utf-8")
    return folder / "page.html"


@pytest.fixture(scope="module")
def report(exported: Path) -> Path:
    return page_of(exported, playing.play([exported / "student.onnx"], accuracy="91.3 %"))


def test_labelled_photos_give_an_accuracy_with_its_interval(
    chromium: Browser, report: Path, photos: list[Path], tmp_path: Path
) -> None:
    root = folders(tmp_path / "mine", photos, nets.CLASSES)
    page = chromium.page(report)
    page.choose("#play-folder", [root])
    page.wait("document.getElementById('play-status').textContent.startsWith('25 photos')")
    model = OnnxModel(report.parent / "student.onnx", threads=1)
    right = 0
    for number, photo in enumerate(photos[:24]):
        logits = model.of_pixels([decode(photo, name=photo.name)])
        right += int(logits.argmax() == 1 + number % 2)
    low, high = proportion_interval(right, 24)
    text = page.text("#play-accuracy")
    assert f"Accuracy on your photos: {100 * right / 24:.1f} % ({right} of 24 correct" in text
    assert f"95 % interval {low:.1f} % to {high:.1f} %" in text and "elsewhere" in text and "91.3 %" in text
    assert "mine/notes.png is not an image" in page.text("#play-problems")
    assert page.run("document.querySelectorAll('#play-results .card').length") == 24
    assert page.requests == [] and page.errors == []
    assert "<script>alert(1)</script>" in page.run(
        "JSON.parse(document.getElementById('play-model').textContent).classes[0]"
    )


def test_files_that_are_dropped_are_classified(chromium: Browser, report: Path, photos: list[Path]) -> None:
    page = chromium.page(report, width=390)
    x, y = page.middle("#play-drop")
    data: dict[str, Any] = {"items": [], "files": [str(photos[0]), str(photos[1])], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        page.send("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)
    page.wait("document.getElementById('play-status').textContent.startsWith('2 photos')")
    assert "0.png" in page.text("#play-results") and page.text("#play-accuracy") == ""
    assert page.run("document.documentElement.scrollWidth") <= 390


def strokes(file: Path) -> Path:
    """Write a graph for grey images of 28 x 28 pixels that tells an upright stroke in the middle from a flat one."""
    weight = np.zeros((2, 28, 28), np.float32)
    weight[0, :, 12:16] = weight[1, 12:16] = 0.2
    text = """<ir_version: 10, opset_import: ["" : 20]> strokes (float[n, 1, 28, 28] image) => (float[n, 2] logits)
        { flat = Flatten (image)  logits = Gemm <transB = 1> (flat, weight) }"""
    model = onnx.parser.parse_model(text)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight.reshape(2, -1), "weight"))
    card = Card("test:strokes", ("upright", "flat"), 1, (28, 28), (0.0,), (1.0,), resize=28, crop=(28, 28))
    onnx.helper.set_model_props(model, metadata_of(card, None))
    onnx.save(model, file)
    return file


def test_a_drawing_is_classified_with_mouse_and_keyboard(chromium: Browser, tmp_path: Path) -> None:
    drawn, noise = np.zeros((28, 28), np.uint8), 255 * np.random.default_rng(0).random((28, 28))
    drawn[4:24, 12:15] = 255
    file, examples = strokes(tmp_path / "student.onnx"), [data_url(Image.fromarray(drawn), "PNG")]
    values = playing.play([file], examples=examples)
    assert values is not None
    assert values["drawing"] == {"dark": True, "share": 0.714, "stroke": 0.107}
    photo = playing.play([file], examples=[data_url(Image.fromarray(noise.astype(np.uint8)), "PNG")])
    assert photo is not None and photo["drawing"] is None
    page = chromium.page(page_of(tmp_path, values))
    x, y = page.middle("#play-paper")
    page.mouse((x - 60, y - 70), (x - 58, y), (x - 60, y + 60))
    page.wait("document.getElementById('play-drawn').innerText.startsWith('Your drawing: upright')")
    page.run("document.getElementById('play-clear').click(); document.getElementById('play-paper').focus()")
    assert page.text("#play-drawn") == "Nothing is drawn."
    page.key(" ", 32, " ")
    for _ in range(6):
        page.key("ArrowRight", 39)
    page.wait("document.getElementById('play-drawn').innerText.startsWith('Your drawing: flat')")
    assert page.requests == [] and page.errors == []


def test_a_network_that_is_too_large_gets_a_sentence(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert playing.play([tmp_path / "absent.onnx"]) is None
    files = [exported / "student.onnx", exported / "student_int8.onnx"]
    monkeypatch.setattr(playing, "MOST_BYTES", 3000)
    values = playing.play(files)
    assert values is not None and values["file"] == "student_int8.onnx"  # the float program has 4.5 kB
    monkeypatch.setattr(playing, "MOST_MACS", 10_000)
    text = filled("blocks/play.html", play=playing.play(files))
    assert "too large for a page: 0.5 million multiply-accumulates an image (at most 0.0)" in text
    assert f"potstill predict {files[0]} PHOTO" in text and "<script" not in text
