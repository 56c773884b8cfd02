"""What `read_manifest` makes of each kind of folder and file."""

from __future__ import annotations

import gzip

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import MNIST, ImageFolder

from potstill.data.formats import from_arrays, read_manifest
from potstill.data.manifest import UNLABELLED
from potstill.errors import ConfigError, DataError

PAIRS = tuple(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(3))


def described(manifest) -> list[tuple[str, str | None, str]]:
    splits = ("train", "validation", "test")
    label = [None if v == UNLABELLED else manifest.classes[v] for v in manifest.label]
    return [(manifest.name(r), label[r], splits[manifest.split[r]]) for r in range(len(manifest))]


def test_flat_class_folders_agree_with_torchvision(tree):
    root = tree(*PAIRS)
    manifest, theirs = read_manifest(root), ImageFolder(root)
    assert list(manifest.classes) == theirs.classes
    assert [str(root / manifest.name(r)) for r in range(6)] == [path for path, _ in theirs.samples]
    assert manifest.label.tolist() == theirs.targets
    assert np.array_equal(manifest.image(4), np.asarray(theirs[4][0]))


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "dev"])
@pytest.mark.parametrize(("train", "test"), [("train", "test"), ("Training", "testing")])
def test_split_folders(tree, train, validation, test):
    root = tree(*(f"{split}/{name}" for split in (train, validation, test) for name in PAIRS))
    manifest = read_manifest(root)
    assert manifest.classes == ("cat", "dog")
    assert [len(manifest.rows(split)) for split in ("train", "validation", "test")] == [6, 6, 6]
    assert (f"{test}/dog/2.png", "dog", "test") in described(manifest)


def test_labelled_and_unlabelled(tree):
    root = tree(*(f"labelled/{name}" for name in PAIRS), "unlabelled/a.png", "unlabelled/deep/b.png")
    manifest = read_manifest(root)
    assert manifest.classes == ("cat", "dog")
    assert len(manifest.rows("train", labelled=True)) == 6
    assert [manifest.name(r) for r in manifest.rows("train", labelled=False)] == [
        "unlabelled/a.png",
        "unlabelled/deep/b.png",
    ]


def test_labelled_holds_splits_and_unlabelled_stands_beside_splits(tree):
    inside = tree(*(f"labeled/{s}/{n}" for s in ("train", "test") for n in PAIRS), "unlabeled/a.png", root="a")
    beside = tree(*(f"{s}/{n}" for s in ("train", "test") for n in PAIRS), "unlabeled/a.png", root="b")
    for root in (inside, beside):
        manifest = read_manifest(root)
        assert manifest.classes == ("cat", "dog")
        assert [len(manifest.rows("train", labelled=x)) for x in (True, False)] == [6, 1]
        assert len(manifest.rows("test")) == 6


def test_a_flat_folder_is_unlabelled_and_said_to_be(tree, notes):
    root = tree("train.png", "test tubes.png", "val.png")
    manifest = read_manifest(root)
    assert manifest.classes == () and set(manifest.split) == {0} and set(manifest.label) == {UNLABELLED}
    assert any("its 3 images will be used without labels" in note for note in notes)


def test_class_order_is_natural(tree):
    root = tree(*(f"class{n}/a.png" for n in (1, 2, 10, 3)))
    assert read_manifest(root).classes == ("class1", "class2", "class3", "class10")


def test_junk_is_ignored_and_told_once(tree, notes):
    root = tree(*PAIRS, ".ipynb_checkpoints/a.png", "__MACOSX/cat/a.png", "cat/._0.png")
    (root / "cat" / "Thumbs.db").write_bytes(b"x")
    (root / "dog" / ".DS_Store").write_bytes(b"x")
    (root / "dog" / "notes.txt").write_text("hello")
    manifest = read_manifest(root)
    assert manifest.classes == ("cat", "dog") and len(manifest) == 6
    assert len([n for n in notes if ".ipynb_checkpoints" in n and "__MACOSX" in n and "Thumbs.db" in n]) == 1
    assert any("notes.txt" in note for note in notes)


def test_no_such_folder_names_the_nearest(tree):
    root = tree(*PAIRS)
    with pytest.raises(DataError, match="There is no .*imagse. Did you mean 'images'?"):
        read_manifest(root.parent / "imagse")


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["cat/0.png"], "has only one class, 'cat'"),
        ([*PAIRS, "bird/"], "has no images of 'bird'.*--allow-empty"),
        ([*(f"train/{n}" for n in PAIRS), "test/cat/0.png", "test/fox/0.png"], "the test split has images of 'fox'"),
        ([*(f"pets/train/{n}" for n in PAIRS), "pets/test/cat/a.png"], "one level too high: .* Give .*pets instead"),
        ([f"pets/{n}" for n in PAIRS], "one level too high: its folder 'pets' holds class folders"),
        ([*(f"train/{n}" for n in PAIRS), "cat/0.png"], "split folder 'train' and also 'cat'"),
        ([*(f"{s}/{n}" for s in ("val", "valid", "train") for n in PAIRS)], "'val' and 'valid' both mean"),
        (["cat/", "dog/"], "holds no images"),
    ],
)
def test_what_is_refused(tree, names, sentence):
    with pytest.raises(DataError, match=sentence):
        read_manifest(tree(*names))


def test_allow_empty_keeps_the_class(tree):
    assert read_manifest(tree(*PAIRS, "bird/"), allow_empty=True).classes == ("bird", "cat", "dog")


def test_one_split_of_a_set_and_stray_images_are_told(tree, notes):
    root = tree(*(f"{s}/{n}" for s in ("train", "test") for n in PAIRS), "train/stray.png")
    read_manifest(root / "train")
    assert any("is next to test" in note for note in notes)
    assert any("ignored 1 image outside the class folders, such as stray.png" in note for note in notes)


def test_unreadable_images_up_to_one_per_cent_are_skipped_and_named(tree, notes):
    root = tree(*(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(100)))
    (root / "dog" / "7.png").write_bytes(b"")
    (root / "cat" / "42.png").write_bytes((root / "cat" / "42.png").read_bytes()[:60])
    manifest = read_manifest(root)
    assert len(manifest) == 198 and "dog/7.png" not in manifest.source.names
    assert any("skipped 2 of 200" in n and "dog/7.png is empty" in n and "cat/42.png is damaged" in n for n in notes)
    (root / "dog" / "8.png").write_bytes(b"<html>")
    with pytest.raises(DataError, match="3 of 200 images cannot be read(.|\n)*8.png is a web page"):
        read_manifest(root)


def test_a_changed_file_is_read_anew(tree, cache):
    root = tree(*PAIRS)
    first = read_manifest(root)
    assert list(cache.rglob("*.json"))
    assert read_manifest(root).fingerprint == first.fingerprint
    Image.new("RGB", (9, 9)).save(root / "cat" / "0.png")
    second = read_manifest(root)
    assert (first.digest != second.digest).tolist() == [True] + [False] * 5


def test_a_damaged_cache_is_made_anew(tree, cache):
    root = tree(*PAIRS)
    first = read_manifest(root)
    for file in cache.rglob("*.json"):
        file.write_text("{")
    assert read_manifest(root).fingerprint == first.fingerprint


def test_digests_are_those_of_the_content(tree):
    manifest = read_manifest(tree(*PAIRS))
    for row in range(6):
        assert int.from_bytes(manifest.source.digest(row)[:8], "big") == int(manifest.digest[row])


def test_groups_by_a_pattern_over_paths(tree, notes):
    root = tree("cat/7_a.png", "cat/7_b.png", "cat/8_a.png", "dog/7_c.png", "dog/x.png")
    group = read_manifest(root, group=r"/(\d+)_").group
    assert group[0] == group[1] == group[3] and len(set(group.tolist())) == 3
    assert any("does not match 1 of 5" in note for note in notes)
    for wrong, sentence in (("(", "not a regular expression"), ("^zz", "matches no path below")):
        with pytest.raises(ConfigError, match=sentence):
            read_manifest(root, group=wrong)


def write_idx(path, array: np.ndarray, zipped: bool) -> None:
    content = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    path.with_name(path.name + ".gz" * zipped).write_bytes(gzip.compress(content) if zipped else content)


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_agrees_with_torchvision(tmp_path, zipped):
    raw, rng = tmp_path / "MNIST" / "raw", np.random.default_rng(0)
    raw.mkdir(parents=True)
    for split, count in (("train", 30), ("t10k", 20)):
        write_idx(raw / f"{split}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8), zipped)
        write_idx(raw / f"{split}-labels-idx1-ubyte", (np.arange(count) % 10).astype(np.uint8), zipped)
    manifest = read_manifest(raw)
    assert manifest.classes == tuple("0123456789") and manifest.name(31) == "test/1"
    if not zipped:
        theirs = MNIST(tmp_path, train=False)
        rows = manifest.rows("test")
        assert np.array_equal(np.stack([manifest.image(r)[:, :, 0] for r in rows]), theirs.data.numpy())
        assert manifest.label[rows].tolist() == theirs.targets.tolist()


def test_idx_that_is_cut_off_or_alone(tmp_path):
    file = tmp_path / "train-images-idx3-ubyte"
    write_idx(file, np.zeros((4, 5, 5), np.uint8), False)
    with pytest.raises(DataError, match="no IDX file of the train labels"):
        read_manifest(tmp_path)
    write_idx(tmp_path / "train-labels-idx1-ubyte", np.arange(4, dtype=np.uint8), False)
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(DataError, match="declares 100 bytes, and it holds 93"):
        read_manifest(tmp_path)


def test_npz_and_npy(tmp_path):
    rng = np.random.default_rng(0)
    train, test = (rng.integers(0, 256, (n, 6, 6, 3), dtype=np.uint8) for n in (8, 4))
    labels = {"train_labels": (np.arange(8) % 2)[:, None], "test_labels": np.arange(4) % 2}
    np.savez(tmp_path / "a.npz", train_images=train, test_images=test, classes=["left", "right"], **labels)
    manifest = read_manifest(tmp_path / "a.npz")
    assert manifest.classes == ("left", "right") and manifest.label.tolist() == [0, 1] * 6
    assert np.array_equal(manifest.image(9), test[1]) and len(manifest.rows("test")) == 4
    np.save(tmp_path / "b.npy", test)
    assert read_manifest(tmp_path / "b.npy").label.tolist() == [UNLABELLED] * 4
    (tmp_path / "c").mkdir()
    for key, value in {"x_train": train, "y_train": np.arange(8) % 2}.items():
        np.save(tmp_path / "c" / f"{key}.npy", value)
    assert read_manifest(tmp_path / "c").label.tolist() == [0, 1] * 4


def test_from_arrays_keeps_the_order_of_classes_and_scales_floats():
    values = np.linspace(0, 1, 4 * 9, dtype=np.float32).reshape(4, 3, 3)
    manifest = from_arrays(values, [1, 0, UNLABELLED, 1], ["train", "train", "train", "test"], ["z", "a"])
    assert manifest.classes == ("z", "a") and manifest.label.tolist() == [1, 0, UNLABELLED, 1]
    assert np.array_equal(manifest.image(1)[:, :, 0], np.rint(values[1] * 255).astype(np.uint8))
    assert manifest.name(3) == "test/0"


@pytest.mark.parametrize(
    ("images", "labels", "sentence"),
    [
        (np.zeros((2, 3, 3), np.uint8), [0, 1, 1], "2 images and 3 labels"),
        (np.zeros((2, 3), np.uint8), [0, 1], "has the shape"),
        (np.zeros((2, 5, 5, 7), np.uint8), [0, 1], "7 channels"),
        (np.full((2, 3, 3), 255.0), [0, 1], "floats must be from 0 to 1"),
        (np.zeros((2, 3, 3), np.int64), [0, 1], "holds int64"),
    ],
)
def test_arrays_that_do_not_fit(images, labels, sentence):
    with pytest.raises(DataError, match=sentence):
        from_arrays(images, labels)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not really", b"\x93NUMPY"])
def test_damaged_array_files(tmp_path, content):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match="cannot be read as arrays"):
        read_manifest(tmp_path / "a.npz")
