"""Files beside the image classification references of MLPerf Tiny on CIFAR-10: docs/mlperf-tiny.md.

    python benchmarks/mlperf_tiny.py small --data CIFAR10 --weights cifar10-resnet56.safetensors --out runs/mlperf-tiny
    python benchmarks/mlperf_tiny.py large --data CIFAR10 --weights cifar10-resnet56.safetensors --out runs/mlperf-tiny
    python benchmarks/mlperf_tiny.py pace  --data CIFAR10 --weights cifar10-resnet56.safetensors --out runs/mlperf-tiny
    python benchmarks/mlperf_tiny.py table --out runs/mlperf-tiny [--json FILE] [--markdown FILE]

One ResNet-20 a seed is trained for both goals: it starts with nine of the 27 blocks of ResNet-56, and learns from its
cached logits. For each goal it is quantized: the bits of each layer are chosen so that the file fits, the weights are
rounded by reconstruction, and trained for a few more epochs if --tuning is given (quantization-aware, the same
teacher). The last epoch is kept; every file is evaluated on all test images once. An interrupted command continues when
it is repeated; finished seeds are not repeated. `pace` trains for a few steps and prints images per second and the
minutes that a seed would take. CIFAR10 holds train/CLASS and test/CLASS.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression import decoded

from potstill import artifacts, progress
from potstill.compress.quantize import fold_batchnorm, observe, quantized
from potstill.config import build
from potstill.display import LiveDisplay
from potstill.evaluation.statistics import percent_interval
from potstill.model_files.planner import plan
from potstill.models.outputs import Classifier
from potstill.stages import dataset
from potstill.stages.compress import common
from potstill.stages.compress.common import CompressionSetup
from potstill.stages.compress.quantize import BEFORE, quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.recipe import DataConfig, ObjectiveConfig, TeacherConfig, Views
from potstill.stages.summary import machine, versions
from potstill.training.autotune import Trial, choose
from potstill.training.settings import TrainConfig

STUDENT, TEACHER = "builtin:resnet20-cifar", "builtin:resnet56-cifar"
BEGIN, END = "<!-- table -->", "<!-- end of table -->"
STEPS = 20  # of `pace`
# Figures of the benchmark's files in int8, run with ai-edge-litert 2.3.0 on the same JPEG copy of the test images.
REFERENCES = {
    "MLPerf Tiny, IC01 (ResNet-8)": {"bytes": 98_496, "macs": 12.5e6, "accuracy": 86.56},
    "MLPerf Tiny, IC02": {"bytes": 512_024, "macs": 76.5e6, "accuracy": 90.71},
}


@dataclass(frozen=True)
class Goal:
    """Largest file in bytes, smallest accuracy in percent."""

    limit: int
    accuracy: float


GOALS = {"small": Goal(98_496, 89.0), "large": Goal(131_072, 91.0)}


def main() -> None:
    """Do what was typed."""
    given = parsed()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.what == "table":
        return write(given, figures(given))
    if given.data is None or given.weights is None:
        raise SystemExit(f"{given.what} needs --data and --weights.")
    if given.what == "pace":
        return pace(given)
    with progress.use(LiveDisplay()):
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            reached(given, given.what, seed)
    write(given, figures(given))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=[*GOALS, "pace", "table"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--weights", type=Path, help="of the ResNet-56")
    parser.add_argument("--out", type=Path, default=Path("runs/mlperf-tiny"))
    parser.add_argument("--epochs", type=int, default=30, help="of training in float")
    parser.add_argument("--tuning", type=int, default=0, help="epochs of quantization-aware training")
    parser.add_argument("--views", type=int, default=4, help="views of each image, whose teacher logits are cached")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--per-class", type=int, default=None, help="training images per class (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def images(given: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the images, decoded once into an array file."""
    return {"path": str(decoded(given.data, given.out / "cifar10.npz", most=given.per_class)), "validation": 0.02}


def reached(given: argparse.Namespace, name: str, seed: int) -> None:
    """Train and quantize one seed of a goal."""
    begun, folder = given.out / "float" / f"seed-{seed}", given.out / name / f"seed-{seed}"
    if artifacts.finished(folder / "quantized") is not None:
        return
    with timed(begun):
        trained(given, seed, begun / "trained")
    with timed(folder):
        config = tuning(given, GOALS[name], seed, begun / "trained")
        summary = quantize(config, folder / "quantized", stores=given.out / "stores")
    print(json.dumps({name: seed, **summary["models"]["onnx"]}, default=str)[:300], flush=True)


@contextmanager
def timed(folder: Path) -> Iterator[None]:
    """Add the seconds of the block to those of earlier calls in spent.json."""
    began, before = time.monotonic(), spent(folder)
    try:
        yield
    finally:
        folder.mkdir(parents=True, exist_ok=True)
        artifacts.write_json(folder / "spent.json", before + round(time.monotonic() - began))


def spent(folder: Path) -> int:
    """Return the seconds recorded by `timed`."""
    file = folder / "spent.json"
    return artifacts.read_json(file) if file.is_file() else 0


def trained(given: argparse.Namespace, seed: int, folder: Path) -> None:
    """Train the network with cached logits of the teacher, unless that is done."""
    if artifacts.finished(folder) is not None:
        return
    setup = beginning(given, seed)
    teacher = common.teacher_of(setup, folder, given.out / "stores")
    common.recover(setup.model, setup, teacher, folder, title="Distilling from ResNet-56")


def beginning(given: argparse.Namespace, seed: int) -> CompressionSetup:
    """Return the network before training, and the settings of its training."""
    settings = build(DataConfig, images(given))
    data = dataset.prepare(settings, at_least=32)
    train = TrainConfig(epochs=given.epochs, optimizer="sgd", lr=0.05, weight_decay=5e-4, precision="bf16")
    return CompressionSetup(
        model=data.model(STUDENT, weights=f"blocks:{given.weights}", seed=seed),
        data=data,
        source=settings.path,
        train=train,
        views=Views("auto", given.views, 0),  # the same views for every seed, so that the logits are cached once
        objective=ObjectiveConfig(alpha=0.1, temperature=4),
        teacher=TeacherConfig(model=TEACHER, weights=str(given.weights)),
        teacher_name=TEACHER,
        images=1024,
        steps=len(data.manifest.rows("train")) // train.batch_size,
        seed=seed,
    )


def tuning(given: argparse.Namespace, goal: Goal, seed: int, folder: Path) -> QuantizeConfig:
    """Return the settings of quantization: bits by layer, reconstruction, and training with the same teacher."""
    return QuantizeConfig(
        model=str(folder),
        data=build(DataConfig, images(given)),
        weight_bits=4,
        max_bytes=goal.limit,
        mode="qat" if given.tuning else "ptq",
        rounding="reconstruct",
        calibration=1024,
        input="prepared",
        teacher=TEACHER,
        teacher_weights=str(given.weights),
        train=TrainConfig(epochs=max(given.tuning, 1), optimizer="adamw", lr=0.0005, weight_decay=0),
        views=given.views,
        seed=seed,
    )


def pace(given: argparse.Namespace) -> None:
    """Print images per second of the teacher, of training and of quantization-aware training, and minutes of a seed."""
    setup = beginning(given, 0)
    count = len(setup.data.manifest.rows("train"))
    teacher = setup.data.model(TEACHER, weights=str(given.weights))
    plain = fold_batchnorm(setup.model.network.eval(), setup.example)
    low = quantized(plain, observe(plain, [setup.calibration[:64]]), weight_bits=4, activation_bits=None)
    work = {
        "teacher": (teacher, count * given.views, False),
        "training": (setup.model, count * given.epochs, True),
        "tuning": (Classifier(low, setup.model.card), count * given.tuning, True),
    }
    rates = {part: rate(model, total, training) for part, (model, total, training) in work.items()}
    minutes = {part: work[part][1] / rates[part] / 60 for part in work}
    print(json.dumps({"images_per_second": rates, "minutes": minutes}), flush=True)
    print(f"About {math.ceil(sum(minutes.values()) + 3)} minutes a seed", flush=True)


def rate(model: Classifier, total: int, training: bool) -> float:
    """Return images per second with the plan that a training of so many images would use."""
    plan = choose(model, precision="auto", compile="auto", batch_size=128, images=total, training=training)
    step = Trial(model, 128, training=training).step(plan)
    for _ in range(3):
        step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return 128 * STEPS / (time.perf_counter() - began)


def figures(given: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of every goal of which a seed is finished."""
    return {
        "command": "python benchmarks/mlperf_tiny.py GOAL --data CIFAR10 --weights cifar10-resnet56.safetensors "
        f"--epochs {given.epochs} --views {given.views} --tuning {given.tuning}",
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "references": REFERENCES,
        "goals": {name: found for name in GOALS if (found := of_goal(given.out / name, name))},
    }


def of_goal(folder: Path, name: str) -> dict[str, Any]:
    """Return the figures of the finished seeds of a goal; empty if there are none."""
    runs = [run for run in sorted(folder.glob("seed-*")) if artifacts.finished(run / "quantized") is not None]
    if not runs:
        return {}
    summaries = [artifacts.read_json(run / "quantized" / "summary.json") for run in runs]
    models = [summary["models"]["onnx"] for summary in summaries]
    each = [model["accuracy"] for model in models]
    interval = percent_interval(each) or models[0]["interval"]
    return {
        "goal": {"bytes": GOALS[name].limit, "accuracy": GOALS[name].accuracy},
        "accuracy": round(float(np.mean(each)), 2),
        "interval": [round(bound, 2) for bound in interval],
        "seeds": each,
        "float": [summary["models"]["original"]["accuracy"] for summary in summaries],
        "bytes": max(model["bytes"] for model in models),
        "packed_bytes": max(summary["models"]["packed"]["bytes"] for summary in summaries),
        "macs": models[0]["macs"],
        "ram": plan(runs[0] / "quantized" / BEFORE).peak,
        "bits": [summary["bits"] for summary in summaries],
        "minutes": [round((spent(run) + spent(folder.parent / "float" / run.name)) / 60, 1) for run in runs],
    }


def write(given: argparse.Namespace, found: dict[str, Any]) -> None:
    """Write the figures to the files that were named, and print the table."""
    text = "\n".join(table(found)) + "\n"
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    if given.markdown:
        before, _, rest = given.markdown.read_text(encoding="utf-8").partition(BEGIN)
        given.markdown.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}", encoding="utf-8")
    print(text)


def table(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table, and how the figures were made."""
    yield "| file | bytes | million MACs | RAM, bytes | accuracy % | 95 % interval | seeds | minutes, slowest seed |"
    yield "|---|---:|---:|---:|---:|---|---|---:|"
    for title, row in found["references"].items():
        yield f"| {title} | {row['bytes']:,} | {row['macs'] / 1e6:.1f} | | {row['accuracy']:.2f} | | | |"
    for name, row in found["goals"].items():
        title = f"potstill, {name}: ResNet-20"
        seeds, (low, high) = ", ".join(f"{one:.2f}" for one in row["seeds"]), row["interval"]
        yield (
            f"| {title} | {row['bytes']:,} | {row['macs'] / 1e6:.1f} | {row['ram']:,} | "
            f"{row['accuracy']:.2f} | {low:.2f} to {high:.2f} | {seeds} | {max(row['minutes']):.0f} |"
        )
    yield ""
    for name, row in found["goals"].items():
        limit, least = row["goal"]["bytes"], row["goal"]["accuracy"]
        met = row["bytes"] <= limit and row["accuracy"] >= least
        yield f"* {name}, at most {limit:,} bytes and at least {least:.1f} %: {'met' if met else 'missed'}."
    on = found["machine"]
    yield ""
    libraries = ", ".join(f"{key} {value}" for key, value in found["versions"].items())
    yield f"{on['cpu']}, {on['cores']} cores, {on['threads']} threads. {libraries}. {found['date']}."


if __name__ == "__main__":
    main()
