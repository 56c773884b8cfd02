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
import datetime
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from potstill import processes, progress
from potstill.columns import from_logits
from potstill.data.loader import Batch, Loader, Order
from potstill.errors import RunError
from potstill.models.outputs import Classifier, Outputs
from potstill.objective import Objective
from potstill.runtime import keep_freed
from potstill.store import Store
from potstill.teachers import autocast
from potstill.threads import threads
from potstill.training.plan import Plan, choose, macs, plan_of
from potstill.training.run import Fitted, Groups, Job, Run, Validate, Watch, in_float, recorded_plan
from potstill.training.settings import TrainConfig

__all__ = [
    "Fitted",
    "Groups",
    "Job",
    "Model",
    "Plan",
    "TrainConfig",
    "Validate",
    "Watch",
    "begun",
    "clean_batches",
    "clone",
    "device",
    "fill_store",
    "fit",
    "images_a_second",
    "meet",
    "plan_of",
    "plan_training",
    "predict",
    "predict_logits",
    "resolve_precision",
    "threads_for",
]

CHECKPOINT_SECONDS = 30.0
EVALUATION_BATCH = 512
SMALL_STEP_MACS = 500_000_000
MANY_IMAGES = 10**6  # what a network is asked about where the caller does not say: worth measuring
Model = Callable[[Tensor], Outputs]


def _accelerator(*, parts_unused: bool = False) -> Accelerator:
    """Return accelerate's view of this process; under torchrun the first call meets the others."""
    alone = processes.world() > 1 and not torch.accelerator.is_available()
    return Accelerator(
        cpu=alone,  # without it, accelerate does not see processes that compute on CPUs
        kwargs_handlers=[
            DistributedDataParallelKwargs(broadcast_buffers=False, find_unused_parameters=parts_unused),
            InitProcessGroupKwargs(timeout=datetime.timedelta(hours=6)),  # the others wait while one exports
        ],
    )


def meet() -> None:
    """Meet the other processes that torchrun started, if there are any: the first thing that a command does."""
    if processes.world() > 1:
        _accelerator()


def device() -> torch.device:
    """Return the device this process trains on."""
    return _accelerator().device


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
    plan: Plan | None = None,
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
        run = begun(job, plan)
        with progress.task(title, total=job.steps, done=run.step) as task:
            while run.step < job.steps and not run.stalled:
                run.train_step()
                last = run.step % order.steps_per_epoch == 0
                task.advance(text=run.end_epoch() if last else "")
                run.save_now_and_then(CHECKPOINT_SECONDS)
        return run.finish()


def plan_training(classifier: Classifier, config: TrainConfig, order: Order) -> Plan:
    """Return how `fit` should compute a training; all processes must call it."""
    stripes, images = processes.world() * config.accumulate, config.epochs * order.steps_per_epoch * order.batch_size
    return choose(
        classifier.to(device()), precision=config.precision, compile=config.compile, training=True,
        batch_size=-(-order.batch_size // stripes), images=images // processes.world(),
    )  # fmt: skip


def begun(job: Job, plan: Plan | None = None) -> Run:
    """Return a training that is about to make its first step, or the next one after its checkpoint."""
    if job.order.batch_size < job.stripes:
        raise RunError(
            f"A batch of {job.order.batch_size} images cannot be cut into {job.stripes} parts ({processes.world()} "
            f"processes, train.accumulate={job.config.accumulate}). Raise train.batch_size, or start fewer processes."
        )
    accelerator = _accelerator(parts_unused=bool(job.classifier.taps))
    keep_freed()
    plan = recorded_plan(job.folder) or plan or plan_training(job.classifier, job.config, job.order)
    if plan.compiled:
        torch.compiler.reset()  # after a few networks it would give up in silence
    model = job.classifier.to(memory_format=plan.memory_format)
    if processes.world() > 1 and accelerator.device.type == "cuda":
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    run = Run(job, plan, accelerator.prepare_model(model), accelerator.device)
    run.resume()
    return run


def _repeatable() -> contextlib.AbstractContextManager[None]:
    """Have cuDNN take the same algorithms each time, and none that add in another order each time."""
    return torch.backends.cudnn.flags(deterministic=True, benchmark=False)


def threads_for(classifier: Classifier, batch_size: int) -> int:
    """Return the threads a training step should use: 1 where the step is over before a second one has woken up."""
    return 1 if macs(classifier) * batch_size < SMALL_STEP_MACS else torch.get_num_threads()


def resolve_precision(precision: str, on: torch.device, model: object, images: int = MANY_IMAGES) -> str:
    """Return "fp32" or "bf16" for asking a model about `images` images; "auto" is what was measured to be faster."""
    if precision != "auto":
        return precision
    if not isinstance(model, Classifier):
        return "fp32"
    model.to(on)
    return choose(
        model, precision=precision, compile=False, batch_size=EVALUATION_BATCH, images=images, training=False
    ).precision


def predict(
    model: Model, batches: Iterable[Batch], *, precision: str | Plan = "fp32"
) -> Iterator[tuple[Batch, Outputs]]:
    """Yield (batch, outputs) without gradient; a module is put into eval mode and left as it was.

    model: a `Classifier`, an exported file read back, or any function from images [B, C, H, W] in 0..1 to `Outputs`.
    """
    plan = plan_of(precision, model)
    keep_freed()
    with _evaluating(model), torch.inference_mode():
        for batch in batches:
            with autocast(batch.image.device, plan.precision):
                outputs = model(batch.image.contiguous(memory_format=plan.memory_format))
            yield batch, in_float(outputs)


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
    model: Model, loader: Loader, rows: np.ndarray, *, precision: str | Plan = "fp32", title: str = ""
) -> np.ndarray:
    """Return float32 logits [N, K] for the clean images of `rows`.

    Under torchrun all processes must call it: each is asked about its stripe of the rows, none is padded, and all
    get the whole.
    """
    meet()
    rank, world = processes.rank(), processes.world()
    positions = np.arange(rank, len(rows), world)
    parts = []
    shown = progress.task(title, total=len(positions)) if title else contextlib.nullcontext(progress.Task())
    with shown as task:
        for batch, outputs in predict(model, clean_batches(loader, rows[positions]), precision=precision):
            parts.append(outputs.logits.cpu().numpy())
            task.advance(len(batch.index))
    if world == 1:
        return np.concatenate(parts)
    return processes.gather_rows(_stacked(parts), positions, len(rows))


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Return the parts as one array; a process without rows has an empty one."""
    classes = max(processes.gather(parts[0].shape[1] if parts else 0))
    return np.concatenate([np.empty((0, classes), np.float32), *parts])


def fill_store(
    store: Store,
    model: Model,
    loader: Loader,
    *,
    precision: str | Plan = "fp32",
    best: int | None = None,
    title: str = "",
) -> None:
    """Write every missing part of `store`: the logits of each row in each view, float16, of the `best` classes only
    where that is given (`potstill.columns`).

    Under torchrun all processes must call it, and each writes its stripe of the missing parts. A part is written while
    the next one is computed.
    """
    meet()
    if processes.is_main() and not store.complete:
        store.discard_damaged()
    processes.wait()
    mine = store.missing()[processes.rank() :: processes.world()]
    processes.wait()  # nobody writes before all have seen what is missing
    with progress.task(title or "asking the teacher", total=len(mine)) as task, ThreadPoolExecutor(1) as writer:
        under_way: Future | None = None
        for view, part in mine:
            columns = _said(model, loader, store.part_rows(part), view, plan_of(precision, model), best)
            if under_way:
                under_way.result()
            under_way = writer.submit(store.write, view, part, columns)
            task.advance()
        if under_way:
            under_way.result()
    processes.wait()
    if processes.is_main() and not store.complete:
        store.close()
    processes.wait()


def images_a_second(model: Model, loader: Loader, rows: np.ndarray, *, precision: str | Plan = "fp32") -> float:
    """Return how fast a model answers, from one batch after another that warmed it up."""
    chunk = rows[:EVALUATION_BATCH]
    for _ in range(2):
        began = time.perf_counter()
        batches = [loader.batch(chunk, np.zeros(len(chunk), np.int64))]
        for _, outputs in predict(model, batches, precision=precision):
            outputs.logits.cpu()
    return len(chunk) / (time.perf_counter() - began)


def _said(
    model: Model, loader: Loader, rows: np.ndarray, view: int, plan: Plan, best: int | None
) -> dict[str, np.ndarray]:
    """Return the columns of some rows in a view."""
    chunks = [rows[start : start + EVALUATION_BATCH] for start in range(0, len(rows), EVALUATION_BATCH)]
    batches = (loader.batch(chunk, np.full(len(chunk), view)) for chunk in chunks)
    said = [from_logits(outputs.logits, best) for _, outputs in predict(model, batches, precision=plan)]
    return {name: np.concatenate([columns[name] for columns in said]) for name in said[0]}


def clone(classifier: Classifier) -> Classifier:
    """Return an independent copy with the same weights."""
    return copy.deepcopy(classifier)
