"""Kill, stop, damage and change commands at random moments, and compare what comes out with an undisturbed run.

    python benchmarks/faults.py kills --trials 100 --seed 0     SIGKILL, SIGTERM, SIGINT, at random moments
    python benchmarks/faults.py two --trials 5                  the same command twice at once
    python benchmarks/faults.py damage                          each file of a finished run: flip, truncation, zeros
    python benchmarks/faults.py data                            changed images, after each part of a run
    python benchmarks/faults.py full                            a full disk (needs the right to mount)

Every trial is a forked process of this one, which has imported everything, so that a command takes a second or two.
A trial is recovered if the same command then ends with exit status 0 and byte-identical weights, logits and exported
files. The exit status is 1 if one is not. `--json FILE` adds the counts to a file.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a process with a pool of threads cannot be forked

import numpy as np
from PIL import Image

COMMON = ["--quiet"]
SHORT = ["--epochs", "2"]
COMMANDS: dict[str, list[str]] = {
    "distill": ["distill", "{photos}", "--teacher", "builtin:mlp", "--teacher-epochs", "2", *SHORT, "--seeds", "2"],
    "finetune": ["finetune", "{photos}", "--model", "builtin:small-cnn", "--from-scratch", *SHORT],
    "label": ["label", "{photos}", "--teacher", "{base}", "--views", "2"],
    "prune": ["prune", "{base}", "--keep", "0.7", "--epochs", "1"],
    "quantize": ["quantize", "{base}", "--mode", "qat", "--epochs", "1", "--weight-bits", "4"],
    "export": ["export", "{base}"],
}
KILLS = {"SIGKILL": signal.SIGKILL, "SIGTERM": signal.SIGTERM, "SIGINT": signal.SIGINT}
COMPARED = (".safetensors", ".onnx")


def write_photos(folder: Path, count: int = 60, side: int = 8) -> Path:
    """Write random grey pictures of two classes; the second class is brighter."""
    noise = np.random.default_rng(0)
    for number in range(count):
        low, name = (100, "cat") if number % 2 else (0, "dog")
        target = folder / name / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(low, low + 120, (side, side), dtype=np.uint8)).save(target)
    return folder


class World:
    """A folder with photos, a finished run to start from, and the undisturbed result of each command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["POTSTILL_CACHE"] = str(folder / "cache")
        self.photos, self.base = write_photos(folder / "photos"), folder / "base"
        self.straight: dict[str, dict[str, bytes]] = {}
        self.seconds: dict[str, float] = {}
        small = ["distill", str(self.photos), "--teacher", "builtin:small-cnn", "--student", "builtin:small-cnn"]
        status, text = self.wait(
            self.start([*small, "--teacher-epochs", "1", "--epochs", "1", "--seeds", "1"], self.base)
        )
        if status:
            raise SystemExit(f"The run to start from failed:\n{text}")

    def words(self, name: str) -> list[str]:
        """Return a command as it is typed, without --out."""
        return [word.format(photos=self.photos, base=self.base) for word in COMMANDS[name]]

    def start(self, words: list[str], out: Path) -> tuple[int, Path]:
        """Fork a process that runs a command; return its number and the file of its messages."""
        log = self.folder / f"log-{time.monotonic_ns()}.txt"
        pid = os.fork()
        if pid:
            return pid, log
        os.setsid()
        with log.open("w") as handle:
            os.dup2(handle.fileno(), 1)
            os.dup2(handle.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["potstill", *words, *COMMON, "--out", str(out)]
        status = 1
        try:
            from potstill.cli import app

            app(sys.argv[1:])
            status = 0
        except SystemExit as stop:
            status = stop.code if isinstance(stop.code, int) else int(bool(stop.code))
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, started: tuple[int, Path]) -> tuple[int, str]:
        """Return the exit status of a process (negative: the signal that ended it) and its messages."""
        pid, log = started
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        text = log.read_text()
        log.unlink()
        return status, text

    def undisturbed(self, name: str) -> dict[str, bytes]:
        """Return the files of a command that ran without a fault."""
        if name not in self.straight:
            out, began = self.folder / f"straight-{name}", time.monotonic()
            status, text = self.wait(self.start(self.words(name), out))
            self.seconds[name] = time.monotonic() - began
            if status:
                raise SystemExit(f"{name} failed without a fault:\n{text}")
            self.straight[name] = results(out)
        return self.straight[name]

    @contextlib.contextmanager
    def new(self, name: str) -> Iterator[Path]:
        """Yield a folder for one trial."""
        out = self.folder / f"trial-{name}"
        shutil.rmtree(out, ignore_errors=True)
        yield out
        shutil.rmtree(out, ignore_errors=True)

    def recovered(self, name: str, out: Path) -> str:
        """Run a command again; return "" if its files are those of the undisturbed one, else what is wrong."""
        status, text = self.wait(self.start(self.words(name), out))
        if status:
            return f"exit status {status}: {text[-2000:]}"
        expected, found = self.undisturbed(name), results(out)
        different = [file for file in {**expected, **found} if expected.get(file) != found.get(file)]
        left = [str(file) for file in out.rglob(".*")]
        return f"different: {different}" if different else f"left behind: {left}" if left else ""


def results(folder: Path) -> dict[str, bytes]:
    """Return the files that do not depend on when they were made."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in COMPARED and file.is_file()]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def kills(world: World, chance: random.Random, trials: int) -> Counter[str]:
    """Stop commands at random moments, some several times, and resume them."""
    counts: Counter[str] = Counter()
    for number in range(trials):
        name = list(COMMANDS)[number % len(COMMANDS)]
        world.undisturbed(name)
        with world.new(name) as out:
            for _ in range(chance.choice([1, 1, 2, 3])):
                kind = chance.choice(list(KILLS))
                started = world.start(world.words(name), out)
                time.sleep(chance.uniform(0, world.seconds[name]))
                with contextlib.suppress(ProcessLookupError):
                    (os.killpg if kind == "SIGKILL" else os.kill)(started[0], KILLS[kind])
                status, text = world.wait(started)
                counts[f"{kind}, {name}"] += 1
                expected = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[kind]
                # A signal in the first milliseconds, before the command listens, or after its end, has another status.
                if status not in (0, expected, -KILLS[kind]) or "Traceback" in text:
                    counts[f"WRONG END: {kind}, {name}"] += 1
                    print(f"{kind} of {name}: exit status {status}\n{text[-3000:]}")
            report(counts, name, world.recovered(name, out))
    return counts


def report(counts: Counter[str], name: str, wrong: str) -> None:
    """Count a trial as recovered, or print what is wrong."""
    counts["recovered" if not wrong else "NOT RECOVERED"] += 1
    if wrong:
        print(f"{name}: {wrong}")


def two(world: World, chance: random.Random, trials: int) -> Counter[str]:
    """Start the same command twice: one of them works, the other ends as well or is refused in a sentence."""
    counts: Counter[str] = Counter()
    for number in range(trials):
        name = list(COMMANDS)[number % len(COMMANDS)]
        world.undisturbed(name)
        with world.new(name) as out:
            first = world.start(world.words(name), out)
            time.sleep(chance.uniform(0, world.seconds[name] / 2))
            second = world.start(world.words(name), out)
            for status, text in (world.wait(first), world.wait(second)):
                refused = status == 2 and ("works in" in text or "has just worked in" in text)
                counts["finished" if status == 0 else "refused" if refused else "WRONG END"] += 1
                if status and not refused:
                    print(f"{name}, two at once: exit status {status}\n{text[-3000:]}")
            report(counts, name, world.recovered(name, out))
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


def damage(world: World, chance: random.Random, trials: int) -> Counter[str]:
    """Damage each file of finished commands in turn; the same command mends it, or names the file."""
    counts: Counter[str] = Counter()
    jobs = []
    for name in COMMANDS:
        world.undisturbed(name)
        straight = world.folder / f"straight-{name}"
        files = sorted(file.relative_to(straight) for file in straight.rglob("*") if file.is_file())
        jobs += [(name, file, kind) for file in files for kind in DAMAGES]
    chance.shuffle(jobs)
    for name, file, kind in jobs[: trials or None]:
        with world.new(name) as out:
            shutil.copytree(world.folder / f"straight-{name}", out)
            if not (out / file).stat().st_size:
                continue
            DAMAGES[kind](out / file, chance)
            status, text = world.wait(world.start(world.words(name), out))
            whole = results(out) == world.undisturbed(name)
            named = file.name in text
            outcome = "mended" if status == 0 and whole else "named" if status == 2 and named else "NOT NOTICED"
            counts[f"{kind}: {outcome}"] += 1
            if outcome == "NOT NOTICED":
                print(f"{name}: {kind} of {file}: exit status {status}, same files {whole}\n{text[-2000:]}")
    return counts


def data(world: World, chance: random.Random, trials: int) -> Counter[str]:
    """Kill a command at a random moment, change an image, and run it again: the image is named or nothing was made."""
    counts: Counter[str] = Counter()
    name = "distill"
    world.undisturbed(name)
    for number in range(trials or 10):
        with world.new(name) as out:
            started = world.start(world.words(name), out)
            if number % 4:
                time.sleep(chance.uniform(0, world.seconds[name]))
                os.killpg(started[0], signal.SIGKILL)
            world.wait(started)
            made = any(file.parent.name != "diverged" for file in out.rglob("*.safetensors")) if out.exists() else False
            victim = chance.choice(sorted((world.photos / "cat").iterdir()))
            before = victim.read_bytes()
            shutil.copyfile(next(file for file in (world.photos / "dog").iterdir()), victim)
            status, text = world.wait(world.start(world.words(name), out))
            victim.write_bytes(before)
            named = status == 2 and victim.name in text
            good = named if made else named or status == 0
            outcome = "named" if named else "nothing had been made" if good else "NOT NOTICED"
            counts[outcome] += 1
            if not good:
                print(f"changed {victim.name}: exit status {status}\n{text[-2000:]}")
            if named:
                report(counts, name, world.recovered(name, out))
    return counts


def full(world: World, chance: random.Random, trials: int) -> Counter[str]:
    """Run a command on a disk that is too small, then make room and resume it."""
    counts: Counter[str] = Counter()
    for name in COMMANDS:
        world.undisturbed(name)
        needed = sum(file.stat().st_size for file in (world.folder / f"straight-{name}").rglob("*") if file.is_file())
        disk = world.folder / "disk"
        disk.mkdir(exist_ok=True)
        size = max(int(needed * chance.uniform(0.2, 0.8)), 8192)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], capture_output=True)
        if mounted.returncode:
            print(f"No disk could be mounted: {mounted.stderr.decode().strip()}")
            return counts
        try:
            out = disk / "run"
            status, text = world.wait(world.start(world.words(name), out))
            told = status == 2 and "The disk is full" in text
            counts["a sentence" if told else "WRONG END"] += 1
            if not told:
                print(f"{name} on a full disk: exit status {status}\n{text[-2000:]}")
            subprocess.run(["mount", "-o", "remount,size=1g", disk], check=True)
            report(counts, name, world.recovered(name, out))
        finally:
            subprocess.run(["umount", disk], check=True)
    return counts


FAULTS = {"kills": kills, "two": two, "damage": damage, "data": data, "full": full}


def main() -> int:
    """Run the trials of one kind of fault; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=FAULTS)
    parser.add_argument("--trials", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--commands", help="names with commas between (default: all)")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # pyright: ignore[reportAttributeAccessIssue]  # forked buffers repeat
    import potstill.stages.compress.export
    import potstill.stages.compress.prune
    import potstill.stages.compress.quantize
    import potstill.stages.distill.run  # noqa: F401 (imported once, before the trials are forked)

    for name in set(COMMANDS) - set(given.commands.split(",") if given.commands else COMMANDS):
        del COMMANDS[name]
    with tempfile.TemporaryDirectory(prefix="potstill-faults-") as folder:
        counts = FAULTS[given.kind](World(Path(folder)), random.Random(given.seed), given.trials)
    for outcome, count in sorted(counts.items()):
        print(f"{outcome}: {count}")
    if given.json:
        earlier = json.loads(given.json.read_text()) if given.json.is_file() else {}
        given.json.write_text(json.dumps({**earlier, given.kind: dict(counts)}, indent=1) + "\n")
    return int(any(outcome.isupper() or ": NOT" in outcome or "WRONG" in outcome for outcome in counts))


if __name__ == "__main__":
    sys.exit(main())
