"""`potstill models NAME --bits 8`: what one network costs on a device, trained or not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill import progress
from potstill.compress.quantize import quantized_layers
from potstill.errors import ConfigError, ModelError
from potstill.exporters.device_profile import read_profile
from potstill.exporters.footprint import FLOAT, footprint
from potstill.model_files.open import Opened, find
from potstill.models import zoo
from potstill.models.outputs import Classifier, bare

BITS = (2, 3, 4, 5, 6, 7, 8, FLOAT)


def cost(
    name: str,
    *,
    bits: int | None = None,
    size: int | None = None,
    classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    time: bool = False,
    device: Path | None = None,
) -> dict[str, Any]:
    """Return the `Footprint` of a network by name or from a folder, or of an ONNX file, and what it holds for.

    size, classes, options: of a network by name; None takes its own size, and 10 classes for built-in networks, 1,000
    for others. device: a profile, to which the latency is scaled; `device_error` is what to expect of that.
    """
    _refuse(bits, size, classes)
    profile = None if device is None else read_profile(device)
    model = _model(name, size, classes, options)
    subject = model if isinstance(model, Classifier) else Path(name)
    with progress.task("Exporting with noise as calibration", 1):
        made = footprint(subject, bits=bits, time=time, device=profile)
    card = model.card
    about = {"model": name, "size": list(card.size), "channels": card.channels, "classes": len(card.classes)}
    scaled = {} if profile is None else {"device": profile.name, "device_error": round(profile.error(made.bits), 3)}
    return {**about, **made.to_json(), **scaled}


def _refuse(bits: int | None, size: int | None, classes: int | None) -> None:
    problems = []
    if bits is not None and bits not in BITS:
        problems.append(f"--bits {bits}: weights have 2 to 8 bits, or 32 in float.")
    if size is not None and size < 8:
        problems.append(f"--size {size}: images have at least 8 pixels a side.")
    if classes is not None and classes < 2:
        problems.append(f"--classes {classes}: a classifier has at least 2 classes.")
    if problems:
        raise ConfigError(*problems)


def _model(name: str, size: int | None, classes: int | None, options: Mapping[str, Any] | None) -> Opened:
    """Return the model at a path, an ONNX file or a network; or an untrained one by name."""
    model = find(name)
    if model is None:
        count = classes or (10 if name.startswith("builtin:") else 1000)
        sides = None if size is None else (size, size)
        return zoo.create(name, classes=tuple(map(str, range(count))), size=sides, options=options).eval()
    if any(value is not None for value in (size, classes, options)):
        raise ConfigError(f"{name} is a trained model, so its size and classes are fixed. Leave out --size, --classes.")
    exported = not isinstance(model, Classifier) and not name.endswith(".onnx")
    if exported or (isinstance(model, Classifier) and quantized_layers(bare(model.network))):
        raise ModelError(
            f"{name}: the cost of a quantized model is read from its ONNX file. Give model.onnx beside it."
        )
    return model
