"""Names that look like markup stay text on every page, in a real browser."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from potstill.cli import app
from potstill.report import write_report
from tests.browser import Browser
from tests.report import example, looks

pytestmark = pytest.mark.slow

MEAN = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", '"><b>', "a & b")


def test_classes_of_a_run_that_look_like_markup(tmp_path: Path, chromium: Browser) -> None:
    summary = example.write_run(tmp_path, classes=(*MEAN, *"456789"))
    summary["notes"] = ["</section><i>"]
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    page = looks.check(chromium, write_report(tmp_path), dark=True)
    text = page.run("document.body.innerText")
    assert all(name in text for name in (*MEAN, "</section><i>"))
    assert page.run("document.querySelectorAll('[onerror], p i, li i, th b, td b').length") == 0


def test_folders_that_look_like_markup(tmp_path: Path, chromium: Browser) -> None:
    names, random = ("<img src=x onerror=alert(1)>", "<b> & 'c'"), np.random.default_rng(0)
    for split in ("train", "test"):
        for name in names:
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for number in range(12):
                pixels = random.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "data" / split / name / f"<i>{number}.png")
    (first, second) = (tmp_path / "data" / split / names[0] / "<i>0.png" for split in ("train", "test"))
    second.write_bytes(first.read_bytes())  # a leak, so that the page shows images
    file = tmp_path / "check.html"
    found = CliRunner().invoke(app, ["check", str(tmp_path / "data"), "--html", str(file)])
    assert found.exit_code == 0, found.output
    page = looks.check(chromium, file)
    text = page.run("document.body.innerText")
    assert all(name in text for name in names) and page.run("document.querySelectorAll('img').length") >= 2
    assert page.run("document.querySelectorAll('[onerror], figure i, figure b').length") == 0
