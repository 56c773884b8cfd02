"""Commands that use what exists: evaluate, predict, check, models, layers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from potstill.cli.common import Data, Force, Json, Model, Weights, app, carry_out


@app.command()
def evaluate(
    model: Model,
    data: Data,
    weights: Weights = None,
    split: Annotated[str, typer.Option(help="train, validation or test.")] = "test",
    limit: Annotated[int | None, typer.Option(help="Use about this many images.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a model on images with labels."""

    def work() -> dict[str, Any]:
        from potstill import api as public

        return public.evaluate(model, data, weights=weights, split=split, limit=limit)

    def show(result: dict[str, Any]) -> None:
        from potstill.cli import show

        show.evaluation(result)

    carry_out(work, show, as_json)


@app.command()
def predict(
    model: Model,
    images: Annotated[list[Path], typer.Argument(help="Image files.")],
    weights: Weights = None,
    classes: Annotated[str | None, typer.Option(help="Comma-separated names, for weights that carry none.")] = None,
    as_json: Json = False,
) -> None:
    """Say what is on images."""

    def work() -> list[dict[str, Any]]:
        from potstill import api as public

        names = [name.strip() for name in classes.split(",")] if classes else None
        return public.predict(model, images, weights=weights, classes=names)

    def show(result: list[dict[str, Any]]) -> None:
        from potstill.cli import show

        show.predictions(result)

    carry_out(work, show, as_json)


@app.command()
def check(
    data: Data,
    group: Annotated[str | None, typer.Option(help="Pattern over file names; its matches belong together.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with thumbnails.")] = None,
    fix: Annotated[Path | None, typer.Option(help="Write a CSV manifest without the images that would harm.")] = None,
    augment: Annotated[str | None, typer.Option(help="Write a contact sheet of a policy's views.")] = None,
    sheet: Annotated[Path, typer.Option(help="Where the contact sheet goes.")] = Path("augmented.png"),
    probe_augment: Annotated[bool, typer.Option(help="Measure which operations change these labels.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Look at the images before training does: unreadable, duplicated, leaking, mislabelled. Changes nothing."""

    def work() -> dict[str, Any]:
        from potstill.stages.check import check as look

        outputs = {"html": html, "fix": fix, "sheet": sheet, "force": force}
        return look(data, group=group, augment=augment, probe=probe_augment, **outputs)

    def show(result: dict[str, Any]) -> None:
        from potstill.cli import show

        show.findings(result)

    carry_out(work, show, as_json)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a pattern such as 'resnet*'.")] = "builtin:*",
    most: Annotated[int, typer.Option(help="How many to list.")] = 40,
    as_json: Json = False,
) -> None:
    """List models by name, with parameters, input size and known accuracy."""

    def work() -> dict[str, Any]:
        from potstill.stages.inference.lists import models as list_models

        return list_models(pattern, most)

    def show(result: dict[str, Any]) -> None:
        from potstill.cli import show

        show.catalogue(result)

    carry_out(work, show, as_json)


@app.command()
def layers(
    model: Annotated[str, typer.Argument(help="A model's name, or a run or stage folder.")],
    depth: Annotated[int, typer.Option(help="How many dots deep.")] = 1,
    as_json: Json = False,
) -> None:
    """Show the depths at which a model's features can be taken."""

    def work() -> list[dict[str, Any]]:
        from potstill.stages.inference.lists import layers as list_layers

        return list_layers(model, depth)

    def show(result: list[dict[str, Any]]) -> None:
        from potstill.cli import show

        show.layers(result)

    carry_out(work, show, as_json)
