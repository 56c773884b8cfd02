"""A store of a million images: how much memory its writing and reading take, and whether time grows with the images.

Each size is a process of its own, so that its peak is its own. It asks a small network (a thousand classes) about
generated images, keeps the best 16 classes of each answer, and reads all of it back in the shuffled batches of an
epoch, by the very functions that a run uses (`one_size`).
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill import progress
from potstill.errors import RunError
from potstill.teachers.logit_codec import row_bytes

from .bars import Bar, in_a_process, judge, provenance
from .one_size import BEST, CLASSES

SIZES = (10_000, 100_000, 1_000_000)
SHORT = SIZES[:2]
GIB = 2**30
BARS = {
    "peak_gib": Bar(1.5, True, "largest resident memory of a process that writes a store and reads it, in GiB"),
    "growth": Bar(1.1, True, "power of the number of images with which time grows (1: linear), up to the largest"),
}


def measure(sizes: Sequence[int] = SIZES, *, folder: Path | None = None, threads: int = 2) -> dict[str, Any]:
    """Return {"figures", "sizes": [{"images", "write_seconds", "read_seconds", "peak_bytes", "bytes"}], ...}.

    folder: where the stores are written and removed again, by default the system's temporary folder. Raises
    `RunError` where too little space is left there.
    """
    need = _refuse_full_disk(folder or Path(tempfile.gettempdir()), max(sizes))
    progress.note(f"The largest store takes {need / 1e6:,.0f} MB in {folder or tempfile.gettempdir()} for a while.")
    found = []
    with progress.task("writing and reading stores", len(sizes)) as task:
        for images in sizes:
            with tempfile.TemporaryDirectory(dir=folder) as target:
                found.append(_in_a_process(images, Path(target), threads))
            task.advance(text=f"{images:,} images: {found[-1]['peak_bytes'] / GIB:.2f} GiB")
    reached = figures(found)
    return {"figures": reached, "bars": judge(BARS, reached), "sizes": found, **provenance(threads)}


def figures(sizes: Sequence[dict[str, float]]) -> dict[str, float | None]:
    """Return the figures of `BARS`, from the sizes in rising order."""
    seconds = [size["write_seconds"] + size["read_seconds"] for size in sizes]
    growth = None
    if len(sizes) > 1:
        growth = math.log(seconds[-1] / seconds[-2]) / math.log(sizes[-1]["images"] / sizes[-2]["images"])
    return {
        "peak_gib": round(max(size["peak_bytes"] for size in sizes) / GIB, 3),
        "growth": None if growth is None else round(growth, 3),
    }


def _refuse_full_disk(folder: Path, images: int) -> int:
    """Return the bytes that a store of so many images takes, if there is room for it."""
    need, free = int(1.1 * images * row_bytes(CLASSES, BEST)) + 2**20, shutil.disk_usage(folder).free
    if need > free:
        raise RunError(
            f"A store of {images:,} images needs {need / 1e6:,.0f} MB in {folder}, and {free / 1e6:,.0f} MB are free "
            "there. Free some space, or name a folder on another disk with TMPDIR."
        )
    return need


def _in_a_process(images: int, folder: Path, threads: int) -> dict[str, float]:
    command = [sys.executable, "-m", "peers.one_size", str(images), str(folder)]
    settings = {**in_a_process(ours=True), "OMP_NUM_THREADS": str(threads), "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        raise ChildProcessError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def table(found: dict[str, Any]) -> str:
    """Return the sizes as a Markdown table."""
    lines = ["| images | written in s | read in s | peak GiB | MB on disk |", "|---:|---:|---:|---:|---:|"]
    for size in found["sizes"]:
        lines.append(
            f"| {size['images']:,} | {size['write_seconds']:.1f} | {size['read_seconds']:.1f} | "
            f"{size['peak_bytes'] / GIB:.2f} | {size['bytes'] / 1e6:.1f} |"
        )
    return "\n".join(lines)
