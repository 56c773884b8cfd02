"""Wall time of the demo with its trainings side by side in two processes, against one; and whether the bits differ.

    python benchmarks/side_by_side.py [--rounds 3] [--workers 2] [--json] [--record]

The two commands alternate, as processes of their own, so start-up, teacher, evaluation and export are in both. About
two minutes a round on two idle cores.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import results
from peers.bars import Bar, judge, provenance

BARS = {
    "over_one": Bar(0.6, True, "wall time of the demo with its trainings side by side / in one process"),
    "different": Bar(0, True, "files of weights whose bytes differ between the two"),
}


def main() -> None:
    parser = results.parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    found = measure(given.rounds, given.workers, given.threads)
    results.tell("side_by_side", found, table(found), given)


def measure(rounds: int, workers: int, threads: int) -> dict[str, Any]:
    """Return the seconds of each side in each round, their ratio (median), and how many files of weights differ."""
    seconds: dict[int, list[float]] = {1: [], workers: []}
    differing = 0
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as scratch:
            made = {count: Path(scratch) / str(count) for count in seconds}
            for count, folder in made.items():
                seconds[count].append(_demo(folder, count))
            differing += _differing(*made.values())
    ratio = statistics.median(many / one for one, many in zip(*seconds.values(), strict=True))
    figures = {"over_one": ratio, "different": float(differing)}
    sides = {str(count): [round(value, 1) for value in values] for count, values in seconds.items()}
    return {"figures": figures, "bars": judge(BARS, figures), "seconds": sides, **provenance(threads)}


def _demo(folder: Path, workers: int) -> float:
    began = time.perf_counter()
    command = [sys.executable, "-m", "potstill", "demo", "--out", str(folder), "--workers", str(workers), "--quiet"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def _differing(one: Path, other: Path) -> int:
    """Return how many files of weights in a run folder are not the same in another one."""
    files = sorted(file.relative_to(one) for file in one.rglob("model.safetensors"))
    assert files == sorted(file.relative_to(other) for file in other.rglob("model.safetensors")) and files
    return sum((one / file).read_bytes() != (other / file).read_bytes() for file in files)


def table(found: dict[str, Any]) -> str:
    """Return the seconds of every round as a Markdown table."""
    lines = ["| trainings at a time | seconds, each round |", "|---:|---|"]
    lines += [f"| {count} | {', '.join(f'{one:.1f}' for one in all_)} |" for count, all_ in found["seconds"].items()]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
