"""Commands that make a run: demo, run, distill."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.common import AllowCode, Data, Json, Out, app, carry_out, given, typed


@app.command()
def demo(out: Out = None, as_json: Json = False) -> None:
    """See the whole road on handwritten digits: about a minute, no network, no GPU."""

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.demo(out=out, command=typed())

    _show_run(work, as_json)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")] = None,
    allow_code: AllowCode = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Carry out a recipe; the same command goes on with an interrupted run."""

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.run(recipe, overrides or (), out=out, allow_code=allow_code or (), command=typed())

    _show_run(work, as_json)


@app.command()
def distill(
    data: Data,
    teacher: Annotated[
        str, typer.Option(help="A model's name, a run or stage folder, or an .onnx file.")
    ] = "builtin:cnn",
    student: Annotated[str, typer.Option(help="A model's name.")] = "builtin:mlp",
    teacher_weights: Annotated[Path | None, typer.Option(help="Weights for the teacher.")] = None,
    teacher_epochs: Annotated[int | None, typer.Option(help="Epochs for a teacher without weights.")] = None,
    alpha: Annotated[float | None, typer.Option(help="Weight of the labels' loss, 0 to 1.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Temperature of the soft labels, above 0.")] = None,
    loss: Annotated[str | None, typer.Option(help="The teacher's loss: a name, or FILE.py:FUNCTION.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of student and control.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    labels: Annotated[int | None, typer.Option(help="How many labels the student gets (default: all).")] = None,
    limit: Annotated[int | None, typer.Option(help="Use about this many images, the same share of each class.")] = None,
    group: Annotated[str | None, typer.Option(help="Pattern over file names; its matches stay together.")] = None,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Accept classes without images.")] = False,
    views: Annotated[int | None, typer.Option(help="Views of each image (default: one an epoch).")] = None,
    augment: Annotated[str | None, typer.Option(help="Augmentation policy (default: auto).")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Teach a small student with a big teacher, beside a control that learns without one."""
    settings = {
        "data": {"path": data, "limit": limit, "group": group, "allow_empty": allow_empty or None},
        "teacher": {
            "model": teacher,
            "weights": str(teacher_weights) if teacher_weights else None,
            "train": {"epochs": teacher_epochs},
        },
        "student": {"model": student, "labels": labels},
        "objective": {"alpha": alpha, "temperature": temperature, "loss": loss},
        "train": {"epochs": epochs, "batch_size": batch_size, "lr": lr},
        "seeds": seeds,
        "seed": seed,
        "views": views,
        "augment": augment,
    }

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.distill(out=out, command=typed(), **given(settings))

    _show_run(work, as_json)


def _show_run(work: Callable[[], dict[str, Any]], as_json: bool) -> None:
    def show(summary: dict[str, Any]) -> None:
        from potstill.cli import show

        show.run_summary(summary)

    carry_out(work, show, as_json)
