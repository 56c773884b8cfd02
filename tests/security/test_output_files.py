"""Files that a flag names replace nothing that potstill did not write."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from potstill.cli import app
from potstill.errors import DataError, RunError
from potstill.model_files.folder import save_model
from potstill.models import zoo
from potstill.output_files import GENERATOR, check_outputs, is_ours
from potstill.stages.check import check
from tests.test_road import write_tree

TEMPLATES = [
    file for file in Path(check.__code__.co_filename).parents[1].rglob("*.html") if "<html" in file.read_text("utf-8")
]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return write_tree(tmp_path / "images", size=8, count=30)


def flags(tree: Path, file: Path) -> list[list[str]]:
    return [
        ["check", str(tree), "--html", str(file)],
        ["check", str(tree), "--fix", str(file)],
        ["check", str(tree), "--augment", "shift", "--sheet", str(file)],
    ]


@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_photo_stays(tree: Path, position: int) -> None:
    photo = next((tree / "train" / "cross").iterdir())
    before = photo.read_bytes()
    result = CliRunner().invoke(app, flags(tree, photo)[position])
    assert result.exit_code == 2 and "--force" in result.stderr
    assert photo.read_bytes() == before


def test_explain_leaves_a_photo(tree: Path, tmp_path: Path) -> None:
    photo = next((tree / "train" / "cross").iterdir())
    before = photo.read_bytes()
    save_model(
        zoo.create("builtin:mlp", classes=("cross", "square", "stripes"), size=(8, 8), channels=3), tmp_path / "m"
    )
    words = ["explain", str(tmp_path / "m"), str(tree), "--teacher", str(tmp_path / "m"), "--html", str(photo)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "--force" in result.stderr and photo.read_bytes() == before


def test_what_potstill_wrote_is_replaced(tree: Path, tmp_path: Path) -> None:
    page, sheet = tmp_path / "page.html", tmp_path / "sheet.png"
    for _ in range(2):
        check(str(tree), html=page, augment="shift", sheet=sheet)
    assert is_ours(page) and is_ours(sheet)
    with Image.open(sheet) as picture:
        assert picture.info["Software"] == "potstill"


def test_a_table_is_replaced_only_by_force(tree: Path, tmp_path: Path) -> None:
    table = tmp_path / "clean.csv"
    check(str(tree), fix=table)
    corrected = table.read_text().replace("cross", "mended")
    table.write_text(corrected)
    with pytest.raises(RunError, match="--fix .* this file exists"):
        check(str(tree), fix=table)
    assert table.read_text() == corrected
    result = CliRunner().invoke(app, ["check", str(tree), "--fix", str(table), "--force"])
    assert result.exit_code == 0 and "mended" not in table.read_text()


def test_force_replaces_a_foreign_page_but_no_folder(tree: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("<!doctype html><p>precious")
    with pytest.raises(RunError, match="was not recognised as written by potstill"):
        check(str(tree), html=page)
    check(str(tree), html=page, force=True)
    assert is_ours(page)
    with pytest.raises(RunError, match=r"this is a folder. .*page\.html"):
        check(str(tree), html=tmp_path, force=True)


def test_a_sheet_is_a_png(tree: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, flags(tree, tmp_path / "sheet.jpg")[2])
    assert result.exit_code == 2 and f"--sheet {tmp_path / 'sheet.png'}" in result.stderr


@pytest.mark.parametrize(
    ("content", "ours"),
    [
        (b"", False),
        (b"<!doctype html>\n<html><head>" + GENERATOR.encode(), True),
        (b"\n<!DOCTYPE html>" + GENERATOR.encode(), True),
        (b"notes: " + GENERATOR.encode(), False),
        (b"<!doctype html>" + b" " * 5000 + GENERATOR.encode(), False),
        (b"path,label,split\n", False),
    ],
)
def test_the_mark(tmp_path: Path, content: bytes, ours: bool) -> None:
    (tmp_path / "file").write_bytes(content)
    assert is_ours(tmp_path / "file") == ours
    if not ours:
        with pytest.raises(RunError):
            check_outputs({"--html": tmp_path / "file"})


def test_all_flags_are_checked_before_anything_is_written(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("afile").touch()
    before = sorted(tmp_path.rglob("*"))
    words = ["--html", "new/page.html", "--fix", "afile/x.csv", "--label-errors", "x" * 300, "--augment", "shift"]
    result = CliRunner().invoke(app, ["check", "nosuch", *words, "--sheet", "sheet.jpg"])
    assert result.exit_code == 2 and [line.partition(". ")[0] for line in result.stderr.splitlines()] == [
        "error: --fix afile/x.csv: afile is not a folder",
        "error: --sheet sheet.jpg: the name must end with .png",
        f"error: --label-errors {'x' * 300}: File name too long",
    ]
    save_model(zoo.create("builtin:mlp", classes=("a", "b"), size=(8, 8), channels=3), tmp_path / "m")
    before += sorted((tmp_path / "m").rglob("*")) + [tmp_path / "m"]
    for command in (f"predict m {tree} --csv", f"explain m {tree} --html", "bench --device-profile"):
        result = CliRunner().invoke(app, [*command.split(), "afile/x.json"])
        assert result.exit_code == 2 and "afile/x.json: afile is not a folder. Choose another place" in result.stderr
    assert sorted(tmp_path.rglob("*")) == sorted(before)


def test_a_table_that_cannot_be_made_leaves_no_page(tmp_path: Path) -> None:
    for place in ("train/a/1.png", "b/2.png"):
        (tmp_path / "images" / place).parent.mkdir(parents=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "images" / place)
    with pytest.raises(DataError, match="cannot be listed because its layout is not understood"):
        check(str(tmp_path / "images"), html=tmp_path / "page.html", fix=tmp_path / "clean.csv")
    assert [one.name for one in tmp_path.iterdir()] == ["images"]


def test_a_png_of_another_program_is_not_ours(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(tmp_path / "a.png")
    assert not is_ours(tmp_path / "a.png")
    truncated = (tmp_path / "a.png").read_bytes()[:20]
    (tmp_path / "b.png").write_bytes(truncated)
    assert not is_ours(tmp_path / "b.png")


@pytest.mark.parametrize("template", sorted(TEMPLATES), ids=lambda file: file.name)
def test_every_page_carries_the_mark(template: Path) -> None:
    head = template.read_text(encoding="utf-8").partition("<style>")[0]
    assert GENERATOR in head
