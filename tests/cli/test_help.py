"""The help: one screen a command, commands by group, defaults that are those of the settings, flags of the terminal."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from potstill import __version__, config, display, progress, tracking
from potstill.api.keywords import PLACES
from potstill.cli import ROAD, app
from potstill.cli.command import RARE, Rare
from potstill.cli.defaults import DEFAULTS
from potstill.cli.examples import EXAMPLES
from potstill.stages.shrink import ShrinkConfig
from tests.api.test_face import CONFIGS

SCREEN = 52
"""Lines of a terminal window at 100 columns."""
GROUP = get_command(app)
COMMANDS = GROUP.commands  # pyright: ignore[reportAttributeAccessIssue]
LEAST: dict[str, dict[str, Any]] = {
    "shrink": {"data": {"path": "x"}},
    "distill": {"data": {"path": "x"}},
    "finetune": {"data": {"path": "x"}, "model": ["a"]},
    "selftrain": {"data": {"path": "x"}},
    "label": {"data": {"path": "x"}, "teacher": {"model": "t"}},
    "prune": {"model": "m", "keep": 0.5},
    "quantize": {"model": "m"},
    "export": {"model": "m"},
}
"""The settings that each verb needs."""


def help_of(command: str, *, rare: bool = False) -> str:
    wide: dict[str, Any] = {"terminal_width": 100, "max_content_width": 100, "resilient_parsing": True}
    road = GROUP.make_context("potstill", [], **wide)
    context = COMMANDS[command].make_context(command, [], parent=road, **wide) if command else road
    context.meta[RARE] = rare
    return context.get_help() + "\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_a_command_fits_on_a_screen_and_ends_with_two_examples(command: str) -> None:
    text = help_of(command)
    assert len(text.splitlines()) <= SCREEN and max(map(len, text.splitlines())) <= 100
    assert len(EXAMPLES[command]) == 2
    assert all(f"  {example}\n" in text for example in EXAMPLES[command])


def test_rare_flags_are_in_the_second_help_only() -> None:
    first, second = help_of("distill"), help_of("distill", rare=True)
    rare = [one for one in COMMANDS["distill"].params if isinstance(getattr(one, "rich_help_panel", None), Rare)]
    assert f"{len(rare)} more flags: potstill distill --help-all" in first and "more flags" not in second
    assert "--test-from" in second and "--test-from" not in first and "--epochs" in first


def test_commands_are_listed_by_group() -> None:
    lines = help_of("").splitlines()
    places = [lines.index(f"{title}:") for title in ROAD]
    assert places == sorted(places)
    shrink = next(place for place, line in enumerate(lines) if line.startswith("  shrink "))
    assert places[0] < shrink < places[1]


@pytest.mark.parametrize("verb", DEFAULTS)
def test_defaults_in_the_help_are_those_of_the_settings(verb: str) -> None:
    text = help_of(verb, rare=True)
    built = config.build({**CONFIGS, "shrink": ShrinkConfig}[verb], LEAST[verb])
    for name, shown in DEFAULTS[verb].items():
        value: Any = built
        for part in PLACES[verb].get(name, name).split("."):
            value = getattr(value, part)
        assert shown == (",".join(value) if isinstance(value, tuple) else str(value)), name
        assert f"(default: {shown})" in text


def test_version_and_completion_are_flags_of_the_whole() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"potstill {__version__}\n"
    assert "--install-completion" in help_of("")


def test_completion_of_commands_and_flags() -> None:
    def completed(line: str) -> str:
        words = {"_POTSTILL_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
        return CliRunner().invoke(app, [], env=words, prog_name="potstill").stdout

    assert completed("potstill shr").split() == ["shrink"]
    assert {"--max-bytes", "--max-ram", "--max-drop"} <= set(completed("potstill shrink photos --max").split())


def test_verbose_shows_where_an_error_arose(tmp_path: Any) -> None:
    plain = CliRunner().invoke(app, ["clean", str(tmp_path / "no-run")])
    loud = CliRunner().invoke(app, ["clean", str(tmp_path / "no-run"), "-v"])
    assert plain.exit_code == loud.exit_code == 2 and "Traceback" not in plain.stderr
    assert "Traceback" in loud.stderr and plain.stderr in loud.stderr


def test_a_tracker_that_is_not_there_is_refused_before_any_work() -> None:
    result = CliRunner().invoke(app, ["demo", "--track", "wandb"])
    assert result.exit_code == 2 and "Choose one of tensorboard, trackio" in result.stderr
    assert tracking.chosen() is None


def test_something_is_shown_before_torch_is_imported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    with progress.use(display.LiveDisplay()), progress.starting("Loading PyTorch"):
        assert capsys.readouterr().err == "Loading PyTorch\n"
