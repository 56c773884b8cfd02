"""Verbs that make a model smaller and write its files: prune, quantize, export."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from potstill.api.keywords import settings_of
from potstill.api.results import CompressResult
from potstill.api.verb import built, last_name, new_folder, one_process, shared_folder, verb
from potstill.stages.compress.export import ExportStageConfig, export_files
from potstill.stages.compress.prune import PruneConfig
from potstill.stages.compress.prune import prune as prune_stage
from potstill.stages.compress.quantize import quantize as quantize_stage
from potstill.stages.compress.quantize_config import QuantizeConfig

Settings = Mapping[str, Any]


@verb
@one_process
def prune(
    model: str | Path,
    *,
    keep: float | None = None,
    max_macs: int | str | None = None,
    max_params: int | str | None = None,
    max_bytes: int | str | None = None,
    structure: Literal["inner", "all", "unstructured", "n:m"] | None = None,
    importance: Literal["l1", "l2", "bn", "taylor"] | None = None,
    scope: Literal["layer", "global"] | None = None,
    round_to: int | None = None,
    n: int | None = None,
    m: int | None = None,
    rounds: int | None = None,
    sensitivity: bool | None = None,
    data: str | Path | Settings | None = None,
    limit: int | None = None,
    group: str | None = None,
    test_from: Literal["train", "val", "none"] | None = None,
    weights: str | Path | None = None,
    options: Settings | None = None,
    teacher: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    objective: Settings | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    images: int | None = None,
    lr: float | None = None,
    train: Settings | None = None,
    augment: str | Sequence[Any] | None = None,
    views: int | None = None,
    calibration: int | None = None,
    input: Literal["raw", "prepared"] | None = None,
    seed: int | None = None,
    reject: str | None = None,
    target: str | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> CompressResult:
    """Prune channels or weights, fine-tune with distillation, and measure (docs/compression.md).

    Args:
        model: a run or stage folder, or a name with `weights` (and `options` of its architecture).
        keep, max_macs, max_params, max_bytes: exactly one: the share of multiply-accumulates that remains, 0..1, or
            the most multiply-accumulates, parameters, or bytes of float32 weights: 20_000_000 or "20M", "300kB".
        structure, importance, scope: what is pruned, ranked how, compared over which layers.
        round_to, rounds: widths become multiples; prune and fine-tune in so many rounds. n, m: of structure "n:m".
        sensitivity: measure the loss of pruning each layer alone.
        data: the images, by default those of the run. limit: images used, stratified. group: which stay in one split.
        test_from: what becomes the test split if the data have none.
        teacher, teacher_weights: by default the run's teacher, else the model before pruning; or "none".
        epochs, batch_size, images, lr, train, objective, augment, views, seed: of the fine-tuning; images: train on so
            many instead of epochs. calibration: training images for the statistics of BatchNorm.
        input: what the ONNX file takes: "raw" (photos of any size) or "prepared" (docs/export.md).
        reject, target: "precision>=0.99" to guarantee; the device to fit on, "NAME:FLASH/RAM" (docs/export.md).
        out: the folder of the pruned model and its ONNX file (default: a new one under runs/).
    """
    config = built(PruneConfig, settings_of("prune", locals()))
    folder = new_folder(f"prune-{last_name(model)}", "prune", config, out)
    return CompressResult(prune_stage(config, folder, command=command), folder)


@verb
def quantize(
    model: str | Path,
    *,
    weight_bits: int | None = None,
    activation_bits: int | None = None,
    first_last_bits: int | None = None,
    mode: Literal["ptq", "qat"] | None = None,
    calibrate: Literal["auto", "minmax", "percentile", "mse", "entropy"] | None = None,
    calibration: int | None = None,
    weight_steps: Literal["auto", "absmax", "mse", "lsq"] | None = None,
    rounding: Literal["auto", "nearest", "reconstruct"] | None = None,
    learn_activations: bool | None = None,
    equalize: bool | None = None,
    correct_bias: bool | None = None,
    max_bytes: int | str | None = None,
    weight_format: str | None = None,
    activation_format: str | None = None,
    simulate: bool | None = None,
    data: str | Path | Settings | None = None,
    limit: int | None = None,
    group: str | None = None,
    test_from: Literal["train", "val", "none"] | None = None,
    weights: str | Path | None = None,
    options: Settings | None = None,
    teacher: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    objective: Settings | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    images: int | None = None,
    lr: float | None = None,
    train: Settings | None = None,
    augment: str | Sequence[Any] | None = None,
    views: int | None = None,
    input: Literal["raw", "prepared"] | None = None,
    seed: int | None = None,
    reject: str | None = None,
    target: str | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> CompressResult:
    """Quantize weights and activations to 2-8 bits, write the files and measure them (docs/compression.md).

    Args:
        model: a run or stage folder, or a name with `weights` (and `options` of its architecture).
        weight_bits, activation_bits, first_last_bits: 2 to 8; the last for the first and the last layer.
        mode: "ptq" or "qat". calibrate, calibration: how activation ranges are chosen, on how many training images.
        weight_steps, rounding, learn_activations, equalize, correct_bias: docs/compression.md.
        max_bytes: of each file, such as "300kB"; bits then differ by layer, by how far they move the logits.
        simulate, weight_format, activation_format: measure formats such as "fixed4.4" and "e4m3", and write no file.
        data, limit, group, test_from: the images, by default those of the run; as in `prune`.
        teacher, teacher_weights, objective, epochs, batch_size, images, lr, train, augment, views, seed: of the
            training (qat), as in `prune`.
        reject, target, input: "precision>=0.99"; "NAME:FLASH/RAM"; "raw" or "prepared", as in `export`.
        out: the folder of the files (default: a new one under runs/).
    """
    config = built(QuantizeConfig, settings_of("quantize", locals()))
    folder = shared_folder(f"quantize-{last_name(model)}", "quantize", config, out)
    return CompressResult(quantize_stage(config, folder, command=command), folder)


@verb
@one_process
def export(
    model: str | Path,
    *,
    to: str | Sequence[str] | None = None,
    int8: bool | None = None,
    tflite_type: Literal["uint8", "int8"] | None = None,
    probabilities: bool | None = None,
    opset: int | None = None,
    calibration: int | None = None,
    prefer: Literal["speed", "bytes"] | None = None,
    golden: int | None = None,
    input: Literal["raw", "prepared"] | None = None,
    data: str | Path | Settings | None = None,
    limit: int | None = None,
    weights: str | Path | None = None,
    options: Settings | None = None,
    seed: int | None = None,
    reject: str | None = None,
    target: str | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> CompressResult:
    """Write the files a device needs into one folder, and measure each by running it (docs/export.md).

    Args:
        model: a run or stage folder, or a name with `weights` (and `options` of its architecture).
        to: "onnx", "tflite", "c", "openvino", "executorch", one or several; ONNX is always written. int8: an 8-bit
            copy too. tflite_type: "uint8" or "int8", of the image and the result of its 8-bit TensorFlow Lite copy.
        probabilities: TensorFlow Lite files give calibrated probabilities, as camera software wants, not logits.
        opset: of the float ONNX file. calibration: training images that calibrate the 8-bit file.
        prefer: what the recommended file is best in. golden: reference images with expected outputs to include.
        input: what the ONNX files take: "raw" (photos of any size) or "prepared" (float32 in 0..1).
        data, limit: the images, by default those of the run; images used, stratified. seed: the random seed.
        reject, target: "precision>=0.99" to guarantee; the device to fit on, "NAME:FLASH/RAM" (docs/export.md).
        out: the folder (default: a new one under runs/).
    """
    keywords = locals() | {"to": [to] if isinstance(to, str) else to}
    config = built(ExportStageConfig, settings_of("export", keywords))
    folder = new_folder(f"export-{last_name(model)}", "export", config, out)
    return CompressResult(export_files(config, folder, command=command), folder)
