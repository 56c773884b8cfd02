"""The command that looks at images before training does: check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from potstill.cli.common import call
from potstill.cli.options import Data, Force, Group, Json, Quiet


def check(
    data: Data,
    group: Group = None,
    html: Annotated[Path | None, typer.Option(help="Write a page with thumbnails.")] = None,
    fix: Annotated[Path | None, typer.Option(help="Write a CSV manifest without the images that would harm.")] = None,
    augment: Annotated[str | None, typer.Option(help="Write a contact sheet of a policy's views.")] = None,
    sheet: Annotated[Path, typer.Option(help="File of the contact sheet.")] = Path("augmented.png"),
    probe_augment: Annotated[
        bool, typer.Option("--probe-augment", help="Measure which augmentations change these labels.")
    ] = False,
    label_errors: Annotated[
        Path | None, typer.Option("--label-errors", help="Write a CSV of labels that look wrong (out of fold).")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with status 1 if there are errors.")] = False,
    force: Force = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Find unreadable, duplicated and leaking images, copies with other labels, wrong labels. Changes nothing."""
    call("check", locals())
