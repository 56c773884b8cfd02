"""Commands around learning: finetune, label, compare, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.common import (
    AllowCode,
    Data,
    Force,
    Grouped,
    Json,
    Model,
    Out,
    Weights,
    app,
    carry_out,
    given,
    numbers,
    typed,
)
from potstill.cli.plain import echo

Limit = Annotated[int | None, typer.Option(help="Use about this many images, the same share of each class.")]
Augment = Annotated[str | None, typer.Option(help="Augmentation policy (default: auto).")]
Seed = Annotated[int | None, typer.Option(help="The seed.")]


WEIGHTS, IMAGES, PROBE, TUNING = "Network", "Images", "Probe", "Fine-tuning"


def _option(panel: str, text: str, *names: str) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=panel)


@app.command(cls=Grouped)
def finetune(
    data: Data,
    model: Annotated[str, _option(WEIGHTS, "A model's name, or a stage folder whose network is reused.")],
    weights: Annotated[str | None, _option(WEIGHTS, "A file, or 'hub' for the published weights (default).")] = None,
    mean: Annotated[str | None, _option(WEIGHTS, "Normalisation, where the weights have no card: 0.5,0.5,0.5.")] = None,
    std: Annotated[str | None, _option(WEIGHTS, "The same: standard deviation of images in 0..1.")] = None,
    from_scratch: Annotated[bool, _option(WEIGHTS, "Ignore weights: for comparison.", "--from-scratch")] = False,
    size: Annotated[int | None, _option(IMAGES, "Pixels a side (default: the network's own).")] = None,
    augment: Annotated[str | None, _option(IMAGES, "Augmentation policy, or none (default: auto).")] = None,
    limit: Annotated[int | None, _option(IMAGES, "Use about this many, the same share of each class.")] = None,
    features: Annotated[str | None, _option(PROBE, "The layer it sees; auto tries several (default: pooled).")] = None,
    views: Annotated[int | None, _option(PROBE, "Augmented views of each image (default: 8).")] = None,
    penalty: Annotated[float | None, _option(PROBE, "Of the weights (default: chosen by folds).")] = None,
    folds: Annotated[int | None, _option(PROBE, "Parts of the images that choose the penalty (default: 5).")] = None,
    unfreeze: Annotated[str | None, _option(TUNING, "none, all (default), or so many of the last stages.")] = None,
    epochs: Annotated[int | None, _option(TUNING, "Passes over the images (default: 10).")] = None,
    batch_size: Annotated[int | None, _option(TUNING, "Images a step (default: 32).")] = None,
    lr: Annotated[float | None, _option(TUNING, "Highest learning rate (default: 0.0001).")] = None,
    head_rate: Annotated[float | None, _option(TUNING, "Rate of the head, times --lr (default: 1).")] = None,
    layer_decay: Annotated[
        float | None, _option(TUNING, "Rate of a stage, as a share of that above (default: 0.75).")
    ] = None,
    batchnorm: Annotated[
        str | None, _option(TUNING, "fixed keeps its statistics, adapted moves them (default: by batch size).")
    ] = None,
    ema: Annotated[float | None, _option(TUNING, "Decay of the averaged weights, 0 for none (default: 0.999).")] = None,
    patience: Annotated[
        int | None, _option(TUNING, "Epochs without a better validation that end it (default: 5).")
    ] = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit a pretrained network to your images: features, a probe, then fine-tuning. It only gets better."""
    train = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "ema": ema, "patience": patience}
    settings = {
        "data": {"path": data, "limit": limit, "size": size},
        "weights": weights,
        "mean": numbers(mean, "--mean"),
        "std": numbers(std, "--std"),
        "from_scratch": from_scratch or None,
        "features": features,
        "views": views,
        "penalty": penalty,
        "folds": folds,
        "unfreeze": int(unfreeze) if unfreeze and unfreeze.isdigit() else unfreeze,
        "head_rate": head_rate,
        "layer_decay": layer_decay,
        "batchnorm": batchnorm,
        "train": train,
        "augment": augment,
        "seed": seed,
    }

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.finetune(model=model, out=out, command=typed(), **given(settings))

    def show(summary: dict[str, Any]) -> None:
        from potstill.cli import show

        show.transfer(summary)

    carry_out(work, show, as_json)


@app.command()
def label(
    data: Data,
    teacher: Annotated[str, typer.Option(help="A model's name, a run or stage folder, or an .onnx file.")],
    teacher_weights: Annotated[Path | None, typer.Option(help="Weights for the teacher.")] = None,
    views: Annotated[int | None, typer.Option(help="Views of each image.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Classes kept of each answer (default: by size).")] = None,
    augment: Augment = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Write a teacher's soft labels of every training image once, for any number of students."""
    settings = {
        "data": {"path": data, "limit": limit},
        "teacher": {"model": teacher, "weights": str(teacher_weights) if teacher_weights else None},
        "views": views,
        "top_k": top_k,
        "augment": augment,
        "seed": seed,
    }

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.label(out=out, **given(settings))

    def show(summary: dict[str, Any]) -> None:
        facts, folder = summary["labels"], summary["folder"]
        echo(
            f"Soft labels of {facts['images']:,} images in {facts['views']} views, {facts['bytes'] / 1000:,.0f} kB: "
            f"{folder}\nLook at them: labels.html there; most worth labelling by hand: worth-labelling.csv\n"
            f"Teach with them: potstill distill {data} --teacher {folder}"
        )

    carry_out(work, show, as_json)


@app.command()
def compare(
    recipe: Annotated[Path, typer.Argument(help="A YAML file: methods, students, seeds (docs/comparing.md).")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")] = None,
    allow_code: AllowCode = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare methods, students and seeds at an equal budget; goes on where it was interrupted."""

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.compare(recipe, overrides or (), out=out, allow_code=allow_code or (), command=typed())

    def show(summary: dict[str, Any]) -> None:
        from potstill.cli import show

        show.comparison(summary)
        echo(f"Report: {summary['report']}")

    carry_out(work, show, as_json)


@app.command()
def explain(
    model: Model,
    image_or_data: Annotated[str, typer.Argument(help="An image, or images with labels (with --teacher).")],
    temperature: Annotated[list[float] | None, typer.Option(help="A temperature; may be repeated.")] = None,
    teacher: Annotated[str | None, typer.Option(help="Shown beside it.")] = None,
    control: Annotated[str | None, typer.Option(help="A model that learned without the teacher.")] = None,
    weights: Weights = None,
    teacher_weights: Annotated[Path | None, typer.Option(help="Weights for a teacher given by name.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page, for a data set.")] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """See what is transferred: probabilities at several temperatures, or likeness to the teacher over a data set."""

    def work() -> dict[str, Any]:
        from potstill import api as public

        named = {"teacher": teacher, "control": control, "weights": weights, "teacher_weights": teacher_weights}
        settings = {**named, "temperatures": temperature, "html": html, "force": force or None}
        return public.explain(model, image_or_data, **given(settings))

    def show(result: dict[str, Any]) -> None:
        from potstill.cli import show

        (show.explanation if "temperatures" in result else show.likeness)(result)
        if "html" in result:
            echo(f"Page: {result['html']}")

    carry_out(work, show, as_json)
