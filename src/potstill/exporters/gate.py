"""The gate before delivery: every file is run and compared with what it should compute.

A float file should compute its network: the same class for 99.5 % of the images, and logits that differ by at most 1 %
of the largest one. A quantized file should compute its own simulation (rounding in float): the same class for 98 %, or
for all images but one where there are fewer than 50, of which one is more than 2 %.
Below that the file is removed and the export fails. What quantization itself changes is no fault of the file; it is
noted with the number of images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from potstill import progress
from potstill.errors import ModelError
from potstill.model_files.onnx import OnnxModel
from potstill.models.outputs import Classifier, Outputs
from potstill.words import argument

Computes = Callable[[Tensor], Outputs]
BATCH = 64
LOGITS = 0.01  # of the largest logit; float32 in another order of operations differs by some 1e-6
COSTLY = 98.0  # percent; a note names quantization that changes the class of more images
NOISE = 64  # generated images, if there are no others
ALL_BUT_ONE = 10  # images; with fewer, one that differs is no exception


@dataclass(frozen=True)
class Rule:
    """The least percentage of images with the same class, and whether the logits must be close too."""

    agreement: float
    close: bool


FLOAT, QUANTIZED = Rule(99.5, close=True), Rule(98.0, close=False)


def check_float(file: Path, network: Classifier, images: Tensor, *, opened: Computes | None = None) -> None:
    """Remove an exported float file and raise `ModelError` unless it computes its network.

    images: [N, C, H, W] in 0..1. opened: the file as a model; None opens an ONNX file.
    """
    _check(file, opened or OnnxModel(file), network, images, FLOAT, "its network")


def check_quantized(file: Path, simulation: Computes, images: Tensor, *, opened: Computes | None = None) -> None:
    """Do the same for a quantized file and the function that it should compute, such as the fake-quantized network."""
    _check(file, opened or OnnxModel(file), simulation, images, QUANTIZED, "its quantized simulation")


def check_int8(file: Path, network: Classifier, images: Tensor, *, source: Path | str) -> None:
    """Do the same for a file of `quantize_int8`, and note what quantization changes.

    Its simulation is its own graph, with the rounding as separate operators in float. source: the folder of the network
    for the next command.
    """
    check_quantized(file, OnnxModel(file, optimized=False), images)
    logits, reference = _logits(OnnxModel(file), images), _logits(network, images)
    changed = 100 - 100 * float((logits.argmax(1) == reference.argmax(1)).float().mean())
    if changed > 100 - COSTLY:
        progress.note(
            f"Quantization to 8 bits changes the class of {changed:.1f} % of {len(images)} images ({file.name} against "
            "its float network). Use the float file, or train the network with the rounding: potstill "
            f"quantize {argument(source)} --mode qat"
        )


def check_rounding(
    file: Path,
    exported: Computes,
    network: Classifier,
    images: Tensor,
    *,
    opened: Computes,
    temperature: float | None = None,
) -> None:
    """Do the same for a file in integers that rounds otherwise than `exported`, the ONNX file with the same numbers.

    It may be further from the network than that file by half, or by 15 % of what outputs differ by from image to image
    (root mean squares): one step in each layer adds up to that, and the rest are faults. temperature: of a file that
    gives probabilities; None compares logits.
    """
    each = (_logits(model, images) for model in (opened, exported, network))
    outputs, quantized, exact = (one if temperature is None else (one / temperature).softmax(1) for one in each)
    error = float((outputs - exact).square().mean().sqrt())
    bound = max(1.5 * float((quantized - exact).square().mean().sqrt()), 0.15 * float(exact.std(0).mean()))
    bound += 0.0 if temperature is None else 1 / 256  # the step of probabilities in 8 bits
    if not error <= bound:
        _remove([file])
        raise ModelError(
            f"{file} was not delivered: run on {len(images)} images its outputs differ from those of its network by "
            f"{error:.3g}, and {bound:.3g} is what rounding explains. The export of this network is wrong. Choose "
            "another student, another runtime or leave the 8-bit file out (export --no-int8)."
        )


def noise(network: Classifier) -> Tensor:
    """Return generated images for a network without data, [N, C, H, W] in 0..1."""
    card = network.card
    return torch.rand(NOISE, card.channels, *card.size, generator=torch.Generator().manual_seed(0))


def _check(file: Path, opened: Computes, computes: Computes, images: Tensor, rule: Rule, what: str) -> None:
    logits, reference = _logits(opened, images), _logits(computes, images)
    bound = LOGITS * max(1.0, float(reference.abs().max()))
    difference = float((logits - reference).abs().max())
    same = _same(logits, reference, bound)
    agreement, others = 100 * float(same.float().mean()), int((~same).sum())
    excepted = not rule.close and others == 1 and len(images) >= ALL_BUT_ONE
    agrees = agreement >= rule.agreement or excepted
    if agrees and (difference <= bound or not rule.close) and logits.isfinite().all():
        return
    _remove([file, file.with_suffix(".bin")] if file.suffix == ".xml" else [file])
    limit = f" and {bound:.3g}" if rule.close else ""
    raise ModelError(
        f"{file} was not delivered: run on {len(images)} images it gives the class of {what} for {agreement:.1f} %, "
        f"with logits that differ by up to {difference:.3g} ({rule.agreement} %{limit} are required). The export of "
        "this network is wrong. Choose another student, another runtime or, for an 8-bit file, leave it out "
        "(export --no-int8; export.int8=false in a recipe)."
    )


def _same(logits: Tensor, reference: Tensor, bound: float) -> Tensor:
    """Return where the class is the same, or one that the reference scores equally within the bound: bool [N]."""
    chosen = reference.gather(1, logits.argmax(1, keepdim=True)).squeeze(1)
    return chosen >= reference.amax(1) - bound


def _logits(model: Computes, images: Tensor) -> Tensor:
    """Return the logits float32 [N, K] on the CPU; a network is in eval mode meanwhile."""
    training = model.training if isinstance(model, Classifier) else False
    if isinstance(model, Classifier):
        images = images.to(model.mean.device)
        model.eval()
    with torch.inference_mode():
        logits = torch.cat([model(part).logits.float().cpu() for part in images.split(BATCH)])
    if isinstance(model, Classifier):
        model.train(training)
    return logits


def _remove(files: Sequence[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)
