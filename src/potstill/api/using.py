"""Verbs that use what exists: predict, evaluate, explain, check, models, layers, bench."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill.api.answers import (
    BenchResult,
    Catalogue,
    CheckResult,
    CleanResult,
    DebugResult,
    Evaluation,
    Explanation,
    Layers,
    Likeness,
    NetworkCost,
    Prediction,
)
from potstill.api.formats import Formats
from potstill.api.model import answers_of, data_settings, load
from potstill.api.verb import one_process, verb
from potstill.data.csv_files import write_csv
from potstill.errors import ConfigError
from potstill.output_files import check_outputs
from potstill.report import write_likeness
from potstill.stages import check as check_stage
from potstill.stages import clean as clean_stage
from potstill.stages import debug as debug_stage
from potstill.stages.inference import bench as bench_stage
from potstill.stages.inference import cost as cost_stage
from potstill.stages.inference import explain as explain_stage
from potstill.stages.inference import formats as formats_stage
from potstill.stages.inference import lists
from potstill.stages.inference.evaluate import evaluate as evaluate_stage
from potstill.training.devices import init_process_group

TEMPERATURES = (1.0, 2.0, 4.0)


@verb
@one_process
def predict(
    model: str | Path,
    images: Any,
    *,
    weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
    csv: str | Path | None = None,
    force: bool = False,
) -> Prediction | list[Prediction]:
    """Classify images: return a `Prediction` for one, a list for several.

    Args:
        model: a run or stage folder, an exported or packed file, or a name with `weights`.
        images: as `Model.predict` takes them: paths, folders, Pillow images, arrays, tensors, and lists of these.
        classes: names, for weights that carry none.
        csv: a table of the answers to write, empty ones for images that cannot be read. force: replace a file that
            potstill did not write.

    Raises like `Model.predict`.
    """
    check_outputs({"--csv": csv}, force=force)
    answers = answers_of(load(model, weights=weights, classes=classes), images)
    if csv is not None and answers.found:
        write_csv(Path(csv), ("path", "class", "probability"), answers.table())
    return answers.predictions()


@verb
def evaluate(
    model: str | Path,
    data: str | Path | Mapping[str, Any],
    *,
    weights: str | Path | None = None,
    split: str = "test",
    limit: int | None = None,
) -> Evaluation:
    """Measure a model on labelled images: accuracy (percent), its 95 % interval, recall, loss, calibration.

    Args:
        model: a run or stage folder, an exported or packed file, or a name with `weights`.
        data: a folder, archive or array file, 'digits', or settings. The images are split as the run of `model` did.
        split: "train", "validation" or "test". limit: images used, stratified.

    Under torchrun all processes must call it.
    """
    init_process_group()
    path, settings = data_settings(data)
    return Evaluation(evaluate_stage(str(model), path, weights=weights, split=split, limit=limit, settings=settings))


@verb
@one_process
def explain(
    model: str | Path,
    image_or_data: str | Path,
    *,
    temperature: float | Sequence[float] | None = None,
    teacher: str | Path | None = None,
    control: str | Path | None = None,
    weights: str | Path | None = None,
    teacher_weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
    split: str = "test",
    limit: int | None = None,
    html: str | Path | None = None,
    force: bool = False,
) -> Explanation | Likeness:
    """Show what distillation transfers: an image's probabilities at several temperatures, or likeness to the teacher.

    Args:
        model, weights, classes: as in `predict`.
        image_or_data: an image file; or labelled images, over which the model is compared with `teacher`.
        temperature: one or several, above 0 (default: 1, 2 and 4). teacher, teacher_weights: shown beside the model.
        control: a model that was trained without the teacher, shown beside both. split, limit, html: over a data set:
            which split, how many images, a page to write. force: replace a file there that potstill did not write.
    """
    check_outputs({"--html": html}, force=force)
    names = {"weights": weights, "teacher_weights": teacher_weights}
    teacher = None if teacher is None else str(teacher)
    control = None if control is None else str(control)
    if Path(image_or_data).is_file():
        if html is not None:
            raise ConfigError("--html is for a data set. Of one image, --json prints all probabilities.")
        return Explanation(
            explain_stage.explain(
                str(model),
                Path(image_or_data),
                _temperatures(temperature),
                teacher=teacher,
                control=control,
                classes=classes,
                **names,
            )
        )
    if teacher is None:
        raise ConfigError("Over a data set a model is compared with its teacher: give one with --teacher.")
    result = explain_stage.explain_set(
        str(model), str(image_or_data), teacher, control=control, split=split, limit=limit, **names
    )
    return Likeness(result if html is None else {**result, "html": str(write_likeness(result, Path(html)))})


def _temperatures(given: float | Sequence[float] | None) -> tuple[float, ...]:
    if given is None:
        return TEMPERATURES
    return (float(given),) if isinstance(given, int | float) else tuple(given)


@verb
def check(
    data: str | Path,
    *,
    group: str | None = None,
    html: str | Path | None = None,
    fix: str | Path | None = None,
    augment: str | Sequence[Any] | None = None,
    sheet: str | Path = "augmented.png",
    probe_augment: bool = False,
    label_errors: str | Path | None = None,
    strict: bool = False,
    force: bool = False,
) -> CheckResult:
    """Look at the images before training does: unreadable, duplicated, leaking; wrong labels. Changes nothing.

    Args:
        data: a folder, archive or array file, or 'digits'.
        group: which images belong together: a pattern of paths, "near-copies" or "exif" (docs/data.md).
        html: a page with thumbnails to write. fix: a CSV manifest to write, without the images that would harm.
        augment, sheet: an augmentation policy whose views are written as a contact sheet, and its file.
        probe_augment: measure which augmentations change these labels.
        label_errors: a CSV to write, of the labels that look wrong to a classifier that never saw the image.
        strict: whether the command exits with status 1 if there are errors; `exit_status` of the result.
        force: replace files that potstill did not write.
    """
    outputs = {"strict": strict, "label_errors": label_errors, "html": html, "fix": fix, "sheet": sheet, "force": force}
    return CheckResult(check_stage.check(str(data), group=group, augment=augment, probe=probe_augment, **outputs))


@verb
def models(
    pattern: str | Path = "builtin:*",
    *,
    most: int = 40,
    bits: int | None = None,
    size: int | None = None,
    classes: int | None = None,
    options: Mapping[str, Any] | None = None,
    time: bool = False,
    device: str | Path | None = None,
) -> Catalogue | NetworkCost:
    """List models by name, with parameters, size at 8 bits, cost of an image and accuracy; or what one of them costs.

    Args:
        pattern: part of a name, or a pattern such as "resnet*"; "NAME@*" lists where a model can be truncated. most:
            how many to list.
        bits, size, classes, options, time, device: any of these asks for the cost of one model, trained or not: then
            `pattern` is its name, a run or stage folder, or an ONNX file (docs/export.md).
        bits: of the weights, 2 to 8, or 32 for float (default: 8). size: side of its images in pixels. classes: their
            number. options: of the architecture, such as {"width": 0.5}.
        time: measure its latency here. device: the profile of a device, to which latency is scaled.
    """
    network = {"size": size, "classes": classes, "options": options}
    if not (time or device or bits or any(value is not None for value in network.values())):
        return Catalogue(lists.models(str(pattern), most))
    profile = None if device is None else Path(device)
    return NetworkCost(cost_stage.cost(str(pattern), bits=bits, time=time, device=profile, **network))


@verb
def layers(model: str | Path, *, depth: int = 1) -> Layers:
    """List the layers of a model, by name or from a folder: the places where features can be taken.

    Args:
        model: a name, or a run or stage folder. depth: levels of nested modules to show.
    """
    return Layers({"model": str(model), "layers": lists.layers(str(model), depth)})


@verb
def formats(
    numbers: float | str | Sequence[float | str],
    *,
    fixed: str | Sequence[str] = (),
    floating: str | Sequence[str] = (),
    integer: str | int | Sequence[str | int] = (),
) -> Formats:
    """Show numbers in fixed point, floating point and integer formats: stored bits, value, error, range.

    Args:
        numbers: one or several, such as 7.625. fixed: such as "4.4". floating: such as "e4m3". integer: such as 8.
    """
    named = {"fixed": _several(fixed), "floating": _several(floating), "integer": _several(integer)}
    return Formats(formats_stage.formats(_several(numbers), **named))


def _several(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int | float) else list(value)


@verb
@one_process
def bench(
    files: str | Path | Sequence[str | Path] = (),
    *,
    device_profile: str | Path | None = None,
    data: str | Path | Mapping[str, Any] | None = None,
    batch: int | Sequence[int] = (1, 32),
    threads: int | Sequence[int] = (1, 0),
    seconds: float = 0.5,
    split: str = "test",
    limit: int | None = None,
) -> BenchResult:
    """Measure the latency of model files on this machine, side by side, and their accuracy where images are given.

    Args:
        files: exported or packed files, run or stage folders. Ratios are to the first.
        device_profile: a JSON file to write, by which `models(..., device=FILE)` tells latencies on this machine
            elsewhere (docs/export.md).
        data: labelled images, on which each is also evaluated. split, limit: which, and how many.
        batch, threads: images a run and threads, every pair of which is measured; 0 threads are all cores.
        seconds: of measurement for each file and pair.
    """
    names = [files] if isinstance(files, str | Path) else list(files)
    sizes, cores = (tuple([one] if isinstance(one, int) else one) for one in (batch, threads))
    path, settings = (None, {}) if data is None else data_settings(data)
    return BenchResult(
        bench_stage.bench(
            [str(name) for name in names],
            device_profile=None if device_profile is None else Path(device_profile),
            data=path,
            settings=settings,
            batch=sizes,
            threads=cores,
            seconds=seconds,
            split=split,
            limit=limit,
        )
    )


@verb
@one_process
def clean(
    runs: str | Path | Sequence[str | Path] | None = None,
    *,
    days: float = 30,
    max_gb: float | None = None,
    yes: bool = False,
) -> CleanResult:
    """Show what can be made again and how large it is; with `yes` remove it.

    That is: parts of the cache that were not used for long, cached teacher outputs of finished runs, and damaged files
    that were set aside there. No model, figure or report is touched.

    Args:
        runs: run folders, or folders of them; None is `runs` where there is one.
        days: parts of the cache that were not used for so many days.
        max_gb: largest size of the cache; the least recently used parts go first.
        yes: remove what is found.
    """
    given = [runs] if isinstance(runs, str | Path) else list(runs or [])
    usual = [Path("runs")] if runs is None and Path("runs").is_dir() else []
    found = clean_stage.removable(
        [Path(folder) for folder in given] or usual, days=days, max_bytes=None if max_gb is None else max_gb * 1e9
    )
    if yes:
        clean_stage.remove(found)
    rows = [{"path": str(one.path), "bytes": one.bytes, "reason": one.reason} for one in found]
    return CleanResult({"removed": yes, "bytes": sum(one.bytes for one in found), "found": rows})


@verb
@one_process
def debug(folder: str | Path, *, allow_code: Sequence[str | Path] = ()) -> DebugResult:
    """Repeat the step at which a training diverged; return its loss terms and what in it is not finite.

    Args:
        folder: the run that diverged, or the folder `diverged` in it.
        allow_code: Python files whose losses may be executed, if the run has such losses.
    """
    return DebugResult(debug_stage.debug(Path(folder)))
