"""Files for OpenVINO and ExecuTorch, where these are installed: same answers, same card."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.errors import ModelError
from potstill.exporters import export_onnx, parity, quantize_int8
from potstill.exporters.other_runtimes import to_executorch, to_openvino
from potstill.model_files.latency import latency_ms
from potstill.model_files.runtimes import open_exported

from . import nets


@pytest.mark.parametrize("bits", [32, 8])
def test_openvino(file: Path, tmp_path: Path, bits: int) -> None:
    pytest.importorskip("openvino")
    if bits == 8:
        quantize_int8(file, tmp_path / "int8.onnx", nets.images(64).numpy())
        file = tmp_path / "int8.onnx"
    out = tmp_path / "model.xml"
    to_openvino(file, out)
    model = open_exported(out, threads=1)
    assert model.card == nets.tiny().card
    result = parity(nets.tiny(), model, [nets.images(50), nets.images(3, size=(20, 20))])
    assert result["max_logit_difference"] < (1e-4 if bits == 32 else 0.5)
    assert result["agreement"] >= 98
    assert latency_ms([out], seconds=0.05)[0].median_ms > 0
    out.write_text("<net/>")
    with pytest.raises(ModelError, match="is not an OpenVINO model of potstill"):
        open_exported(out)


def test_openvino_keeps_the_temperature(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    export_onnx(nets.tiny(), tmp_path / "model.onnx", input="prepared", temperature=2.5)
    to_openvino(tmp_path / "model.onnx", tmp_path / "model.xml")
    assert open_exported(tmp_path / "model.xml").temperature == 2.5


def test_executorch(tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    out = tmp_path / "model.pte"
    to_executorch(nets.tiny(), out, temperature=2.5)
    model = open_exported(out)
    assert model.card == nets.tiny().card and model.temperature == 2.5
    assert parity(nets.tiny(), model, [nets.images(10)])["max_logit_difference"] < 1e-4
    (tmp_path / "model.card.json").unlink()
    with pytest.raises(ModelError, match=r"has no card: model\.card\.json must be in the same folder"):
        open_exported(out)
