"""Commands and their help: sections, defaults, examples, and what is rare only on `--help-all`."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from potstill.cli.defaults import DEFAULTS
from potstill.cli.examples import EXAMPLES
from potstill.cli.loudness import loud
from potstill.errors import UserError
from potstill.tracking import checked, tracked

WIDTH = 100
"""Columns of the help on terminals that are at least so wide."""
RARE = "RARE"
"""Key of a context in which rare flags are shown."""


TRAINING = ("demo", "shrink", "finetune", "selftrain", "distill", "run", "compare", "prune", "quantize")
"""The commands that train."""


class Rare(str):
    """The title of a section of flags that only `--help-all` shows."""


class Command(TyperCommand):
    """A command whose help has a section for each `rich_help_panel`, in plain text.

    Every command also has `--verbose` and `--help-all`, which are of the command line and no keywords.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        verbose, track, help_all = _common_flags()
        self.params += [verbose, *([track] if self.name in TRAINING else [])]
        self.params += [help_all] if any(map(_is_rare, self.params)) else []

    def invoke(self, ctx: Any) -> Any:
        """Call the function of the command; `--verbose` holds meanwhile."""
        ctx.params.pop("help_all", None)
        verbose, track = ctx.params.pop("verbose"), ctx.params.pop("track", None)
        with loud(bool(verbose)), tracked(track):
            return super().invoke(ctx)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the sections of the help."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record and (ctx.meta.get(RARE) or not _is_rare(parameter)):
                usual = "Arguments" if parameter.param_type_name == "argument" else "Others"
                panel = parameter.rich_help_panel if isinstance(parameter, TyperOption) else None
                sections.setdefault(str(panel or usual), []).append(self._with_default(parameter, record))
        if sections.keys() <= {"Arguments", "Others"} and "Others" in sections:
            sections["Options"] = sections.pop("Others")
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples, and how to see the rest of the flags."""
        with formatter.section("Examples"):
            for example in EXAMPLES.get(str(self.name), ()):
                formatter.write(f"{'':>{formatter.current_indent}}{example}\n")
        hidden = sum(_is_rare(parameter) for parameter in self.params)
        if hidden and not ctx.meta.get(RARE):
            formatter.write(f"\n{hidden} more flags: {ctx.command_path} --help-all\n")

    def _with_default(self, parameter: Any, record: tuple[str, str]) -> tuple[str, str]:
        """Return a line of the help with the default of the settings, which the function does not know."""
        default = DEFAULTS.get(str(self.name), {}).get(parameter.name)
        return record if default is None else (record[0], f"{record[1].removesuffix('.')} (default: {default}).")


class Commands(TyperGroup):
    """The application: its help lists the commands by `rich_help_panel`, in the order of the road."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write a section for each group of commands."""
        width = max(len(name) for name in self.commands)
        limit = formatter.width - 6 - width
        for title, names in self._groups():
            with formatter.section(title):
                rows = [(f"{name:{width}}", self.commands[name].get_short_help_str(limit)) for name in names]
                formatter.write_dl(rows)

    def _groups(self) -> Iterator[tuple[str, list[str]]]:
        groups: dict[str, list[str]] = {}
        for name, command in self.commands.items():
            groups.setdefault(str(getattr(command, "rich_help_panel", None) or "Commands"), []).append(name)
        yield from groups.items()


def _is_rare(parameter: Any) -> bool:
    return isinstance(getattr(parameter, "rich_help_panel", None), Rare)


def _show_all(ctx: typer.Context, wanted: bool) -> None:
    if wanted:
        ctx.meta[RARE] = True
        typer.echo(ctx.get_help())
        raise typer.Exit


def _tracker(name: str | None) -> str | None:
    try:
        return None if name is None else checked(name)
    except UserError as error:
        raise typer.BadParameter(str(error)) from None


def _everywhere(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show warnings of libraries, and where errors arose.")
    ] = False,
    track: Annotated[
        str | None,
        typer.Option(
            help="Send metrics to tensorboard or trackio too (docs/tracking.md).",
            rich_help_panel=Rare("Others"),
            callback=_tracker,
        ),
    ] = None,
    help_all: Annotated[
        bool, typer.Option("--help-all", help="Show the rare flags too.", is_eager=True, callback=_show_all)
    ] = False,
) -> None:
    """Flags of the command line: of every command, of those that train, and of those with rare flags."""


@functools.cache
def _common_flags() -> list[Any]:
    app = typer.Typer(add_completion=False)
    app.command(add_help_option=False)(_everywhere)
    return get_command(app).params
