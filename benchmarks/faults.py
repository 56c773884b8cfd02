"""Kill, stop, damage and change commands at random moments, and compare what comes out with an undisturbed run.

    python benchmarks/faults.py kills:280 workers:20 two:20 damage data full:2 --seed 1 --record

    kills      SIGKILL, SIGTERM, SIGINT at random moments, up to twelve of them before the command ends
    workers    a worker process that reads images, or trains, is killed
    two        the same command twice at once
    damage     a file of a finished run: flip, truncation, zeros
    data       a changed image, after each part of each command
    full       a full disk (needs the right to mount)

A number behind a kind is that of its trials (default: few, or all there are). The commands are those of
`fault_world.py`. A trial is recovered if the same command then ends with exit status 0 and byte-identical weights,
logits, tables, cards and exported files. The exit status is 1 if one is not. `--record` writes the counts to
RESULTS.json and RESULTS.md.
"""

from __future__ import annotations

import os

os.environ["OMP_NUM_THREADS"] = "1"  # a process with a pool of threads cannot be forked

import argparse
import contextlib
import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import results
from fault_world import COMMANDS, Moment, World
from fault_world import results as files_of

KILLS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
ENDS = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}
SHARES = {"quantize": 0.4, "export": 0.3, "distill": 0.3, "run": 0.3, "selftrain": 0.3, "shrink": 0.15}
"""Trials of a long command, in comparison with the others."""
TRACKER = re.compile(r'Traceback [^\n]*\n  File "[^"\n]*resource_tracker.py".*?\nKeyError: [^\n]*\n', re.DOTALL)
"""What the helper of a pool prints that was inherited by a fork, and by which names are unregistered twice."""
MOST = 12
"""Kills of one trial."""


class Outcomes(Counter[str]):
    """Counts of outcomes by name; those in capital letters are faults, which are printed."""

    def wrong(self, outcome: str, name: str, text: str) -> None:
        """Count and print a fault of a command."""
        self[f"{outcome}: {name}"] += 1
        print(f"{outcome} {name}: {text[-3000:]}")

    def trial(self, world: World, name: str, out: Path, what: str) -> None:
        """Run a command again, and count whether it recovered."""
        wrong = world.recovered(name, out)
        if wrong:
            self.wrong("NOT RECOVERED", name, f"{what}: {wrong}")
        else:
            self[f"recovered: {name}"] += 1

    @property
    def faults(self) -> int:
        """How many trials went wrong."""
        return sum(count for outcome, count in self.items() if outcome[:3].isupper() and outcome[:3] != "SIG")


def kills(world: World, chance: random.Random, trials: int) -> Outcomes:
    """Stop commands at random moments, some several times, and resume them."""
    counts = Outcomes()
    names = chance.choices(list(COMMANDS), [SHARES.get(name, 1.0) for name in COMMANDS], k=trials or 20)
    for name in [*COMMANDS, *names]:
        with world.new(name) as out:
            done = []
            for _ in range(chance.randint(1, MOST)):
                kind, moment = chance.choice([*KILLS, "SIGKILL"]), world.moment(name, chance)
                status, text = world.disturbed(name, out, moment, KILLS[kind])
                done.append(f"{kind} at {moment}")
                counts[f"{kind}, {name}" if status else f"ended before {kind}, {name}"] += 1
                # A signal in the first milliseconds, before the command listens, or after its end, has another status.
                if status not in (0, ENDS[kind], -KILLS[kind]) or "Traceback" in text:
                    counts.wrong("WRONG END", name, f"{done[-1]}: exit status {status}\n{text}")
            counts.trial(world, name, out, "; ".join(done))
            trials = sum(count for outcome, count in counts.items() if "recovered" in outcome.lower())
            if trials % 20 == 0:
                print(f"{trials} trials", file=sys.stderr)
    return counts


def workers(world: World, chance: random.Random, trials: int) -> Outcomes:
    """Kill one of the processes that a command started: it ends with a sentence, and the same command resumes."""
    counts = Outcomes()
    for number in range(trials or 10):
        reading = [one for one in ("distill", "finetune", "label", "selftrain") if one in COMMANDS]
        name = "shrink" if number % 10 == 9 and "shrink" in COMMANDS else chance.choice(reading)
        world.straight(name)
        with world.new(name) as out:
            words = world.words(name)
            words[-1] = "2" if name == "shrink" else words[-1]  # --workers
            started = world.start(words, out, before=_decoded_by_workers)
            killed = _kill_a_child(started.pid, chance.uniform(0, 6 if name == "shrink" else 0.3))
            status, text = world.wait(started)
            told = status == 2 and "was killed from outside" in text
            outcome = f"a sentence: {name}" if told else f"ended before the kill: {name}" if not killed else ""
            outcome = outcome or (f"finished without the worker: {name}" if status == 0 else "")
            text = TRACKER.sub("", text)
            if outcome and "Traceback" not in text:
                counts[outcome] += 1
            else:
                counts.wrong("WRONG END", name, f"a killed worker: exit status {status}\n{text}")
            counts.trial(world, name, out, "a killed worker")
    return counts


def _decoded_by_workers() -> None:
    """Let this process read even a few images in worker processes, and find none in the cache."""
    import potstill.data.workers

    potstill.data.workers.WORTHWHILE = 0.001
    os.environ["POTSTILL_CACHE"] = tempfile.mkdtemp(dir=os.environ["POTSTILL_CACHE"])
    os.environ["LOKY_MAX_CPU_COUNT"] = "2"


def _kill_a_child(pid: int, after: float) -> bool:
    """Kill a worker of a process some seconds after it has one; return whether it had one."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with contextlib.suppress(OSError, IndexError):
            own = [int(child) for child in children.read_text().split() if "tracker" not in _command(int(child))]
            if own:
                time.sleep(after)
                os.kill(own[-1], signal.SIGKILL)
                return True
        if not _command(pid):
            return False
        time.sleep(0.002)
    return False


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def two(world: World, chance: random.Random, trials: int) -> Outcomes:
    """Start the same command twice: one of them works, the other ends as well or is refused in a sentence."""
    counts = Outcomes()
    for number in range(trials or 20):
        name = list(COMMANDS)[number % len(COMMANDS)]
        wall = world.straight(name).wall
        with world.new(name) as out:
            first = world.start(world.words(name), out)
            time.sleep(chance.choice([0, chance.uniform(0, wall), chance.uniform(0, 0.1)]))
            second = world.start(world.words(name), out)
            for status, text in (world.wait(first), world.wait(second)):
                refused = status == 2 and ("works in" in text or "has just worked in" in text)
                if status and not refused:
                    counts.wrong("WRONG END", name, f"two at once: exit status {status}\n{text}")
                else:
                    counts["refused" if refused else "finished"] += 1
            counts.trial(world, name, out, "two at once")
    return counts


def flip(file: Path, chance: random.Random) -> None:
    """Change one bit."""
    content = bytearray(file.read_bytes())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    file.write_bytes(content)


def truncate(file: Path, chance: random.Random) -> None:
    """Cut off a random part."""
    content = file.read_bytes()
    file.write_bytes(content[: chance.randrange(len(content))])


def zeros(file: Path, chance: random.Random) -> None:
    """Keep the size only."""
    file.write_bytes(bytes(file.stat().st_size))


DAMAGES: dict[str, Callable[[Path, random.Random], None]] = {"flip": flip, "truncation": truncate, "zeros": zeros}


def damage(world: World, chance: random.Random, trials: int) -> Outcomes:
    """Damage each file of finished commands in turn; the same command mends it, or names the file.

    Part of a store: it mends it where it has to train again.
    """
    counts = Outcomes()
    jobs = []
    for name in COMMANDS:
        straight = world.straight(name).folder
        files = sorted(file.relative_to(straight) for file in straight.rglob("*") if file.is_file())
        every = [(name, file, kind) for file in files for kind in DAMAGES]
        jobs += chance.sample(every, len(every) // 6) if name == "shrink" else every
    chance.shuffle(jobs)
    for name, file, kind in jobs[: trials or None]:
        straight = world.straight(name)
        with world.new(name) as out:
            shutil.copytree(straight.folder, out)
            if not (out / file).stat().st_size:
                continue
            DAMAGES[kind](out / file, chance)
            if "stores" in file.parts:  # a finished command does not read it again, but one that trains again does
                for manifest in [one for one in out.rglob("manifest.json") if "stores" not in one.parts]:
                    manifest.unlink()
            status, text = world.wait(world.start(world.words(name), out))
            whole = files_of(out) == straight.files
            outcome = "mended" if status == 0 and whole else "named" if status == 2 and file.name in text else ""
            if outcome:
                counts[f"{kind}: {outcome}"] += 1
            else:
                counts.wrong("NOT NOTICED", name, f"{kind} of {file}: exit status {status}, same files {whole}\n{text}")
    return counts


def data(world: World, chance: random.Random, trials: int) -> Outcomes:
    """Kill each command after each of its parts, change an image, and run it again: the image is named."""
    counts = Outcomes()
    jobs = [(name, part) for name in COMMANDS for part in range(world.straight(name).parts + 1)]
    jobs = [job for job in jobs if job[0] != "shrink" or job[1] % 6 == 0]
    chance.shuffle(jobs)
    for name, part in jobs[: trials or None]:
        with world.new(name) as out:
            status, text = world.disturbed(name, out, Moment(part=part), signal.SIGKILL)
            victim = chance.choice(sorted((world.photos / "cat").iterdir()))
            before, stamp = victim.read_bytes(), victim.stat()
            shutil.copyfile(chance.choice(sorted((world.photos / "dog").iterdir())), victim)
            again, text = world.wait(world.start(world.words(name), out))
            victim.write_bytes(before)
            os.utime(victim, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
            if again == 2 and victim.name in text:
                counts[f"named: {name}"] += 1
                counts.trial(world, name, out, f"a changed image after part {part}")
            else:
                what = f"{victim.name} changed after part {part} (status {status}): exit status {again}\n{text}"
                counts.wrong("NOT NOTICED", name, what)
    return counts


def full(world: World, chance: random.Random, trials: int) -> Outcomes:
    """Run commands on a disk that is too small, then make room and resume them."""
    counts = Outcomes()
    disk = world.folder / "disk"
    disk.mkdir()
    for name in list(COMMANDS) * (trials or 1):
        straight = world.straight(name).folder
        needed = sum(file.stat().st_size for file in straight.rglob("*") if file.is_file())
        size = max(int(needed * chance.uniform(0.05, 0.9)), 8192)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            counts.wrong("NOT RUN", name, f"no disk could be mounted: {mounted.stderr.decode().strip()}")
            return counts
        try:
            status, text = world.wait(world.start(world.words(name), disk / "run"))
            told = status == 2 and "The disk is full" in text
            if told:
                counts[f"a sentence: {name}"] += 1
            else:
                counts.wrong("WRONG END", name, f"a full disk ({size} of {needed} bytes): exit status {status}\n{text}")
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            counts.trial(world, name, disk / "run", "a full disk")
        finally:
            subprocess.run(["umount", disk], check=True)
    return counts


FAULTS = {"kills": kills, "workers": workers, "two": two, "damage": damage, "data": data, "full": full}


def imported() -> None:
    """Import once what the commands import, before they are forked."""
    import onnxruntime  # noqa: F401
    import optuna  # noqa: F401
    import torch.onnx  # noqa: F401

    import potstill.stages.compare
    import potstill.stages.compress.export
    import potstill.stages.compress.prune
    import potstill.stages.compress.quantize
    import potstill.stages.distill.run
    import potstill.stages.finetune.run
    import potstill.stages.label
    import potstill.stages.selftrain
    import potstill.stages.shrink.run  # noqa: F401


def main() -> int:
    """Run the trials of some kinds of fault; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kinds", nargs="+", metavar="KIND[:TRIALS]", type=_kind)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", help="names with commas between (default: all)")
    parser.add_argument("--record", action="store_true", help="also write RESULTS.json and RESULTS.md")
    given, typed = parser.parse_args(), [word for word in sys.argv[1:] if word != "--record"]
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]  # forked buffers repeat
    imported()
    for name in set(COMMANDS) - set(given.commands.split(",") if given.commands else COMMANDS):
        del COMMANDS[name]
    faults = 0
    with tempfile.TemporaryDirectory(prefix="potstill-faults-") as folder:
        world = World(Path(folder))
        for kind, trials in given.kinds:
            counts = FAULTS[kind](world, random.Random(given.seed), trials)
            faults += counts.faults
            for outcome, count in sorted(counts.items()):
                print(f"{kind}: {outcome}: {count}")
            if given.record:
                record(kind, counts, shlex.join(["python", "benchmarks/faults.py", *typed]))
    return int(faults > 0)


def _kind(text: str) -> tuple[str, int]:
    kind, _, trials = text.partition(":")
    if kind not in FAULTS or not (trials or "0").isdecimal():
        raise argparse.ArgumentTypeError(f"{text}: give one of {', '.join(FAULTS)}, as in kills:100")
    return kind, int(trials or 0)


def record(kind: str, counts: Outcomes, command: str) -> None:
    """Add the counts of a command to RESULTS.json, and write the table of all of them into RESULTS.md."""
    earlier = json.loads((results.HERE / "RESULTS.json").read_text()).get("faults", {})
    runs = [run for run in earlier.get("runs", []) if (run["command"], run["kind"]) != (command, kind)]
    runs.append({"kind": kind, "command": command, "counts": dict(sorted(counts.items()))})
    runs.sort(key=lambda run: list(FAULTS).index(run["kind"]))
    lines = [
        "| fault | commands | trials | faults | of them recovered bit for bit | wrong |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for one in FAULTS:
        each = [Outcomes(run["counts"]) for run in runs if run["kind"] == one]
        if each:
            lines.append(f"| {one} | {' | '.join(_row(sum(each, Outcomes())))} |")
    text = "\n".join([*lines, "", *dict.fromkeys(f"`{run['command']}`" for run in runs)])
    results.record("faults", {"runs": runs}, text)


def _row(counts: Counter[str]) -> tuple[str, ...]:
    """Return the cells of a kind of fault: its commands, trials, faults, recovered trials, and what went wrong."""
    names = [name for name in COMMANDS if any(outcome.endswith(name) for outcome in counts)]
    wrong = Outcomes(counts).faults
    recovered = sum(
        count for outcome, count in counts.items() if outcome.startswith("recovered") or outcome.endswith(": mended")
    )
    struck = sum(count for outcome, count in counts.items() if outcome.startswith(tuple(KILLS)))
    others = sum(count for outcome, count in counts.items() if not outcome.startswith(("recovered", "ended before")))
    refused = sum(count for outcome, count in counts.items() if outcome.endswith(": named"))
    trials = recovered + refused + sum(count for outcome, count in counts.items() if outcome.startswith("NOT REC"))
    faults = struck or others
    cells = (len(names) or len(COMMANDS), trials or faults, faults, recovered, wrong)
    return tuple(f"{cell:,}" for cell in cells)


if __name__ == "__main__":
    sys.exit(main())
