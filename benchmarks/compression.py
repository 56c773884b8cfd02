"""What fewer bits and fewer channels cost on CIFAR-10: the figures of docs/bits.md and docs/compression.md.

    python benchmarks/compression.py int8 --data CIFAR10 --weights FOLDER --out runs/int8
    python benchmarks/compression.py bits --data CIFAR10 --weights FOLDER --out runs/bits [--only 4,3] [--test]
    python benchmarks/compression.py prune --data CIFAR10 --weights FOLDER --out runs/prune
    python benchmarks/compression.py longer --data CIFAR10 --weights FOLDER --out runs/prune --images 51200
    python benchmarks/compression.py half --data CIFAR10 --weights FOLDER --out runs/half --epochs 16
    python benchmarks/compression.py rounding --data CIFAR10 --weights FOLDER --out runs/rounding [--only 4,3]
    python benchmarks/compression.py activations --data CIFAR10 --weights FOLDER --out runs/w4a4
    python benchmarks/compression.py depthwise --data CIFAR100 --weights FOLDER --out runs/depthwise

CIFAR10 holds train/CLASS and test/CLASS (2,100 training images a class are used, by `half` all of them), FOLDER the
weights cifar10-resnet20.safetensors and cifar10-resnet56.safetensors. `depthwise` fine-tunes MobileNetV1 0.25
(imagenet-mobilenet_v1_025_128-fp16.safetensors) on 250 images each of ten classes of CIFAR-100. Every model is trained
on the training images, of which about 1,000 are held out for validation; all test images are looked at once, at the
end, through the files that were written. What is done is not done again: a stopped command goes on.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import potstill
from potstill import artifacts
from potstill.evaluation import metrics
from potstill.evaluation.statistics import mcnemar, proportion_interval
from potstill.exporters import export_onnx
from potstill.exporters.onnx_low_bit import export_quantized
from potstill.model_files.folder import load_model
from potstill.model_files.latency import latency_ms
from potstill.model_files.onnx import OnnxModel
from potstill.model_files.packed import load_packed, packed
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.stages import test_split
from potstill.stages.compress import common
from potstill.stages.compress.common import CompressConfig, CompressionSetup
from potstill.stages.compress.post_training import calibrated
from potstill.stages.compress.prune import PruneConfig, prune
from potstill.stages.compress.quantize import ONNX, PACKED, learned, quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.training.settings import TrainConfig

WIDTHS = (8, 6, 5, 4, 3, 2)
SEEDS = {8: 1, 6: 1, 5: 1, 4: 3, 3: 3, 2: 3}
IMAGES = 7_680
PER_CLASS = 2100
CLASSES = ("apple", "bee", "bottle", "camel", "castle", "clock", "crab", "cup", "kangaroo", "lamp")
READ_PACKED = "w4"  # where the packed file is asked too: it holds the numbers of the ONNX file, and runs slowly


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    began = time.monotonic()
    result = WORK[options.what](options)
    result["seconds"] = round(time.monotonic() - began, 1)
    artifacts.write_json(options.out / f"{options.what}.json", {**machine(options), **result})


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("what", choices=list(WORK))
    parser.add_argument("--data", required=True)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--only", default="", help="bits: these widths")
    parser.add_argument("--seeds", type=int, default=None, help="bits: so many seeds for each width")
    parser.add_argument("--images", type=int, default=IMAGES, help="training images seen in each training")
    parser.add_argument("--epochs", type=int, default=16, help="half: of training back")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--lr", type=float, default=None)
    parser.add_argument("--test", action="store_true", help="bits: open the test split now")
    return parser.parse_args()


def machine(options: argparse.Namespace) -> dict[str, Any]:
    """Return what a reader needs to judge the figures."""
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").is_file() else ""
    return {
        "what": options.what,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, 2 cores, no GPU, "
        + ", ".join(name for name in ("avx512f", "avx512_vnni", "amx_int8") if name in flags),
        "threads": options.threads,
        "versions": {name: version(name) for name in ("torch", "onnxruntime", "onnx")},
        "training_images_seen": options.images,
    }


def source(options: argparse.Namespace, depth: int) -> dict[str, Any]:
    """Return the settings that name model and data."""
    images = decoded(Path(options.data), options.out.parent / "cifar10.npz", most=PER_CLASS)
    return {**network(options, depth), "data": {"path": str(images), "validation": 0.05}}


def network(options: argparse.Namespace, depth: int) -> dict[str, Any]:
    """Return the settings that name the model."""
    return {
        "model": f"builtin:resnet{depth}-cifar",
        "weights": str(options.weights / f"cifar10-resnet{depth}.safetensors"),
    }


def decoded(folder: Path, file: Path, *, most: int | None, classes: Sequence[str] = ()) -> Path:
    """Write training images, at most so many a class, and all test images as one array file, unless it is there.

    classes: names of the classes, if not all. Then they are decoded once. The file is returned.
    """
    if not file.is_file():
        arrays: dict[str, np.ndarray] = {}
        for split, count in (("train", most), ("test", None)):
            parts = [
                sorted(inner.iterdir())
                for inner in sorted((folder / split).iterdir())
                if not classes or inner.name in classes
            ]
            order = np.random.default_rng(0).permutation
            chosen = [sorted(part[i] for i in order(len(part))[:count]) for part in parts]
            arrays[f"x_{split}"] = np.stack([np.asarray(Image.open(name)) for part in chosen for name in part])
            arrays[f"y_{split}"] = np.repeat(np.arange(len(chosen)), [len(part) for part in chosen])
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **arrays)
    return file


def int8(options: argparse.Namespace) -> dict[str, Any]:
    """8 bits after training, both networks."""
    result = {}
    for depth in (20, 56):
        folder = options.out / f"resnet{depth}"
        told = quantize(QuantizeConfig(**source(options, depth)), folder)
        told |= speed([folder / "original.onnx", folder / ONNX])
        result[f"resnet{depth}"] = told
    return {"models": result}


def bits(options: argparse.Namespace) -> dict[str, Any]:
    """ResNet-20 at every width, after training and with training."""
    widths = [int(width) for width in options.only.split(",")] if options.only else list(WIDTHS)
    given: CompressionSetup | None = None
    records: dict[str, Any] = {}
    for width in widths:
        seeds = range(SEEDS[width] if options.seeds is None else options.seeds)
        for name, seed in [("ptq", 0), *((f"qat-{seed}", seed) for seed in seeds)]:
            folder = options.out / f"w{width}" / name
            if artifacts.finished(folder) is None:
                config = bits_config(options, width, seed, "ptq" if name == "ptq" else "qat")
                given = opened(config, given)
                work(config, given, folder, options.out)
            records[f"w{width}/{name}"] = artifacts.finished(folder)
            print(json.dumps({f"w{width}/{name}": records[f"w{width}/{name}"]}), flush=True)
    result: dict[str, Any] = {"records": records}
    if options.test:
        given = opened(bits_config(options, 8, 0, "ptq"), given)
        result["models"] = opened_test(options, given, list(records))
    return result


def bits_config(options: argparse.Namespace, width: int, seed: int, mode: str) -> QuantizeConfig:
    lr = options.lr or {2: 2e-3, 3: 1e-3}.get(width, 2e-4)
    return QuantizeConfig(
        **source(options, 20),
        weight_bits=width,
        mode=mode,
        rounding="nearest",
        teacher="builtin:resnet56-cifar",
        teacher_weights=str(options.weights / "cifar10-resnet56.safetensors"),
        train=TrainConfig(epochs=1, optimizer="adamw", lr=lr, weight_decay=0),
        images=options.images,
        seed=seed,
    )


def opened(config: QuantizeConfig, earlier: CompressionSetup | None) -> CompressionSetup:
    """Return model and data for a configuration; images that were decoded for another one are used again."""
    if earlier is None:
        return common.open_model(config)
    return dataclasses.replace(earlier, train=config.train, seed=config.seed)


def work(config: QuantizeConfig, given: CompressionSetup, folder: Path, out: Path) -> None:
    """Quantize, train where that is asked for, and write the packed file."""
    began = time.monotonic()
    floating, model, layers = calibrated(config, given)
    record: dict[str, Any] = {}
    if config.mode == "qat":
        teacher = common.teacher_of(given, out, out.parent / "stores")
        model, trained = learned(config, given, floating, model, folder / "trained", teacher)
        record |= {
            "validation_accuracy": trained["validation_accuracy"]["last"],
            "training_seconds": trained["seconds"],
        }
    with artifacts.atomic(folder / PACKED) as temporary:
        temporary.write_bytes(packed(model))
    export_quantized(model, folder / ONNX, given.raw_calibration)
    record["bytes"] = {file: (folder / file).stat().st_size for file in (PACKED, ONNX)}
    artifacts.finish(folder, {**record, "seconds": round(time.monotonic() - began, 1)})


def opened_test(options: argparse.Namespace, given: CompressionSetup, names: list[str]) -> dict[str, Any]:
    """Read every file back and ask it about the test images, once."""
    rows = given.data.manifest.rows("test", labelled=True)
    label = given.data.manifest.label[rows]
    whole = tested(given.model, given.model.card.weights_sha256, given, options.out / "float")
    told = {"float": compared(whole, whole, label)}
    for name in names:
        files = [options.out / name / file for file in (ONNX, *([PACKED] if name.startswith(READ_PACKED) else []))]
        for file in files:
            model = load_packed(file) if file.name == PACKED else OnnxModel(file, threads=1)
            said = tested(model, zoo.sha256(file), given, file.parent / f"test-{file.stem}")
            told[f"{name}/{file.name}"] = compared(said, whole, label)
    return told


def tested(model: Any, identity: str, given: CompressionSetup, folder: Path) -> np.ndarray:
    """Return the logits of a model over the test images."""
    return test_split.open_test({"model": model}, {"model": identity}, given.data, folder)["model"]


def compared(said: np.ndarray, whole: np.ndarray, label: np.ndarray) -> dict[str, Any]:
    """Return accuracy and what was lost against the float model."""
    right = metrics.correct(said, label)
    return {
        "accuracy": round(metrics.accuracy(said, label), 2),
        "interval": [round(bound, 2) for bound in proportion_interval(int(right.sum()), len(label))],
        "lost": round(metrics.accuracy(whole, label) - metrics.accuracy(said, label), 2),
        "p": round(mcnemar(metrics.correct(whole, label), right), 4),
        "agreement": round(metrics.agreement(whole, said), 2),
        "images": len(label),
    }


def rounding(options: argparse.Namespace) -> dict[str, Any]:
    """ResNet-20 with few bits, rounded to nearest and by reconstruction."""
    widths = [int(width) for width in options.only.split(",")] if options.only else [4, 3]
    result = {}
    for width in widths:
        for name in ("nearest", "reconstruct"):
            config = QuantizeConfig(**source(options, 20), weight_bits=width, rounding=name, calibration=1024)
            result[f"w{width}/{name}"] = models(quantize(config, options.out / f"w{width}-{name}"))
    return {"models": result}


def activations(options: argparse.Namespace) -> dict[str, Any]:
    """ResNet-20 with weights and activations of 4 bits, without training and with it; packed files only."""
    result = {}
    for mode in ("ptq", "qat"):
        config = QuantizeConfig(
            **source(options, 20),
            weight_bits=4,
            activation_bits=4,
            mode=mode,
            teacher="builtin:resnet56-cifar",
            teacher_weights=str(options.weights / "cifar10-resnet56.safetensors"),
            train=TrainConfig(epochs=1, optimizer="adamw", lr=options.lr or 5e-4, weight_decay=0),
            images=options.images,
        )
        result[f"w4a4/{mode}"] = models(quantize(config, options.out / mode, stores=options.out.parent / "stores"))
    return {"models": result}


def depthwise(options: argparse.Namespace) -> dict[str, Any]:
    """MobileNetV1 0.25, fresh from fine-tuning, in 8 bits: without corrected biases, with them, reconstructed."""
    images = decoded(Path(options.data), options.out / "images.npz", most=250, classes=CLASSES)
    weights = options.weights / "imagenet-mobilenet_v1_025_128-fp16.safetensors"
    tuned = potstill.finetune(
        images,
        model="builtin:mobilenet-v1",
        weights=weights,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        size=128,
        epochs=5,
        lr=0.001,
        views=1,
        ema=0,
        out=options.out / "tuned",
    )
    settings = {
        "nearest": {"rounding": "nearest", "correct_bias": False},
        "default": {},
        "reconstruct": {"rounding": "reconstruct"},
    }
    result = {}
    for name, setting in settings.items():
        config = QuantizeConfig(model=str(tuned.folder), **setting)
        result[name] = models(quantize(config, options.out / name))
    return {"models": result}


def models(summary: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the files in a summary."""
    keys = ("accuracy", "interval", "lost", "p", "agreement", "bytes")
    return {name: {key: row[key] for key in keys if key in row} for name, row in summary["models"].items()}


def pruned(options: argparse.Namespace) -> dict[str, Any]:
    """ResNet-56 to half its multiply-accumulates, trained back by itself as it was."""
    config = PruneConfig(
        **source(options, 56),
        keep=0.5,
        train=TrainConfig(epochs=1, optimizer="sgd", lr=options.lr or 0.02, weight_decay=1e-4),
        images=options.images,
        views=1,
        calibration=2048,
    )
    folder = options.out / "resnet56"
    told = prune(config, folder, stores=options.out.parent / "stores")
    return told | speed([folder / name for name in ("original.onnx", "model.onnx")])


def half(options: argparse.Namespace) -> dict[str, Any]:
    """The same with all training images, for whole epochs, at the rates of a training from scratch."""
    images = decoded(Path(options.data), options.out / "cifar10-all.npz", most=None)
    config = PruneConfig(
        **network(options, 56),
        data={"path": str(images), "validation": 0.02},
        keep=0.5,
        importance="l2",
        train=TrainConfig(
            epochs=options.epochs, optimizer="sgd", lr=options.lr or 0.05, weight_decay=5e-4, precision="bf16"
        ),
        views=8,
        calibration=4096,
    )
    folder = options.out / "resnet56"
    told = prune(config, folder, stores=options.out / "stores")
    return told | speed([folder / name for name in ("original.onnx", "model.onnx")])


def longer(options: argparse.Namespace) -> dict[str, Any]:
    """Train what `prune` left for longer, with the same teacher."""
    before, folder = options.out / "resnet56", options.out / "longer"
    config = CompressConfig(
        **(source(options, 56) | {"model": str(before), "weights": None}),
        teacher="builtin:resnet56-cifar",
        teacher_weights=str(options.weights / "cifar10-resnet56.safetensors"),
        train=TrainConfig(epochs=1, optimizer="sgd", lr=options.lr or 0.03, weight_decay=1e-4),
        images=options.images,
        views=1,
    )
    given = common.open_model(config)
    teacher = common.teacher_of(given, folder, options.out.parent / "stores")
    student = Classifier(copy.deepcopy(given.model.network), given.model.card)
    record = common.recover(student, given, teacher, folder / "trained", title="longer")
    student = load_model(folder / "trained")
    export_onnx(student, folder / "model.onnx")
    files = {"original": before / "original.onnx", "pruned": folder / "model.onnx"}
    read = {name: OnnxModel(file, threads=1) for name, file in files.items()}
    return {"record": record, "models": common.measured(read, files, given, folder)} | speed(list(files.values()))


def speed(files: list[Path]) -> dict[str, Any]:
    """Return the milliseconds of both files, measured in turns, one thread, one image and 32."""
    told: dict[str, Any] = {}
    for batch in (1, 32):
        timed = latency_ms(files, batch=batch, threads=1, seconds=3)
        told[f"batch_{batch}"] = [latency.to_json() for latency in timed]
        told[f"speed_up_{batch}"] = round(timed[0].median_ms / timed[1].median_ms, 3)
    return told


WORK = {
    "int8": int8,
    "bits": bits,
    "prune": pruned,
    "longer": longer,
    "half": half,
    "rounding": rounding,
    "activations": activations,
    "depthwise": depthwise,
}


if __name__ == "__main__":
    main()
