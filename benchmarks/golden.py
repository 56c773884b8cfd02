"""Do final weights stay bit for bit what they were? One small run of every stage, before and after a change.

    python benchmarks/golden.py record before.json       # at the commit to compare with
    python benchmarks/golden.py record after.json        # at the other one, on the same machine
    python benchmarks/golden.py compare before.json after.json

Every run computes in fp32 with one thread and fixed seeds, on the digits that scikit-learn carries. A figure is the
SHA-256 over all tensors of a stage's weights file. Digests of two machines differ, so nothing is kept in the project.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml
from safetensors.numpy import load_file

TRAIN = {"epochs": 2, "batch_size": 64, "precision": "fp32", "compile": False}
DATA = {"path": "digits", "limit": 400}
STUDENT = {"model": "builtin:small-cnn"}
TEACHER = {"model": "builtin:cnn", "train": TRAIN}
RUN = {"data": DATA, "teacher": TEACHER, "student": STUDENT, "train": TRAIN, "seeds": 2}
FEATURES = [
    {"loss": "cross_entropy"},
    {"loss": "feature_mse", "weight": 1.0, "on": "stage:-1"},
    {"loss": "srrl"},
]
COMPARE = {
    **RUN,
    "student": None,
    "students": {"small": STUDENT},
    "methods": {"kd": {"loss": "kd", "temperature": 4.0}, "dkd": {"loss": "dkd"}},
}
SELFTRAIN = [
    *("selftrain", "digits", "--limit", "400", "--labels", "60", "--teacher", STUDENT["model"]),
    *("--student", STUDENT["model"], "--rounds", "1", "--steps", "40", "--seeds", "1", "--batch-size", "32"),
]
RECIPES = {
    "logits": ("run", RUN),
    "features": ("run", {**RUN, "objective": {"terms": FEATURES}, "seeds": 1}),
    "compare": ("compare", {key: value for key, value in COMPARE.items() if value is not None}),
}


def commands(runs: Path) -> dict[str, list[str]]:
    """Return the command of every run, by name, in an order in which each finds what it needs."""
    student, teacher = _student(runs / "logits"), str(runs / "logits" / "teacher")
    short = ["--images", "800", "--limit", "400", "--data", "digits"]
    return {
        "label": ["label", "digits", "--limit", "400", "--teacher", teacher, "--views", "2"],
        "labels": ["distill", "digits", "--limit", "400", "--teacher", str(runs / "label"), "--student",
                   STUDENT["model"], "--epochs", "2", "--seeds", "1"],
        "finetune": ["finetune", "digits", "--limit", "400", "--model", teacher, "--epochs", "2", "--views", "2"],
        "prune": ["prune", student, "--keep", "0.5", *short],
        "selftrain": SELFTRAIN,
        "fixmatch": [*SELFTRAIN, "--method", "fixmatch"],
        "ptq": ["quantize", student, "--weight-bits", "4", "--limit", "400", "--data", "digits"],
        "qat": ["quantize", student, "--weight-bits", "2", "--mode", "qat", "--teacher", teacher, *short],
    }  # fmt: skip


def _student(run: Path) -> str:
    """Return the folder of the first student, whatever the stage's folder is called."""
    return str(next(iter(sorted(run.glob("distil*/seed-0"))), run / "distill" / "seed-0"))


def record(file: Path) -> None:
    """Carry everything out and write the digests."""
    with tempfile.TemporaryDirectory() as temporary:
        runs = Path(temporary)
        for name, (command, recipe) in RECIPES.items():
            written = runs / f"{name}.yaml"
            written.write_text(yaml.safe_dump({"name": name, **recipe}))
            _carry_out([command, str(written), "--out", str(runs / name)])
        for name in commands(runs):
            _carry_out([*commands(runs)[name], "--out", str(runs / name)])
        file.write_text(json.dumps(digests(runs), indent=1, sort_keys=True) + "\n")


def _carry_out(arguments: list[str]) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    print("potstill", " ".join(arguments), flush=True)
    done = subprocess.run(
        [sys.executable, "-m", "potstill", *arguments], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"status {done.returncode}\n{done.stdout}\n{done.stderr}")


def digests(runs: Path) -> dict[str, str]:
    """Return the digest of every model's tensors, by its path below the runs."""
    found = {}
    for file in sorted(runs.rglob("model*.safetensors")):
        path = file.relative_to(runs).as_posix().replace("distil/", "distill/")
        found[path] = _digest(file)
    return found


def _digest(file: Path) -> str:
    tensors = load_file(file)
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode() + str(tensors[name].dtype).encode() + tensors[name].tobytes())
    return whole.hexdigest()


def compare(before: Path, after: Path) -> None:
    """Print what differs; exit with 1 where anything does."""
    first, second = (json.loads(file.read_text()) for file in (before, after))
    different = [name for name in sorted({*first, *second}) if first.get(name) != second.get(name)]
    print(f"{len(first)} and {len(second)} weights files, {len(different)} different")
    for name in different:
        print(f"  {name}: {first.get(name, 'absent')[:12]} -> {second.get(name, 'absent')[:12]}")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    actions = {"record": record, "compare": compare}
    if len(sys.argv) < 3 or sys.argv[1] not in actions:
        sys.exit(__doc__)
    actions[sys.argv[1]](*map(Path, sys.argv[2:]))
