"""The whole road to a small file, with a teacher and without: docs/road.md.

    python benchmarks/road.py --data CIFAR10 --weights cifar10-resnet56.safetensors --out runs/road

ResNet-56 with given weights -> a ResNet-20 trained from scratch -> half of its multiply-accumulates -> 8 bits; once
taught by the ResNet-56 in both trainings and once with labels only, from the same initialisation, with the same images
in the same order, in as many steps. CIFAR10 holds train/CLASS and test/CLASS. A step that was made is not made again:
a stopped command goes on. `--json` and `--markdown` write what came out, the latter between the two comments of
docs/road.md. Every model answers the test images once, at the end of its step; a step that takes another as it was
reads the same file again and gets the same answers.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from compression import decoded
from safetensors.numpy import load_file

import potstill
from potstill import artifacts
from potstill.config import build
from potstill.evaluation import metrics
from potstill.evaluation.statistics import compare, percent_interval, proportion_interval
from potstill.model_files.latency import latency_ms
from potstill.stages import dataset
from potstill.stages.compress.prune import PruneConfig, prune
from potstill.stages.compress.quantize import quantize
from potstill.stages.compress.quantize_config import QuantizeConfig
from potstill.stages.recipe import DataConfig
from potstill.stages.summary import machine, versions

TEACHER, STUDENT = "builtin:resnet56-cifar", "builtin:resnet20-cifar"
WAYS = {"taught": "distill", "alone": "control"}  # and the folder of the run that each starts from
STEPS = {"small": "ResNet-20", "pruned": "half the multiply-accumulates", "int8": "8 bits"}
LOGITS = {"small": ("pruned", "original"), "pruned": ("pruned", "pruned"), "int8": ("int8", "onnx")}
FILES = {"small": "pruned/original.onnx", "pruned": "pruned/model.onnx", "int8": "int8/model.onnx"}
BEGIN, END = "<!-- table -->", "<!-- end of table -->"


def main() -> None:
    """Walk both roads, then write the table."""
    asked = parsed()
    torch.set_num_threads(asked.threads)
    began = time.monotonic()
    run = distilled(asked)
    for way in WAYS:
        for seed in range(asked.seeds):
            smaller(asked, run, way, seed)
    spent = artifacts.read_json(asked.out / "spent.json") if (asked.out / "spent.json").is_file() else 0
    artifacts.write_json(asked.out / "spent.json", spent + round(time.monotonic() - began))
    write(asked, figures(asked, run))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True, help="of the ResNet-56")
    parser.add_argument("--out", type=Path, default=Path("runs/road"))
    parser.add_argument("--epochs", type=int, default=3, help="of the ResNet-20, from scratch")
    parser.add_argument("--back", type=int, default=1, help="epochs of training back what was pruned")
    parser.add_argument("--views", type=int, default=3, help="views of each image, shown in turn")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--per-class", type=int, default=None, help="training images a class (default: all)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--commit", default="")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def images(asked: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that name the images."""
    file = decoded(asked.data, asked.out / "cifar10.npz", most=asked.per_class)
    return {"path": str(file), "validation": 0.02}


def distilled(asked: argparse.Namespace) -> Path:
    """Train the ResNet-20 with the teacher and without; return the folder of the run."""
    run = asked.out / "run"
    potstill.distill(
        images(asked),
        teacher={"model": TEACHER, "weights": str(asked.weights)},
        student=STUDENT,
        out=run,
        objective={"alpha": 0.1, "temperature": 4},
        train={"epochs": asked.epochs, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4, "precision": "bf16"},
        views=asked.views,
        seeds=asked.seeds,
        export={"int8": False},
    )
    return run


def smaller(asked: argparse.Namespace, run: Path, way: str, seed: int) -> None:
    """Prune and quantize a ResNet-20 of one way."""
    teacher = {"teacher": TEACHER, "teacher_weights": str(asked.weights)} if way == "taught" else {"teacher": "none"}
    pruning = {
        "model": str(run / WAYS[way] / f"seed-{seed}"),
        "data": images(asked),
        "keep": 0.5,
        "importance": "l2",
        "train": {"epochs": asked.back, "optimizer": "sgd", "lr": 0.03, "weight_decay": 5e-4, "precision": "bf16"},
        "views": asked.views,
        "calibration": 2048,
        **teacher,
    }
    folder = asked.out / way / f"seed-{seed}"
    prune(build(PruneConfig, pruning), folder / "pruned", stores=run / "stores")  # what the teacher said lies there
    rounding = {"model": str(folder / "pruned"), "data": images(asked)}
    quantize(build(QuantizeConfig, rounding), folder / "int8")


def figures(asked: argparse.Namespace, run: Path) -> dict[str, Any]:
    """Return what came out: the teacher, every step of both ways, and what the teacher is worth at each."""
    manifest = dataset.read(build(DataConfig, images(asked)))
    label = manifest.label[manifest.rows("test", labelled=True)]
    said = answers(asked, run)
    right = {name: np.stack([metrics.correct(one, label) for one in each]) for name, each in said.items()}
    files = {"teacher": run / "export" / "teacher" / "model.onnx"}
    files |= {f"{way}/{step}": asked.out / way / "seed-0" / file for way in WAYS for step, file in FILES.items()}
    timed = latency_ms(list(files.values()), seconds=3)
    models = {
        name: {
            **accuracy(right[name]),
            "bytes": file.stat().st_size,
            **{key: round(getattr(latency, key), 4) for key in ("low_ms", "median_ms", "high_ms")},
        }
        for (name, file), latency in zip(files.items(), timed, strict=True)
    }
    return {
        "command": "python benchmarks/road.py --data CIFAR10 --weights cifar10-resnet56.safetensors",
        "commit": asked.commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": versions(),
        "settings": {key: getattr(asked, key) for key in ("epochs", "back", "views", "seeds")},
        "splits": {split: len(manifest.rows(split)) for split in ("train", "validation", "test")},
        "seconds": artifacts.read_json(asked.out / "spent.json"),
        "models": models,
        "worth": {step: worth(right, step) for step in STEPS},
    }


def answers(asked: argparse.Namespace, run: Path) -> dict[str, list[np.ndarray]]:
    """Return the logits of every model over the test images, a seed each."""
    said = {"teacher": [load_file(run / "evaluation" / "logits.safetensors")["teacher"]]}
    for way in WAYS:
        folders = [asked.out / way / f"seed-{seed}" for seed in range(asked.seeds)]
        for step, (inside, name) in LOGITS.items():
            said[f"{way}/{step}"] = [load_file(f / inside / "evaluation" / "logits.safetensors")[name] for f in folders]
    return said


def accuracy(right: np.ndarray) -> dict[str, Any]:
    """Return accuracy in percent from bool [seeds, N], with the interval that images (one seed) or seeds allow."""
    each = 100 * right.mean(1)
    interval = percent_interval(each) or proportion_interval(int(right.sum()), right.size)
    return {
        "accuracy": round(float(each.mean()), 2),
        "seeds": [round(float(one), 2) for one in each],
        "interval": [round(bound, 2) for bound in interval],
    }


def worth(right: dict[str, np.ndarray], step: str) -> dict[str, Any]:
    """Return the verdict on a step with the teacher against the same step without."""
    names = (f"{STEPS[step]}, taught,", "the same without a teacher")
    return compare(right[f"taught/{step}"], right[f"alone/{step}"], names=names).to_json()


def write(asked: argparse.Namespace, told: dict[str, Any]) -> None:
    """Write the figures where that was asked for, and print the table."""
    text = "\n".join([*table(told["models"]), "", *sentences(told)]) + "\n"
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    if asked.markdown:
        before, _, rest = asked.markdown.read_text(encoding="utf-8").partition(BEGIN)
        asked.markdown.write_text(f"{before}{BEGIN}\n{text}{END}{rest.partition(END)[2]}", encoding="utf-8")
    print(text)


def table(models: dict[str, Any]) -> list[str]:
    """Return the lines of the table; times as fast as the teacher's file."""
    head = "| step | accuracy %, taught | without a teacher | bytes | ms per image | times as fast |"
    return [head, "|---|---|---|---:|---:|---:|", *_lines(models)]


def _lines(models: dict[str, Any]) -> Iterator[str]:
    whole = models["teacher"]
    yield f"| ResNet-56, as given | {_accuracy(whole)} | | {whole['bytes']:,} | {whole['median_ms']:.3f} | |"
    for step, title in STEPS.items():
        taught, alone = models[f"taught/{step}"], models[f"alone/{step}"]
        faster = whole["median_ms"] / taught["median_ms"]
        yield (
            f"| {title} | {_accuracy(taught)} | {_accuracy(alone)} | {taught['bytes']:,} | {taught['median_ms']:.3f} | "
            f"{faster:.1f} |"
        )


def _accuracy(row: dict[str, Any]) -> str:
    return "{:.2f} ({:.2f} to {:.2f})".format(row["accuracy"], *row["interval"])


def sentences(told: dict[str, Any]) -> Iterator[str]:
    """Yield what the teacher was worth, and how all this was made."""
    for verdict in told["worth"].values():
        yield f"* **{verdict['result']}.** {verdict['sentence']}"
    chosen, splits, on = told["settings"], told["splits"], told["machine"]
    yield ""
    yield (
        f"Budget: {chosen['epochs']} epochs of {splits['train']:,} images for the ResNet-20, {chosen['back']} for what "
        f"was pruned, {chosen['views']} views of an image, {chosen['seeds']} seeds; "
        f"{told['seconds'] / 60:.0f} minutes in all. "
        f"{on['cpu']}, {on['cores']} cores. {', '.join(f'{k} {v}' for k, v in told['versions'].items())}. "
        f"{told['date']}, commit {told['commit'][:10] or 'unknown'}."
    )


if __name__ == "__main__":
    main()
