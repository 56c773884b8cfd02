"""A whole search on few digits, with one seed: what it writes, what it says, and that it is resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import potstill
from potstill import progress
from potstill.api.results import ShrinkResult
from tests.browser import Browser
from tests.report import looks

DIGITS = {"path": "digits", "limit": 300}
pytestmark = pytest.mark.slow


def shrink(out: Path, **keywords: object) -> ShrinkResult:
    settings = {"max_bytes": "16kB", "minutes": 0.1, "seeds": 1, "workers": 1} | keywords
    return potstill.shrink(DIGITS, out=out, **settings)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "a [b] c"


@pytest.fixture(scope="module")
def result(out: Path) -> ShrinkResult:
    return shrink(out)


def test_the_file_is_within_the_budget_and_its_figures_are_its_own(result: ShrinkResult, out: Path) -> None:
    assert result.model == out / "model_int8.onnx" and result.model.stat().st_size == result.shipped.bytes
    assert (result.shipped.bytes or 0) <= 16_000
    measured = potstill.evaluate(str(result.model), DIGITS)
    assert measured.accuracy == pytest.approx(result.shipped.accuracy, abs=1e-3)


def test_the_summary_has_forecast_choice_and_candidates(result: ShrinkResult) -> None:
    chosen = [one for one in result.summary["candidates"] if one["chosen"]]
    assert len(chosen) == 1 and chosen[0]["finalist"]
    best = max(result.summary["candidates"], key=lambda one: (one["validation_accuracy"], -one["bytes"]))
    assert best["front"] and sum(one["front"] for one in result.summary["candidates"]) >= 1
    assert chosen[0]["validation_accuracy"] == max(
        one["validation_accuracy"] for one in result.summary["candidates"] if one["finalist"]
    )
    assert all(one["bytes"] <= 16_000 for one in result.summary["candidates"])
    forecast = result.forecast
    low, high = forecast["student"]["interval"]
    assert forecast["outcome"]["held"] == (low <= result.shipped.accuracy <= high)
    assert len(result.front.rows) == len(result.summary["candidates"])


def test_a_search_that_was_moved_goes_on(result: ShrinkResult, out: Path, tmp_path: Path) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(out, moved)
    trained = next(moved.glob("models/*/distill/seed-0/model.safetensors"))
    weights = trained.read_bytes()
    records = [*moved.glob("models/*/recipe.yaml"), *moved.glob("goals/*/export/export.yaml")]
    for damaged in (trained, *records, *moved.glob("goals/*/export/evaluation/logits.safetensors")):
        content = damaged.read_bytes()
        damaged.write_bytes(content[: len(content) // 2])
    again = shrink(moved)
    assert again.shipped.accuracy == result.shipped.accuracy
    assert trained.read_bytes() == weights and again.model.read_bytes() == result.model.read_bytes()
    assert str(out) not in next(moved.glob("models/*/recipe.yaml")).read_text()


def test_the_page_says_what_to_ship_first(result: ShrinkResult) -> None:
    page = (result.report or Path()).read_text(encoding="utf-8")
    assert f"<h1>Ship {result.summary['ship']['file']}" in page
    assert page.index("Next steps") < page.index('<section id="front">') < page.index('<section id="models">')
    assert "Ship model_int8.onnx" in repr(result) and result.summary["ship"]["reference"]["role"] == "teacher"


def test_the_page_in_a_browser(result: ShrinkResult, chromium: Browser) -> None:
    looks.check(chromium, result.report or Path(), dark=True)


def test_other_budgets_reuse_every_training(result: ShrinkResult, out: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in (out / "search").rglob("model.safetensors")}
    again = shrink(out, max_bytes="9kB")
    assert before and all(file.stat().st_mtime_ns == stamp for file, stamp in before.items())
    assert (again.shipped.bytes or 0) <= 9000 and again.shipped.bytes != result.shipped.bytes
    name = result.summary["choice"]["candidate"]["name"]
    damaged = min((out / "search").glob(f"{name}-*/*/seed-0/manifest.json"))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    back = shrink(out)
    assert back.shipped == result.shipped  # the damaged training is made again, and what came after it is kept


def test_a_search_with_unlabelled_images_outlives_its_first_process(tmp_path: Path) -> None:
    """The second process helps the first; when that is killed, it goes on with the same plan and trainings."""
    pool = tmp_path / "pool.npy"
    np.save(pool, np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8))
    code = (
        "import sys, potstill; potstill.shrink({'path': 'digits', 'limit': 300}, out=sys.argv[1], max_bytes='16kB', "
        "minutes=0.1, seeds=1, workers=1, unlabelled=sys.argv[2])"
    )
    run, command = tmp_path / "run", [sys.executable, "-c", code, str(tmp_path / "run"), str(pool)]
    first = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    wait_for(first, lambda: list((run / "offers").glob("*.json")))

    def kill() -> None:
        wait_for(first, lambda: any("this one helps" in note for note in display.notes))
        wait_for(first, lambda: list((run / "models").rglob("*.safetensors")))
        os.killpg(first.pid, signal.SIGKILL)

    killer, display = threading.Thread(target=kill, daemon=True), progress.Display()
    killer.start()
    with progress.use(display):
        second = shrink(run, unlabelled=pool)
    killer.join(10)
    assert first.wait(10) == -signal.SIGKILL
    notes = " ".join(display.notes)
    assert f"Process {first.pid} on" in notes and f"Process {first.pid} has ended; this one finished" in notes
    assert second.summary["data"]["splits"]["unlabelled"] == 40
    plans = [json.loads(file.read_text()) for file in (run / "goals").rglob("plan.json")]
    assert len(plans) == 1 and {one["name"] for one in second.summary["candidates"]} == set(plans[0]["short"])
    assert potstill.evaluate(str(second.model), DIGITS).accuracy == pytest.approx(second.shipped.accuracy, abs=1e-3)
    assert not (run / "offers").exists() and not list(run.rglob("*.claim"))


def wait_for(process: subprocess.Popen, condition: Callable[[], object]) -> None:
    """Return as soon as a condition holds, or the process has ended."""
    while process.poll() is None and not condition():
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"max_bytes": "10B"}, "--max-bytes 10 B is impossible: the smallest candidate"),
        ({"max_bytes": "9 stones"}, "unknown unit"),
        ({"model": "resnet18"}, "--model and --weights describe one pretrained network: give both."),
    ],
)
def test_mistakes_are_told_before_any_training(keywords: dict[str, str], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(potstill.UserError, match=sentence.replace(" ", r"\s")):
        shrink(tmp_path / "run", **keywords)
    assert not (tmp_path / "run").exists()


def test_few_validation_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(potstill.UserError, match="only 1?[0-9] validation images.*no choice between candidates"):
        potstill.shrink({"path": "digits", "limit": 60}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
