"""The state of one training: steps, metrics of epochs, checkpoints.

A step never waits for the device: losses are summed on it and read once per epoch, when divergence is also detected.

With several processes each computes its stripe of the batch. Gradients are averaged by DistributedDataParallel, losses
and running statistics at the end of an epoch and for checkpoints. BatchNorm normalises over the whole batch on GPUs
(SyncBatchNorm) and over the stripe on CPUs, for which torch has no such layer.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from potstill import artifacts, distributed
from potstill.data.loader import Batch, Loader, Order
from potstill.models.outputs import Classifier, Outputs
from potstill.objectives.objective import Objective
from potstill.torch_context import autocast
from potstill.training import checkpoint
from potstill.training.autotune import ExecutionPlan
from potstill.training.optimizer import Average, floating_buffers, optimizer
from potstill.training.prefetch import Prefetcher
from potstill.training.settings import TrainConfig
from potstill.training.trackers import Training, figures

Validate = Callable[[Classifier], dict[str, float]]
Watch = Callable[[dict[str, Any]], str]  # metrics of an epoch -> text beside the progress bar
Groups = Callable[[Classifier], list[dict[str, Any]]]  # parameter groups with other settings
SHOWN = 5  # steps between two lines of loss terms beside the progress bar


class NotFinite(Exception):
    """The loss or the weights are not finite: the training has diverged."""


@dataclass
class Fitted:
    """The result of `fit`: metrics of each epoch (rows), the kept epoch, and the execution plan (computed)."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    kept_epoch: int = 0
    steps: int = 0
    seconds: float = 0.0
    computed: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the training's part of the record of a stage; its accuracy is of the last, best and kept epoch."""
        accuracy = [row["validation"]["accuracy"] for row in self.rows if "validation" in row]
        validation = {}
        if accuracy:
            kept = self.rows[self.kept_epoch - 1]["validation"]["accuracy"]
            validation = {"last": accuracy[-1], "best": max(accuracy), "kept": kept}
        return {
            "validation_accuracy": validation,
            "kept_epoch": self.kept_epoch,
            "steps": self.steps,
            "seconds": round(self.seconds, 2),
            "computed": self.computed,
        }


@dataclass(frozen=True)
class Job:
    """The arguments of `engine.fit`."""

    classifier: Classifier
    objective: Objective
    loader: Loader
    order: Order
    config: TrainConfig
    folder: Path
    seed: int
    validate: Validate | None = None
    watch: Watch | None = None
    groups: Groups | None = None

    @property
    def steps(self) -> int:
        """The number of steps of the whole training."""
        return self.config.epochs * self.order.steps_per_epoch

    @property
    def stripes(self) -> int:
        """The number of parts of a batch."""
        return distributed.world() * self.config.accumulate


class TrainingLoop:
    """One training in progress.

    model: the classifier as it is called in training: wrapped in DistributedDataParallel, compiled, or itself.
    """

    def __init__(self, job: Job, plan: ExecutionPlan, model: nn.Module, device: torch.device) -> None:
        self.job, self.plan, self.device = job, plan, device
        self.classifier, self.config = job.classifier, job.config
        self.model = torch.compile(model, dynamic=False) if plan.compiled else model
        self.wrapped = model
        self.learned = job.objective.learned.to(device)
        self.parameters = [p for p in (*job.classifier.parameters(), *self.learned.parameters()) if p.requires_grad]
        self.optimizer = optimizer(self.parameters, job.config, job.groups(job.classifier) if job.groups else ())
        self.average = Average(job.classifier, job.config.ema) if job.config.ema else None
        if self.average:
            job.objective.follow(self.average.state_dict())
        self.batches = self._batches()
        self.classifier.train()
        self.step, self.began, self.earlier = 0, time.monotonic(), 0.0
        self.saved, self.save_at = time.monotonic(), 1
        self.sums: dict[str, Tensor] = {}
        self.rows: list[dict[str, Any]] = []
        self.best: dict[str, Tensor] = {}
        self.tracker: Training | None = None

    # -- one step ------------------------------------------------------------------------------------------

    def train_step(self) -> None:
        """Run one training step."""
        self._seed_noise()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr_at(self.step, self.job.steps) * group.get("scale", 1.0)
        self.optimizer.zero_grad(set_to_none=True)
        for part in range(self.config.accumulate):
            with self._without_exchange(part < self.config.accumulate - 1):
                self._backward(self.batches(self.step, part))
        self._share_gradients()
        if self.config.clip:
            nn.utils.clip_grad_norm_(self.parameters, self.config.clip)
        self.optimizer.step()
        if self.average:
            self.average.update(self.step)
        self.step += 1

    def _backward(self, batch: Batch) -> None:
        with autocast(self.device, self.plan.precision):
            outputs = self.model(batch.mixed_image().contiguous(memory_format=self.plan.memory_format))
        losses = self.job.objective(in_float(outputs), batch, self.step)
        # Stripes may differ by a row, so they are weighted. Gradients and sums are averaged over the processes.
        share = len(batch.index) * distributed.world() / self.job.order.batch_size
        (losses["loss"] if share == 1 else losses["loss"] * share).backward()
        for name, value in losses.items():
            value = value.detach() * share
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def _batches(self) -> Callable[[int, int], Batch]:
        """Return the function from (step, part) to the batch: this process's stripe of it."""
        job, stripes, first = self.job, self.job.stripes, distributed.rank()

        def make(step: int, part: int) -> Batch:
            return job.loader.train_batch(job.order, step, stripe=(first + part * distributed.world(), stripes))

        def following(step: int, part: int) -> tuple[int, int]:
            return (step, part + 1) if part + 1 < self.config.accumulate else (step + 1, 0)

        return make if self.device.type == "cpu" else Prefetcher(make, following, self.device)

    def _without_exchange(self, accumulating: bool) -> contextlib.AbstractContextManager[None]:
        """Do not average gradients over the processes while they are accumulated."""
        if not accumulating or distributed.world() == 1:
            return contextlib.nullcontext()
        return cast(nn.parallel.DistributedDataParallel, self.wrapped).no_sync()  # accelerate wraps the model in it

    def _share_gradients(self) -> None:
        """Average the gradients of the objective's layers over the processes; DDP averages only the student's."""
        distributed.mean_in_place([p.grad for p in self.learned.parameters() if p.grad is not None])

    def _seed_noise(self) -> None:
        """Seed dropout by the step, too (`torch.manual_seed` takes milliseconds without CUDA)."""
        seed = (self.job.seed * 1_000_003 + self.step + distributed.rank() * 2**40) % 2**63
        torch.default_generator.manual_seed(seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(seed)

    # -- one epoch -----------------------------------------------------------------------------------------

    def end_epoch(self) -> str:
        """Write the metrics of the epoch; return a summary for the display. Raises `NotFinite`."""
        self._average_over_processes()
        count = self.job.order.steps_per_epoch
        if not self.is_finite():
            raise NotFinite
        train = self.means()
        self.sums = {}
        row = {"epoch": self.step // count, "step": self.step, "learning_rate": self.optimizer.param_groups[0]["lr"]}
        row["train"] = train
        if self.job.validate:
            row["validation"] = self._validated(self.job.validate)
        row["seconds"] = round(self.seconds, 2)
        self.rows.append(row)
        self._write_metrics()
        if self.tracker:
            self.tracker.write(figures(row), self.step)
        parts = [f"loss {train['loss']:.3f}"]
        if self.job.validate:
            parts.append(f"validation {row['validation']['accuracy']:.1f} %")
        if self.job.watch and (text := self.job.watch(row)):
            parts.append(text)
        return ", ".join(parts)

    def _average_over_processes(self) -> None:
        """Average the sums of losses and the running statistics over the processes."""
        own = [*self.sums.values(), *floating_buffers(self.classifier)]
        distributed.mean_in_place([*own, *(self.average.state_dict().values() if self.average else ())])

    def terms(self) -> str:
        """Return the mean of each loss term over the epoch so far for the display, every `SHOWN` steps, else "".

        Only on a CPU, where reading them does not wait for the device.
        """
        if self.step % SHOWN or self.device.type != "cpu":
            return ""
        parts = [f"{name} {value:.3f}" for name, value in self.means().items()]
        if self.rows and "validation" in self.rows[-1]:
            parts.append(f"validation {self.rows[-1]['validation']['accuracy']:.1f} %")
        return ", ".join(parts)

    def means(self) -> dict[str, float]:
        """Return the mean of each loss term over the steps of this epoch so far."""
        count = max(self.step - (self.step - 1) // self.job.order.steps_per_epoch * self.job.order.steps_per_epoch, 1)
        return {name: float(value) / count for name, value in self.sums.items()}

    def is_finite(self) -> bool:
        """Return whether the sums of the losses and all weights are finite; waits for the device."""
        learned = [*self.classifier.state_dict().values(), *self.learned.state_dict().values()]
        tensors = [tensor for tensor in (*self.sums.values(), *learned) if tensor.is_floating_point()]
        return bool(torch.stack([tensor.isfinite().all() for tensor in tensors]).all())

    def _validated(self, validate: Validate) -> dict[str, float]:
        """Return the validation metrics of the weights that would be kept; keep them if they are the best so far."""
        with self.average.applied() if self.average else contextlib.nullcontext():
            metrics = validate(self.classifier)
            earlier = max((row["validation"][self.measure] for row in self.rows), default=-1.0)
            if self.config.select != "last" and metrics[self.measure] > earlier:
                self.best = {name: value.detach().clone() for name, value in self.classifier.state_dict().items()}
        self.classifier.train()
        return metrics

    def _write_metrics(self) -> None:
        text = "".join(json.dumps(row) + "\n" for row in self.rows)
        artifacts.write_text(self.job.folder / "metrics.jsonl", text)

    @property
    def measure(self) -> str:
        """The validation metric by which the kept epoch is chosen."""
        return "balanced_accuracy" if self.config.select == "balanced" else "accuracy"

    @property
    def stalled(self) -> bool:
        """Whether validation accuracy has not improved for `patience` epochs after the warm-up.

        Epochs of the warm-up do not count: with random weights and a rate that still rises accuracy stays at chance.
        """
        rows = [row for row in self.rows if "validation" in row]
        if self.config.patience is None or not rows:
            return False
        best = max(rows, key=lambda row: row["validation"][self.measure])
        risen = self.config.warmup * self.job.steps
        waited = sum(row["step"] > max(best["step"], risen) for row in rows)
        return waited >= self.config.patience

    @property
    def seconds(self) -> float:
        """Seconds of training so far, including those before an interruption."""
        return self.earlier + time.monotonic() - self.began

    # -- checkpoints ---------------------------------------------------------------------------------------

    def save_now_and_then(self, every: float) -> None:
        """Write a checkpoint if the last one is about `every` seconds old.

        Processes have different clocks and must save together, so process 0 chooses the step.
        """
        if distributed.world() == 1:
            due = time.monotonic() - self.saved > every
        else:
            due = self.step >= self.save_at
        if due:
            self.save()
            ahead = every * self.step / max(self.seconds, 1e-6)
            self.save_at = distributed.broadcast(self.step + max(1, round(ahead)))

    def save(self) -> None:
        """Write the checkpoint; raise `NotFinite` if the training has diverged since the last one."""
        self._average_over_processes()
        if not self.is_finite():
            raise NotFinite
        self.write_state(self.job.folder / artifacts.CHECKPOINT)
        self.remember()
        self.saved = time.monotonic()

    def write_state(self, file: Path) -> None:
        """Write the state of the training."""
        state = self._state()
        if distributed.is_main():
            checkpoint.save(file, state.tensors, state.facts)

    def _state(self) -> checkpoint.State:
        tensors = {
            "model": self.classifier.state_dict(),
            "average": self.average.state_dict() if self.average else {},
            "best": self.best,
            "sums": self.sums,
            "optimizer": checkpoint.optimizer_tensors(self.optimizer),
            "objective": self.learned.state_dict(),
        }
        facts = {
            "step": self.step,
            "rows": list(self.rows),
            "seconds": self.seconds,
            "threads": torch.get_num_threads(),
            "plan": self.plan.to_json(),
        }
        return checkpoint.State(tensors, facts)

    def remember(self) -> None:
        """Keep a copy of this finite state in memory, from which a failing step can be repeated."""
        state = self._state()
        copied = {
            group: {name: value.detach().cpu().clone() for name, value in named.items()}
            for group, named in state.tensors.items()
        }
        self.remembered = checkpoint.State(copied, state.facts)

    def drop_checkpoint(self) -> None:
        """Remove the checkpoint, so that the folder is free for other settings."""
        if distributed.is_main():
            (self.job.folder / artifacts.CHECKPOINT).unlink(missing_ok=True)

    def resume(self, state: checkpoint.State) -> None:
        """Go back to a state: that of a checkpoint, or a remembered one."""
        facts = state.facts
        tensors = {
            group: {name: value.to(self.device) for name, value in named.items()}
            for group, named in state.tensors.items()
        }
        self.classifier.load_state_dict(tensors["model"])
        if self.average:
            self.average.load_state_dict(tensors["average"])
        checkpoint.restore_optimizer(self.optimizer, tensors["optimizer"])
        self.learned.load_state_dict(tensors["objective"])
        self.best, self.sums = tensors["best"], tensors["sums"]
        self.step, self.rows, self.earlier = facts["step"], list(facts["rows"]), facts["seconds"]
        self.save_at = self.step + 1

    def finish(self) -> Fitted:
        """Load the kept weights into the classifier; return the result."""
        if isinstance(self.batches, Prefetcher):
            self.batches.close()
        if self.best:
            self.classifier.load_state_dict(self.best)
        elif self.average:
            self.average.apply()
        self.classifier.to(memory_format=torch.contiguous_format).eval()
        accuracy = [row.get("validation", {}).get(self.measure, 0.0) for row in self.rows]
        kept = accuracy.index(max(accuracy)) + 1 if self.best else len(self.rows)
        computed = {**self.plan.to_json(), "threads": torch.get_num_threads(), "processes": distributed.world()}
        return Fitted(self.rows, kept, self.step, self.seconds, computed)


def in_float(outputs: Outputs) -> Outputs:
    """Return logits and auxiliary heads in float32: small probabilities would be lost in half precision."""
    return Outputs(outputs.logits.float(), outputs.features, tuple(head.float() for head in outputs.aux))
