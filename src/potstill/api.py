"""The public functions: what the command line does, from Python.

They are re-exported by `import potstill`. Mistakes raise `potstill.UserError`, whose message says what to do.
"""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill import artifacts, config, distributed, names, own_code
from potstill.errors import UserError
from potstill.output_files import check_output
from potstill.own_code import allows_own_code
from potstill.stages import inference
from potstill.stages.distill.run import run_recipe
from potstill.stages.recipe import Recipe
from potstill.stages.run_folder import differences, has_results, record_name
from potstill.training.devices import init_process_group


@allows_own_code
def run(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    allow_code: Sequence[str | Path] = (),
    command: str = "",
) -> dict[str, Any]:
    """Carry a recipe through and return its summary (docs/summary.md); `summary["folder"]` is the run folder.

    recipe: the path of a YAML file, or the settings themselves. overrides: "key=value" settings. out: the run
    folder, by default runs/NAME; an unfinished run of the same recipe there goes on where it stopped. allow_code:
    Python files that a recipe's losses may be in; without it a recipe file executes no code. Under torchrun process 0
    returns the summary, the others {}.
    """
    settings = recipe if isinstance(recipe, Mapping) else config.read_yaml(Path(recipe))
    built = config.build(Recipe, config.override(settings, overrides))
    own_code.check(own_code.named_in(built.to_json()))
    init_process_group()
    folder = Path(distributed.broadcast(str(new_folder(built.name, "distill", built, out))))
    summary = run_recipe(built, folder, command=command)
    if not distributed.is_main():
        return {}
    return {**summary, "folder": str(folder), "report": str(folder / "report.html")}


def demo(*, out: str | Path | None = None, command: str = "potstill demo") -> dict[str, Any]:
    """Run the built-in demonstration on scikit-learn's digits: under 90 seconds on two cores, no network."""
    with importlib.resources.as_file(importlib.resources.files("potstill") / "recipes" / "demo.yaml") as recipe:
        return run(recipe, out=out, command=command)


@allows_own_code
def distill(
    data: str | Path | Mapping[str, Any],
    *,
    teacher: str | Mapping[str, Any] = "builtin:cnn",
    student: str | Mapping[str, Any] = "builtin:mlp",
    out: str | Path | None = None,
    command: str = "",
    **settings: Any,
) -> dict[str, Any]:
    """Teach `student` with `teacher` on the images at `data`, beside a control without one; return the summary.

    data: a path, or settings such as {"path": "photos", "limit": 500}. teacher, student: a name, or settings such as
    {"model": "resnet50", "weights": "resnet50.safetensors"}.
    settings: any other part of a recipe (docs/recipes.md), nested as there: `objective={"alpha": 0.1}`, `seeds=3`.
    """
    parts = {"data": _settings(data, "path"), "teacher": _settings(teacher, "model")}
    parts["student"] = _settings(student, "model")
    recipe = {"name": f"distill-{_last_name(parts['data']['path'])}", **settings, **parts}
    return run(recipe, out=out, command=command)


def finetune(
    data: str | Path | Mapping[str, Any], *, model: str, out: str | Path | None = None, command: str = "",
    **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Fit a pretrained network to the images at `data`: a probe, then fine-tuning; return the summary.

    model: a name, or a stage folder. settings: `weights="FILE"`, `unfreeze=2` and the others of
    docs/finetuning.md. `summary["folder"]` is a stage folder that every teacher= accepts.
    """
    _one_process("finetune")
    from potstill.stages.finetune import FinetuneConfig
    from potstill.stages.finetune import finetune as work

    given = {"data": _settings(data, "path"), "model": model, **settings}
    built = config.build(FinetuneConfig, given, origin="this command")
    folder = new_folder(f"finetune-{_last_name(given['data']['path'])}", "finetune", built, out)
    return {**work(built, folder, command=command), "folder": str(folder), "report": str(folder / "report.html")}


def selftrain(
    data: str | Path | Mapping[str, Any], *, unlabelled: str | Path | None = None, out: str | Path | None = None,
    command: str = "", **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Learn from the images at `data` and from those without labels at `unlabelled`; return the summary.

    Images without a label in `data` are learned from too. settings: `teachers=[{"model": "builtin:cnn"}]`, `student`,
    `rounds=2` and the others of docs/selftrain.md. `summary["folder"]` holds the kept model, which is the one without
    the pool where that did not help (`summary["helped"]`).
    """
    _one_process("selftrain")
    from potstill.stages.selftrain import SelftrainConfig
    from potstill.stages.selftrain import selftrain as work

    given = {"name": f"selftrain-{_last_name(_settings(data, 'path')['path'])}", **settings}
    given |= {"data": _settings(data, "path"), "unlabelled": None if unlabelled is None else str(unlabelled)}
    built = config.build(SelftrainConfig, given, origin="this command")
    folder = new_folder(built.name, "selftrain", built, out)
    return {**work(built, folder, command=command), "folder": str(folder)}


@allows_own_code
def compare(
    recipe: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    out: str | Path | None = None,
    allow_code: Sequence[str | Path] = (),
    command: str = "",
) -> dict[str, Any]:
    """Compare methods, students and seeds on equal terms, as a recipe says (docs/comparing.md); return the summary."""
    _one_process("compare")
    from potstill.stages.compare import CompareConfig
    from potstill.stages.compare import compare as work

    settings = recipe if isinstance(recipe, Mapping) else config.read_yaml(Path(recipe))
    built = config.build(CompareConfig, config.override(settings, overrides))
    own_code.check(own_code.named_in(built.to_json()))
    folder = new_folder(built.name, "compare", built, out)
    return {**work(built, folder, command=command), "folder": str(folder), "report": str(folder / "report.html")}


def label(
    data: str | Path | Mapping[str, Any], *, teacher: str | Mapping[str, Any], out: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:  # fmt: skip
    """Write what a teacher says of every training image into a folder that teaches any number of students.

    settings: `views=10`, `top_k=5`, `augment`, `seed`. Give the folder to `distill` as teacher=.
    """
    init_process_group()
    from potstill.stages.label import LabelConfig, run_label

    given = {"data": _settings(data, "path"), "teacher": _settings(teacher, "model"), **settings}
    built = config.build(LabelConfig, given, origin="this command")
    name = f"label-{_last_name(given['data']['path'])}"
    folder = Path(distributed.broadcast(str(new_folder(name, "label", built, out))))
    return {**run_label(built, folder), "folder": str(folder)}


def explain(
    model: str | Path, image_or_data: str | Path, *, temperatures: Sequence[float] = (1.0, 2.0, 4.0),
    teacher: str | None = None, control: str | None = None, html: str | Path | None = None, force: bool = False,
    **weights: Any,
) -> dict[str, Any]:  # fmt: skip
    """Return what a model says of an image at several temperatures, or how like its teacher it is over a data set.

    weights: `weights=` and `teacher_weights=` for models given by name; `classes=`, `split=` and `limit=` as in
    `predict` and `evaluate`. html: a page to write, for a data set. force: replace a file
    there that potstill did not write.
    """
    _one_process("explain")
    from potstill.report import write_likeness
    from potstill.stages.inference import explain as stage

    if html is not None:
        check_output(Path(html), flag="--html", force=force)
    if Path(image_or_data).is_file():
        return stage.explain(str(model), Path(image_or_data), temperatures, teacher=teacher, **weights)
    if teacher is None:
        raise UserError("Over a data set a model is compared with its teacher: give one with --teacher.")
    found = stage.explain_set(str(model), str(image_or_data), teacher, control=control, **weights)
    return found if html is None else {**found, "html": str(write_likeness(found, Path(html)))}


def evaluate(
    model: str | Path, data: str | Path, *, weights: str | Path | None = None, split: str = "test",
    limit: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Measure a model on a split of `data`; return accuracy (percent), its 95 % interval, and per class.

    model: a run folder, a stage folder, an exported .onnx, or a name with `weights`.
    """
    init_process_group()
    return inference.evaluate(str(model), str(data), weights=weights, split=split, limit=limit)


def predict(
    model: str | Path, images: Sequence[str | Path], *, weights: str | Path | None = None,
    classes: Sequence[str] | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return, for each image file, the class a model sees, its probability, and the five best.

    classes: names for a model given by name and weights, which carry none.
    """
    _one_process("predict")
    return inference.predict(str(model), [Path(image) for image in images], weights=weights, classes=classes)


@allows_own_code
def prune(
    model: str | Path, *, data: str | Mapping[str, Any] | None = None, out: str | Path | None = None, **settings: Any
) -> dict[str, Any]:
    """Take channels (or weights) out of a model, train it back with its teacher, and measure; return the summary.

    model: a run or stage folder, or a name with `weights`. data: the images, by default those of the run. settings:
    `keep=0.5` and the others of docs/compression.md. `summary["folder"]` holds the pruned model and its ONNX file.
    """
    _one_process("prune")
    from potstill.stages.compress.prune import PruneConfig
    from potstill.stages.compress.prune import prune as work

    built = config.build(PruneConfig, {"model": str(model), **_with_data(data), **settings}, origin="this command")
    folder = new_folder(f"prune-{_last_name(model)}", "prune", built, out)
    return {**work(built, folder), "folder": str(folder)}


@allows_own_code
def quantize(
    model: str | Path, *, data: str | Mapping[str, Any] | None = None, out: str | Path | None = None, **settings: Any
) -> dict[str, Any]:
    """Give a model's weights and activations fewer bits, write the files and measure them; return the summary.

    model: a run or stage folder, or a name with `weights`. data: the images, by default those of the run. settings:
    `weight_bits=4`, `mode="qat"` and the others of docs/compression.md.
    """
    _one_process("quantize")
    from potstill.stages.compress.quantize import QuantizeConfig
    from potstill.stages.compress.quantize import quantize as work

    built = config.build(QuantizeConfig, {"model": str(model), **_with_data(data), **settings}, origin="this command")
    folder = new_folder(f"quantize-{_last_name(model)}", "quantize", built, out)
    return {**work(built, folder), "folder": str(folder)}


def export(
    model: str | Path, *, data: str | Mapping[str, Any] | None = None, out: str | Path | None = None, **settings: Any
) -> dict[str, Any]:
    """Write the files a device needs into one folder, measure each on the test images, and return the summary.

    model: a run or stage folder, or a name with `weights`. data: the images, by default those of the run. settings:
    `to=["onnx", "openvino"]`, `int8=False` and the others of docs/export.md.
    """
    _one_process("export")
    from potstill.stages.compress.export import ExportStageConfig, export_files

    built = config.build(
        ExportStageConfig, {"model": str(model), **_with_data(data), **settings}, origin="this command"
    )
    folder = new_folder(f"export-{_last_name(model)}", "export", built, out)
    return {**export_files(built, folder), "folder": str(folder)}


def _one_process(command: str) -> None:
    """Raise `UserError` where torchrun started several."""
    if distributed.world() > 1:
        raise UserError(
            f"{command} works in one process. Start it without torchrun. What is shared out among processes: run, "
            "distill, demo, label and evaluate."
        )


def _with_data(data: str | Mapping[str, Any] | None) -> dict[str, Any]:
    return {} if data is None else {"data": _settings(data, "path")}


def _settings(given: str | Path | Mapping[str, Any], key: str) -> dict[str, Any]:
    """Return a part of a recipe that was given as settings, or as the one value that `key` stands for."""
    return dict(given) if isinstance(given, Mapping) else {key: str(given)}


def new_folder(name: str, kind: str, settings: config.Config, out: str | Path | None) -> Path:
    """Return `out`, or the first of runs/NAME, runs/NAME-2, ... that is free or holds this work unfinished.

    kind: of the work, as `stages.stage` knows it.
    """
    if out is not None:
        return Path(out)
    number = 1
    while True:
        folder = Path("runs") / (name if number == 1 else f"{name}-{number}")
        if not folder.exists():
            return folder
        file = folder / record_name(kind)
        if file.is_file() and artifacts.finished(folder) is None:
            if not has_results(folder) or not differences(file, settings):
                return folder
        number += 1


def _last_name(path: str | Path) -> str:
    """Return what a path or a model's name is called, fit for the name of a folder."""
    return names.fitting(Path(str(path).rpartition(":")[2]).resolve().name)
