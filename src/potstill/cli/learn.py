"""Commands around learning: finetune, label, compare, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.common import Data, Json, Model, Out, Weights, app, carry_out, given, numbers, typed

Limit = Annotated[int | None, typer.Option(help="Use about this many images, the same share of each class.")]
Augment = Annotated[str | None, typer.Option(help="Augmentation policy (default: auto).")]
Seed = Annotated[int | None, typer.Option(help="The seed.")]


@app.command()
def finetune(
    data: Data,
    model: Annotated[str, typer.Option(help="A model's name, or a stage folder whose network is reused.")],
    weights: Annotated[str | None, typer.Option(help="A file, or 'hub' for the published weights.")] = None,
    features: Annotated[str | None, typer.Option(help="The layer the probe sees; 'auto' tries several.")] = None,
    views: Annotated[int | None, typer.Option(help="Augmented views of each image for the probe.")] = None,
    unfreeze: Annotated[str | None, typer.Option(help="none, all, or how many of the last stages learn.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of fine-tuning.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Ignore weights: for comparison.")] = False,
    mean: Annotated[str | None, typer.Option(help="Normalisation where the weights have no card.")] = None,
    std: Annotated[str | None, typer.Option(help="Normalisation, comma-separated.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels a side.")] = None,
    augment: Augment = None,
    limit: Limit = None,
    seed: Seed = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Fit a pretrained network to your images: features, a probe, then fine-tuning. It only gets better."""
    settings = {
        "data": {"path": data, "limit": limit, "size": size},
        "weights": weights,
        "features": features,
        "views": views,
        "unfreeze": int(unfreeze) if unfreeze and unfreeze.isdigit() else unfreeze,
        "train": {"epochs": epochs, "batch_size": batch_size, "lr": lr},
        "from_scratch": from_scratch or None,
        "mean": numbers(mean, "--mean"),
        "std": numbers(std, "--std"),
        "augment": augment,
        "seed": seed,
    }

    def work() -> dict[str, Any]:
        from potstill import app as public

        return public.finetune(model=model, out=out, command=typed(), **given(settings))

    def show(summary: dict[str, Any]) -> None:
        from potstill import show

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
        from potstill import app as public

        return public.label(out=out, **given(settings))

    def show(facts: dict[str, Any]) -> None:
        typer.echo(
            f"Soft labels of {facts['images']:,} images in {facts['views']} views, {facts['bytes'] / 1000:,.0f} kB: "
            f"{facts['folder']}\nLook at them: labels.html there; most worth labelling by hand: worth-labelling.csv\n"
            f"Teach with them: potstill distill {data} --teacher {facts['folder']}"
        )

    carry_out(work, show, as_json)


@app.command()
def compare(
    recipe: Annotated[Path, typer.Argument(help="A YAML file: methods, students, seeds (docs/comparing.md).")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Compare methods, students and seeds at an equal budget; goes on where it was interrupted."""

    def work() -> dict[str, Any]:
        from potstill import app as public

        return public.compare(recipe, overrides or (), out=out, command=typed())

    def show(summary: dict[str, Any]) -> None:
        from potstill import show

        show.comparison(summary)
        typer.echo(f"Report: {summary['report']}")

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
    as_json: Json = False,
) -> None:
    """See what is transferred: probabilities at several temperatures, or likeness to the teacher over a data set."""

    def work() -> dict[str, Any]:
        from potstill import app as public

        named = {"teacher": teacher, "control": control, "weights": weights, "teacher_weights": teacher_weights}
        settings = {**named, "temperatures": temperature, "html": html}
        return public.explain(model, image_or_data, **given(settings))

    def show(result: dict[str, Any]) -> None:
        from potstill import show

        (show.explanation if "temperatures" in result else show.likeness)(result)
        if "html" in result:
            typer.echo(f"Page: {result['html']}")

    carry_out(work, show, as_json)
