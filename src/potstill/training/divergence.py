"""What is done when a training diverges: find the step, keep it in a folder, and try smaller learning rates.

A step is a pure function of the state before it, so the steps since the last finite state are repeated until one gives
a value that is not finite. `diverged/` beside the training then has the state before that step and the indices of its
batch, with which `potstill debug` repeats it.
"""

from __future__ import annotations

import contextlib
import contextvars
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from potstill import artifacts
from potstill.errors import RunError
from potstill.training.loop import TrainingLoop

FOLDER, STATE, FACTS = "diverged", "state.safetensors", "step.json"
USUAL = {"sgd": 0.1, "adamw": 0.003}  # learning rates above which no other one is tried first
TRIED = 20  # steps with a smaller learning rate
RATES = 8  # learning rates that are tried, each a third of the one before


def diverged(run: TrainingLoop) -> RunError:
    """Return the error for a training whose loss or weights are no longer finite, after keeping the failing step."""
    train = run.means()
    end = run.step
    terms = {name: value for name, value in train.items() if name != "loss"}
    broken = [name for name, value in terms.items() if not math.isfinite(value)]
    failed = _failing_step(run, end)
    where = f"in epoch {max(end - 1, 0) // run.job.order.steps_per_epoch + 1}"
    if failed is not None:
        where += f", step {failed + 1}"
        _keep(run, failed)
    rate = _rate_that_works(run, end)
    run.drop_checkpoint()
    what = f"the loss became {train['loss']}" if not math.isfinite(train["loss"]) else "the weights are not finite"
    lower = f"Lower the learning rate (it is {run.config.lr:g})"
    if rate:
        advice = f"{lower}: {rate:g} stayed finite in the steps tried"
    else:
        advice = f"{lower}; {RATES} smaller ones did not stay finite either, so check the images and the loss first"
    kept = f" The failing step is kept in {run.job.folder / FOLDER}." if failed is not None else ""
    return RunError(
        f"Training diverged: {what} {where} ({' and '.join(broken) or 'the sum of its terms'}). {advice}; or set "
        f"clip to 1. Both are settings of this training: --lr, and in a recipe lr and clip below train, or below "
        f"teacher.train for a teacher.{kept}"
    )


def _failing_step(run: TrainingLoop, end: int) -> int | None:
    """Return the first step after the remembered state that is not finite, None if no step is when repeated."""
    run.resume(run.remembered)
    while run.step < end:
        run.sums = {}
        run.train_step()
        if not run.is_finite():
            return run.step - 1
    return None


def _keep(run: TrainingLoop, step: int) -> None:
    """Write the state before a step, and what the step is, into a folder beside the training."""
    run.resume(run.remembered)
    while run.step < step:
        run.train_step()
    folder = run.job.folder / FOLDER
    run.sums = {}
    run.write_state(folder / STATE)
    index, view = run.job.order.at(step)
    run.train_step()
    artifacts.write_json(
        folder / FACTS,
        {
            "step": step,
            "seed": run.job.seed,
            "learning_rate": run.optimizer.param_groups[0]["lr"],
            "terms": {name: _json(float(value)) for name, value in run.sums.items()},
            "index": index.tolist(),
            "view": view.tolist(),
            "images": [run.job.loader.manifest.name(int(row)) for row in index],
        },
    )


def _json(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)


def _rate_that_works(run: TrainingLoop, end: int) -> float | None:
    """Return a smaller learning rate with which the next steps stay finite and the loss does not explode, or None."""
    config, rate = run.config, min(run.config.lr / 10, USUAL[run.config.optimizer])
    try:
        for _ in range(RATES):
            run.config = config.model_copy(update={"lr": rate})
            if _stays_finite(run, end):
                return rate
            rate /= 3
        return None
    finally:
        run.config = config


def _stays_finite(run: TrainingLoop, end: int) -> bool:
    run.resume(run.remembered)
    first = None
    for _ in range(min(TRIED, max(end - run.step, 1))):
        run.sums = {}
        run.train_step()
        loss = float(run.sums["loss"])
        first = loss if first is None else first
        if not run.is_finite() or loss > 10 * abs(first) + 10:
            return False
    return True


def clear(folder: Path) -> None:
    """Remove the kept step of an earlier call of the same training."""
    artifacts.remove(folder / FOLDER)


# -- repeating a kept step ---------------------------------------------------------------------------------------------


class Repeated(Exception):
    """The kept step was repeated; `report` is what it gave."""

    def __init__(self, report: dict[str, Any]) -> None:
        super().__init__()
        self.report = report


_repeating: contextvars.ContextVar[Path | None] = contextvars.ContextVar("potstill_repeating", default=None)


@contextlib.contextmanager
def repeating(folder: Path) -> Iterator[None]:
    """Let the training in a folder repeat its kept step, and raise `Repeated`, instead of training."""
    token = _repeating.set(folder.absolute())
    try:
        yield
    finally:
        _repeating.reset(token)


def state_file(folder: Path) -> Path:
    """Return the file that the training in a folder starts from: its checkpoint, or the state before the kept step."""
    return folder / FOLDER / STATE if is_repeated(folder) else folder / artifacts.CHECKPOINT


def is_repeated(folder: Path) -> bool:
    """Return whether the training in a folder is to repeat its kept step."""
    return _repeating.get() == folder.absolute()


def repeat(run: TrainingLoop) -> Repeated:
    """Run the step after the state of `run` once; return what it gave: terms, layers, gradients and weights."""
    facts = artifacts.read_object(run.job.folder / FOLDER / FACTS)
    layers: list[str] = []
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: _watch(layers, name, output))
        for name, module in run.classifier.named_modules()
        if not any(module.children())
    ]
    run.sums = {}
    run.train_step()
    for hook in hooks:
        hook.remove()
    terms = {name: _json(float(value)) for name, value in run.sums.items()}
    named = [*run.classifier.named_parameters(), *run.learned.named_parameters()]
    return Repeated(
        {
            **{key: facts[key] for key in ("step", "seed", "learning_rate", "images")},
            "terms": terms,
            "same": terms == facts["terms"],
            "layers": layers,
            "gradients": [name for name, p in named if p.grad is not None and not p.grad.isfinite().all()],
            "weights": [name for name, p in named if not p.isfinite().all()],
        }
    )


def _watch(layers: list[str], name: str, output: Any) -> None:
    if isinstance(output, torch.Tensor) and not output.isfinite().all():
        layers.append(name)
