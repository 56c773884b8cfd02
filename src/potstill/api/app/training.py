"""The training that the app starts: one at a time, in a process of its own, as `potstill run` does it."""

from __future__ import annotations

import html
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from potstill import artifacts
from potstill.api.verb import last_name
from potstill.errors import UserError
from potstill.report import pictures
from potstill.report.read import Curves, read_curves

DIGITS = {
    "teacher": {"model": "builtin:cnn", "train": {"epochs": 10, "batch_size": 64, "optimizer": "adamw", "lr": 0.003}},
    "student": {"labels": 100},
    "train": {"batch_size": 64, "optimizer": "adamw", "lr": 0.005},
    "augment": "shift",
    "views": 10,
}
"""Settings for the embedded digits: few labels and many images, where a teacher has something to add."""
STOPPING = 60
"""Seconds that a training has to finish its step and save."""


class Training:
    """The training that runs, and the one before it. runs: the folder of the runs."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.folders: list[Path] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._scratch = tempfile.TemporaryDirectory(prefix="potstill-app-")
        self._messages = (Path(self._scratch.name) / "messages").open("w+b")
        self._stopped = False
        self._began, self._epochs = 0.0, 0
        self._drawing = threading.Lock()  # several windows ask, and matplotlib's settings are of the process
        self._drawn = ("", "")

    @property
    def _latest(self) -> list[Path]:
        """The folders of this run and of the last."""
        return self.folders[:-3:-1]

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, data: str, *, alpha: float, temperature: float, epochs: int, width: int) -> Path:
        """Start a training and return its folder; raise `UserError` if one runs already."""
        if self.running:
            raise UserError("A training is running already. Stop it first.")
        recipe = recipe_of(data.strip(), alpha, temperature, epochs, width)
        number = 1
        while (folder := self.runs / f"{recipe['name']}-{number}").exists():
            number += 1
        self.runs.mkdir(parents=True, exist_ok=True)
        file = Path(self._scratch.name) / "recipe.yaml"
        file.write_text(json.dumps(recipe), encoding="utf-8")  # JSON is YAML
        self._messages.seek(0)
        self._messages.truncate()
        command = [sys.executable, "-m", "potstill", "run", str(file), "--out", str(folder), "--quiet"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=self._messages)
        self.folders.append(folder)
        self._stopped, self._began, self._epochs = False, time.monotonic(), int(epochs)
        return folder

    def stop(self) -> None:
        """End the training after its step, as Ctrl-C does; does nothing if none runs."""
        if self.running and self._process is not None:
            self._stopped = True
            self._process.send_signal(signal.SIGINT)

    def close(self) -> None:
        """End the training and wait for it."""
        self.stop()
        if self._process is not None:
            try:
                self._process.wait(STOPPING)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._messages.close()
        self._scratch.cleanup()

    def status(self) -> str:
        """Return a sentence on the training."""
        if self._process is None:
            return "No training was started yet."
        folder = self.folders[-1]
        if self.running:
            rows = [len(seeds[0]) for seeds in read_curves(folder).values()]
            where = f"epoch {rows[-1]} of model {len(rows)} of 3" if rows else "preparing images and teacher"
            where = "exporting and measuring" if rows[2:] == [self._epochs] else where
            seconds = time.monotonic() - self._began
            return f"{'Stopping' if self._stopped else 'Training'} {folder.name}: {where}, {seconds:.0f} s."
        if self._process.returncode == 0:
            return f"Finished: {folder.name}. Its report is listed under Runs."
        if self._stopped:
            return f"Stopped: {folder.name}."
        self._messages.seek(0)
        return self._messages.read().decode(errors="replace").strip() or "The training ended without a message."

    def curves(self) -> str:
        """Return charts of the validation accuracy after each epoch, as HTML: of this run, and of the last."""
        shown = [(folder, {k: v for k, v in read_curves(folder).items() if k != "teacher"}) for folder in self._latest]
        key = repr([[len(seeds[0]) for seeds in models.values()] for _, models in shown])
        with self._drawing:
            if self._drawn[0] != key:
                self._drawn = key, "".join(_chart(folder.name, models) for folder, models in shown if models)
            return self._drawn[1]

    def table(self) -> list[list[str]]:
        """Return a row for this run and the last: name, settings, test accuracy of teacher, control and student."""
        return [_row(folder) for folder in self._latest if (folder / "summary.json").is_file()]


def _chart(name: str, models: Curves) -> str:
    picture = pictures.curves(models, name=name)[0]
    return f"<h4>{html.escape(name)}: {picture.title}</h4>{picture.svg}"


def _row(folder: Path) -> list[str]:
    summary = artifacts.read_object(folder / "summary.json")
    recipe, models = summary["recipe"], summary["models"]
    options = next(iter(recipe["student"]["options"].values()))
    knobs = [recipe["objective"]["alpha"], recipe["objective"]["temperature"], recipe["train"]["epochs"], options]
    accuracy = [models.get(role, {}).get("accuracy") for role in ("teacher", "control", "student")]
    return [folder.name, *(f"{knob:g}" for knob in knobs), *("" if one is None else f"{one:.1f} %" for one in accuracy)]


def recipe_of(data: str, alpha: float, temperature: float, epochs: int, width: int) -> dict[str, Any]:
    """Return the recipe of the settings in the app; width: hidden units for the digits, else channels."""
    digits = data == "digits"
    settings: dict[str, Any] = DIGITS if digits else {"teacher": {"model": "auto"}, "student": {}, "train": {}}
    model = "builtin:mlp" if digits else "builtin:small-cnn"
    options = {"hidden" if digits else "width": int(width)}
    return {
        **settings,
        "name": f"app-{last_name(data)}",
        "data": {"path": data},
        "student": {**settings["student"], "model": model, "options": options},
        "objective": {"alpha": alpha, "temperature": temperature},
        "train": {**settings["train"], "epochs": int(epochs)},
        "seeds": 1,
    }
