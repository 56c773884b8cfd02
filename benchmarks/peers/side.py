"""One side of a benchmark, in a process of its own: its own threads, memory and settings of the libraries.

At the line "prepare" it gets ready, makes two steps to be warm, and says how long that took; at each line "SECONDS" it
works about that long and says how many images it did. It answers in lines of JSON.

    python -m peers.side NAME WORLD FOLDER THREADS
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import psutil
import torch

from potstill import progress

from . import sides, world


def main() -> None:
    name, file, folder, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    torch.manual_seed(0)
    if not sys.stdin.readline():  # who started this ended before it was asked
        return
    shown = progress.Display()
    with progress.use(shown):
        began, worked = time.perf_counter(), work()
        step = sides.SIDES[name](world.load(Path(file)), Path(folder))
        ready = turn(step, 0.0, at_least=2)
        seconds = time.perf_counter() - began
        print(json.dumps({**ready, "seconds": seconds, "work": work() - worked, "notes": shown.notes}), flush=True)
        for line in sys.stdin:
            print(json.dumps(turn(step, float(line))), flush=True)


def turn(step: sides.Step, seconds: float, *, at_least: int = 1) -> dict[str, float]:
    """Work for about so many seconds; say images, seconds, and seconds of work of all cores."""
    began, worked, images, steps = time.perf_counter(), work(), 0, 0
    while steps < at_least or time.perf_counter() - began < seconds:
        images, steps = images + step(), steps + 1
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return {"images": images, "seconds": time.perf_counter() - began, "work": work() - worked}


def work() -> float:
    """Return the seconds that the cores worked for this process and those it started, compilers that ended too."""
    me = psutil.Process()
    times = [process.cpu_times() for process in (me, *me.children(recursive=True))]
    return sum(time.user + time.system + time.children_user + time.children_system for time in times)


if __name__ == "__main__":
    main()
