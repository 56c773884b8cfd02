"""Malformed and hostile inputs by structure: is every one read, or refused in a sentence?

    python benchmarks/malformed.py --inputs 10000 --seed 0 --record

Hypothesis builds inputs whose *structure* is odd (`odd_inputs.py`); random bytes find next to nothing. Each is given to
the function that reads it. Counted are tracebacks (any error that is no `UserError`), calls that take over 20 seconds,
memory over 2 GB, processes that ended, code that was executed and files written outside. Every hundred inputs are a
forked process, which prints its failing inputs; the exit status is 1 if there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import results
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from odd_inputs import KINDS, SMALL

from potstill.errors import UserError
from potstill.progress import Display, use

SECONDS, MEMORY, CHUNK = 20, 2 * 2**30, 100
FINE = ("read", "refused")
WRITES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink", "os.chmod")
PROCESSES = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect")


class Hang(BaseException):
    """A call that took longer than `SECONDS`."""


def _late(*_: Any) -> None:
    raise Hang


class Watched:
    """What Python does while an input is read: files written elsewhere than in `allowed`, processes and connections."""

    def __init__(self) -> None:
        self.allowed: tuple[str, ...] = ()
        self.found: list[str] = []
        sys.addaudithook(self._seen)

    def _seen(self, event: str, arguments: tuple) -> None:
        if not self.allowed:
            return
        if event in PROCESSES:
            self.found.append(f"{event} {arguments[:2]}")
        writes = event in WRITES or event == "open" and (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes and isinstance(arguments[0], (str, bytes, os.PathLike)):
            path = str(Path(os.fsdecode(arguments[0])).absolute())
            if not path.startswith(self.allowed) and path != os.devnull:
                self.found.append(f"{event} {path}")


def judged(work: Callable[[], Any]) -> tuple[str, str]:
    """Return what became of a call (read, refused, traceback, hang), and the text of the error."""
    signal.signal(signal.SIGALRM, _late)
    signal.alarm(SECONDS)
    try:
        with use(Display()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            work()
    except UserError as error:
        return "refused", str(error)
    except Hang:
        return "hang", traceback.format_exc()
    except Exception:
        return "traceback", traceback.format_exc()
    finally:
        signal.alarm(0)
    return "read", ""


def tried(kind: str, inputs: int, start: int) -> tuple[Counter[str], list[str]]:
    """Return the outcomes of so many inputs of a kind, and the text of the bad ones."""
    outcomes: Counter[str] = Counter()
    bad: list[str] = []
    watched = Watched()

    @seed(start)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def one(data: Any) -> None:
        if outcomes.total() == inputs:
            return
        with tempfile.TemporaryDirectory() as outer, contextlib.chdir(outer):
            folder = Path(outer) / "in"
            folder.mkdir()
            work = data.draw(KINDS[kind](folder))
            before = _most_memory()
            watched.allowed, watched.found = (outer, os.environ["POTSTILL_CACHE"]), []
            outcome, text = judged(work)
            watched.allowed = ()
            if _most_memory() > MEMORY >= before:
                outcome = "memory"
            # A --group pattern is matched in a process of its own, which can be ended.
            if watched.found and kind not in ("tree", "table", "record"):
                outcome, text = "did more than read", "\n".join(watched.found)
            if (beside := {path.name for path in Path(outer).iterdir()}) != {"in"}:
                outcome, text = "wrote outside", str(beside)
        outcomes[outcome] += 1
        if outcome not in FINE:
            bad.append(f"{kind}: {outcome}\n{text}")

    one()
    return outcomes, bad


def _most_memory() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_a_fork(kind: str, inputs: int, start: int) -> tuple[Counter[str], list[str]]:
    """Return what `tried` does, from a process that may crash."""
    import pickle

    read, write = os.pipe()
    if pid := os.fork():
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            content = pipe.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status or not content:
            return Counter({"crash": 1}), [f"{kind}: crash\nseed {start}, exit status {status}"]
        return pickle.loads(content)
    status = 1
    try:
        with os.fdopen(write, "wb") as pipe:
            pipe.write(pickle.dumps(tried(kind, inputs, start)))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def main() -> int:
    """Print a table of outcomes by kind, then what is wrong; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", help="names with commas between (default: all)")
    parser.add_argument("--record", action="store_true", help="write RESULTS.json and RESULTS.md")
    given_ = parser.parse_args()
    os.environ["POTSTILL_CACHE"] = os.environ["TORCHINDUCTOR_CACHE_DIR"] = tempfile.mkdtemp()
    with torch.no_grad():
        SMALL(torch.zeros(1, 3, 9, 7))  # imports the rest of torch, before the processes are forked
    kinds = given_.kinds.split(",") if given_.kinds else list(KINDS)
    began, wrong, every = time.perf_counter(), [], {}
    for kind in kinds:
        left, outcomes, step = max(given_.inputs // len(kinds), 1), Counter(), 0
        while left > 0:
            found, bad = in_a_fork(kind, min(left, CHUNK), 1_000_003 * given_.seed + step)
            outcomes, wrong, step, left = outcomes + found, wrong + bad, step + 1, left - CHUNK
        every[kind] = dict(sorted(outcomes.items()))
        print(f"{kind:<12}", "  ".join(f"{name} {count}" for name, count in every[kind].items()), flush=True)
    shown = {text.rstrip().splitlines()[-1]: text for text in wrong}
    total = sum(sum(one.values()) for one in every.values())
    print(f"{len(wrong)} of {total} wrong, {len(shown)} different, {time.perf_counter() - began:.0f} s")
    for text in shown.values():
        print(text[-1800:])
    if given_.record:
        record(given_, every, len(wrong))
    return int(bool(wrong))


def record(options: argparse.Namespace, every: dict[str, dict[str, int]], wrong: int) -> None:
    """Write the table of outcomes into RESULTS.json and RESULTS.md."""
    names = [*FINE, *sorted({name for one in every.values() for name in one} - set(FINE))]
    lines = [f"| input | {' | '.join(names)} |", "|---|" + "---:|" * len(names)]
    lines += [f"| {kind} | {' | '.join(str(one.get(name, 0)) for name in names)} |" for kind, one in every.items()]
    total = sum(sum(one.values()) for one in every.values())
    command = f"python benchmarks/malformed.py --inputs {options.inputs} --seed {options.seed}"
    text = "\n".join(lines) + f"\n\n{wrong} of {total:,} inputs were not read or refused in a sentence: `{command}`"
    results.record("malformed", {"command": command, "inputs": total, "wrong": wrong, "outcomes": every}, text)


if __name__ == "__main__":
    sys.exit(main())
