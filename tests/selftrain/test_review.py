"""What is looked at after `potstill label`: tables, the page, and corrections that a self-training reads back."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from PIL import Image

import potstill
from potstill.stages.selftrain import corrections, unlabelled
from tests.selftrain.worlds import labelled, more, pixels, settings


def folder(root: Path) -> Path:
    """Write 90 labelled images and 60 without a label as folders."""
    _, made = labelled(root, 150)
    for split in ("train", "test"):
        for row in made.rows(split)[:60]:
            place = root / "data" / split / made.classes[made.label[row]]
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels(made, np.array([row]))[0, :, :, 0]).save(place / f"{row}.png")
    (root / "data" / "unlabelled").mkdir()
    for number, image in enumerate(more(60)):
        Image.fromarray(image[..., 0]).save(root / "data" / "unlabelled" / f"{number:02}.png")
    return root / "data"


def rows_of(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as text:
        return list(csv.DictReader(text))


def test_labels_are_shown_and_corrections_read_back(tmp_path: Path) -> None:
    data = folder(tmp_path)
    teacher = {"model": "builtin:mlp", "train": {"epochs": 2}}
    out = potstill.label(data, teacher=teacher, views=2, out=tmp_path / "labels", to_review=7).folder
    table, to_review = rows_of(out / "labels.csv"), rows_of(out / "to-review.csv")
    assert len(table) == 60 and len(to_review) == 7
    assert {row["path"] for row in table} == {f"unlabelled/{n:02}.png" for n in range(60)}
    assert all(0 < float(row["confidence"]) <= 1 and 0 <= float(row["disagreement"]) <= 1 for row in table)
    assert any(float(row["disagreement"]) > 0 for row in table), "two views of an image are not alike"
    page = (out / "labels.html").read_text()
    assert page.count("<figure") > 40 and "Most informative to label by hand" in page
    to_review[0]["label"] = "cross"
    with (tmp_path / "mended.csv").open("w", newline="") as text:
        writer = csv.DictWriter(text, list(to_review[0]))
        writer.writeheader()
        writer.writerows(to_review)
    manifest = unlabelled.read(settings(data, None))
    mended = corrections.corrected(manifest, tmp_path / "mended.csv")
    (changed,) = np.flatnonzero(mended.label != manifest.label)
    assert manifest.name(int(changed)) == to_review[0]["path"] and mended.classes[mended.label[changed]] == "cross"
