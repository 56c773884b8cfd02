"""`fit`: the training loop.

The batch, the learning rate and the noise are pure functions of the step, so a checkpoint has weights, optimizer
moments and running sums, but no state of iterators or generators.

Order of resumption:
1. a finished folder is not changed (the caller uses `artifacts.stage`);
2. training is resumed from a checkpoint in the folder, with its execution plan;
3. otherwise training starts from the weights of the classifier.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from potstill import distributed, interruption, progress
from potstill.data.loader import Loader, Order
from potstill.errors import RunError
from potstill.interruption import Interrupted
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective
from potstill.torch_context import threads
from potstill.training import checkpoint, divergence, trackers
from potstill.training.autotune import ExecutionPlan, choose, decision, macs
from potstill.training.devices import accelerator, device
from potstill.training.loop import Fitted, Groups, Job, NotFinite, TrainingLoop, Validate, Watch
from potstill.training.settings import TrainConfig
from potstill.words import plural

CHECKPOINT_SECONDS = 30.0
SMALL_STEP_MACS = 500_000_000


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
    plan: ExecutionPlan | None = None,
    title: str = "Training",
) -> Fitted:
    """Train `classifier` in place, resuming from `folder`/checkpoint.safetensors if there is one.

    Writes metrics.jsonl (one row per epoch: loss terms by name, learning rate, validation) into `folder`. The kept
    weights are those of the last epoch, or of the best on validation (`config.select`); with `config.ema` their moving
    average. watch: is called with the metrics of each epoch and returns text for the display. groups: returns parameter
    groups with other settings (weight_decay, and `scale`: times the learning rate). plan: the execution plan, by
    default that of `plan_training`. Under torchrun all processes must call it, and each trains on its stripe of every
    batch. Raises `RunError` if the loss is not finite.
    """
    job = Job(classifier, objective, loader, order, config, folder, seed, validate, watch, groups)
    with threads(threads_for(classifier, order.batch_size)), _repeatable():
        run = start_or_resume(job, plan)
        if divergence.is_repeated(folder):
            raise divergence.repeat(run)
        divergence.clear(folder)
        run.remember()
        try:
            _train(run, title)
        except NotFinite:
            raise divergence.diverged(run) from None
        return run.finish()


def _train(run: TrainingLoop, title: str) -> None:
    job = run.job
    if run.step:
        progress.display().note(f"{title}: resuming at step {run.step:,} of {job.steps:,}.")
    # Several processes would see a signal after different steps, and could not save together.
    defer = interruption.deferred() if distributed.world() == 1 else contextlib.nullcontext(lambda: None)
    with _tracked(run), defer as stop, progress.task(title, total=job.steps, done=run.step) as task:
        while run.step < job.steps and not run.stalled:
            run.train_step()
            last = run.step % job.order.steps_per_epoch == 0
            task.advance(text=run.end_epoch() if last else run.terms())
            if last:
                run.remember()
            if (number := stop()) is not None:
                run.save()
                raise Interrupted(number, f"{title} is saved at step {run.step:,} of {job.steps:,}.")
            run.save_now_and_then(CHECKPOINT_SECONDS)


@contextlib.contextmanager
def _tracked(run: TrainingLoop) -> Iterator[None]:
    """Send the metrics of the training to a tracker, if one is chosen."""
    run.tracker = trackers.opened(run.job.folder, run.step)
    try:
        yield
    finally:
        if run.tracker:
            run.tracker.close()


def plan_training(classifier: Classifier, config: TrainConfig, order: Order) -> ExecutionPlan:
    """Return the execution plan of a training; all processes must call it."""
    if (known := decision()) is not None:
        return known
    stripes, images = distributed.world() * config.accumulate, config.epochs * order.steps_per_epoch * order.batch_size
    plan = choose(
        classifier.to(device()),
        precision=config.precision,
        compile=config.compile,
        training=True,
        batch_size=-(-order.batch_size // stripes),
        images=images // distributed.world(),
    )
    return plan if config.channels_last is None else dataclasses.replace(plan, channels_last=config.channels_last)


def start_or_resume(job: Job, plan: ExecutionPlan | None = None) -> TrainingLoop:
    """Return a training before its first step, or after that of its checkpoint."""
    if job.order.batch_size < job.stripes:
        raise RunError(
            f"A batch of {plural(job.order.batch_size, 'image')} cannot be split into {job.stripes} parts "
            f"({plural(distributed.world(), 'process')}, train.accumulate={job.config.accumulate}). Raise "
            "train.batch_size, or use fewer processes."
        )
    prepared = accelerator(parts_unused=bool(job.classifier.taps))
    state = checkpoint.load(divergence.state_file(job.folder), prepared.device)
    computed = {**state.facts["plan"], "threads": state.facts["threads"]} if state else None
    computed = computed or checkpoint.computed_before(job.folder)
    if computed:
        plan = _plan_of(computed)
    plan = plan or plan_training(job.classifier, job.config, job.order)
    if plan.threads:
        torch.set_num_threads(plan.threads)  # until the end of the training
    if plan.compiled:
        torch.compiler.reset()  # after several networks it would silently stop compiling
    model = job.classifier.to(memory_format=plan.memory_format)
    if distributed.world() > 1 and prepared.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    run = TrainingLoop(job, plan, prepared.prepare_model(model), prepared.device)
    if state:
        run.resume(state)
    return run


def _plan_of(computed: dict[str, Any]) -> ExecutionPlan:
    """Return the execution plan of an interrupted or damaged training, and set its number of threads."""
    if computed["threads"] != (own := torch.get_num_threads()):
        torch.set_num_threads(computed["threads"])
        progress.note(
            f"Resumed with {plural(computed['threads'], 'thread')}, as before, so that the result is bit-exact; "
            f"{own}, as this process has, are for new trainings only."
        )
    return ExecutionPlan(**{field.name: computed[field.name] for field in dataclasses.fields(ExecutionPlan)})


def _repeatable() -> contextlib.AbstractContextManager[None]:
    """Let cuDNN use deterministic algorithms, without benchmarking."""
    return torch.backends.cudnn.flags(deterministic=True, benchmark=False)


def threads_for(classifier: Classifier, batch_size: int) -> int:
    """Return the number of threads of a training step: 1 if the step is too short to benefit from more."""
    return 1 if macs(classifier) * batch_size < SMALL_STEP_MACS else torch.get_num_threads()


def clone(classifier: Classifier) -> Classifier:
    """Return an independent copy with the same weights."""
    return copy.deepcopy(classifier)
