"""`--target cortex-m4:256k/64k`: what a device has, and whether a network fits on it, before it is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from potstill.errors import ModelError
from potstill.exporters.footprint import FLOAT, Footprint, footprint
from potstill.exporters.onnx_file import with_card
from potstill.model_files.onnx import OnnxModel
from potstill.models.outputs import Classifier
from potstill.quantities import to_target
from potstill.words import file_size


def check_fit(target: str | None, model: Classifier | Path, *, bits: int | None = None) -> dict[str, Any]:
    """Return the part of a summary that tells what a device has and what a network needs; nothing without a target.

    model: a network, trained or not, or an ONNX file. bits: as in `footprint`. Raises `ModelError` with every figure
    that does not fit.
    """
    if target is None:
        return {}
    device, needs = to_target(target), footprint(model, bits=bits)
    pairs = {"flash": (needs.flash, device.flash), "RAM": (needs.ram, device.ram)}
    over = [
        f"{file_size(need)} of {kind} where there are {file_size(has)}"
        for kind, (need, has) in pairs.items()
        if need > has
    ]
    if over:
        raise ModelError(_sentence(model, needs, device.name, over))
    return {"device": {"name": device.name, "flash": device.flash, "ram": device.ram,
                       "needs": {"bits": needs.bits, "flash": needs.flash, "ram": needs.ram}}}  # fmt: skip


def _sentence(model: Classifier | Path, needs: Footprint, device: str, over: list[str]) -> str:
    subject = str(model) if isinstance(model, Path) else f"{model.card.typed} at {min(model.card.size)} pixels"
    bits = "float" if needs.bits == FLOAT else f"{needs.bits} bits"
    return (
        f"{subject} does not fit on {device}: in {bits} it needs {' and '.join(over)}. Take a narrower network, fewer "
        "bits (flash) or smaller images (RAM); `potstill models NAME --size 64 --bits 8` shows what a network needs."
    )


def device_figures(file: Path, *, bits: int | None = None) -> dict[str, int]:
    """Return `macs`, `flash` and `ram` of an ONNX file, for its figures in a summary."""
    needs = footprint(file, bits=bits)
    return {"macs": needs.macs, "flash": needs.flash, "ram": needs.ram}


def with_device_figures(file: Path, *, bits: int | None = None) -> dict[str, int]:
    """Write `device_figures` into the card inside a file, and return them."""
    figures = device_figures(file, bits=bits)
    with_card(file, OnnxModel(file, threads=1).card.replace(device=figures))
    return figures
