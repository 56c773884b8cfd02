"""Images a second of distillation, side by side: what `benchmarks/speed.py` measures.

Each side is a process of its own; they take turns, so that whatever else the machine does falls on all of them. A
figure is the median over the rounds of the figure within a round.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from potstill import progress
from potstill.training import devices

from .bars import Bar, in_a_process, judge, provenance
from .world import World, save

EPOCHS, VIEWS, IMAGES = 10, 2, 50_000  # of the run whose writing of the store is counted
OURS = ("none", "stored", "hand", "forward", "store")
RIVALS = ("plain, no workers", "plain, 2 workers", "torchdistill")
SIDES = {
    "none": "potstill's loop without a teacher",
    "stored": "potstill's loop with a stored teacher",
    "hand": "the tightest loop we can write that does the same arithmetic as `stored`",
    "forward": "the bare forward pass of the teacher over a batch that is ready",
    "store": "potstill's writing of a store",
    "plain, no workers": "the published loop: torchvision transforms, DataLoader, live fp32 teacher, SGD",
    "plain, 2 workers": "the same with two worker processes",
    "torchdistill": "torchdistill's KD recipe for CIFAR-10, two worker processes",
}
Rates = tuple[float, float]
BARS = {
    "stored_over_none": Bar(1.02, True, "time of training with a stored teacher / without a teacher"),
    "over_plain": Bar(3.0, False, "images a second with a stored teacher / plain loop with a live fp32 teacher"),
    "over_plain_with_writing": Bar(
        2.5, False, "the same over 10 epochs of 50,000 images: getting ready and writing 2 views included"
    ),
    "over_torchdistill": Bar(3.3, False, "images a second with a stored teacher / torchdistill's KD recipe"),
    "overhead": Bar(
        0.01, True, "time that potstill's loop adds to the tightest loop doing the same arithmetic", percent=True
    ),
    "store_over_forward": Bar(0.95, False, "images a second of writing a store / of the bare teacher"),
}
MORE = {
    "amx": {"over_plain": 4.5, "over_plain_with_writing": 4.0, "over_torchdistill": 5.0},
    "gpu": {"over_plain": 10.0},
}
"""What is asked for where bf16 is several times as fast as fp32."""


class Side:
    """One side under way, in a process of its own; `prepare` before its first turn."""

    def __init__(self, name: str, world: Path, folder: Path, *, threads: int, python: str) -> None:
        own = {"PYTHONWARNINGS": "ignore", "POTSTILL_CACHE": str(folder.parent / "cache")}
        folder.mkdir()
        self._errors = folder / "errors.txt"
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                [python, "-m", "peers.side", name, str(world), str(folder), str(threads)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**in_a_process(ours=name in OURS), **own},
            )  # fmt: skip
        self.notes: list[str] = []

    def prepare(self) -> None:
        """Have it begin to get ready."""
        self._ask("prepare")

    def ready(self) -> float:
        """Wait until it is; return the seconds that took, or those that cores worked where others held it up."""
        found = self._answer()
        self.notes = found["notes"]
        return min(found["seconds"], found["work"])

    def turn(self, seconds: float) -> Rates:
        """Return images a second, and images a second of work of a core."""
        self._ask(str(seconds))
        found = self._answer()
        return found["images"] / found["seconds"], found["images"] / found["work"]

    def _ask(self, line: str) -> None:
        try:
            self._process.stdin.write(f"{line}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def _answer(self) -> dict[str, Any]:
        for answer in self._process.stdout:
            if answer.startswith("{"):  # torchdistill logs to standard output
                return json.loads(answer)
        raise self._died()

    def _died(self) -> ChildProcessError:
        return ChildProcessError(f"a side of the benchmark ended early: {self._errors.read_text()[-2000:]}")

    def close(self) -> None:
        """Let it end."""
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()


def measure(
    world: World, *, rounds: int = 7, seconds: float = 2.0, threads: int = 2, torchdistill: str = sys.executable
) -> dict[str, Any]:
    """Return {"figures", "figures_of_work", "images_a_second", "rounds", "plans", ...} of all that can be measured.

    rounds: how often each side has its turn, of about `seconds`. torchdistill: a Python in which it is installed
    beside what potstill needs. figures_of_work are those of the seconds that cores worked, which depend little on
    what else the machine does.
    """
    with tempfile.TemporaryDirectory() as parent, contextlib.ExitStack() as running:
        file = Path(parent) / "world.npz"
        save(world, file)
        sides = {}
        for name in names():
            python = torchdistill if name == "torchdistill" else sys.executable
            if name != "torchdistill" or has_torchdistill(python):
                folder = Path(parent) / str(len(sides))
                sides[name] = Side(name, file, folder, threads=threads, python=python)
                running.callback(sides[name].close)
        start = _prepared(sides)
        taken, worked = _in_turns(sides, rounds, seconds)
        plans = {name: sides[name].notes for name in ("stored", "store")}
    found = figures(taken, start)
    return {
        "figures": found,
        "bars": judge(bars(), found),
        "figures_of_work": figures(worked, start),
        "images_a_second": {name: round(statistics.median(rates), 1) for name, rates in taken.items()},
        "start_seconds": round(start, 1),
        "rounds": {name: [round(rate, 1) for rate in rates] for name, rates in taken.items()},
        "plans": plans,
        **provenance(threads),
    }


def names() -> tuple[str, ...]:
    """Return the sides of this machine: the tightest loop is written for CPUs."""
    return tuple(name for name in (*OURS, *RIVALS) if name != "hand" or devices.device().type == "cpu")


def _prepared(sides: Mapping[str, Side]) -> float:
    """Have all sides get ready; return the seconds that took potstill's loop.

    The first two are alone, for they measure how student and teacher are computed fastest here, and remember it.
    """
    found = {}
    with progress.task("getting ready", len(sides)) as task:
        for together in (["none"], ["store"], [name for name in sides if name not in ("none", "store")]):
            for name in together:
                sides[name].prepare()
            for name in together:
                found[name] = sides[name].ready()
                task.advance(text=name)
    return found["none"]


def _in_turns(
    sides: Mapping[str, Side], rounds: int, seconds: float
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return images a second, and a second of work, of each side in each round."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    worked: dict[str, list[float]] = {name: [] for name in sides}
    with progress.task("measuring in turns", rounds * len(sides)) as task:
        for _ in range(rounds):
            for name, side in sides.items():
                for rates, rate in zip((taken, worked), side.turn(seconds), strict=True):
                    rates[name].append(rate)
                task.advance(text=f"{name}: {taken[name][-1]:,.0f} images a second")
    return taken, worked


def has_torchdistill(python: str) -> bool:
    """Whether torchdistill can be imported by a Python."""
    return subprocess.run([python, "-c", "import torchdistill"], capture_output=True, check=False).returncode == 0


def figures(taken: Mapping[str, list[float]], start: float) -> dict[str, float | None]:
    """Return the figures of `BARS`: medians over the rounds, None where a side is absent.

    taken: by side, images a second in each round. start: seconds that a training takes to get ready. Of the two plain
    loops the faster counts.
    """
    plain = max(("plain, no workers", "plain, 2 workers"), key=lambda name: statistics.median(taken[name]))
    per_round = [dict(zip(taken, rates, strict=True)) for rates in zip(*taken.values(), strict=True)]

    def median(figure: Callable[[dict[str, float]], float], *needed: str) -> float | None:
        absent = [name for name in needed if name not in taken]
        return None if absent else round(statistics.median(figure(rates) for rates in per_round), 3)

    def with_writing(rates: Mapping[str, float]) -> float:
        ours = EPOCHS * IMAGES / rates["stored"] + VIEWS * IMAGES / rates["store"] + start
        return EPOCHS * IMAGES / rates[plain] / ours

    return {
        "stored_over_none": median(lambda rates: rates["none"] / rates["stored"]),
        "over_plain": median(lambda rates: rates["stored"] / rates[plain]),
        "over_plain_with_writing": median(with_writing),
        "over_torchdistill": median(lambda rates: rates["stored"] / rates["torchdistill"], "torchdistill"),
        "overhead": median(lambda rates: rates["hand"] / rates["stored"] - 1, "hand"),
        "store_over_forward": median(lambda rates: rates["store"] / rates["forward"]),
    }


def bars() -> dict[str, Bar]:
    """Return the bars of this machine."""
    kind = "gpu" if devices.device().type == "cuda" else "amx" if torch.cpu._is_amx_tile_supported() else "plain"
    return {name: dataclasses.replace(bar, value=MORE.get(kind, {}).get(name, bar.value)) for name, bar in BARS.items()}


def table(found: Mapping[str, Any]) -> str:
    """Return the images a second as a Markdown table."""
    rates = found["images_a_second"]
    lines = ["| side | images a second | what it is |", "|---|---:|---|"]
    lines += [f"| {name} | {rate:,.0f} | {SIDES[name]} |" for name, rate in rates.items()]
    return "\n".join(lines)
