"""The verb that carries the whole road: shrink."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.api.keywords import settings_of
from potstill.api.results import ShrinkResult
from potstill.api.verb import built, last_name, new_folder, one_process, verb
from potstill.errors import ConfigError
from potstill.scheduling import check, opened
from potstill.stages.shrink import ShrinkConfig
from potstill.stages.shrink import shrink as shrink_stage
from potstill.stages.shrink.together import together

Settings = Mapping[str, Any]
PRETRAINED = ("model", "weights", "mean", "std")
"""Keywords of one more pretrained network to start from."""


@verb
@one_process
def shrink(
    data: str | Path | Settings,
    *,
    max_bytes: str | int | None = None,
    max_latency: str | float | None = None,
    max_ram: str | int | None = None,
    max_macs: str | int | None = None,
    min_accuracy: float | None = None,
    max_drop: float | None = None,
    minutes: str | float | None = None,
    teacher: str | Path | Settings | None = None,
    teacher_weights: str | Path | None = None,
    model: str | None = None,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    to: str | Sequence[str] | None = None,
    device: str | Path | None = None,
    unlabelled: str | Path | None = None,
    size: int | None = None,
    limit: int | None = None,
    group: str | None = None,
    seeds: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    ray: str | None = None,
    gpus: float | None = None,
    out: str | Path | None = None,
    command: str = "",
) -> ShrinkResult:
    """Search the smallest model that does the job, and prove that it does (docs/shrink.md).

    Args:
        data: a folder, archive or array file, 'digits', or settings such as {"path": "photos", "limit": 500}.
        max_bytes, max_latency, max_ram, max_macs: limits such as "300kB", "2ms", "64kB", "20M": of the file, of one
            image on one thread here, of the activations in 8 bits, and of the multiply-accumulates.
        min_accuracy, max_drop: accuracy to be reached in percent, or points that may be lost against the teacher.
        minutes: time for everything (default: 30).
        teacher, teacher_weights: a name, folder or settings (default: the best pretrained network at hand).
        model, weights, mean, std: one more pretrained network to start from: its name, weights and normalisation.
        to: files for other runtimes, beside ONNX: "tflite", "c", "openvino", "executorch".
        device: profile of a device (`bench --device-profile`), whose latency is limited instead of this machine's.
        unlabelled: more images, which the students learn from the teacher.
        size, limit, group: pixels a side (default: several are tried); images used; images that stay in one split.
        seeds, seed: trained pairs of the proof (default: 3); the first seed. workers: trainings at a time.
        ray, gpus: "auto" or HOST:PORT of a Ray cluster that trains instead; share of a GPU that a training takes.
        out: the folder (default: a new one under runs/). With other budgets it reuses every training in it.
    """
    keywords = dict(locals())
    own = {name: keywords.pop(name) for name in PRETRAINED}
    keywords["to"] = [to] if isinstance(to, str) else to
    settings = settings_of("shrink", keywords) | _pretrained(own)
    config = built(ShrinkConfig, settings)
    check(workers, ray, gpus)
    with opened(workers=None if ray else config.processes, ray=ray, gpus=gpus) as scheduler:
        if ray is not None:
            config = config.model_copy(update={"workers": scheduler.count})
        folder = new_folder(f"shrink-{last_name(config.data.path)}", "shrink", config, out)
        search = functools.partial(shrink_stage, config, folder, command=command, scheduler=scheduler)
        return ShrinkResult(together(config, folder, scheduler, search), folder)


def _pretrained(own: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in own.items() if value is not None}
    if not given:
        return {}
    if not {"model", "weights"} <= given.keys():
        raise ConfigError("--model and --weights describe one pretrained network: give both.")
    return {"pretrained": [given | {"weights": str(given["weights"])}]}
