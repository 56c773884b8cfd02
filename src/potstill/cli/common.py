"""What all commands share: the application, common options, and the way from work to output and exit status."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from potstill.cli.plain import as_json as json_text
from potstill.cli.plain import echo
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
Force = Annotated[bool, typer.Option("--force", help="Replace existing output files that potstill did not write, too.")]
AllowCode = Annotated[
    list[Path] | None,
    typer.Option("--allow-code", metavar="FILE.py", help="A Python file that the recipe's losses may be in."),
]
Weights = Annotated[Path | None, typer.Option("--weights", help="Weights for a model given by name.")]
Model = Annotated[str, typer.Argument(help="A run or stage folder, an .onnx file, or a name with --weights.")]
Data = Annotated[str, typer.Argument(help="A folder of images, an archive, MNIST files, or 'digits'.")]


class Grouped(TyperCommand):
    """A command with many options: its help has a section for each `rich_help_panel`, in plain text."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of the help."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            if record := parameter.get_help_record(ctx):
                usual = "Arguments" if parameter.param_type_name == "argument" else "Others"
                panel = parameter.rich_help_panel if isinstance(parameter, TyperOption) else None
                sections.setdefault(panel or usual, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)


def given(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings without those that were not typed."""
    cleaned = {key: given(value) if isinstance(value, dict) else value for key, value in settings.items()}
    return {key: value for key, value in cleaned.items() if value is not None and value != {}}


def typed() -> str:
    """Return the command as it was typed."""
    return shlex.join(["potstill", *sys.argv[1:]])


def carry_out(work: Callable[[], Any], show: Callable[[Any], None], as_json: bool) -> None:
    """Do the work under a live display on standard error, then print its result on standard output.

    A mistake of the user's is told in sentences, with exit status 2; Ctrl-C tells how to go on, with 130.
    """
    from potstill import distributed, progress
    from potstill.cli import show as shown

    speaks = distributed.is_main()
    try:
        with progress.use(shown.LiveDisplay() if speaks else progress.Display()):
            result = work()
    except UserError as error:
        for problem in error.problems:
            echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt:
        echo(f"\nStopped. Nothing is lost: go on with the same command:\n  {typed()}", err=True)
        raise typer.Exit(130) from None
    if not speaks:
        return
    if as_json:
        typer.echo(json_text(result))
    else:
        show(result)


def numbers(text: str | None, flag: str) -> list[float] | None:
    """Return the numbers of an option with commas between, None where it was not given."""
    try:
        return None if text is None else [float(part) for part in text.split(",")]
    except ValueError:
        raise typer.BadParameter(f"{flag} takes numbers with commas between, such as 0.485,0.456,0.406.") from None
