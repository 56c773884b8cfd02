"""`fit` and `predict`: the only two loops of the product, and the only file that imports accelerate.

`fit` keeps one clock, the step. The batch, the learning rate and the noise of a step are pure functions of it, so a
checkpoint holds weights, optimizer moments and running sums, and nothing about iterators or generators.

The order of resumption:
1. a finished folder is not touched (the caller asks `artifacts.stage`);
2. a checkpoint in the folder goes on from its step, computed as it was begun;
3. otherwise training starts from the weights the classifier came with.
"""

from __future__ import annotations

import contextlib
import copy
from pathlib import Path

import torch
from torch import nn

from potstill import distributed, progress
from potstill.data.loader import Loader, Order
from potstill.errors import RunError
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective
from potstill.torch_context import threads
from potstill.training.autotune import ExecutionPlan, choose, macs
from potstill.training.devices import accelerator, device
from potstill.training.loop import Fitted, Groups, Job, TrainingLoop, Validate, Watch, recorded_plan
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
    title: str = "training",
) -> Fitted:
    """Train `classifier` in place, resuming from `folder`/checkpoint.safetensors where there is one.

    Writes metrics.jsonl (a row an epoch: train terms by name, learning rate, validation) into `folder`. The weights
    kept are those of the last epoch, or of the best on validation (`config.select`); with `config.ema` their moving
    average. watch: is given each epoch's row and may say something of it. groups: from the classifier, groups of some
    of its parameters with settings of their own (weight_decay, and `scale`: times the learning rate). plan: how to
    compute, by default what `plan_training` finds for this classifier. Under torchrun
    all processes must call it, and each trains on its stripe of every batch. Raises `RunError` where the loss is no
    longer a number.
    """
    job = Job(classifier, objective, loader, order, config, folder, seed, validate, watch, groups)
    with threads(threads_for(classifier, order.batch_size)), _repeatable():
        run = start_or_resume(job, plan)
        with progress.task(title, total=job.steps, done=run.step) as task:
            while run.step < job.steps and not run.stalled:
                run.train_step()
                last = run.step % order.steps_per_epoch == 0
                task.advance(text=run.end_epoch() if last else "")
                run.save_now_and_then(CHECKPOINT_SECONDS)
        return run.finish()


def plan_training(classifier: Classifier, config: TrainConfig, order: Order) -> ExecutionPlan:
    """Return how `fit` should compute a training; all processes must call it."""
    stripes, images = distributed.world() * config.accumulate, config.epochs * order.steps_per_epoch * order.batch_size
    return choose(
        classifier.to(device()), precision=config.precision, compile=config.compile, training=True,
        batch_size=-(-order.batch_size // stripes), images=images // distributed.world(),
    )  # fmt: skip


def start_or_resume(job: Job, plan: ExecutionPlan | None = None) -> TrainingLoop:
    """Return a training that is about to make its first step, or the next one after its checkpoint."""
    if job.order.batch_size < job.stripes:
        raise RunError(
            f"A batch of {plural(job.order.batch_size, 'image')} cannot be cut into {job.stripes} parts "
            f"({plural(distributed.world(), 'process')}, train.accumulate={job.config.accumulate}). Raise "
            "train.batch_size, or start fewer processes."
        )
    prepared = accelerator(parts_unused=bool(job.classifier.taps))
    plan = recorded_plan(job.folder) or plan or plan_training(job.classifier, job.config, job.order)
    if plan.compiled:
        torch.compiler.reset()  # after a few networks it would give up in silence
    model = job.classifier.to(memory_format=plan.memory_format)
    if distributed.world() > 1 and prepared.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    run = TrainingLoop(job, plan, prepared.prepare_model(model), prepared.device)
    run.resume()
    return run


def _repeatable() -> contextlib.AbstractContextManager[None]:
    """Have cuDNN take the same algorithms each time, and none that add in another order each time."""
    return torch.backends.cudnn.flags(deterministic=True, benchmark=False)


def threads_for(classifier: Classifier, batch_size: int) -> int:
    """Return the threads a training step should use: 1 where the step is over before a second one has woken up."""
    return 1 if macs(classifier) * batch_size < SMALL_STEP_MACS else torch.get_num_threads()


def clone(classifier: Classifier) -> Classifier:
    """Return an independent copy with the same weights."""
    return copy.deepcopy(classifier)
