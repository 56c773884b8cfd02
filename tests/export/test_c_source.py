"""Generated C computes what onnxruntime computes, in memory that is shared, and is called as its header says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from potstill.errors import ModelError
from potstill.exporters import quantize_int8
from potstill.exporters.c_source import check_operators, to_c
from potstill.exporters.c_source.source import planned
from potstill.model_files import c_code
from potstill.model_files.c_code import CModel
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.onnx_input import CARD

from . import graphs, nets
from .graphs import normal, step

pytest.importorskip("emx_onnx_cgen", reason="needs the extra c")
try:
    COMPILER = c_code.compiler()
except ModelError as error:
    pytest.skip(str(error), allow_module_level=True)

MAIN = """
#include <stdio.h>
#include "NAME.h"
int main(void) {
    static float image[CAPS_IMAGE], logits[CAPS_CLASSES];
    static double arena[CAPS_ARENA / sizeof(double)];
    unsigned char pixels[CAPS_IMAGE];
    if (fread(pixels, 1, CAPS_IMAGE, stdin) != CAPS_IMAGE) return 1;
    NAME_image(pixels, image);
    NAME((NAME_input)image, (NAME_output)logits, arena);
    for (int k = 0; k < CAPS_CLASSES; ++k) printf("%s\\t%.9g\\n", NAME_classes[k], logits[k] / CAPS_TEMPERATURE);
    return 0;
}
"""


@pytest.fixture(scope="module", params=["model", "model_int8"])
def written(
    request: pytest.FixtureRequest, file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[OnnxModel, Path, int]:
    """`nets.tiny()` in float or in 8 bits, with class names that are not harmless in C; its C file, its memory."""
    folder = tmp_path_factory.mktemp("c")
    model = onnx.load(file)
    card = next(one for one in model.metadata_props if one.key == CARD)
    card.value = card.value.replace("apple", '\\" */ %s').replace("birne", "trigraph ??/")
    plain = folder / "model.onnx"
    onnx.save(model, plain)
    exported = folder / f"{request.param}.onnx"
    if exported != plain:
        quantize_int8(plain, exported, nets.images(64, seed=3).numpy())
    arena = to_c(exported, exported.with_suffix(".c"))
    return OnnxModel(exported, threads=1), exported.with_suffix(".c"), arena


@pytest.mark.slow
def test_the_compiled_code_is_the_file(written: tuple[OnnxModel, Path, int]) -> None:
    reference, source, arena = written
    model = CModel(source, reference.card, arena)
    image = nets.images(50)
    # In 8 bits a number in the middle of two steps may be rounded otherwise.
    largest = (model(image).logits - reference(image).logits).abs().max()
    assert largest < (1e-4 if source.stem == "model" else 0.1)
    assert model.warnings == 0
    weights = 4 * 8 * (27 + 72) if source.stem == "model" else 8 * (27 + 72)
    assert model.flash is None or weights < model.flash < weights + 8000


@pytest.mark.slow
def test_it_is_called_as_the_header_says(written: tuple[OnnxModel, Path, int], tmp_path: Path) -> None:
    reference, source, _ = written
    name = source.stem
    (tmp_path / "main.c").write_text(MAIN.replace("NAME", name).replace("CAPS", name.upper()))
    how = ["-O2", "-std=c99", "-Wall", "-Werror", "-I", source.parent, "main.c", source, "-lm", "-o", "main"]
    subprocess.run([COMPILER, *how], cwd=tmp_path, check=True)
    pixels = (255 * nets.images(1)).round().to(torch.uint8)
    given = np.ascontiguousarray(pixels[0].permute(1, 2, 0).numpy()).tobytes()
    shown = subprocess.run([tmp_path / "main"], input=given, capture_output=True, check=True).stdout.decode()
    rows = [line.rpartition("\t") for line in shown.splitlines()]
    assert tuple(row[0] for row in rows) == reference.card.classes
    expected = reference(pixels / 255).logits[0] / 1.7
    np.testing.assert_allclose([float(row[2]) for row in rows], expected, atol=0.06, rtol=0)


@pytest.mark.slow
def test_8_bit_layers_stay_in_8_bits_and_share_memory(tmp_path: Path) -> None:
    wide = step("Conv", normal(8, 8, 3, 3), normal(8), pads=[1, 1, 1, 1])
    plain = graphs.write(tmp_path / "plain.onnx", wide, step("Relu"), wide, step("Relu"))
    quantize_int8(plain, tmp_path / "int8.onnx", graphs.pixels(16))
    arena = to_c(tmp_path / "int8.onnx", tmp_path / "int8.c")
    maps = 8 * 8 * 8
    assert arena <= 4 * maps + 2 * maps  # the logits in float, and two maps; all three layers have 1536 + 2048 bytes
    text = (tmp_path / "int8.c").read_text()
    assert len(re.findall(r"^EMX_NODE_FN void node\d+_qlinearconv", text, re.M)) == 3
    assert "malloc(" not in text and "extern" not in text
    again = tmp_path / "again" / "int8.c"
    again.parent.mkdir()
    to_c(tmp_path / "int8.onnx", again)
    assert again.read_text() == text


def test_text_of_another_form_is_refused() -> None:
    with pytest.raises(ModelError, match="Install the version it was made for: pip install 'emx-onnx-cgen>=1.4,<1.5'"):
        planned("\nvoid net(const float x[1]) {\n    float *y = calloc(1, 4); free(y);\n}\n", "net")


def test_operators_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    exported = graphs.write(tmp_path / "model.onnx", step("Elu"))
    check_operators(exported, "this net")
    model = onnx.load(exported)
    model.graph.node[1].op_type, model.graph.node[1].domain = "QuickGelu", "com.microsoft"
    model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    onnx.save(model, exported)
    with pytest.raises(ModelError, match="this net cannot be written as C by emx-onnx-cgen: QuickGelu"):
        check_operators(exported, "this net")


def test_an_absent_compiler_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("CC", raising=False)
    with pytest.raises(ModelError, match="There is no C compiler.*Install gcc or clang"):
        c_code.compiler()
