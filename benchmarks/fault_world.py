"""The small world in which `benchmarks/faults.py` disturbs commands: images, recipes, and processes that are forked.

Every command is a fork of one process that has imported everything, so that it costs what its work costs and no start.
What takes long and writes nothing is shortened: latencies are measured for a hundredth of a second, and the graph that
torch traces for ONNX is remembered by the weights and layers that it is made from (`export` traces each time). The
teachers of `selftrain` are trained for 8 steps instead of 1000.
A fault happens at a *moment*: after a share of the processor time of the undisturbed command, or right after its n-th
file operation in the run folder, which finds what lies between two writes.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import hashlib
import io
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnx_ir
import tqdm
from PIL import Image

SHORT = ["--epochs", "2"]
COMMANDS: dict[str, Sequence[str]] = {
    "distill": [
        *"distill {photos} --teacher builtin:mlp --teacher-epochs 2 --student builtin:mlp --seeds 2".split(),
        *SHORT,
    ],
    "run": ["run", "{recipe}"],
    "finetune": ["finetune", "{photos}", "--model", "builtin:small-cnn", "--from-scratch", *SHORT],
    "selftrain": "selftrain {photos} --unlabelled {pool} --teacher builtin:mlp --rounds 1 --steps 6 --seeds 1".split(),
    "label": ["label", "{photos}", "--teacher", "{base}", "--views", "2"],
    "compare": ["compare", "{comparison}"],
    "prune": ["prune", "{base}", "--keep", "0.7", "--epochs", "1"],
    "quantize": ["quantize", "{base}", "--mode", "qat", "--epochs", "1", "--weight-bits", "4"],
    "export": ["export", "{base}"],
    "shrink": "shrink {photos} --teacher {base} --max-bytes 12kB --minutes 0.1 --seeds 1 --workers 1".split(),
}
SMALL = ["--student", "builtin:mlp", "--teacher-epochs", "1", "--epochs", "1", "--seeds", "1"]
COMPARED = (".safetensors", ".onnx", ".csv")
TIMED = ("cells.csv", "comparison.csv")  # tables with seconds
COMPARED_NAMES = ("card.json", "student.json", "labels.json")
MLP = {"model": "builtin:mlp", "options": {"hidden": 8}}
TRAIN = {"epochs": 2, "batch_size": 32, "lr": 0.01}
STOPS = (signal.SIGINT, signal.SIGTERM)
EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink")


def write_photos(folder: Path, count: int = 60, side: int = 8, seed: int = 0) -> Path:
    """Write random grey pictures of two classes; the second class is brighter."""
    noise = np.random.default_rng(seed)
    for number in range(count):
        low, name = (100, "cat") if number % 2 else (0, "dog")
        target = folder / name / f"{number}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(low, low + 120, (side, side), dtype=np.uint8)).save(target)
    return folder


def write_recipes(folder: Path, photos: Path) -> None:
    """Write a recipe with a comparison of its own, and one for `compare`."""
    shared = {"data": {"path": str(photos)}, "teacher": {"model": "builtin:mlp", "train": TRAIN}, "train": TRAIN}
    recipe = shared | {"student": MLP, "seeds": 1, "comparisons": {"half": {"objective.alpha": 0.5}}}
    comparison = shared | {"students": {"s": MLP}, "methods": {"kd": {"temperature": 2}}, "seeds": 1}
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    (folder / "comparison.yaml").write_text(json.dumps(comparison))


@dataclass(frozen=True)
class Moment:
    """When something happens to a command: after `share` of its processor time, or after `file` file operations.

    part: the number of files named `manifest.json` after which it happens, for faults between two parts of a run.
    """

    share: float | None = None
    file: int | None = None
    part: int | None = None


@dataclass(frozen=True)
class Started:
    """A command that was started: its process, and the file of its messages."""

    pid: int
    log: Path


@dataclass
class Straight:
    """The undisturbed command: its files, its seconds (of a clock and of the processor), its file operations."""

    folder: Path
    files: dict[str, bytes]
    wall: float
    processor: float
    operations: int
    parts: int


class World:
    """A folder with images, a finished run to start from, and the undisturbed result of each command."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        tqdm.tqdm.monitor_interval = 0  # a thread
        os.environ["POTSTILL_CACHE"] = str(folder / "cache")
        self.photos, self.base = write_photos(folder / "photos", 130), folder / "base"
        write_photos(folder / "pool", 40, seed=1)
        write_recipes(folder, self.photos)
        self._straight: dict[tuple[str, str], Straight] = {}
        frugal(folder / "graphs")
        self._carry_out(["distill", str(self.photos), "--teacher", "builtin:mlp", *SMALL], self.base)
        for name in {"export", "prune"} & COMMANDS.keys():
            self._carry_out(self.words(name), folder / f"imported-{name}")

    def _carry_out(self, words: list[str], out: Path) -> None:
        """Run a command in this process, so that everything which it imports is imported before the first fork."""
        sys.argv = ["potstill", *words, "--quiet", "--out", str(out)]
        with contextlib.redirect_stdout(io.StringIO()) as shown:
            status = _called()
        end = time.monotonic() + 10
        while len(threads := _threads()) > 2 and time.monotonic() < end:
            time.sleep(0.1)  # an ended session needs a moment
        if status or len(threads) > 2:
            raise SystemExit(f"{words[0]}: exit status {status}, or threads {threads}\n{shown.getvalue()}")

    def words(self, name: str) -> list[str]:
        """Return a command as it is typed, without --out."""
        places = {"photos": self.photos, "base": self.base, "pool": self.folder / "pool"}
        places |= {"recipe": self.folder / "recipe.yaml", "comparison": self.folder / "comparison.yaml"}
        return [word.format(**places) for word in COMMANDS[name]]

    def start(
        self,
        words: list[str],
        out: Path,
        moment: Moment | None = None,
        number: int = signal.SIGKILL,
        before: Callable[[], object] | None = None,
    ) -> Started:
        """Fork a process that runs a command. It gets the signal `number` by itself at a moment of file operations.

        before: called in the new process before the command.
        """
        log = self.folder / f"log-{time.monotonic_ns()}.txt"
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the command begins
        pid = os.fork()
        if pid:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
            return Started(pid, log)
        os.setsid()
        with log.open("w") as handle:
            os.dup2(handle.fileno(), 1)
            os.dup2(handle.fileno(), 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        sys.argv = ["potstill", *words, "--quiet", "--out", str(out)]
        status = 1
        try:
            counted = Operations(out, moment or Moment(), number)
            if before is not None:
                before()
            status = _called()
            if moment is None:
                log.with_suffix(".count").write_text(json.dumps([counted.files, counted.parts]))
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def wait(self, started: Started) -> tuple[int, str]:
        """Return the exit status of a process (negative: the signal that ended it) and its messages."""
        status = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
        text = started.log.read_text()
        started.log.unlink()
        started.log.with_suffix(".count").unlink(missing_ok=True)
        return status, text

    def until(self, started: Started, seconds: float, wall: float) -> None:
        """Wait until a process has used so many seconds of the processor, or has ended, or `wall` seconds passed."""
        end = time.monotonic() + wall
        while processor_seconds(started.pid) < seconds and time.monotonic() < end:
            time.sleep(0.003)

    def straight(self, name: str, out: Path | None = None) -> Straight:
        """Return what a command does without a fault. out: the folder of a search, whose plan is followed."""
        plan = _plan(out) if out is not None else {}
        known = [one for one in self._straight if one[0] == name and (not plan or one[1] == _decided(plan))]
        if known:
            return self._straight[known[0]]
        made = self._made(name, self.folder / f"straight-{name}-{len(self._straight)}", plan)
        self._straight[name, _decided(_plan(made.folder))] = made
        return made

    def _made(self, name: str, folder: Path, plan: dict[str, str]) -> Straight:
        for file, text in plan.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
        began, used = time.monotonic(), os.times()
        started = self.start(self.words(name), folder)
        status = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
        wall, now = time.monotonic() - began, os.times()
        if status:
            raise SystemExit(f"{name} failed without a fault:\n{started.log.read_text()}")
        count = started.log.with_suffix(".count")
        files, parts = json.loads(count.read_text())
        count.unlink()
        started.log.unlink()
        processor = sum(now[2:4]) - sum(used[2:4])
        return Straight(folder, results(folder), wall, processor, files, parts)

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
        expected, found = self.straight(name, out).files, results(out)
        different = [file for file in {**expected, **found} if expected.get(file) != found.get(file)]
        left = [str(file) for file in out.rglob(".*")]
        return f"different: {different}" if different else f"left behind: {left}" if left else ""

    def moment(self, name: str, chance: random.Random) -> Moment:
        """Return a random moment of a command, half of the time one of its file operations."""
        if chance.random() < 0.5:
            return Moment(share=0.7 * chance.random())  # later, what an earlier kill left would be done
        return Moment(file=chance.randint(1, self.straight(name).operations))

    def disturbed(self, name: str, out: Path, moment: Moment, number: int) -> tuple[int, str]:
        """Run a command, send it a signal at a moment, and return its exit status and messages. SIGKILL: its group."""
        started = self.start(self.words(name), out, moment, number)
        if moment.share is not None:
            straight = self.straight(name)
            self.until(started, moment.share * straight.processor, 20 + 4 * straight.wall)
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if number == signal.SIGKILL else os.kill)(started.pid, number)
        return self.wait(started)


def _threads() -> list[str]:
    """Return the names of the threads of this process, of which onnxruntime leaves one that waits."""
    gc.collect()  # its sessions, which have threads
    return [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]


def frugal(memory: Path) -> None:
    """Let potstill measure latencies briefly, and trace the same network once; memory: the folder of the graphs."""
    from torch.onnx._internal.exporter import _registration

    from potstill.exporters import onnx_float
    from potstill.model_files import latency
    from potstill.stages.selftrain import SelftrainConfig

    for name, value in {"teacher_steps": 8, "folds": 2}.items():
        SelftrainConfig.model_fields[name].default = value
    SelftrainConfig.model_rebuild(force=True)
    memory.mkdir()
    traced, latency.BLOCK = onnx_float._traced, 0.001
    for measure in (latency.latency_ms, latency.from_photo):
        (measure.__kwdefaults__ or {})["seconds"] = 0.01
    registry = _registration.ONNXRegistry
    registry.from_torchlib = staticmethod(functools.cache(registry.from_torchlib))  # of operators, which stays as it is

    def remembered(graph: onnx_float.Graph, opset: int) -> onnx_ir.Model:
        if sys.argv[1] == "export":
            return traced(graph, opset)
        key = hashlib.sha256(f"{graph}{graph.model.card}{opset}".encode())
        for name, tensor in graph.state_dict().items():
            key.update(name.encode() + tensor.numpy().tobytes())
        file = memory / key.hexdigest()
        if not file.is_file():
            half = file.with_suffix(f".{os.getpid()}")
            half.write_bytes(onnx_ir.to_proto(traced(graph, opset)).SerializeToString())
            half.replace(file)
        return onnx_ir.from_proto(onnx.ModelProto.FromString(file.read_bytes()))

    onnx_float._traced = remembered


def _called() -> int:
    try:
        from potstill.cli import main

        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        main()
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(bool(stop.code))
    except BaseException:
        import traceback

        traceback.print_exc()
        return 1
    return 0


class Operations:
    """Counts the file operations of this process in a folder, and sends it a signal after one of them."""

    def __init__(self, folder: Path, moment: Moment, number: int) -> None:
        self.files = self.parts = 0
        self._folder, self._moment, self._number = f"{folder}{os.sep}", moment, number
        self._due = False
        self._by = os.getpid()
        sys.addaudithook(self._seen)

    def _seen(self, event: str, arguments: tuple) -> None:
        if event not in EVENTS or not arguments or os.getpid() != self._by:
            return
        path = arguments[1] if event == "os.rename" else arguments[0]
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(self._folder):
            return
        if event == "open" and not (arguments[2] or 0) & (os.O_WRONLY | os.O_RDWR):
            return
        due, self._due = self._due, False  # the operation before this one, so that it has been done
        self.files += 1
        if event == "os.rename" and os.fspath(path).endswith("manifest.json"):
            self.parts += 1
            self._due = self.parts == self._moment.part
        self._due = self._due or self.files == self._moment.file
        if due:
            (os.killpg if self._number == signal.SIGKILL else os.kill)(os.getpid(), self._number)


def processor_seconds(pid: int) -> float:
    """Return the processor time of a process; infinite once it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return float("inf") if fields[0] == "Z" else (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def results(folder: Path) -> dict[str, bytes]:
    """Return the files that do not depend on when they were made."""
    files = [file for file in sorted(folder.rglob("*")) if file.suffix in COMPARED or file.name in COMPARED_NAMES]
    files = [file for file in files if file.is_file() and file.name not in TIMED]
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def _plan(out: Path) -> dict[str, str]:
    """Return what a search recorded of its plan, by file, and its settings; empty for other commands."""
    files = [*sorted(out.glob("goals/*/plan.json")), out / "shrink.yaml"]
    return {file.relative_to(out).as_posix(): file.read_text() for file in files if file.is_file()}


def _decided(plan: dict[str, str]) -> str:
    """Return what of a plan the result depends on: it is made from measured speeds, so another one is no fault."""
    made = [json.loads(text) for file, text in plan.items() if file.endswith(".json")]
    return json.dumps([{key: part for key, part in one.items() if key != "seconds"} for one in made])
