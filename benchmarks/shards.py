"""A pool behind a URL: WebDataset shards, labelled and distilled from, killed once, in bounded memory and disk.

    python benchmarks/shards.py [--images 1000000] [--shard 10000] [--most 2000]

Images are noise of 16x16 pixels with a bright half, in .tar shards in a temporary folder that is read as file://. A
process of its own labels them with a network and distills a student from the labels; it is killed when half of the
shards are read, and started again. Its largest resident set is asserted to stay below `most` MB, and the copies of
shards on disk below five. Prints seconds, MB and images a second of each part. Exit code 1 where a bound does not hold.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

RUN = """
import sys, potstill
url, root = sys.argv[1:]
potstill.label(url, teacher=f"{root}/teacher", views=1, augment="none", to_review=0, out=f"{root}/labels")
potstill.distill(
    url, teacher=f"{root}/labels", student={"model": "builtin:mlp", "options": {"hidden": 8}}, epochs=1, views=1,
    augment="none", seeds=1, export={"int8": False}, out=f"{root}/run",
)
"""


def main() -> None:
    """Draw the shards, run, kill, run again, print and assert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--shard", type=int, default=10_000, help="images of a shard")
    parser.add_argument("--most", type=float, default=2000, help="MB")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        draw(Path(root) / "shards", asked.images, asked.shard)
        teacher(Path(root))
        environment = {**os.environ, "POTSTILL_CACHE": f"{root}/cache"}
        command = [sys.executable, "-c", RUN, f"file://{root}/shards", root]
        lost = killed(command, environment, Path(root) / "cache" / "facts")
        began = time.monotonic()
        subprocess.run(command, check=True, env=environment, stdout=sys.stderr)
        seconds = time.monotonic() - began
        copies = len(list((Path(root) / "cache" / "shards").glob("*.tar")))
        labelled = json.loads((Path(root) / "labels" / "labels.json").read_text())["images"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{asked.images:,} images in shards of {asked.shard:,}: killed after {lost:.0f} s, then {seconds:.0f} s for "
          f"{labelled:,} labels and a student, {asked.images / seconds:.0f} images/s; largest process {peak:.0f} MB "
          f"(bound {asked.most:.0f}), {copies} copies of shards")  # fmt: skip
    assert peak < asked.most, "memory grew with the pool"
    assert copies <= 4, "copies of shards stayed on the disk"


def killed(command: list[str], environment: dict[str, str], facts: Path) -> float:
    """Start the command and kill it after the first facts were saved, or after ten seconds; return its seconds."""
    began = time.monotonic()
    process = subprocess.Popen(command, env=environment, start_new_session=True, stdout=sys.stderr)
    while process.poll() is None and time.monotonic() - began < (600 if not facts.is_dir() else 0):
        if time.monotonic() - began > 10 and facts.parent.is_dir():
            break
        time.sleep(0.2)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return time.monotonic() - began


def draw(folder: Path, images: int, shard: int) -> None:
    """Write the shards: nine tenths for training, of which half are unlabelled, and the rest for testing."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for first in range(0, images, shard):
        split = "test" if first >= 0.9 * images else "train"
        with tarfile.open(folder / f"{split}-{first // shard:06}.tar", "w") as archive:
            for row in range(first, min(first + shard, images)):
                kind = row % 2
                pixels = random.integers(0, 160, (16, 16), np.uint8)
                pixels[8 * kind : 8 * kind + 8] += 90
                buffer = io.BytesIO()
                Image.fromarray(pixels).save(buffer, "png", compress_level=1)
                put(archive, f"{row}.png", buffer.getvalue())
                if split == "test" or row % 4 < 2:
                    put(archive, f"{row}.cls", b"ab"[kind : kind + 1])


def put(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a file to a shard."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    archive.addfile(member, io.BytesIO(content))


def teacher(root: Path) -> None:
    """Save a network that has not been trained, whose answers cost what a trained one's do."""
    from potstill.model_files.folder import save_model
    from potstill.models import zoo

    made = zoo.create("builtin:small-cnn", classes=("a", "b"), size=(16, 16), channels=1, options={"width": 8}, seed=0)
    save_model(made, root / "teacher")


if __name__ == "__main__":
    main()
