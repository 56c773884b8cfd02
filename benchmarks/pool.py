"""An unlabelled folder of 100,000 small images in bounded memory: run a self-training over it and assert its peak.

    python benchmarks/pool.py [--images 100000] [--most 1500]

Images are drawn PNG files of 16x16 pixels in a temporary folder; the run is a process of its own, whose largest
resident set is asserted to stay below `most` MB. Exit code 1 where it does not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

SETTINGS = {
    "teachers": [{"model": "builtin:mlp"}], "folds": 2, "student": {"model": "builtin:mlp"}, "rounds": 1, "seeds": 1,
    "steps": 100, "teacher_steps": 100, "crossfit": False,
}  # fmt: skip
RUN = "import json, sys, potstill; s = json.loads(sys.argv[4]); \
potstill.selftrain(sys.argv[1], unlabelled=sys.argv[2], out=sys.argv[3], **s)"


def main() -> None:
    """Draw the images, run, print and assert."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--most", type=float, default=1500, help="MB")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        draw(Path(root), asked.images)
        began = time.monotonic()
        paths = [str(Path(root) / name) for name in ("labelled", "pool", "run")]
        subprocess.run([sys.executable, "-c", RUN, *paths, json.dumps(SETTINGS)], check=True, stdout=sys.stderr)
        lines = len((Path(root) / "run" / "labels.csv").read_text().splitlines()) - 1
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    print(f"{asked.images:,} images, {lines:,} labelled by the teachers, {time.monotonic() - began:.0f} seconds, "
          f"largest process {peak:.0f} MB (bound {asked.most:.0f})")  # fmt: skip
    assert peak < asked.most, "memory grew with the pool"


def draw(root: Path, images: int) -> None:
    """Write 60 labelled images, 60 for testing, and the pool, in folders of 1,000."""
    random = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 60)):
        for number in range(count):
            save(root / "labelled" / split / "ab"[number % 2] / f"{number}.png", random, number % 2)
    for number in range(images):
        save(root / "pool" / f"{number // 1000:03}" / f"{number}.png", random, number % 2)


def save(file: Path, random: np.random.Generator, kind: int) -> None:
    """Write noise with a bright upper or lower half."""
    pixels = random.integers(0, 160, (16, 16), np.uint8)
    pixels[8 * kind : 8 * kind + 8] += 90
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file)


if __name__ == "__main__":
    main()
