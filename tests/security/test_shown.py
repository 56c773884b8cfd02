"""What comes from data is shown as it is: no markup, no terminal sequences, no formulas."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from potstill.api.answers import CheckResult, Evaluation, Explanation, Layers
from potstill.cli import app
from potstill.cli.show import show
from potstill.data.csv_files import escaped, numbered_records, unescaped, write_csv
from potstill.data.formats import read_manifest
from potstill.display import LiveDisplay
from potstill.plain_text import as_json, visible
from potstill.stages.check import check

NAMES = ["[/b]", "[bold red]dog", ":dog:", "\x1b[31mred", "=1+1", "@x", "a\x9b2Jb", "<script>x</script>"]


@pytest.mark.parametrize("name", NAMES)
def test_findings_show_a_name_as_it_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    finding = {"severity": "error", "text": f"The class {name}.", "advice": name, "examples": [[name]]}
    counts = {"images": 0, "splits": {}, "classes": [], "errors": 1, "warnings": 0}
    show(CheckResult({"findings": [finding], "html": name, "probe": [], **counts}))
    printed = capsys.readouterr().out
    assert printed.count(visible(name)) == 4 and "\x1b" not in printed and "\x9b" not in printed


@pytest.mark.parametrize("name", NAMES)
def test_tables_and_verdicts_show_a_name_as_it_is(capsys: pytest.CaptureFixture[str], name: str) -> None:
    show(Layers({"model": name, "layers": [{"path": name, "kind": name, "shape": [], "parameters": 1, "stage": name}]}))
    printed = capsys.readouterr().out
    assert printed.count(visible(name)) == 3 and "\x1b" not in printed
    figures = {"accuracy": 1, "interval": [0, 2], "loss": 0.1, "calibration_error": 1, "recall": {name: 50.0}}
    show(Evaluation({"model": name, "data": name, "images": 3, "split": "test", **figures}))
    assert capsys.readouterr().out.count(visible(name)) == 3
    several = {"temperatures": [1.0], "classes": [name, "b"], "probabilities": {"student": [[0.75, 0.25]]}}
    show(Explanation({"image": name, "models": {"student": "m"}, **several}))
    assert capsys.readouterr().out.count(visible(name)) == 2


def test_notes_and_bars_take_any_title(capsys: pytest.CaptureFixture[str]) -> None:
    display = LiveDisplay()
    display.note("The class [/b] and \x1b[2J")
    assert "note: The class [/b] and \\x1b[2J" in capsys.readouterr().err
    display._console._force_terminal = True
    with display.task("[/b]\x1b[2J", total=1) as task:
        task.advance(text="[/i]\x1b[2J")
    assert "\x1b[2J" not in capsys.readouterr().err


def test_an_error_sends_nothing_to_the_terminal(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["check", str(tmp_path / "\x1b[31mnone")])
    assert result.exit_code == 2 and "\\x1b[31mnone" in result.stderr and "\x1b" not in result.stderr


def test_json_stays_the_same_value() -> None:
    value = {"a\x1b[0m\x9b\u202e": ["\udcff", "é", "\n"]}
    text = as_json(value)
    assert json.loads(text) == value and not set(text) & set("\x1b\x9b\u202e") and "é" in text


def test_a_file_name_that_is_no_utf8_can_be_shown() -> None:
    assert visible("caf\udce9.png") == "caf\\udce9.png" and visible("two\nlines\tand a tab") == "two\nlines\tand a tab"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ("=1+1", "'=1+1"),
        ("@sum", "'@sum"),
        ("+cmd|'x'!A1", "'+cmd|'x'!A1"),
        ("-2+3", "'-2+3"),
        ("\t=1", "'\t=1"),
        ("'=1", "''=1"),
        ("''=1", "'''=1"),
        ("-1", "-1"),
        ("+0.5", "+0.5"),
        ("-1e-3", "-1e-3"),
        ("'quoted'", "'quoted'"),
        ("cat", "cat"),
        ("", ""),
        (-3, -3),
    ],
)
def test_formulas_are_written_as_text_and_read_back(cell: object, written: object) -> None:
    assert escaped(cell) == written and unescaped(str(written)) == str(cell)


def test_a_table_reads_back_as_it_was_written(tmp_path: Path) -> None:
    columns, rows = ["path", "=label"], [["=a.png", "-x"], ["'=b", "@y"], ['q"c', "a,b\nc"], ["-1", "[/b]"]]
    write_csv(tmp_path / "t.csv", columns, rows)
    assert [list(record.items()) for _, record in numbered_records(tmp_path / "t.csv")] == [
        list(zip(columns, row, strict=True)) for row in rows
    ]
    raw = (tmp_path / "t.csv").read_text()
    assert not [cell for line in raw.splitlines() for cell in line.split(",") if cell[:1] in ("=", "@", "+")]


def test_a_fixed_table_holds_the_same_classes(tmp_path: Path) -> None:
    for number, label in enumerate(("=cmd", "@x", "[/b]", "cat")):
        for n in range(3):
            file = tmp_path / "im" / label / f"{n}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (40 * number, 60 * n, 9)).save(file)
    check(str(tmp_path / "im"), fix=tmp_path / "clean.csv")
    assert ",'=cmd," in (tmp_path / "clean.csv").read_text()
    assert read_manifest(tmp_path / "clean.csv").classes == read_manifest(tmp_path / "im").classes


def test_the_page_of_check_escapes_classes(tmp_path: Path) -> None:
    for label in ("<script>alert(1)<", "b"):
        (tmp_path / "im" / label).mkdir(parents=True)
        for n in range(2):
            Image.new("L", (8, 8), 9).save(tmp_path / "im" / label / f"{n}.png")
    check(str(tmp_path / "im"), html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script>alert" not in page and "&lt;script&gt;" in page
