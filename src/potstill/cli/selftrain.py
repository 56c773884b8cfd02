"""The command that makes much of few labels: selftrain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.common import Data, Json, Out, app, carry_out, given, numbers, typed
from potstill.cli.plain import echo


@app.command()
def selftrain(
    data: Data,
    unlabelled: Annotated[str | None, typer.Option(help="A folder or archive of images without labels.")] = None,
    teacher: Annotated[
        list[str] | None, typer.Option(help="A name to be trained, or a folder or .onnx file; may be repeated.")
    ] = None,
    teacher_weights: Annotated[
        str | None, typer.Option(help="Pretrained weights of the teachers given by name: a file, or 'hub'.")
    ] = None,
    mean: Annotated[str | None, typer.Option(help="Normalisation where these weights have no card.")] = None,
    std: Annotated[str | None, typer.Option(help="Normalisation, comma-separated.")] = None,
    size: Annotated[int | None, typer.Option(help="Pixels a side that the teachers with weights are shown.")] = None,
    student: Annotated[str | None, typer.Option(help="A model's name.")] = None,
    large: Annotated[str | None, typer.Option(help="A larger model for the rounds (default: the student).")] = None,
    rounds: Annotated[int | None, typer.Option(help="How often the students become the teacher.")] = None,
    labels: Annotated[int | None, typer.Option(help="Use only so many labels; the rest joins the pool.")] = None,
    method: Annotated[str | None, typer.Option(help="teachers, fixmatch or freematch (very few labels).")] = None,
    labelling: Annotated[str | None, typer.Option(help="soft or hard.")] = None,
    noise: Annotated[str | None, typer.Option(help="auto (by the model's size), none, or a policy's name.")] = None,
    corrections: Annotated[
        Path | None, typer.Option(help="labels.csv of an earlier run, with labels filled in.")
    ] = None,
    floor: Annotated[float | None, typer.Option(help="Confidence below which an image is left out, 0 to 1.")] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps of every student.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    limit: Annotated[int | None, typer.Option(help="Use about this many images, the same share of each class.")] = None,
    group: Annotated[str | None, typer.Option(help="Pattern over file names; its matches belong together.")] = None,
    seeds: Annotated[int | None, typer.Option(help="How many seeds.")] = None,
    seed: Annotated[int | None, typer.Option(help="The first seed.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Learn from images without labels too, and prove that it helped; else keep the model without them."""
    if not teacher_weights and (mean or std or size):
        raise typer.BadParameter("--mean, --std and --size are of pretrained weights: give these by --teacher-weights.")
    if teacher_weights and not teacher:
        raise typer.BadParameter("--teacher-weights needs the name of the network they belong to: --teacher NAME.")
    settings = {
        "data": {"path": data, "limit": limit, "group": group},
        "unlabelled": unlabelled,
        "teachers": [_teacher(name, teacher_weights, mean, std, size) for name in teacher] if teacher else None,
        "student": {"model": student},
        "large": {"model": large},
        "rounds": rounds,
        "labels": labels,
        "method": method,
        "labelling": labelling,
        "noise": noise,
        "corrections": str(corrections) if corrections else None,
        "floor": floor,
        "steps": steps,
        "train": {"batch_size": batch_size, "lr": lr},
        "seeds": seeds,
        "seed": seed,
    }

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.selftrain(out=out, command=typed(), **given(settings))

    carry_out(work, _show, as_json)


def _teacher(name: str, weights: str | None, mean: str | None, std: str | None, size: int | None) -> dict[str, Any]:
    card = {"mean": numbers(mean, "--mean"), "std": numbers(std, "--std"), "size": (size, size) if size else None}
    own = weights if weights and not Path(name).exists() else None
    told = {key: value for key, value in card.items() if value}
    return {"model": name, "weights": own, **({"card": told} if own and told else {})}


def _show(summary: dict[str, Any]) -> None:
    """Print the table of rows, what the labels were worth and the decision."""
    for name, row in summary["models"].items():
        steps = f"{row['steps']:,} steps" if row.get("steps") else ""
        echo(f"{name:<24} {row['accuracy']:6.2f} % of {row['images']:,}  {steps}")
    echo(f"\n{summary['choice']['sentence']}")
    echo(f"Labels to look at: {summary['folder']}/labels.html; to mend: {summary['folder']}/labels.csv")
