"""What all commands share: the application, and the way from a command to its output and exit status."""

from __future__ import annotations

import re
import shlex
import signal
import sys
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import typer

from potstill import runtime
from potstill._version import __version__
from potstill.cli.command import WIDTH, Commands
from potstill.cli.loudness import show_origin
from potstill.errors import ConfigError, Unanswered, UserError
from potstill.offline import forbid
from potstill.plain_text import as_json as json_text
from potstill.plain_text import visible

app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"potstill {__version__}")
        raise typer.Exit


@app.callback()
def about(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", is_eager=True, callback=_version)
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Download nothing: no weights and no data sets from hubs.")
    ] = False,
) -> None:
    """From a folder of images to the smallest model that still does the job, and the proof that it does."""
    if offline:
        forbid()


def echo(text: object, *, err: bool = False) -> None:
    """Print a text on standard output or standard error, without what a terminal would obey."""
    typer.echo(visible(str(text)), err=err)


def typed() -> str:
    """Return the command as it was typed."""
    return shlex.join(["potstill", *sys.argv[1:]])


def call(verb: str, keywords: dict[str, Any], *, trains: bool = False) -> None:
    """Call a public function with what was typed, and print its result.

    keywords: by the names of the function; `quiet` and `as_json` are of the command line. trains: whether it is a
    stage, for which the process keeps memory that is freed, and whose summary records what was typed.
    """
    quiet, as_json = keywords.pop("quiet"), keywords.pop("as_json")
    given = {name: value for name, value in keywords.items() if value is not None}

    def work() -> Any:
        import potstill
        from potstill import progress

        with progress.starting("Loading PyTorch"):
            function = getattr(potstill, verb)
        if trains:
            runtime.keep_freed()
            given["command"] = typed()
        try:
            return function(**given)
        except ConfigError as error:
            error.problems = [_with_flag(problem, verb, given) for problem in error.problems]
            raise

    carry_out(work, quiet=quiet, as_json=as_json)


def _with_flag(problem: str, verb: str, given: Iterable[str]) -> str:
    """Return a problem of a setting under the name of the flag that was typed, if it begins with the setting's key."""
    from potstill.api.keywords import PLACES

    key, colon, rest = problem.partition(": ")
    for name in {*given} - {"data", "model"}:  # these are no flags everywhere
        place = PLACES.get(verb, {}).get(name, name)
        if verb in PLACES and re.fullmatch(rf"{re.escape(place)}(\.\d+)?", key):
            return f"--{name.replace('_', '-')}{colon}{rest}"
    return problem


def carry_out(work: Callable[[], Any], *, quiet: bool, as_json: bool) -> None:
    """Do the work under a live display on standard error, then print its result on standard output.

    A mistake of the user's is printed as sentences, with exit status 2, after what was answered in spite of it. Ctrl-C
    and SIGTERM print what was saved and how to resume, with 130 and 143.
    """
    from potstill import display, distributed, interruption, progress

    main = distributed.is_main()
    try:
        shown = display.LiveDisplay() if main and not quiet else progress.Display()
        with interruption.handled(), progress.use(shown):
            result = work()
    except UserError as error:
        if main and isinstance(error, Unanswered) and error.answered:
            _print(error.answered, as_json)
        show_origin(error)
        for problem in error.problems:
            echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    except KeyboardInterrupt as stop:
        raise _stopped(getattr(stop, "number", signal.SIGINT), getattr(stop, "saved", "")) from None
    except Exception:
        if (number := interruption.raised()) is None:
            raise
        raise _stopped(number) from None  # a library put an error of its own in the place of the interruption
    if main:
        _print(result, as_json)
    if status := getattr(result, "exit_status", 0):
        raise typer.Exit(status)


def _stopped(number: int, saved: str = "") -> typer.Exit:
    """Print what was saved and how to resume; return the exit of a command that a signal stopped."""
    echo(f"\nStopped. {saved or 'What was finished is kept.'} Resume with the same command:\n  {typed()}", err=True)
    return typer.Exit(128 + number)


def _print(result: Any, as_json: bool) -> None:
    results = result if isinstance(result, list) else [result]
    if as_json:
        plain = [one.to_dict() for one in results]
        typer.echo(json_text(plain if isinstance(result, list) else plain[0]))
        return
    from potstill.cli import show

    for one in results:
        show.show(one)
