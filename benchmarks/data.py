"""Training batches a second: potstill's loader beside torchvision's ImageFolder + DataLoader + v2 transforms.

    python benchmarks/data.py --cifar PATH/cifar10 --photos PATH/dogs-vs-cats [--record]

Both sides end with float32 images in 0..1 and their labels; the rival has two worker processes, its images lie in the
page cache, and it is measured with Pillow images and with tensors going into the transforms: the faster one counts.
Decoding the photos once, which potstill does before the first epoch, is timed by itself. The two sides take turns,
and what is printed is the median of the turns.
"""

from __future__ import annotations

import argparse
import json
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
from results import machine, record
from torch.utils.data import DataLoader, RandomSampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from potstill.data.augment import parse_policy
from potstill.data.draws import uniform
from potstill.data.formats import read_manifest
from potstill.data.loader import Loader, Order
from potstill.data.pixels import load_pixels
from potstill.data.views import View

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
    "CIFAR-10, 32 px, pad-crop and flip", 32, 32, 512, "cifar",
    (v2.RandomCrop(32, padding=4, padding_mode="reflect"), v2.RandomHorizontalFlip()), 10,
)  # fmt: skip
PHOTOS = Task(
    "dogs-vs-cats, 224 px, random-resized crop and flip", 224, 256, 64,
    [{"random-resized-crop": {"scale": [0.08, 1]}}, "flip"],
    (v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip()), 3,
)  # fmt: skip


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


def measure(task: Task, folder: Path, *, repeats: int, seconds: float) -> dict[str, Any]:
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
        "bar": task.bar,
        "met": ratio >= task.bar,
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


def table(found: list[dict[str, Any]]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| images a second | potstill | torchvision, Pillow | torchvision, tensors | ratio | bar |"]
    lines.append("|---|---:|---:|---:|---:|---:|")
    for row in found:
        rates = " | ".join(f"{value:,.0f}" for value in row["images_per_second"].values())
        lines.append(f"| {row['task']} | {rates} | {row['ratio']:.1f} | {row['bar']} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cifar", type=Path, help="CIFAR-10 as train/CLASS/*.jpg")
    parser.add_argument("--photos", type=Path, help="photos as train/CLASS/*.jpg")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each turn")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="also write RESULTS.json and RESULTS.md")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    tasks = [(task, folder) for task, folder in ((CIFAR, given.cifar), (PHOTOS, given.photos)) if folder]
    where = machine()
    found = [measure(task, folder, repeats=given.repeats, seconds=given.seconds) for task, folder in tasks]
    print(table(found))
    for row in found:
        print(
            f"{row['task']}: prepared in {row['prepared_in_seconds']:.1f} s, "
            f"{100 * row['share_of_drawing']:.1f} % of the time is drawing random numbers."
        )
    print(json.dumps(where))
    if given.record:
        record("data", {"machine": where, "results": found}, table(found))


if __name__ == "__main__":
    main()
