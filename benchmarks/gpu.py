"""Everything that needs an accelerator, unattended, in at most eight minutes: checks, speed bars, five losses.

    python benchmarks/gpu.py [--cifar100 FOLDER] [--minutes 8] [--out gpu.json]
    python benchmarks/gpu.py --dry        # the same parts on the processor, tiny: whether the script runs

1. `pytest -m gpu`: the paths of the suite that run on the device. 2. `benchmarks/speed.py`: its figures and bars there.
3. ResNet-56 teaches ResNet-20 by KD, LS-KD, DKD, DIST and WTTM, three seeds side by side, for as many epochs as the
rest of the time has room for; on CIFAR-100 where FOLDER (train/CLASS/*, test/CLASS/*) is given, else on generated
images, whose accuracies say nothing. Needs no network. OUT is written after each part, so a killed script keeps them.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import potstill

ROOT = Path(__file__).parents[1]
METHODS: dict[str, dict[str, Any]] = {
    "kd": {"loss": "kd", "alpha": 0.1, "temperature": 4.0},
    "ls-kd": {"terms": [{"loss": "cross_entropy", "weight": 0.1}, {"loss": "ls_kd", "weight": 9.0}]},
    "dkd": {"terms": [{"loss": "cross_entropy"}, {"loss": "dkd", "options": {"beta": 2.0, "temperature": 4.0}}]},
    "dist": {"terms": [{"loss": "cross_entropy"}, {"loss": "dist", "weight": 2.0}]},
    "wttm": {"terms": [{"loss": "cross_entropy"}, {"loss": "wttm", "weight": 4.0, "options": {"gamma": 0.1}}]},
}
CHECKS_SECONDS, BARS_SECONDS, RESERVE = 120, 150, 20


def main(arguments: Sequence[str] | None = None) -> dict[str, Any]:
    """Carry out the parts and return what is in OUT."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar100", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args(arguments)
    end = time.monotonic() + 60 * given.minutes
    found: dict[str, Any] = {"machine": machine()}
    if not given.dry:
        found["checks"] = command([sys.executable, "-m", "pytest", "-q", "-m", "gpu"], CHECKS_SECONDS)
        write(given.out, found)
        speed = [sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--json", "--rounds", "3", "--seconds", "1"]
        found["bars"] = command(speed, BARS_SECONDS)
        write(given.out, found)
    with tempfile.TemporaryDirectory() as folder:
        data = given.cifar100 or drawn(Path(folder) / "images", 48 if given.dry else 2000)
        found["methods"] = methods(data, Path(folder), end - RESERVE, dry=given.dry)
    found["methods"]["images"] = "CIFAR-100" if given.cifar100 else "generated"
    write(given.out, found)
    return found


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    there = torch.cuda.is_available()
    name = torch.cuda.get_device_name() if there else "processor"
    return {"device": name, "torch": torch.__version__, "potstill": potstill.__version__}


def command(words: list[str], seconds: float) -> dict[str, Any]:
    """Run a command; return its exit status (None: out of time) and the end of its output, as JSON where it is JSON."""
    try:
        done = subprocess.run(words, cwd=ROOT, timeout=seconds, capture_output=True, text=True, check=False)
    except subprocess.TimeoutExpired:
        return {"status": None, "seconds": seconds}
    try:
        return {"status": done.returncode, "figures": json.loads(done.stdout)}
    except ValueError:
        return {"status": done.returncode, "output": (done.stdout + done.stderr)[-2000:]}


def methods(data: Path, folder: Path, end: float, *, dry: bool) -> dict[str, Any]:
    """Compare the losses with as many epochs as fit until `end`; return accuracies and seconds."""
    seeds, chosen = (1, ["kd", "dist"]) if dry else (3, list(METHODS))
    depth = ("builtin:resnet8-cifar", {"width": 4}) if dry else ("builtin:resnet56-cifar", {})
    student = ("builtin:resnet8-cifar", {"width": 4}) if dry else ("builtin:resnet20-cifar", {})
    train = {"epochs": 1, "batch_size": 16 if dry else 128, "optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4}
    settings = {
        "data": {"path": str(data)}, "students": {"small": {"model": student[0], "options": student[1]}}, "views": 1,
        "teacher": {"model": depth[0], "options": depth[1], "train": train}, "seeds": seeds, "train": train,
    }  # fmt: skip
    began = time.monotonic()
    potstill.compare({**settings, "methods": {"kd": METHODS["kd"]}, "seeds": 1}, out=folder / "one-epoch")
    second = time.monotonic() - began
    # The first run had a teacher's epoch and two students'; `seeds` trainings run side by side.
    epochs = 1 if dry else max(1, int((end - time.monotonic()) / (second / 3 * (len(chosen) + 1) * 1.5)))
    longer = {**train, "epochs": epochs}
    teacher = {**settings["teacher"], "train": longer}
    chosen_methods = {name: METHODS[name] for name in chosen}
    result = potstill.compare(
        {**settings, "teacher": teacher, "train": longer, "methods": chosen_methods},
        workers=None if dry else seeds,
        out=folder / "methods",
    )
    rows = result.summary["students"]["small"]["methods"]
    return {
        "epochs": epochs,
        "seconds": round(time.monotonic() - began, 1),
        "teacher": result.summary["models"]["teacher"]["accuracy"],
        "test_accuracy": {row["method"]: row["test_accuracy"] for row in rows},
        "training_seconds": {row["method"]: row["seconds"] for row in rows},
    }


def drawn(folder: Path, count: int) -> Path:
    """Draw images of noise in three classes that differ in brightness."""
    random = np.random.default_rng(0)
    for row in range(count):
        kind = row % 3
        file = folder / ("test" if row % 4 == 3 else "train") / "abc"[kind] / f"{row}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(60 * kind, 60 * kind + 100, (32, 32, 3), np.uint8)).save(file)
    return folder


def write(file: Path, found: dict[str, Any]) -> None:
    """Write what there is so far."""
    file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
