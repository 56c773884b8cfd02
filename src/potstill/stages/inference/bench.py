"""`potstill bench`: latency of model files on this machine, measured in alternation, and accuracy on given images.

With `device_profile` also a file by which other machines scale latencies to this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from potstill import artifacts, progress
from potstill.errors import ConfigError, ModelError, UserError
from potstill.evaluation.measured import BALANCED
from potstill.exporters.device_profile import measure, read_profile
from potstill.model_files.latency import latency_ms
from potstill.model_files.open import find, weights_file
from potstill.output_files import check_place
from potstill.stages.inference.evaluate import evaluate
from potstill.stages.summary import machine, versions
from potstill.words import plural


def bench(
    files: Sequence[str] = (),
    *,
    device_profile: Path | None = None,
    data: str | None = None,
    settings: dict[str, Any] | None = None,
    batch: Sequence[int] = (1, 32),
    threads: Sequence[int] = (1, 0),
    seconds: float = 0.5,
    split: str = "test",
    limit: int | None = None,
) -> dict[str, Any]:
    """Return `timings`, one for each pair of batch size and threads, and `accuracy` of each file if `data` is given.

    A timing has, for each of `files`, the median and quartiles of the latency per batch in milliseconds, images per
    second, and `ratio`: the median of the first file divided by its own, so that 2 is twice as fast. threads: 0 is all
    cores. Raises `UserError` that lists all files that are not models, before measuring.
    """
    _refuse(files, batch, threads, device_profile)
    paths = [Path(file) for file in files]
    pairs = [(size, count) for count in threads for size in batch] if paths else []
    timings = []
    with progress.task("Measuring latency", len(pairs)) as task:
        for size, count in pairs:
            timings.append(_timing(paths, size, count, seconds))
            task.advance(text=f"batch {size}, {plural(count, 'thread') if count else 'all threads'}")
    accuracy = [] if data is None else _accuracies(paths, data, settings, split, limit)
    profile = None if device_profile is None else _profile(device_profile, seconds)
    return {
        "files": [str(path) for path in paths],
        "data": data,
        "timings": timings,
        "accuracy": accuracy,
        "device_profile": profile,
        "machine": machine(),
        "versions": versions(),
    }


def _profile(file: Path, seconds: float) -> dict[str, Any]:
    """Measure this machine, write its profile, and return what a reader of it can expect."""
    with progress.task("Measuring reference networks", 1):
        runtime = f"onnxruntime {onnxruntime.__version__}"
        profile = measure(file.stem, processor=machine()["cpu"], runtime=runtime, seconds=seconds)
    artifacts.write_json(file, profile.to_json())
    return {
        "file": str(file),
        "name": profile.name,
        "processor": profile.processor,
        "error": {"float": round(profile.error(32), 3), "int8": round(profile.error(8), 3)},
    }


def _refuse(
    files: Sequence[str], batch: Sequence[int], threads: Sequence[int], device_profile: Path | None = None
) -> None:
    advice = "Give an exported or packed file, or a run or stage folder."
    problems = [f"There is no model at {file}. {advice}" for file in files if not Path(file).exists()]
    if problems:
        raise ModelError(*problems)
    if not files and device_profile is None:
        raise ModelError("No model files are given. Give at least one, or --device-profile FILE.json.")
    if device_profile is not None:
        _refuse_file(device_profile)
    if min(batch, default=0) < 1 or min(threads, default=-1) < 0:
        raise ConfigError("--batch needs numbers >= 1 and --threads numbers >= 0 (0: all cores), separated by commas.")


def _refuse_file(file: Path) -> None:
    """Raise where a profile would replace something else than a profile."""
    if file.suffix != ".json" or file.is_dir():
        raise ConfigError(f"--device-profile {file}: give the name of a .json file, such as pi4.json.")
    check_place(file, "--device-profile")
    if file.exists():
        try:
            read_profile(file)
        except UserError:
            raise ConfigError(
                f"--device-profile {file}: this file is no device profile. Choose another name."
            ) from None


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
    """Return the accuracy of each file on the same images: split as in the first run folder among them."""
    runs = [file for file in files if file.is_dir()]
    source = str(runs[0]) if runs else ""
    results = []
    for file in files:
        opened = find(str(file))
        assert opened is not None, "_refuse checked that it exists"
        result = evaluate(opened, data, split=split, limit=limit, settings=settings, source=source)
        figures = {name: result[name] for name in ("accuracy", "interval", *BALANCED, "images")}
        results.append({"file": str(file), "bytes": _bytes(file), **figures})
    return results


def _bytes(path: Path) -> int:
    """Return the size of a file; for a folder, that of the weights loaded from it."""
    file = weights_file(path)
    beside = [file.with_suffix(".bin")] if file.suffix == ".xml" else []  # OpenVINO's weights
    return sum(one.stat().st_size for one in (file, *beside))
