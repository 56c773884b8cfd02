"""Writes one store of generated images and reads it back, in a process of its own; says what that took.

python -m peers.one_size IMAGES FOLDER
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import torch

from potstill.data.augment import parse_policy
from potstill.data.draws import uniform
from potstill.data.loader import Batch, Loader, Order
from potstill.data.manifest import Manifest
from potstill.data.views import View
from potstill.models import zoo
from potstill.models.outputs import Classifier
from potstill.teachers.prediction_store import Store
from potstill.teachers.stored import StoredTeacher
from potstill.training import devices, predict

CLASSES, BEST, BATCH = 1000, 16, 128
SIDE = 8  # pixels


class Generated:
    """Images that are drawn when they are asked for: a million of them lie nowhere. Has the methods of `Pixels`."""

    def on(self, device: torch.device) -> Generated:
        """Return them where they are trained on."""
        return self

    def take(self, rows: np.ndarray) -> torch.Tensor:
        """Return uint8 [B, 3, 8, 8] of these rows."""
        drawn = uniform(0, rows, np.zeros_like(rows), 3 * SIDE * SIDE, "pixels")
        return torch.from_numpy((256 * drawn).astype(np.uint8)).reshape(-1, 3, SIDE, SIDE)


def loader_of(images: int) -> Loader:
    """Return a loader of so many generated images, all of them training images."""
    columns = np.arange(images) % CLASSES, np.zeros(images, np.uint8)
    manifest = Manifest(Generated(), *columns, tuple(map(str, range(CLASSES))), np.arange(images, dtype=np.uint64))
    return Loader(manifest, Generated(), View(parse_policy("none"), size=(SIDE, SIDE), seed=0), device=devices.device())


def teacher() -> Classifier:
    """Return a dense network whose answers differ from image to image."""
    names = tuple(map(str, range(CLASSES)))
    made = zoo.create("builtin:mlp", classes=names, size=(SIDE, SIDE), channels=3, options={"hidden": 64}, seed=0)
    return made.to(devices.device()).eval()


def read(store: Store, loader: Loader) -> None:
    """Read a whole store in the shuffled batches of an epoch, as training does."""
    order = Order(loader.manifest, batch_size=BATCH, seed=0, views=1)
    taught = StoredTeacher(store, CLASSES)
    for step in range(order.steps_per_epoch):
        index, view = (torch.from_numpy(column) for column in order.at(step))
        logits = taught.read(Batch(torch.empty(BATCH, 0), index, index, view))
        assert logits.shape == (BATCH, CLASSES)


def peak_bytes() -> int:
    """Return the largest resident memory of this process so far.

    Linux counts what a process was before it became this program into getrusage, so there /proc is asked.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        return 1024 * next(int(line.split()[1]) for line in status.open() if line.startswith("VmHWM"))
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    """Write and read one store; print what it took as one line of JSON."""
    images, folder = int(sys.argv[1]), Path(sys.argv[2])
    loader, model, before = loader_of(images), teacher(), peak_bytes()
    began = time.perf_counter()
    store = Store(folder, np.arange(images), 1, {"teacher": "generated"})
    predict.fill_store(store, model, loader, best=BEST)
    written = time.perf_counter()
    read(Store(folder, np.arange(images), 1, {"teacher": "generated"}), loader)
    seconds = {"write_seconds": written - began, "read_seconds": time.perf_counter() - written}
    print(
        json.dumps(
            {"images": images, **seconds, "start_bytes": before, "peak_bytes": peak_bytes(), "bytes": store.bytes}
        )
    )


if __name__ == "__main__":
    main()
