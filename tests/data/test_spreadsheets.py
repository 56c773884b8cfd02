"""Tables as spreadsheets, pandas, Windows and labelling tools write them: no label is lost or invented in silence."""

from __future__ import annotations

import json

import numpy as np
import pytest

from potstill.data.checks import examine
from potstill.data.checks.fix import fix
from potstill.data.formats import read_manifest
from potstill.data.manifest import UNLABELLED
from potstill.errors import DataError
from tests.data.pictures import picture

ROWS = [(f"im/{i}.png", ("cat", "dog")[i % 2]) for i in range(8)]


@pytest.fixture
def table(tree):
    root = tree(*(path for path, _ in ROWS))

    def write(name, head, rows, separator=",", first=""):
        if name.endswith("jsonl"):
            text = "\n".join(json.dumps(dict(zip(head, row, strict=True))) for row in rows)
        else:
            text = first + "\n".join(separator.join(map(str, row)) for row in (head, *rows)) + "\n"
        (root / name).write_text(text)
        return root / name

    return write


def labels(manifest) -> list[str | None]:
    return [None if k == UNLABELLED else manifest.classes[k] for k in manifest.label]


RIGHT = [label for _, label in ROWS]
SAME = {
    "labels": (["image", "labels"], ROWS),
    "y": (["filename", "y"], ROWS),
    "only one other column": (["image_id", "species"], ROWS),
    "backslashes": (["path", "label"], [(path.replace("/", "\\"), label) for path, label in ROWS]),
    "two spellings": (["path", "label"], ROWS + [("./" + path, label) for path, label in ROWS[:3]]),
    "one-hot": (["path", "cat", "dog"], [(path, int(c == "cat"), int(c == "dog")) for path, c in ROWS]),
    "spaces": (["path", "label"], [(path, label + " " * (i % 3)) for i, (path, label) in enumerate(ROWS)]),
}


@pytest.mark.parametrize("kind", SAME)
def test_the_same_images_and_labels(table, kind):
    manifest = read_manifest(table("list.csv", *SAME[kind]))
    assert labels(manifest) == RIGHT and [manifest.image(row).shape for row in (0, 7)] == [(8, 8, 3)] * 2


def test_the_line_that_excel_puts_before_the_header(table):
    assert labels(read_manifest(table("list.csv", ["path", "label"], ROWS, ";", "sep=;\n"))) == RIGHT


def test_a_first_row_without_a_label_does_not_hide_the_column(tmp_path, tree):
    rows = [{"path": path, **({} if i == 0 else {"label": label})} for i, (path, label) in enumerate(ROWS)]
    root = tree(*(path for path, _ in ROWS))
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert labels(read_manifest(root / "list.jsonl")) == [None, *RIGHT[1:]]


@pytest.mark.parametrize("word", ["nan", "N/A", "NULL", "None", "?", "<NA>"])
def test_words_for_a_missing_label_are_no_class_and_are_said(table, notes, word):
    rows = [(path, word if i < 2 else label) for i, (path, label) in enumerate(ROWS)]
    manifest = read_manifest(table("list.csv", ["path", "label"], rows))
    assert labels(manifest) == [None, None, *RIGHT[2:]] and manifest.classes == ("cat", "dog")
    assert any(f"2 labels '{word}' are read as no label" in note for note in notes)


SEVERAL = {
    "bars": ("list.csv", "cat|dog", "im/2.png: cat|dog"),
    "commas": ("list.csv", '"cat, dog"', "im/2.png: cat, dog"),
    "a list": ("list.jsonl", ["cat", "dog"], r"im/2.png: cat\|dog"),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_labels_are_refused_and_named(table, kind):
    name, label, shown = SEVERAL[kind]
    rows = [(path, label if i == 2 else other) for i, (path, other) in enumerate(ROWS)]
    with pytest.raises(DataError, match=f"1 image has several labels .{shown.replace('cat|dog', 'cat.dog')}"):
        read_manifest(table(name, ["path", "label"], rows))


def test_a_list_of_one_label_is_that_label(table):
    assert labels(read_manifest(table("list.jsonl", ["path", "label"], [(p, [c]) for p, c in ROWS]))) == RIGHT


def test_a_comma_within_a_class_is_no_second_label(table):
    rows = [(path, '"b,c"' if label == "cat" else label) for path, label in ROWS]
    assert read_manifest(table("list.csv", ["path", "label"], rows)).classes == ("b,c", "dog")


def test_class_numbers_beside_empty_cells_stay_whole(table, notes):
    rows = [(path, "" if i == 3 else float(label == "dog")) for i, (path, label) in enumerate(ROWS)]
    assert read_manifest(table("list.csv", ["path", "label"], rows)).classes == ("0", "1")
    assert any("'0.0' is read as '0'" in note for note in notes)


def test_leading_zeros_are_asked_about(table):
    rows = [(path, ("1", "01", "2", "10")[i % 4]) for i, (path, _) in enumerate(ROWS)]
    found = examine(table("list.csv", ["path", "label"], rows)).findings
    assert [one.names for one in found if one.code == "near-equal-classes"] == [["01", "1"]]


def test_two_spellings_of_a_path_with_two_labels_are_refused(table):
    with pytest.raises(DataError, match="lists im/0.png twice"):
        read_manifest(table("list.csv", ["path", "label"], [*ROWS, ("./im/0.png", "dog")]))


def test_images_without_labels_are_never_nothing_wrong(table, tree):
    file = table("list.csv", ["path", "rater", "notes"], [(path, i, "x") for i, (path, _) in enumerate(ROWS)])
    (finding,) = [one for one in examine(file).findings if one.code == "unlabelled"]
    assert finding.severity == "warning" and "name the column of labels 'label'" in finding.advice
    assert "folder per class" not in finding.advice
    (finding,) = [one for one in examine(tree("a.png", "b.png", root="flat")).findings if one.code == "unlabelled"]
    assert "one folder per class" in finding.advice


def test_fix_returns_the_same_classes_and_files_whatever_they_are_called(tmp_path):
    names = (" lead.png", "trail .png", "new\nline.png", 'q"u.png', "co,mma.png", "'=a.png", "back\\slash.png")
    for k, label in enumerate(("a ", "b,c", " d", "=x")):
        for i, name in enumerate(names):
            file = tmp_path / "d" / label / name
            file.parent.mkdir(parents=True, exist_ok=True)
            picture(f"{k} {i}").save(file)
    (tmp_path / "d" / "a " / "bad.png").write_bytes(b"")
    fix(examine(tmp_path / "d"), tmp_path / "clean.csv")
    (tmp_path / "d" / "a " / "bad.png").unlink()
    folder, clean = read_manifest(tmp_path / "d"), read_manifest(tmp_path / "clean.csv")
    assert clean.classes == folder.classes
    assert sorted(clean.digest.tolist()) == sorted(folder.digest.tolist())
    assert dict(zip(clean.digest.tolist(), labels(clean), strict=True)) == dict(
        zip(folder.digest.tolist(), labels(folder), strict=True)
    )
    assert np.all(clean.split == 0)
