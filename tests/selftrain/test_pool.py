"""The pool: read whatever its layout, refused in a sentence, and without copies of what is asked later."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from potstill.data import duplicates
from potstill.data.formats import from_arrays
from potstill.data.joined import joined
from potstill.data.manifest import UNLABELLED
from potstill.errors import DataError
from potstill.stages.selftrain.corrections import corrected
from potstill.stages.selftrain.unlabelled import read
from potstill.stages.unlabelled import read_pool
from tests.selftrain.worlds import labelled, more, pixels, pool_file, settings


def folder_of(path: Path, images: np.ndarray, ending: str = "png") -> Path:
    path.mkdir(parents=True)
    for number, image in enumerate(images):
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(path / f"{number}.{ending}")
    return path


def test_a_missing_pool_is_told(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    with pytest.raises(DataError, match=r"The unlabelled images: There is no .*nowhere"):
        read(settings(data, tmp_path / "nowhere"))


def test_an_empty_pool_is_told(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"The unlabelled images: .*empty"):
        read(settings(data, tmp_path / "empty"))


def test_an_unreadable_pool_is_told(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    broken = tmp_path / "broken"
    broken.mkdir()
    for number in range(3):
        (broken / f"{number}.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"The unlabelled images: .*3 of 3 images cannot be read"):
        read(settings(data, broken))


def test_a_pool_equal_to_the_labelled_images_is_told(tmp_path: Path) -> None:
    data, made = labelled(tmp_path)
    same = pool_file(tmp_path, pixels(made, made.rows("train")))
    with pytest.raises(DataError, match="All unlabelled images"):
        read(settings(data, same))
    with pytest.raises(DataError, match="All unlabelled images"):
        read(settings(data, data))


def test_no_pool_at_all_is_told(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    with pytest.raises(DataError, match="--unlabelled DIR"):
        read(settings(data, None))


def test_folders_in_a_pool_are_no_labels(tmp_path: Path) -> None:
    images = more(12)
    root = tmp_path / "pool"
    folder_of(root / "holiday", images[:6])
    folder_of(root / "train" / "cat", images[6:])
    pool = read_pool(str(root))
    assert len(pool) == 12
    assert (pool.label == UNLABELLED).all() and (pool.split == 0).all()


def test_hidden_labels_join_the_pool_and_the_budget_covers_validation(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    manifest = read(settings(data, None, labels=30))
    assert sum(len(manifest.rows(split, labelled=True)) for split in ("train", "validation")) == 30
    assert len(manifest.rows("validation", labelled=True)) == 6
    assert len(manifest.rows("train", labelled=False)) > 100


def test_joined_rows_keep_their_images_in_other_processes(tmp_path: Path) -> None:
    one, two = from_arrays(more(9), np.arange(9) % 3, classes=["a", "b", "c"]), from_arrays(more(6, seed=4))
    both = joined(one.select(np.array([3, 5])), two.select(np.array([4, 0, 2])))
    expected = [one.image(3), one.image(5), two.image(4), two.image(0), two.image(2)]
    part = pickle.loads(pickle.dumps(both.source.only([both.source_row(row) for row in range(5)])))
    for row, image in enumerate(expected):
        assert (both.image(row) == image).all() and (part.image(row) == image).all()
    assert both.label.tolist() == [0, 2, UNLABELLED, UNLABELLED, UNLABELLED]


def test_copies_of_test_images_are_caught_exact_and_saved_again(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    scene = [np.kron(random.integers(0, 256, (8, 8, 3)), np.ones((6, 6, 1))).astype(np.uint8) for _ in range(260)]
    own, others = np.stack(scene[:60]), np.stack(scene[60:])
    split = np.array(["train", "train", "test"] * 20)
    data = from_arrays(own, np.arange(60) // 3 % 3, splits=split, classes=["a", "b", "c"])
    test = data.rows("test")
    folder = folder_of(tmp_path / "pool", others[:190])
    folder_of(tmp_path / "pool" / "exact", pixels(data, test[:5]))
    folder_of(tmp_path / "pool" / "again", pixels(data, test[5:10]), ending="jpg")
    manifest = joined(data, read_pool(str(folder)))
    found = duplicates.deduplicate(manifest)
    names = {manifest.name(int(row)) for row in found.pool[found.reason == duplicates.COPY_OF_TEST]}
    assert names == {f"{kind}/{n}.{end}" for kind, end in (("exact", "png"), ("again", "jpg")) for n in range(5)}
    assert len(found.kept) == 190


def test_copies_within_the_pool_and_of_labelled_images_count_once(tmp_path: Path) -> None:
    data, made = labelled(tmp_path)
    new = more(20)
    twice = np.concatenate([new, new[:4], pixels(made, made.rows("train")[:3])])
    found = duplicates.deduplicate(read(settings(data, pool_file(tmp_path, twice))))
    assert len(found.kept) == 20
    assert [int((found.reason == n).sum()) for n in (duplicates.COPY, duplicates.COPY_OF_LABELLED)] == [4, 3]


def test_corrections_are_read_back_and_wrong_ones_named(tmp_path: Path) -> None:
    data, _ = labelled(tmp_path)
    manifest = read(settings(data, pool_file(tmp_path, more(5))))
    rows = manifest.rows("train", labelled=False)
    name = manifest.name(int(rows[1]))
    (tmp_path / "labels.csv").write_text(f"path,label,predicted\n{name},cross,circle\nother,,circle\n")
    mended = corrected(manifest, tmp_path / "labels.csv")
    assert mended.classes[mended.label[rows[1]]] == "cross"
    assert (mended.label != manifest.label).sum() == 1
    other = manifest.name(int(rows[2]))
    (tmp_path / "wrong.csv").write_text(f"path,label\n{name},corss\n{other},corss\nelsewhere.png,cross\n")
    with pytest.raises(DataError) as told:
        corrected(manifest, tmp_path / "wrong.csv")
    assert len(told.value.problems) == 2
    assert "2 rows (the first is line 2) have the label 'corss', which is not a class. Did you mean 'cross'?" in str(
        told.value
    )
