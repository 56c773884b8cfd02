"""`fit` and `predict`: the only two loops of the product, and the only file that imports accelerate.

`fit` keeps one clock, the step. The batch, the learning rate and the noise of a step are pure functions of it, so a
checkpoint holds weights, optimizer moments and running sums, and nothing about iterators or generators.

The order of resumption:
1. a finished folder is not touched (the caller asks `artifacts.stage`);
2. a checkpoint in the folder goes on from its step;
3. otherwise training starts from the weights the classifier came with.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from potstill import artifacts, checkpoint, progress
from potstill.columns import from_logits
from potstill.compress.cost import cost
from potstill.data.loader import Batch, Loader, Order
from potstill.errors import RunError
from potstill.models.outputs import Classifier, Outputs
from potstill.objective import Objective
from potstill.optimization import TrainConfig, optimizer
from potstill.store import Store
from potstill.teachers import autocast

CHECKPOINT_SECONDS = 30.0
EVALUATION_BATCH = 512
SMALL_STEP_MACS = 500_000_000


@dataclass
class Fitted:
    """What `fit` reports: a row an epoch, and which epoch was kept."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    kept_epoch: int = 0
    steps: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return what a stage records about its training."""
        accuracy = [row["validation"]["accuracy"] for row in self.rows if "validation" in row]
        validation = {"last": accuracy[-1], "best": max(accuracy)} if accuracy else {}
        return {
            "validation_accuracy": validation,
            "kept_epoch": self.kept_epoch,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
        }


Validate = Callable[[Classifier], dict[str, float]]
Watch = Callable[[dict[str, Any]], str]  # an epoch's row -> words to show beside the bar
Groups = Callable[[Classifier], list[dict[str, Any]]]  # parameters with `scale` (of lr) and `weight_decay` of their own


def device() -> torch.device:
    """Return the device this process trains on."""
    return Accelerator().device


def resolve_precision(precision: str, on: torch.device, model: object) -> str:
    """Return "fp32" or "bf16"; "auto" is bf16 for convolutions where the device multiplies it natively."""
    if precision != "auto":
        return precision
    if not convolves(model):
        return "fp32"
    if on.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    return "bf16" if torch.cpu.get_capabilities().get("amx_bf16", False) else "fp32"


def fit(
    classifier: Classifier,
    objective: Objective,
    loader: Loader,
    order: Order,
    config: TrainConfig,
    *,
    folder: Path,
    seed: int,
    validate: Validate | None = None,
    watch: Watch | None = None,
    groups: Groups | None = None,
    title: str = "training",
) -> Fitted:
    """Train `classifier` in place, resuming from `folder`/checkpoint.safetensors where there is one.

    Writes metrics.jsonl (a row an epoch: train terms by name, learning rate, validation) into `folder`. The weights
    kept are those of the last epoch, or of the best on validation (`config.select`). watch: is given each epoch's row
    and may say something of it. groups: learning rates of their own for parts of the model; the rest has `config.lr`.
    Raises `RunError` where the loss is no longer a number.
    """
    run = _Run(classifier, objective, loader, order, config, folder, seed, validate, watch, groups)
    steps = config.epochs * order.steps_per_epoch
    with _threads(threads_for(classifier, order.batch_size)):
        run.resume()
        _train(run, steps, title)
        return run.finish()


def _train(run: _Run, steps: int, title: str) -> None:
    order = run.order
    with progress.task(title, total=steps, done=run.step) as task:
        while run.step < steps and not run.stalled:
            run.train_step(steps)
            if run.step % order.steps_per_epoch == 0:
                task.advance(text=run.end_epoch())
            else:
                task.advance()
            run.save_now_and_then()


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with `count` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def threads_for(classifier: Classifier, batch_size: int) -> int:
    """Return the threads a training step should use: 1 where the step is over before a second one has woken up."""
    example = torch.zeros(1, classifier.card.channels, *classifier.card.size, device=classifier.mean.device)
    small = cost(classifier, example).total_macs * batch_size < SMALL_STEP_MACS
    return 1 if small else torch.get_num_threads()


def convolves(model: object) -> bool:
    """Whether a model has convolutions: work enough for several threads and for half precision."""
    return isinstance(model, nn.Module) and any(isinstance(module, nn.Conv2d) for module in model.modules())


class _Run:
    """The state of one `fit`."""

    def __init__(
        self,
        classifier: Classifier,
        objective: Objective,
        loader: Loader,
        order: Order,
        config: TrainConfig,
        folder: Path,
        seed: int,
        validate: Validate | None,
        watch: Watch | None = None,
        groups: Groups | None = None,
    ) -> None:
        self.accelerator = Accelerator()
        self.precision = resolve_precision(config.precision, self.accelerator.device, classifier)
        self.classifier, self.objective, self.loader, self.order = classifier, objective, loader, order
        self.config, self.folder, self.seed, self.validate = config, folder, seed, validate
        self.watch = watch
        self.layout = torch.channels_last if self.precision == "bf16" else torch.contiguous_format
        self.model = self.accelerator.prepare_model(classifier.to(memory_format=self.layout))
        self.learned = objective.learned.to(self.accelerator.device)
        self.parameters = [p for p in (*classifier.parameters(), *self.learned.parameters()) if p.requires_grad]
        self.optimizer = optimizer(self.parameters, config, groups(classifier) if groups else [])
        self.step, self.began = 0, time.monotonic()
        self.saved, self.earlier = time.monotonic(), 0.0
        self.sums: dict[str, Tensor] = {}
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}

    # -- one step, one epoch -------------------------------------------------------------------------------

    def train_step(self, steps: int) -> None:
        config = self.config
        self._seed_noise()
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr_at(self.step, steps) * group.get("scale", 1.0)
        batch = self.loader.train_batch(self.order, self.step)
        self.model.train()
        with autocast(self.accelerator.device, self.precision):
            outputs = self.model(batch.mixed_image().contiguous(memory_format=self.layout))
        losses = self.objective(_float(outputs), batch, self.step)
        self.optimizer.zero_grad(set_to_none=True)
        self.accelerator.backward(losses["loss"])
        self._share_gradients()
        if config.clip:
            self.accelerator.clip_grad_norm_(self.parameters, config.clip)
        self.optimizer.step()
        for name, value in losses.items():
            value = value.detach()
            self.sums[name] = self.sums[name] + value if name in self.sums else value.clone()
        self.step += 1

    def _share_gradients(self) -> None:
        """Average the gradients of the objective's own layers over the processes, as the student's already are."""
        if self.accelerator.num_processes > 1:
            for parameter in [p for p in self.learned.parameters() if p.grad is not None]:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")

    def _seed_noise(self) -> None:
        """Make dropout a function of the step too (`torch.manual_seed` costs milliseconds where CUDA is absent)."""
        seed = (self.seed * 1_000_003 + self.step) % 2**63
        torch.default_generator.manual_seed(seed)
        if self.accelerator.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    def end_epoch(self) -> str:
        """Write the epoch's row; return a few words for the display."""
        count = self.order.steps_per_epoch
        train = {name: float(value) / count for name, value in self.sums.items()}
        if not math.isfinite(train["loss"]):
            broken = [name for name, value in train.items() if name != "loss" and not math.isfinite(value)]
            where = f"in epoch {self.step // count}, by {' and '.join(broken) or 'the sum of its terms'}"
            raise RunError(
                f"The loss became {train['loss']} {where}: training diverged. "
                f"Lower the learning rate (it is {self.config.lr}; try train.lr={self.config.lr / 10:g}), "
                "or set train.clip=1."
            )
        self.sums = {}
        row = {"epoch": self.step // count, "step": self.step, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        row["train"] = train
        if self.validate:
            row["validation"] = self.validate(self.classifier)
            self._keep_best(row["validation"]["accuracy"])
        row["seconds"] = round(self.seconds, 2)
        self.rows.append(row)
        self._write_metrics()
        told = [f"loss {train['loss']:.3f}"]
        if self.validate:
            told.append(f"validation {row['validation']['accuracy']:.1f} %")
        if self.watch and (words := self.watch(row)):
            told.append(words)
        return ", ".join(told)

    def _keep_best(self, accuracy: float) -> None:
        earlier = max((row["validation"]["accuracy"] for row in self.rows), default=-1.0)
        if self.config.select == "best" and accuracy > earlier:
            self.best = {name: value.detach().clone() for name, value in self.classifier.state_dict().items()}

    @property
    def stalled(self) -> bool:
        """Whether validation has not become better for `patience` epochs."""
        accuracy = [row["validation"]["accuracy"] for row in self.rows if "validation" in row]
        waited = len(accuracy) - 1 - accuracy.index(max(accuracy)) if accuracy else 0
        return self.config.patience is not None and waited >= self.config.patience

    @property
    def seconds(self) -> float:
        return self.earlier + time.monotonic() - self.began

    # -- resuming and finishing ----------------------------------------------------------------------------

    @property
    def _file(self) -> Path:
        return self.folder / "checkpoint.safetensors"

    def save_now_and_then(self) -> None:
        if time.monotonic() - self.saved > CHECKPOINT_SECONDS:
            self.save()

    def save(self) -> None:
        tensors = {
            "model": self.classifier.state_dict(),
            "best": self.best,
            "sums": self.sums,
            "optimizer": checkpoint.optimizer_tensors(self.optimizer),
            "objective": self.learned.state_dict(),
        }
        facts = {"step": self.step, "rows": self.rows, "seconds": self.seconds, "threads": torch.get_num_threads()}
        checkpoint.save(self._file, tensors, facts)
        self.saved = time.monotonic()

    def resume(self) -> None:
        if not self._file.is_file():
            return
        tensors, facts = checkpoint.load(self._file, self.accelerator.device)
        self.classifier.load_state_dict(tensors["model"])
        checkpoint.restore_optimizer(self.optimizer, tensors["optimizer"])
        self.learned.load_state_dict(tensors["objective"])
        self.best, self.sums = tensors["best"], tensors["sums"]
        self.step, self.rows, self.earlier = facts["step"], facts["rows"], facts["seconds"]
        if facts["threads"] != torch.get_num_threads():
            torch.set_num_threads(facts["threads"])
            progress.note(
                f"Resumed with {facts['threads']} threads, as the run was started, so that its result is "
                "bit for bit what it would have been."
            )

    def finish(self) -> Fitted:
        if self.best:
            self.classifier.load_state_dict(self.best)
        self.classifier.to(memory_format=torch.contiguous_format).eval()
        accuracy = [row.get("validation", {}).get("accuracy", 0.0) for row in self.rows]
        kept = accuracy.index(max(accuracy)) + 1 if self.best else len(self.rows)
        return Fitted(self.rows, kept, self.step, self.seconds)

    def _write_metrics(self) -> None:
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        artifacts.write_text(self.folder / "metrics.jsonl", text)


def _float(outputs: Outputs) -> Outputs:
    """Return logits and side heads in float32: losses in half precision lose what distillation is about."""
    return Outputs(outputs.logits.float(), outputs.features, tuple(head.float() for head in outputs.aux))


Model = Callable[[Tensor], Outputs]


def predict(model: Model, batches: Iterable[Batch], *, precision: str = "fp32") -> Iterator[tuple[Batch, Outputs]]:
    """Yield (batch, outputs) without gradient; a module is put into eval mode and left as it was.

    model: a `Classifier`, an exported file read back, or any function from images [B, C, H, W] in 0..1 to `Outputs`.
    """
    with _evaluating(model), torch.inference_mode():
        for batch in batches:
            with autocast(batch.image.device, precision):
                outputs = model(batch.image)
            yield batch, _float(outputs)


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    training = isinstance(model, nn.Module) and model.training
    if training:
        model.eval()
    try:
        yield
    finally:
        if training:
            model.train()


def clean_batches(loader: Loader, rows: np.ndarray, size: int = EVALUATION_BATCH) -> Iterator[Batch]:
    """Yield `rows` in order, without augmentation."""
    for start in range(0, len(rows), size):
        yield loader.clean_batch(rows[start : start + size])


def predict_logits(
    model: Model, loader: Loader, rows: np.ndarray, *, precision: str = "fp32", title: str = ""
) -> np.ndarray:
    """Return float32 logits [N, K] for the clean images of `rows`."""
    parts = []
    shown = progress.task(title, total=len(rows)) if title else contextlib.nullcontext(progress.Task())
    with shown as task:
        for batch, outputs in predict(model, clean_batches(loader, rows), precision=precision):
            parts.append(outputs.logits.cpu().numpy())
            task.advance(len(batch.index))
    return np.concatenate(parts)


def fill_store(
    store: Store, model: Model, loader: Loader, *, precision: str = "fp32", best: int | None = None, title: str = ""
) -> None:
    """Write every missing part of `store`: the logits, float16, of each row in each view, of the `best` classes only
    where that is given (potstill/columns.py)."""
    missing = store.missing()
    with progress.task(title or "asking the teacher", total=len(missing)) as task:
        for view, part in missing:
            rows = store.part_rows(part)
            chunks = [rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH)]
            batches = (loader.batch(chunk, np.full(len(chunk), view)) for chunk in chunks)
            said = [from_logits(outputs.logits, best) for _, outputs in predict(model, batches, precision=precision)]
            store.write(view, part, {name: np.concatenate([one[name] for one in said]) for name in said[0]})
            task.advance()
    store.close()


def clone(classifier: Classifier) -> Classifier:
    """Return an independent copy with the same weights."""
    return copy.deepcopy(classifier)
