"""One exported file for all tests, because each export takes about a second."""

from __future__ import annotations

from pathlib import Path

import pytest

from potstill.exporters import export_onnx

from . import nets


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`nets.tiny()` with a temperature of 1.7; for reading only."""
    file = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    export_onnx(nets.tiny(), file, temperature=1.7)
    return file
