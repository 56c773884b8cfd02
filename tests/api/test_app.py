"""The app, driven in a real browser: draw, drop, temperature; start, stop, curves that grow; two browsers."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import potstill
from potstill.errors import UserError
from tests.browser import Browser, Page, browser

pytest.importorskip("gradio", reason="the extra [app] is not installed")

NAME = "<b>digits"
pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Started:
    """An app in a process of its own: its address, and the run that it was started with."""

    url: str
    run: Path


@pytest.fixture(scope="module")
def app(chromium: Browser, run: potstill.RunResult, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Started]:
    """`potstill app RUN`, ended as by Ctrl-C."""
    folder, port = tmp_path_factory.mktemp("runs") / NAME, free_port()
    assert run.folder is not None
    shutil.copytree(run.folder, folder)
    command = [sys.executable, "-m", "potstill", "app", str(folder), "--port", str(port), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert any(f"Open http://127.0.0.1:{port}" in line for line in process.stderr)
        yield Started(f"http://127.0.0.1:{port}", folder)
        process.send_signal(signal.SIGINT)
        printed, _ = process.communicate(timeout=60)
    assert process.returncode == 0 and json.loads(printed) == {"url": f"http://127.0.0.1:{port}"}


@pytest.fixture
def other_chromium() -> Iterator[Browser]:
    """A second browser, as of another person."""
    with browser() as running:
        yield running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def opened(chromium: Browser, app: Started, tab: str = "") -> Page:
    page = chromium.page(app.url)
    page.wait("!!document.querySelector('.paper canvas[data-ready]')", 90)
    page.wait(f"document.querySelector('#run input').value === '{NAME}'")
    if tab:
        page.run(f"[...document.querySelectorAll('[role=tab]')].find(one => one.innerText.trim() === '{tab}').click()")
    return page


def value(selector: str) -> str:
    return f"document.querySelector('{selector}').value"


def test_an_image_is_drawn_or_dropped_and_softened(chromium: Browser, app: Started, photos: Path) -> None:
    page = opened(chromium, app)
    x, y = page.middle(".paper canvas")
    page.mouse((x, y - 80), (x + 2, y), (x, y + 80))
    page.wait(f"{value('#message textarea')}.startsWith('Teacher: ')")
    drawn = page.run(value("#message textarea"))
    assert "; Student: " in drawn
    page.choose("#file input[type=file]", [photos / "1.png"])
    expected = potstill.load(app.run).predict(photos / "1.png")
    page.wait(f"{value('#message textarea')}.includes('; Student: {expected.class_name}')")
    sharp = page.text("body")
    page.run("""(() => {
        const box = document.querySelector('#temperature input[type=number]');
        box.value = 20;
        box.dispatchEvent(new Event('input', {bubbles: true}));
        box.dispatchEvent(new Event('change', {bubbles: true}));
        box.dispatchEvent(new Event('pointerup', {bubbles: true}));
    })()""")
    page.wait(f"document.body.innerText !== {json.dumps(sharp)} && document.body.innerText.includes('10%')")
    assert page.errors == [] and [url for url in page.requests if not url.startswith(app.url)] == []


def test_a_file_that_is_no_image_gets_a_sentence(chromium: Browser, app: Started, photos: Path) -> None:
    page = opened(chromium, app)
    page.choose("#file input[type=file]", [photos / "notes.txt"])
    page.wait(f"{value('#message textarea')} === \"notes.txt is text, not an image: it begins with 'no image'.\"")


def test_a_training_starts_grows_and_stops_in_two_browsers(
    chromium: Browser, other_chromium: Browser, app: Started
) -> None:
    first, second = (opened(each, app, "Distil") for each in (chromium, other_chromium))
    first.run("document.querySelector('#start').click()")
    for page in (first, second):
        page.wait(f"{value('#status textarea')}.startsWith('Training app-digits-1: epoch')", 90)
    before = second.wait("document.querySelector('#curves svg')?.outerHTML", 60)
    second.wait(f"document.querySelector('#curves svg').outerHTML !== {json.dumps(before)}", 60)
    second.run("document.querySelector('#stop').click()")
    for page in (first, second):
        page.wait(f"{value('#status textarea')}.startsWith('Stopped: app-digits-1')", 60)
    assert first.errors == [] and second.errors == []


def test_reports_are_listed_and_opened(chromium: Browser, app: Started) -> None:
    page = opened(chromium, app, "Runs")
    page.wait("document.querySelector('#runs a') !== null")
    assert page.text("#runs a") == NAME
    report = chromium.page(page.run("document.querySelector('#runs a').href"))
    assert report.text("h1") and report.errors == []
    assert chromium.page(f"{app.url}/reports/..%2F..%2Fetc").text("body") != report.text("body")


def test_errors_are_sentences(run: potstill.RunResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="holds no student.onnx"):
        potstill.app(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"Port {port} .* --port {port + 1}"):
            potstill.app(run.folder, port=port)
    monkeypatch.setitem(sys.modules, "potstill.api.app.page", None)
    monkeypatch.delattr("potstill.api.app.page", raising=False)
    with pytest.raises(UserError, match=r"pip install 'potstill\[app\]'"):
        potstill.app(run.folder, port=free_port())


def test_a_drawing_becomes_like_the_images(tmp_path: Path) -> None:
    from potstill.api.app.models import pixels_drawn

    ink = np.zeros((280, 280), np.uint8)
    with pytest.raises(UserError, match="Nothing is drawn"):
        pixels_drawn(tmp_path, ink)
    ink[10:60, 20:30] = 255
    rows, columns, _ = np.nonzero(pixels_drawn(tmp_path, ink))
    assert np.ptp(rows) + 1 == 210 and abs(rows.mean() - 139.5) < 1 and abs(columns.mean() - 139.5) < 1
