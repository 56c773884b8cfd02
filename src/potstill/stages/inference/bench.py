"""`potstill bench`: latency of model files on this machine, taken side by side, and accuracy where images are given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from potstill import progress
from potstill.errors import ConfigError, ModelError
from potstill.model_files.latency import latency_ms
from potstill.model_files.open import find, weights_file
from potstill.stages.inference.evaluate import evaluate
from potstill.stages.summary import machine, versions
from potstill.words import plural


def bench(
    files: Sequence[str],
    *,
    data: str | None = None,
    settings: dict[str, Any] | None = None,
    batch: Sequence[int] = (1, 32),
    threads: Sequence[int] = (1, 0),
    seconds: float = 0.5,
    split: str = "test",
    limit: int | None = None,
) -> dict[str, Any]:
    """Return `timings`, one for each pair of batch and threads, and `accuracy` of each file where `data` is given.

    In a timing, each of `files` has the median and the quartiles in milliseconds of a run over the batch, images a
    second, and `ratio`: the first file's median divided by its own, so that 2 is twice as fast. threads: 0 is all
    cores. Raises `UserError` that names everything that is no model, before anything is measured.
    """
    _refuse(files, batch, threads)
    paths = [Path(file) for file in files]
    pairs = [(size, count) for count in threads for size in batch]
    timings = []
    with progress.task("Measuring latency", len(pairs)) as task:
        for size, count in pairs:
            timings.append(_timing(paths, size, count, seconds))
            task.advance(text=f"batch {size}, {plural(count, 'thread') if count else 'all threads'}")
    accuracy = [] if data is None else _accuracies(paths, data, settings, split, limit)
    return {
        "files": [str(path) for path in paths],
        "data": data,
        "timings": timings,
        "accuracy": accuracy,
        "machine": machine(),
        "versions": versions(),
    }


def _refuse(files: Sequence[str], batch: Sequence[int], threads: Sequence[int]) -> None:
    advice = "Give an exported or packed file, or a run or stage folder."
    problems = [f"There is no model at {file}. {advice}" for file in files if not Path(file).exists()]
    if problems:
        raise ModelError(*problems)
    if not files:
        raise ModelError("There is nothing to measure: give one or more model files.")
    if min(batch, default=0) < 1 or min(threads, default=-1) < 0:
        raise ConfigError("--batch takes numbers from 1, --threads numbers from 0 (all cores), with commas between.")


def _timing(files: list[Path], batch: int, threads: int, seconds: float) -> dict[str, Any]:
    results = latency_ms(files, batch=batch, threads=threads, seconds=seconds)
    return {
        "batch": batch,
        "threads": threads,
        "files": [
            {
                "file": str(file),
                "median_ms": round(one.median_ms, 4),
                "low_ms": round(one.low_ms, 4),
                "high_ms": round(one.high_ms, 4),
                "runs": one.runs,
                "images_per_second": round(one.images_per_second, 1),
                "ratio": round(results[0].median_ms / one.median_ms, 3),
            }
            for file, one in zip(files, results, strict=True)
        ],
    }


def _accuracies(
    files: list[Path], data: str, settings: dict[str, Any] | None, split: str, limit: int | None
) -> list[dict[str, Any]]:
    """Return the accuracy of each file, all on the same images: split as the first run folder among them did."""
    runs = [file for file in files if file.is_dir()]
    how = {"split": split, "limit": limit, "settings": settings, "source": str(runs[0]) if runs else ""}
    results = []
    for file in files:
        opened = find(str(file))
        assert opened is not None, "it was there a moment ago"
        result = evaluate(opened, data, **how)
        figures = {name: result[name] for name in ("accuracy", "interval", "images")}
        results.append({"file": str(file), "bytes": _bytes(file), **figures})
    return results


def _bytes(path: Path) -> int:
    """Return the size of a file; of a folder, that of the weights that are loaded from it."""
    file = weights_file(path)
    beside = [file.with_suffix(".bin")] if file.suffix == ".xml" else []  # OpenVINO's weights
    return sum(one.stat().st_size for one in (file, *beside))
