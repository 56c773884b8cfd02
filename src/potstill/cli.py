"""The command line: parse, call `app`, show. Heavy imports stand inside the commands, so `--help` is instant."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.errors import UserError

app = typer.Typer(
    help="From a folder of images to the smallest model that still does the job, and the proof that it does.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Out = Annotated[Path | None, typer.Option("--out", help="Run folder (default: a new one under runs/).")]
Json = Annotated[bool, typer.Option("--json", help="Print the figures as JSON on standard output.")]
Weights = Annotated[Path | None, typer.Option("--weights", help="Weights for a model given by name.")]


@app.command()
def demo(out: Out = None, as_json: Json = False) -> None:
    """See the whole road on handwritten digits: about a minute, no network, no GPU."""

    def work() -> dict[str, Any]:
        from potstill import app as public

        return public.demo(out=out, command=_command())

    _show_run(work, as_json)


@app.command()
def run(
    recipe: Annotated[Path, typer.Argument(help="A YAML recipe.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change.")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Carry out a recipe; the same command goes on with an interrupted run."""

    def work() -> dict[str, Any]:
        from potstill import app as public

        return public.run(recipe, overrides or (), out=out, command=_command())

    _show_run(work, as_json)


@app.command()
def distill(
    data: Annotated[str, typer.Argument(help="A folder of images, an archive, MNIST files, or 'digits'.")],
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
    views: Annotated[int | None, typer.Option(help="Views of each image (default: one an epoch).")] = None,
    augment: Annotated[str | None, typer.Option(help="Augmentation policy (default: auto).")] = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Teach a small student with a big teacher, beside a control that learns without one."""
    settings = {
        "data": {"limit": limit},
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
        from potstill import app as public

        return public.distill(data, out=out, command=_command(), **_given(settings))

    _show_run(work, as_json)


@app.command()
def evaluate(
    model: Annotated[
        str, typer.Argument(help="A run folder, a stage folder, an .onnx file, or a name with --weights.")
    ],
    data: Annotated[str, typer.Argument(help="The images.")],
    weights: Weights = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Use about this many images.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on images with labels."""

    def work() -> dict[str, Any]:
        from potstill import app as public

        return public.evaluate(model, data, weights=weights, split=split, limit=limit)

    def show(result: dict[str, Any]) -> None:
        from potstill import show

        show.evaluation(result)

    _carry_out(work, show, as_json)


@app.command()
def predict(
    model: Annotated[
        str, typer.Argument(help="A run folder, a stage folder, an .onnx file, or a name with --weights.")
    ],
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    weights: Weights = None,
    classes: Annotated[str | None, typer.Option(help="Comma-separated names, for weights that carry none.")] = None,
    as_json: Json = False,
) -> None:
    """Say what is on images."""

    def work() -> list[dict[str, Any]]:
        from potstill import app as public

        names = [name.strip() for name in classes.split(",")] if classes else None
        return public.predict(model, images, weights=weights, classes=names)

    def show(result: list[dict[str, Any]]) -> None:
        from potstill import show

        show.predictions(result)

    _carry_out(work, show, as_json)


def _given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those that were not typed."""
    cleaned = {key: _given(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in cleaned.items() if value is not None and value != {}}


def _command() -> str:
    return shlex.join(["potstill", *sys.argv[1:]])


def _show_run(work: Callable[[], dict[str, Any]], as_json: bool) -> None:
    def show(summary: dict[str, Any]) -> None:
        from potstill import show

        show.run_summary(summary)

    _carry_out(work, show, as_json)


def _carry_out(work: Callable[[], Any], show: Callable[[Any], None], as_json: bool) -> None:
    """Do the work under a live display on standard error, then print its result on standard output."""
    from potstill import progress
    from potstill import show as shown

    try:
        with progress.use(shown.LiveDisplay()):
            result = work()
    except UserError as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        typer.echo(f"\nStopped. Nothing is lost: go on with the same command:\n  {_resume()}", err=True)
        raise typer.Exit(130) from None
    if as_json:
        typer.echo(json.dumps(result, indent=1, ensure_ascii=False))
    else:
        show(result)


def _resume() -> str:
    return _command()


def main() -> None:
    """Entry point of the `potstill` command."""
    if not sys.warnoptions:  # warnings of libraries are for developers, who run python -W
        warnings.simplefilter("ignore")
    app()


if __name__ == "__main__":
    main()
