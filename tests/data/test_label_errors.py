"""Labels that look wrong: found by classifiers that never saw the image, ranked, and counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import potstill
from potstill.data.csv_files import numbered_records
from potstill.evaluation.insight import confusion, recall, thresholds
from potstill.evaluation.label_errors import label_errors, suspicious
from potstill.evaluation.metrics import softmax
from potstill.stages import dataset, label_check
from potstill.stages.selftrain import corrections


def sure(label: np.ndarray, classes: int = 3, by: float = 4.0) -> np.ndarray:
    """Return logits [N, K] of a model that predicts these labels."""
    return by * np.eye(classes)[label]


def test_wrong_labels_are_counted_and_ranked() -> None:
    truth = np.arange(60) % 3
    label = truth.copy()
    label[[4, 10]] = (label[[4, 10]] + 1) % 3
    logits = sure(truth)
    logits[10] *= 2  # surer of this one
    rows, looks = suspicious(softmax(logits), label)
    assert rows.tolist() == [10, 4] and looks.tolist() == truth[[10, 4]].tolist()
    found = label_errors(logits, label)
    assert (found["suspicious"], found["share"], found["images"]) == (2, 3.33, 60)
    assert found["interval"][0] < 3.33 < found["interval"][1]
    assert label_errors(logits, truth)["suspicious"] == 0
    assert label_errors(sure((truth + 1) % 3), truth) == {"images": 60, "accuracy": 0.0}  # says nothing of the labels


def test_figures_behind_an_accuracy() -> None:
    label = np.array([0, 0, 0, 0, 1, 1])
    logits = sure(np.array([0, 0, 0, 1, 1, 1]), 2)
    logits[3] /= 8  # the mistake is the least confident
    assert [(row["class"], row["recall"], row["right"]) for row in recall(logits, label, ("a", "b"))] == [
        ("a", 75.0, 3), ("b", 100.0, 2),
    ]  # fmt: skip
    found = confusion(logits, label, ("a", "b"))
    assert found == {"pairs": [{"label": "a", "predicted": "b", "images": 1}], "matrix": [[3, 1], [0, 2]]}
    assert "matrix" not in confusion(sure(np.arange(200), 200), np.arange(200), [str(k) for k in range(200)])
    curve = thresholds(logits, label)
    assert curve["curve"] == [[83.33, 100.0], [100.0, 83.33]]
    assert [(one["precision"], one["share"], one["answered"]) for one in curve["at"]] == [
        (90.0, 83.33, 5), (95.0, 83.33, 5), (99.0, 83.33, 5),
    ]  # fmt: skip
    one_class = thresholds(np.zeros((4, 1)), np.zeros(4, int))
    assert one_class["curve"] == [[100.0, 100.0]] and one_class["at"] == []


@pytest.mark.slow
def test_labels_that_were_changed_are_found_and_mended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = dataset.digits().select(np.arange(500))
    changed = np.random.default_rng(0).permutation(500)[:10]
    label = truth.label.copy()
    label[changed] = (label[changed] + 3) % 10
    wrong = truth.with_labels(label)
    monkeypatch.setattr(dataset, "read", lambda config: wrong)
    table = tmp_path / "wrong.csv"
    found = label_check.suspicious_labels("digits", table)
    names = {wrong.name(int(row)) for row in changed}
    assert len(names & set(found["rows"][:15])) >= 9 and found["all"]["suspicious"] == len(found["rows"])
    assert 1 <= found["all"]["share"] <= 6 and set(found["splits"]) == {"train", "test"}
    rows = [row for _, row in numbered_records(table)]
    assert [row["path"] for row in rows] == found["rows"] and not any(row["label"] for row in rows)
    rows[0]["label"] = rows[0]["predicted"]
    table.write_text("path,label\n" + "\n".join(f"{row['path']},{row['label']}" for row in rows))
    mended = corrections.corrected(wrong, table)
    (at,) = np.flatnonzero(mended.label != wrong.label)
    assert mended.name(int(at)) == rows[0]["path"] and mended.classes[mended.label[at]] == rows[0]["predicted"]


@pytest.mark.slow
def test_check_looks_for_wrong_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_check, "MOST", 300)
    found = potstill.check("digits", label_errors=tmp_path / "labels.csv", html=tmp_path / "page.html")
    (finding,) = [one for one in found.findings if one["code"] == "label-errors"]
    assert "of the labels look wrong" in finding["text"] or "cannot be estimated" in finding["text"]
    assert 'id="label-errors"' in (tmp_path / "page.html").read_text()
