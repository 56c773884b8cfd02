"""`predict`: inference, and functions built on it: logits of a split, stores of logits."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor, nn

from potstill import distributed, progress
from potstill.data.loader import Batch, Loader
from potstill.models.outputs import Classifier, Outputs
from potstill.teachers.logit_codec import from_logits
from potstill.teachers.prediction_store import WHOLE, Store, Stripe
from potstill.torch_context import autocast
from potstill.training.autotune import ExecutionPlan, choose, convolves, plan_of
from potstill.training.devices import init_process_group
from potstill.training.loop import in_float

EVALUATION_BATCH = 512
BATCH_PIXELS, FEWEST, MOST = 2**19, 16, 256
"""On a CPU a batch has at most so many pixels, and between so many images: activations that stay in the caches.

Networks of photos were up to twice as fast so as with 2**21 pixels (docs/log.md, 2026-11-30).
"""

MANY_IMAGES = 10**6  # default number of images of an inference, enough for a measurement


Model = Callable[[Tensor], Outputs]


def resolve_precision(precision: str, on: torch.device, model: object, images: int = MANY_IMAGES) -> str:
    """Return "fp32" or "bf16" for inference on `images` images; "auto" is the one measured to be faster."""
    if precision != "auto":
        return precision
    if not isinstance(model, Classifier):
        return "fp32"
    model.to(on)
    batch = evaluation_batch(model.card.size, on)
    return choose(model, precision=precision, compile=False, batch_size=batch, images=images, training=False).precision


def predict(
    model: Model, batches: Iterable[Batch], *, precision: str | ExecutionPlan = "fp32"
) -> Iterator[tuple[Batch, Outputs]]:
    """Yield (batch, outputs) without gradient; a module is in eval mode meanwhile.

    model: a `Classifier`, a loaded exported file, or any function from images [B, C, H, W] in 0..1 to `Outputs`.
    """
    plan = inference_plan(precision, model)
    with _evaluating(model), torch.inference_mode():
        for batch in batches:
            with autocast(batch.image.device, plan.precision):
                outputs = model(batch.image.contiguous(memory_format=plan.memory_format))
            yield batch, in_float(outputs)


def inference_plan(precision: str | ExecutionPlan, model: object) -> ExecutionPlan:
    """Return a plan as it is; for a precision the plan in which convolutions are computed in channels_last.

    For photos on a CPU that is 1.2 to 1.8 times as fast (depthwise convolutions gain most), for small images no slower.
    """
    plan = plan_of(precision, model)
    return plan if isinstance(precision, ExecutionPlan) else dataclasses.replace(plan, channels_last=convolves(model))


@contextlib.contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    module = model if isinstance(model, nn.Module) and model.training else None
    if module is not None:
        module.eval()
    try:
        yield
    finally:
        if module is not None:
            module.train()


def evaluation_batch(size: tuple[int, int], on: torch.device) -> int:
    """Return how many images of (height, width) are evaluated at a time on a device."""
    if on.type != "cpu":
        return EVALUATION_BATCH
    return min(EVALUATION_BATCH, MOST, max(FEWEST, BATCH_PIXELS // (size[0] * size[1])))


def _batch_of(loader: Loader) -> int:
    return evaluation_batch(loader.view.size, loader.device)


def clean_batches(loader: Loader, rows: np.ndarray, size: int | None = None) -> Iterator[Batch]:
    """Yield `rows` in order, `size` at a time (default: as many as are computed fast), without augmentation."""
    for part in _parts(rows, size or _batch_of(loader)):
        yield loader.clean_batch(part)


def _parts(rows: np.ndarray, size: int) -> Iterator[np.ndarray]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def predict_logits(
    model: Model, loader: Loader, rows: np.ndarray, *, precision: str | ExecutionPlan = "fp32", title: str = ""
) -> np.ndarray:
    """Return float32 logits [N, K] for the images of `rows` without augmentation.

    Under torchrun all processes must call it: each evaluates its stripe of the rows, without padding, and all return
    all logits.
    """
    init_process_group()
    rank, world = distributed.rank(), distributed.world()
    positions = np.arange(rank, len(rows), world)
    parts = []
    bar = progress.task(title, total=len(positions)) if title else progress.no_task()
    with bar as task:
        for batch, outputs in predict(model, clean_batches(loader, rows[positions]), precision=precision):
            parts.append(outputs.logits.cpu().numpy())
            task.advance(len(batch.index))
    if world == 1:
        return np.concatenate(parts)
    return distributed.gather_rows(_stacked(parts), positions, len(rows))


def _stacked(parts: list[np.ndarray]) -> np.ndarray:
    """Return the parts as one array, which is empty in a process without rows."""
    classes = max(distributed.gather(parts[0].shape[1] if parts else 0))
    return np.concatenate([np.empty((0, classes), np.float32), *parts])


def fill_store(
    store: Store,
    model: Model,
    loader: Loader,
    *,
    precision: str | ExecutionPlan = "fp32",
    best: int | None = None,
    stripe: Stripe = WHOLE,
    title: str = "",
) -> None:
    """Write every missing part of `store`, or of a stripe of it: the logits of each row in each view, float16.

    best: number of classes to keep, None for all (`potstill.teachers.logit_codec`). Under torchrun all processes must
    call it, and each writes its stripe of the missing parts. A part is written while the next one is computed.
    """
    init_process_group()
    if distributed.is_main():
        store.discard_damaged(stripe)
    distributed.wait()
    mine = store.missing(stripe)[distributed.rank() :: distributed.world()]
    distributed.wait()  # no process writes before all have listed the missing parts
    with progress.task(title or "Caching teacher logits", total=len(mine)) as task, ThreadPoolExecutor(1) as writer:
        writing: Future | None = None
        for view, part in mine:
            columns = _columns(model, loader, store.part_rows(part), view, inference_plan(precision, model), best)
            if writing:
                writing.result()
            writing = writer.submit(store.write, view, part, columns)
            task.advance()
        if writing:
            writing.result()
    distributed.wait()
    if distributed.is_main() and stripe == WHOLE and not store.complete:
        store.close()
    distributed.wait()


def images_a_second(
    model: Model, loader: Loader, rows: np.ndarray, *, precision: str | ExecutionPlan = "fp32"
) -> float:
    """Return the images per second of a model's inference, from one batch after a warm-up batch."""
    began = time.perf_counter()
    chunk = rows[: _batch_of(loader)]
    for _ in range(2):
        began = time.perf_counter()
        batches = [loader.batch(chunk, np.zeros(len(chunk), np.int64))]
        for _, outputs in predict(model, batches, precision=precision):
            outputs.logits.cpu()
    return len(chunk) / (time.perf_counter() - began)


def _columns(
    model: Model, loader: Loader, rows: np.ndarray, view: int, plan: ExecutionPlan, best: int | None
) -> dict[str, np.ndarray]:
    """Return the columns of some rows in a view."""
    parts = _parts(rows, _batch_of(loader))
    batches = (loader.batch(part, np.full(len(part), view)) for part in parts)
    found = [from_logits(outputs.logits, best) for _, outputs in predict(model, batches, precision=plan)]
    return {name: np.concatenate([columns[name] for columns in found]) for name in found[0]}
