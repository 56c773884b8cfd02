"""What is transferred: probabilities side by side, agreement, calibration, inherited confusions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import potstill
from potstill.api.answers import Explanation
from potstill.cli.show import show
from potstill.evaluation import metrics
from potstill.model_files.folder import save_model
from potstill.models import zoo
from potstill.report.likeness import render
from potstill.stages.inference import explain as stage


def save(folder: Path, *, classes: tuple[str, ...], seed: int) -> str:
    options = {"hidden": 8}
    save_model(zoo.create("builtin:mlp", classes=classes, size=(8, 8), channels=1, options=options, seed=seed), folder)
    return str(folder)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return tmp_path / "one.png"


def test_probabilities_soften_and_classes_are_matched_by_name(tmp_path: Path, image: Path) -> None:
    student = save(tmp_path / "student", classes=("a", "b", "c"), seed=0)
    teacher = save(tmp_path / "teacher", classes=("c", "a", "b"), seed=1)
    found = stage.explain(student, image, (1.0, 5.0), teacher=teacher)
    for who in ("student", "teacher"):
        sharp, soft = found["probabilities"][who]
        assert sum(sharp) == pytest.approx(1, abs=1e-5) and sum(soft) == pytest.approx(1, abs=1e-5)
        assert max(soft) < max(sharp) and min(soft) > min(sharp)
    assert found["probabilities"]["teacher"][0] == sorted(found["probabilities"]["teacher"][0], reverse=True)
    own = potstill.predict(teacher, image).top
    assert dict(zip(found["classes"], found["probabilities"]["teacher"][0], strict=True)) == pytest.approx(
        own, abs=1e-4
    )


def test_it_is_printed_in_eighty_columns(tmp_path: Path, image: Path, capsys: pytest.CaptureFixture) -> None:
    student = save(tmp_path / "student", classes=tuple(f"class {n}" for n in range(20)), seed=0)
    show(Explanation(stage.explain(student, image, teacher=student, control=student)))
    printed = capsys.readouterr().out
    assert "8 other classes" in printed and "control" in printed and "T = 4" in printed and "█" in printed
    assert max(len(line) for line in printed.splitlines() if str(image) not in line) <= 80 and "…" not in printed


def test_mistakes_are_told(tmp_path: Path, image: Path) -> None:
    student = save(tmp_path / "student", classes=("a", "b", "c"), seed=0)
    other = save(tmp_path / "other", classes=("x", "y", "c"), seed=0)
    with pytest.raises(potstill.UserError, match="There is no image"):
        stage.explain(student, tmp_path / "none.png")
    with pytest.raises(potstill.UserError, match="--temperature must be > 0"):
        stage.explain(student, image, (0.0,))
    with pytest.raises(potstill.UserError, match="has the classes a, b"):
        stage.explain(student, image, teacher=other)


def one_hot(called: list[int], sure: float = 3.0) -> np.ndarray:
    return sure * np.eye(3)[called]


def test_inherited_mistakes_are_the_same_class_on_the_same_image() -> None:
    label = np.array([0, 0, 1, 1, 2, 2])
    teacher = one_hot([0, 1, 1, 2, 2, 0])  # three mistakes: images 1, 3 and 5
    student = one_hot([0, 1, 1, 0, 2, 0])  # repeats 1 and 5; image 3 is wrong in its own way
    assert stage.inherited(teacher, student, label) == {"mistakes": 3, "repeated": 2, "share": 66.67}
    assert stage.inherited(one_hot([0, 0, 1, 1, 2, 2]), student, label)["share"] == 0.0
    control = one_hot([1, 1, 0, 2, 2, 2])  # repeats 1 and 3
    found = stage.likeness({"teacher": teacher, "student": student, "control": control}, label, ("a", "b", "c"))
    assert found["inherited"]["control"]["difference"]["points"] == 0.0
    pairs = stage.confusions({"teacher": teacher, "student": student}, label, ("a", "b", "c"))
    found = {(one["true"], one["called"]): (one["count"], one["repeated"]) for one in pairs}
    assert found[("a", "b")] == ({"teacher": 1, "student": 1}, {"student": 1})
    assert found[("b", "c")] == ({"teacher": 1, "student": 0}, {"student": 0})
    assert len(pairs) == 3


def test_a_model_beside_itself_is_its_own_likeness_and_the_page_says_so() -> None:
    random = np.random.default_rng(0)
    logits, label = random.normal(size=(60, 3)) * 3, np.arange(60) % 3
    both = {"teacher": logits, "student": logits.copy(), "control": random.normal(size=(60, 3))}
    found = stage.likeness(both, label, ("a", "b", "c"))
    assert found["agreement"]["student"] == 100.0 and found["agreement"]["control"] < 100
    assert all(abs(value) < 1e-9 for value in found["divergence"]["student"].values())
    assert found["inherited"]["student"]["share"] == 100.0
    assert found["calibration"]["teacher"] == found["calibration"]["student"]
    assert found["calibration"]["student"]["error"] == pytest.approx(
        metrics.expected_calibration_error(logits, label), abs=1e-3
    )
    assert sum(found["calibration"]["student"]["count"]) == 60
    page = render(found | {"models": {"student": "s", "teacher": "t", "control": "c"}, "data": "d", "split": "test"})
    assert "agree on 100.0" in page and page.count("<svg") == 3 and "points of these mistakes (95 % interval" in page
    assert "http" not in page.replace("http://www.w3.org", "")
