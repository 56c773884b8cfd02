"""The page of the app: three tabs, made with Gradio."""

from __future__ import annotations

import base64
import html
import io
import urllib.parse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio  # pyright: ignore[reportMissingImports]
import numpy as np
from gradio.themes import Default  # pyright: ignore[reportMissingImports]
from PIL import Image

from potstill import words
from potstill.api.app import models
from potstill.api.app.training import Training
from potstill.artifacts import read_object
from potstill.errors import UserError

HERE = Path(__file__).parent
PAPER = """<div class="paper"><canvas width="280" height="280" aria-label="Drawing area"></canvas>
<button type="button">Clear</button></div>"""
CSS = """.paper canvas { width: 14rem; height: 14rem; touch-action: none; cursor: crosshair; border-radius: .4rem; }
.paper button { display: block; margin-top: .4rem; padding: .2rem .9rem;
  border: 1px solid #8888; border-radius: .4rem; }
#curves { --ink: #1f2a31; --muted: #5d6870; --rule: #dfe2de; --control: #5f6b74; --student: #00609f; }
.dark #curves { --ink: #e6e9e8; --muted: #9eaab0; --rule: #343d42; --control: #a7b3ba; --student: #6bb8f0; }
#curves svg { max-width: 36rem; }
.runs td, .runs th { padding: .3rem 1.2rem .3rem 0; text-align: left; }"""
ROWS = ["Run", "alpha", "T", "Epochs", "Width", "Teacher", "Control", "Student"]


def build(runs: Path, training: Training, chosen: Path | None) -> gradio.Blocks:
    """Return the page. runs: the folder of the runs; chosen: the run that Play begins with."""
    with gradio.Blocks(title="potstill", analytics_enabled=False) as page:
        gradio.Markdown("# potstill")
        with gradio.Tab("Play"):
            _play(page, runs, chosen)
        with gradio.Tab("Distil"):
            _distil(training)
        with gradio.Tab("Runs") as tab:
            table = gradio.HTML(lambda: listed(runs), elem_id="runs")
            tab.select(lambda: listed(runs), None, table)
    return page


def theme() -> Any:
    """Return Gradio's own theme with fonts of the system: its own are requested from Google."""
    return Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))


def _play(page: gradio.Blocks, runs: Path, chosen: Path | None) -> None:
    def choices() -> Any:
        found = models.runs_in(runs)
        listed = [chosen, *found] if chosen and chosen not in found else found
        return gradio.Dropdown(
            [(one.name, str(one)) for one in listed], value=str(chosen or (listed or [""])[0]) or None
        )

    run = gradio.Dropdown([], label="Run", elem_id="run")
    page.load(choices, None, run)
    known = gradio.State({})
    with gradio.Row():
        with gradio.Column():
            file = gradio.File(label="Drop an image", type="filepath", elem_id="file")
            script = (HERE / "paper.js").read_text(encoding="utf-8")
            drawn = gradio.HTML("", html_template=PAPER, js_on_load=script, label="Or draw", show_label=True)
        with gradio.Column(scale=2):
            temperature = gradio.Slider(1, 20, 1, step=0.5, label="Temperature", elem_id="temperature")
            message = gradio.Textbox(label="Message", interactive=False, elem_id="message", value=EMPTY)
            with gradio.Row():
                labels = [gradio.Label(label=title, num_top_classes=5) for title in models.ROLES]
    shown = [known, message, *labels]
    run_and_heat = [run, temperature]
    file.upload(_answer(models_of_file), [file, *run_and_heat], shown, api_name="image")
    drawn.submit(_answer(models_of_drawing), [drawn, *run_and_heat], shown, api_name="drawing")
    temperature.change(lambda known, heat: soft(known, heat), [known, temperature], labels, api_name="soften")


EMPTY = "Drop an image, or draw."


def models_of_file(run: Path, file: str) -> np.ndarray:
    """Return the pixels of a dropped file."""
    return models.pixels_of(file)


def models_of_drawing(run: Path, url: str) -> np.ndarray:
    """Return the pixels of a drawing, given as a data URL."""
    try:
        content = base64.b64decode(url.partition(",")[2], validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            ink = np.asarray(image.convert("L"))
    except Exception:
        raise UserError("The drawing could not be read. Clear it and draw again.") from None
    return models.pixels_drawn(run, ink)


def _answer(pixels: Callable[[Path, str], np.ndarray]) -> Callable[..., list[Any]]:
    def answer(given: str | None, run: str | None, temperature: float) -> list[Any]:
        try:
            if not run:
                raise UserError("There is no run yet. Train one under Distil, then reload this page.")
            if not given:
                return [{}, EMPTY, *soft({}, temperature)]
            found = models.answers(Path(run), pixels(Path(run), given))
        except UserError as error:
            return [{}, "\n".join(error.problems), *soft({}, temperature)]
        return [found, _summary(found), *soft(found, temperature)]

    return answer


def _summary(found: models.Answers) -> str:
    parts = (f"{title}: {classes[int(logits.argmax())]}" for title, (classes, logits) in found.items())
    return "; ".join(parts) + ("" if "Teacher" in found else ". The run keeps no network of its teacher.")


def soft(found: models.Answers, temperature: float) -> list[Any]:
    """Return the values of the labels: the probabilities of each model at a temperature."""
    shares = models.probabilities(found, temperature)
    return [shares.get(title) for title in models.ROLES]


def _distil(training: Training) -> None:
    with gradio.Row():
        with gradio.Column():
            data = gradio.Textbox("digits", label="Images: digits, or a folder", elem_id="data")
            alpha = gradio.Slider(0, 1, 0.1, step=0.05, label="alpha, the weight of the labels", elem_id="alpha")
            heat = gradio.Slider(1, 20, 2, step=0.5, label="Temperature", elem_id="heat")
            epochs = gradio.Slider(1, 200, 30, step=1, label="Epochs", elem_id="epochs")
            width = gradio.Slider(2, 256, 32, step=1, label="Width of the student", elem_id="width")
            with gradio.Row():
                start = gradio.Button("Start", variant="primary", elem_id="start")
                stop = gradio.Button("Stop", elem_id="stop")
        with gradio.Column(scale=2):
            status = gradio.Textbox(label="Training", interactive=False, elem_id="status", lines=2)
            plot = gradio.HTML(elem_id="curves")
            table = gradio.Dataframe(headers=ROWS, label="Test accuracy: this run and the last", interactive=False)

    def look() -> tuple[Any, ...]:
        return training.status(), training.curves(), training.table()

    def begin(data: str, alpha: float, temperature: float, epochs: float, width: float) -> tuple[Any, ...]:
        try:
            training.start(data, alpha=alpha, temperature=temperature, epochs=int(epochs), width=int(width))
        except UserError as error:
            return "\n".join(error.problems), *look()[1:]
        return look()

    def end() -> tuple[Any, ...]:
        training.stop()
        return look()

    shown: Sequence[Any] = [status, plot, table]
    start.click(begin, [data, alpha, heat, epochs, width], shown, api_name="start")
    stop.click(end, None, shown, api_name="stop")
    gradio.Timer(1.0).tick(look, None, shown, show_progress="hidden", api_name="status")


def listed(runs: Path) -> str:
    """Return a table of all folders with a report, as HTML."""
    rows = []
    for file in sorted(runs.glob("*/report.html"), key=lambda one: one.stat().st_mtime, reverse=True):
        summary = file.with_name("summary.json")
        record = read_object(summary) if summary.is_file() else {}
        told = [record.get("kind", ""), words.date(record["date"]) if "date" in record else ""]
        name, address = html.escape(file.parent.name), urllib.parse.quote(file.parent.name, safe="")
        link = f'<a href="/reports/{address}" target="_blank">{name}</a>'
        rows.append(f"<tr><td>{link}</td>{''.join(f'<td>{html.escape(one)}</td>' for one in told)}</tr>")
    if not rows:
        return f"<p>There is no report in {html.escape(str(runs))} yet.</p>"
    head = "<tr><th>Report</th><th>Kind</th><th>Date</th></tr>"
    return f'<table class="runs">{head}{"".join(rows)}</table>'
