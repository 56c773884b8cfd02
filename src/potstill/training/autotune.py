"""The fastest execution plan of a network on this machine: precision, memory format, torch.compile.

"auto" uses fp32 and the contiguous format unless another plan is measurably faster, in a trial of two seconds on a copy
of the network. The result is cached under a key of machine, versions, network and batch, and stored in the checkpoint
of a run, so that the same command gives the same numbers again. Short trainings are not measured. On two shared cores
the plan was 1.2 to 1.6 times as fast as plain training (ResNet-20, MobileNetV2; docs/log.md, 2026-11-28).
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import time
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Literal, cast

import psutil
import torch
from torch import Tensor, nn

from potstill import artifacts, distributed, progress
from potstill.data.cache import cache_folder
from potstill.errors import RunError
from potstill.models.inspect.macs import cost
from potstill.models.outputs import Classifier
from potstill.torch_context import autocast, threads
from potstill.training import devices

Precision = Literal["fp32", "bf16"]

VERSION = 3  # increased when the measurement changes
TRIAL_SECONDS = 2.0
WORTH_A_TRIAL = 2e12  # multiply-accumulates of a whole training, some 20 s on two cores
WORTH_A_SHORT_TRIAL = 5e11  # of inference, some 10 s: half precision can be three times as fast there
WORTH_COMPILING = 300.0  # seconds of training; compiling takes 7 to 24 of them
WORTH_COMPILING_TWICE = 1200.0  # in both layouts: compiled, the other one can be faster (docs/log.md, 2026-11-30)
AT_LEAST = 1.10  # minimum speed-up of another precision or memory format
COMPILED_AT_LEAST = 1.05
BUSY = 30  # involuntary context switches a second: 3 to 12 on idle cores, 70 to 140 beside another program
BUSY_AT_LEAST = 1.5  # minimum speed-up of one thread over several then
BACKWARD = 3  # a training step costs about three forward passes
TRIAL_MACS = 5e10  # maximum of one step of the trial, which limits its batch size


@dataclass(frozen=True)
class ExecutionPlan:
    """Precision of matrix products, memory format of images and weights, torch.compile, threads.

    threads: of a training step on a CPU; 0 where they were not measured (`engine.threads_for`).
    """

    precision: Precision = "fp32"
    channels_last: bool = False
    compiled: bool = False
    threads: int = 0

    @property
    def memory_format(self) -> torch.memory_format:
        """The memory format of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def words(self) -> str:
        """The plan as text: "bf16, channels_last"."""
        parts = [self.precision, *["channels_last"] * self.channels_last, *["compiled"] * self.compiled]
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the plan for checkpoints and manifests."""
        return dataclasses.asdict(self)


_decided: contextvars.ContextVar[ExecutionPlan | None] = contextvars.ContextVar("potstill_plan", default=None)


@contextlib.contextmanager
def decided(plan: ExecutionPlan) -> Iterator[None]:
    """Use this plan for the trainings in the block, which another process has measured for all of them."""
    token = _decided.set(plan)
    try:
        yield
    finally:
        _decided.reset(token)


def decision() -> ExecutionPlan | None:
    """Return the plan of the block `decided`, None outside one."""
    return _decided.get()


def plan_of(precision: str | ExecutionPlan, model: object = None) -> ExecutionPlan:
    """Return a plan as it is; for a precision the default plan: channels_last for convolutions in bf16."""
    if isinstance(precision, ExecutionPlan):
        return precision
    assert precision in ("fp32", "bf16"), f"{precision!r} is no precision"
    return ExecutionPlan(cast(Precision, precision), channels_last=precision == "bf16" and convolves(model))


def convolves(model: object) -> bool:
    """Return whether a model has convolutions, which benefit from several threads and half precision."""
    return isinstance(model, nn.Module) and any(isinstance(module, nn.Conv2d) for module in model.modules())


def macs(classifier: Classifier) -> int:
    """Return the multiply-accumulates per image."""
    example = torch.zeros(1, classifier.card.channels, *classifier.card.size, device=classifier.mean.device)
    return cost(classifier, example).total_macs


def choose(
    classifier: Classifier, *, precision: str, compile: str | bool, batch_size: int, images: int, training: bool
) -> ExecutionPlan:
    """Return the execution plan of training, or of inference, on the classifier's device; all processes must call it.

    precision: "auto", "fp32" or "bf16"; compile: "auto", True or False. batch_size: of this process. images: total
    number. Raises `RunError` if compile is True and does not work.
    """
    work = macs(classifier) * images * (BACKWARD if training else 1)
    plan = plan_of("fp32" if precision == "auto" else precision, classifier)
    measured = work >= (WORTH_A_TRIAL if training else WORTH_A_SHORT_TRIAL) and convolves(classifier)
    if measured and (precision == "auto" or compile == "auto"):
        return distributed.broadcast(_cached(classifier, precision, compile, batch_size, images, training))
    if compile is True:
        _refuse_if_broken(Trial(classifier, batch_size, training), dataclasses.replace(plan, compiled=True))
    return dataclasses.replace(plan, compiled=compile is True)


def _cached(
    classifier: Classifier, precision: str, compile: str | bool, batch_size: int, images: int, training: bool
) -> ExecutionPlan | None:
    """Return the cached plan, or measure it now; in process 0 only."""
    if not distributed.is_main():
        return None
    shapes = [[name, list(tensor.shape)] for name, tensor in classifier.state_dict().items()]
    facts = [
        *(VERSION, machine(classifier.mean.device), torch.__version__, torch.get_num_threads()),
        *(shapes, list(classifier.card.size), precision, compile, batch_size, images, training),
    ]
    file = cache_folder() / "speed" / f"{artifacts.fingerprint(facts)[:24]}.json"
    if file.is_file():
        cached = artifacts.read_json(file)
        progress.note(f"{cached['words']} (cached measurement).")
        return ExecutionPlan(**cached["plan"])
    plan, words = measure(Trial(classifier, batch_size, training), precision, compile, images)
    progress.note(f"{words}.")
    artifacts.write_json(file, {"plan": plan.to_json(), "words": words})
    return plan


def machine(device: torch.device) -> str:
    """Return the name of the device: machines with a common home folder, and so a common cache, may have several."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {devices.processor()}"


class Trial:
    """Forward passes of a copy of a network on noise and, for training, backward passes."""

    def __init__(self, classifier: Classifier, batch_size: int, training: bool) -> None:
        self._classifier, self.training = classifier, training
        step = macs(classifier) * (BACKWARD if training else 1)
        self.batch_size = int(min(batch_size, max(TRIAL_MACS // max(step, 1), 8)))
        shape = (self.batch_size, classifier.card.channels, *classifier.card.size)
        self.device = classifier.mean.device
        self._image = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(self.device)

    def step(self, plan: ExecutionPlan) -> Callable[[], Tensor]:
        """Return a function that computes one step by a plan and returns the logits."""
        copy = deepcopy(self._classifier).to(memory_format=plan.memory_format).train(self.training)
        model = torch.compile(copy, dynamic=False) if plan.compiled else copy
        image, device = self._image, self.device
        count = plan.threads or torch.get_num_threads()

        def forward() -> Tensor:
            with autocast(device, plan.precision):
                outputs = model(image.contiguous(memory_format=plan.memory_format))
            return torch.cat([outputs.logits, *outputs.aux]).float()

        def run() -> Tensor:
            if not self.training:
                with torch.inference_mode():
                    return forward()
            with threads(count):
                copy.zero_grad(set_to_none=True)
                logits = forward()
                logits.logsumexp(1).mean().backward()
                return logits.detach()

        return run


def measure(trial: Trial, precision: str, compile: str | bool, images: int) -> tuple[ExecutionPlan, str]:
    """Return the fastest allowed plan, and a sentence (without full stop) about it."""
    with torch.random.fork_rng():
        plans = _allowed(precision, trial)
        times = _alternating({plan: trial.step(plan) for plan in plans}, TRIAL_SECONDS, trial)
        best = min(plans, key=lambda plan: times[plan] * (1 if plan == plans[0] else AT_LEAST))
        words = _sentence(best, plans[0], times, trial.training)
        if compile is not False:
            best, words = _compiled(trial, best, times[best], images, words, required=compile is True)
        return _threaded(trial, best, words)


def _threaded(trial: Trial, plan: ExecutionPlan, words: str) -> tuple[ExecutionPlan, str]:
    """Return the plan with one thread if a training step is faster so: cores may be shared, or the step short.

    While other programs use the cores, one thread has to be clearly faster: the plan is kept, and they may end.
    """
    count = torch.get_num_threads()
    if not trial.training or trial.device.type != "cpu" or count == 1:
        return plan, words
    one, every = (dataclasses.replace(plan, threads=threads) for threads in (1, count))
    with _Interruptions() as interrupted:
        times = _alternating({each: trial.step(each) for each in (every, one)}, TRIAL_SECONDS, trial)
    if times[one] * (BUSY_AT_LEAST if interrupted.often else COMPILED_AT_LEAST) < times[every]:
        return one, f"{words}; 1 thread ({times[every] / times[one]:.1f}x faster than {count})"
    return every, f"{words}; {count} threads ({times[one] / times[every]:.1f}x faster than 1)"


class _Interruptions:
    """Counts how often the system takes a core from this process, within a `with` block. Windows does not tell."""

    def __enter__(self) -> _Interruptions:
        self.often = False
        self._began, self._count = time.perf_counter(), self._now()
        return self

    def __exit__(self, *_: object) -> None:
        self.often = self._now() - self._count > BUSY * (time.perf_counter() - self._began)

    def _now(self) -> int:
        return psutil.Process().num_ctx_switches().involuntary


def _allowed(precision: str, trial: Trial) -> list[ExecutionPlan]:
    """Return the plans to compare; the first is the default."""
    device = trial.device
    half = device.type == "cpu" or (device.type == "cuda" and torch.cuda.is_bf16_supported())
    plans = [
        ExecutionPlan("fp32"),
        ExecutionPlan("fp32", channels_last=True),
        *[ExecutionPlan("bf16", channels_last=True)] * half,
    ]
    if precision == "bf16":
        plans = plans[::-1]
    return [plan for plan in plans if precision in ("auto", plan.precision)]


def _alternating(
    steps: dict[ExecutionPlan, Callable[[], Tensor]], seconds: float, trial: Trial
) -> dict[ExecutionPlan, float]:
    """Return the seconds of one step by plan: the minimum of several, which other programs disturb least."""
    for run in steps.values():
        run()
    times: dict[ExecutionPlan, list[float]] = {plan: [] for plan in steps}
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not times[next(iter(steps))]:
        for plan, run in steps.items():
            times[plan].append(_timed(run, trial.device))
    return {plan: min(taken) for plan, taken in times.items()}


def _timed(run: Callable[[], Tensor], device: torch.device) -> float:
    """Return wall-clock seconds, which include idle cores, unlike CPU time."""
    began = time.perf_counter()
    run()
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter() - began


def _sentence(best: ExecutionPlan, first: ExecutionPlan, times: dict[ExecutionPlan, float], training: bool) -> str:
    title = "Training" if training else "Inference"
    if best == first:
        return f"{title}: {best.words} (fastest on this machine)"
    return f"{title}: {best.words} ({times[first] / times[best]:.1f}x faster than {first.words})"


def _compiled(
    trial: Trial, plan: ExecutionPlan, seconds: float, images: int, words: str, *, required: bool
) -> tuple[ExecutionPlan, str]:
    """Return the plan with torch.compile if that is required, or if it works and is faster in total, in any layout."""
    same = dataclasses.replace(plan, compiled=True)
    if required:
        _refuse_if_broken(trial, same)
        return same, f"{words}; compiled"
    duration = seconds * images / trial.batch_size
    if duration < WORTH_COMPILING:
        return plan, words
    other = [dataclasses.replace(same, channels_last=not plan.channels_last)] * (duration >= WORTH_COMPILING_TWICE)
    try:
        times = _alternating({each: trial.step(each) for each in (plan, same, *other)}, TRIAL_SECONDS, trial)
    except Exception as error:  # a compiler can raise any exception
        return plan, f"{words}; not compiled, because torch.compile failed ({_first_line(error)})"
    best = min([same, *other], key=times.__getitem__)
    gain = times[plan] / times[best]
    if gain < COMPILED_AT_LEAST:
        return plan, f"{words}; not compiled (speed-up {gain:.2f}x)"
    layout = "" if best == same else f" {'channels_last' if best.channels_last else 'contiguous'}"
    return best, f"{words}; compiled{layout} (speed-up {gain:.2f}x)"


def _refuse_if_broken(trial: Trial, plan: ExecutionPlan) -> None:
    try:
        trial.step(plan)()
    except Exception as error:
        raise RunError(
            f"torch.compile failed for this network ({_first_line(error)}). It needs a C++ compiler on a CPU and "
            "Triton on a GPU. Set train.compile=false or auto."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
