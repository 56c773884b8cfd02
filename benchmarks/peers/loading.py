"""Training batches a second: potstill's loader beside torchvision's ImageFolder + DataLoader + v2 transforms.

Both sides end with float32 images in 0..1 and their labels; the rival has two worker processes, its images lie in the
page cache, and it is measured with Pillow images and with tensors going into the transforms: the faster one counts.
Decoding the photos once, which potstill does before the first epoch, is timed by itself. The two sides take turns,
and what counts is the median of the turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from potstill.data.augment import parse_policy
from potstill.data.draws import uniform
from potstill.data.formats import read_manifest
from potstill.data.loader import Loader, Order
from potstill.data.pixels import load_pixels
from potstill.data.views import View
from potstill.torch_context import threads as limited

from .bars import Bar, judge, provenance

WORKERS = 2
Batches = Iterator[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True)
class Task:
    """One data set and one augmentation, spelled for both sides. bar: how many times as fast potstill must be."""

    name: str
    size: int
    resize: int
    batch: int
    policy: Any
    rival: tuple[v2.Transform, ...]
    bar: float


CIFAR = Task(
    "images of 32 px, pad-crop and flip", 32, 32, 512, "cifar",
    (v2.RandomCrop(32, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip()), 10,
)  # fmt: skip
PHOTOS = Task(
    "photos at 224 px, random-resized crop and flip", 224, 256, 64,
    [{"random-resized-crop": {"scale": [0.08, 1]}}, "flip"],
    (v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()), 3,
)  # fmt: skip


TASKS = {"small_images": CIFAR, "photos": PHOTOS}


def ours(task: Task, folder: Path, cache: Path) -> tuple[Callable[[], Batches], float]:
    """Return a function that starts an endless stream of batches, and the seconds that preparing took."""
    start = time.perf_counter()
    manifest = read_manifest(folder)
    pixels = load_pixels(manifest, size=(task.size,) * 2, resize=task.resize, channels=3, cache=cache)
    seconds = time.perf_counter() - start
    view = View(parse_policy(task.policy), size=(task.size, task.size), seed=0)
    loader, order = Loader(manifest, pixels, view), Order(manifest, batch_size=task.batch, seed=0, views=100)

    def batches() -> Batches:
        for step in count():
            batch = loader.train_batch(order, step)
            yield batch.image, batch.label

    return batches, seconds


def theirs(task: Task, folder: Path, *, tensors: bool) -> Callable[[], Batches]:
    """Return a function that starts worker processes and an endless stream of batches from them."""
    ready = (v2.ToImage(), *task.rival) if tensors else (*task.rival, v2.ToImage())
    images = ImageFolder(str(folder / "train"), v2.Compose([*ready, v2.ToDtype(torch.float32, scale=True)]))

    def batches() -> Batches:
        endless = RandomSampler(images, replacement=True, num_samples=10**7)
        return iter(DataLoader(images, batch_size=task.batch, sampler=endless, num_workers=WORKERS, drop_last=True))

    return batches


def rate(batches: Callable[[], Batches], seconds: float) -> float:
    """Return images a second, over about `seconds`, after the queues are full."""
    stream = batches()
    for _ in islice(stream, 2 * 2 * WORKERS):  # DataLoader holds two batches a worker ready
        pass
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        image, _ = next(stream)
        assert image.dtype == torch.float32
        images += len(image)
    return images / (time.perf_counter() - start)


def measure(
    *, cifar: Path | None = None, photos: Path | None = None, repeats: int = 5, seconds: float = 2.0, threads: int = 2
) -> dict[str, Any]:
    """Return {"figures", "results", ...}. cifar, photos: train/CLASS/*.jpg; by default they are generated."""
    with tempfile.TemporaryDirectory() as made, limited(threads):
        folders = {
            "small_images": cifar or generated(Path(made) / "small", 2000, (32, 32)),
            "photos": photos or generated(Path(made) / "photos", 200, (375, 500)),
        }
        found = {name: _side_by_side(TASKS[name], folders[name], repeats, seconds) for name in TASKS}
    reached = {name: round(row["ratio"], 2) for name, row in found.items()}
    bars = {
        name: Bar(task.bar, False, f"images a second / torchvision's loader: {task.name}")
        for name, task in TASKS.items()
    }
    return {"figures": reached, "bars": judge(bars, reached), "results": list(found.values()), **provenance(threads)}


def generated(folder: Path, count: int, size: tuple[int, int]) -> Path:
    """Write so many JPEG images of (height, width) into folder/train/CLASS, smooth as photos are; return the folder."""
    random = np.random.default_rng(0)
    for kind in ("a", "b"):
        (folder / "train" / kind).mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        coarse.resize(size[::-1], Image.Resampling.BICUBIC).save(folder / "train" / "ab"[number % 2] / f"{number}.jpg")
    return folder


def _side_by_side(task: Task, folder: Path, repeats: int, seconds: float) -> dict[str, Any]:
    """Return the medians of both sides and their ratio."""
    with tempfile.TemporaryDirectory() as cache:
        batches, prepared = ours(task, folder, Path(cache))
        sides = {
            "potstill": batches,
            "torchvision, Pillow": theirs(task, folder, tensors=False),
            "torchvision, tensors": theirs(task, folder, tensors=True),
        }
        taken: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, side in sides.items():
                taken[name].append(rate(side, seconds))
    median = {name: statistics.median(values) for name, values in taken.items()}
    best = max(value for name, value in median.items() if name != "potstill")
    ratio = median["potstill"] / best
    return {
        "task": task.name,
        "images_per_second": median,
        "every_turn": taken,
        "ratio": ratio,
        "prepared_in_seconds": prepared,
        "share_of_drawing": drawing(task) * median["potstill"] / task.batch,
    }


def drawing(task: Task) -> float:
    """Return the seconds that the random numbers of a batch take."""
    index, view = np.arange(task.batch), np.zeros(task.batch, np.int64)
    operations = parse_policy(task.policy).operations
    times = []
    for _ in range(200):
        start = time.perf_counter()
        for operation in operations:
            uniform(0, index, view, operation.draws, operation.name)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def table(found: dict[str, Any]) -> str:
    """Return the images a second as a Markdown table."""
    lines = ["| images a second | potstill | torchvision, Pillow | torchvision, tensors |", "|---|---:|---:|---:|"]
    for row in found["results"]:
        rates = " | ".join(f"{value:,.0f}" for value in row["images_per_second"].values())
        lines.append(f"| {row['task']} | {rates} |")
    return "\n".join(lines)
