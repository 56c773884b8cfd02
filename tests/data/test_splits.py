"""Held-out rows: stratified, stable when images are added, and never on both sides."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from potstill.data.formats import from_arrays
from potstill.data.manifest import SPLITS, UNLABELLED, Manifest
from potstill.data.splits import folds, hold_out, keep_labels, limit
from potstill.errors import ConfigError, DataError
from potstill.stages.dataset import _with_splits
from potstill.stages.recipe import DataConfig


def made(*per_class: int, seed: int = 0, unlabelled: int = 0) -> Manifest:
    images = np.random.default_rng(seed).integers(0, 256, (sum(per_class) + unlabelled, 3, 3), dtype=np.uint8)
    labels = np.repeat([*range(len(per_class)), UNLABELLED], [*per_class, unlabelled])
    return from_arrays(images, labels, classes=[f"c{k}" for k in range(len(per_class))])


def counts(manifest: Manifest, split: str) -> list[int]:
    rows = manifest.rows(split, labelled=True)
    return np.bincount(manifest.label[rows], minlength=len(manifest.classes)).tolist()


def digests(manifest: Manifest, split: str) -> set[int]:
    return set(manifest.digest[manifest.rows(split)].tolist())


def test_every_class_gives_its_share_and_at_least_one_but_never_all():
    held = hold_out(made(50, 10, 2, 1), split="test", fraction=0.2, seed=0)
    assert counts(held, "test") == [10, 2, 1, 0]
    assert counts(held, "train") == [40, 8, 1, 1]


def test_the_seed_matters_and_nothing_else():
    manifest = made(40, 40)
    first, again, other = (hold_out(manifest, split="test", fraction=0.25, seed=s) for s in (0, 0, 1))
    assert np.array_equal(first.split, again.split) and not np.array_equal(first.split, other.split)
    turned = manifest.select(np.arange(80)[::-1])
    assert digests(hold_out(turned, split="test", fraction=0.25, seed=0), "test") == digests(first, "test")


def test_adding_an_image_moves_at_most_one_other():
    manifest = made(60, 60)
    before = digests(hold_out(manifest.select(np.arange(119)), split="validation", fraction=0.2, seed=3), "validation")
    after = digests(hold_out(manifest, split="validation", fraction=0.2, seed=3), "validation")
    assert len(before - after) <= 1 and len(after - before) <= 1


def test_validation_and_test_are_drawn_independently_and_test_stays_test():
    held = hold_out(made(50, 50), split="test", fraction=0.2, seed=0)
    both = hold_out(held, split="validation", fraction=0.25, seed=0)
    assert np.array_equal(both.rows("test"), held.rows("test"))
    assert counts(both, "validation") == [10, 10] and counts(both, "train") == [30, 30]


def test_identical_images_stay_on_one_side_even_with_different_labels():
    images = np.repeat(np.random.default_rng(0).integers(0, 256, (40, 3, 3), dtype=np.uint8), 3, axis=0)
    labels = np.tile([0, 0, 1], 40)
    held = hold_out(from_arrays(images, labels), split="test", fraction=0.3, seed=0)
    assert not digests(held, "test") & digests(held, "train")
    assert counts(held, "test") == [24, 12]


def test_groups_stay_on_one_side_and_shares_are_still_met():
    group = np.repeat(np.arange(40), 5)
    manifest = dataclasses.replace(made(100, 100), group=group)
    held = hold_out(manifest, split="test", fraction=0.3, seed=1)
    assert not set(group[held.rows("test")]) & set(group[held.rows("train")])
    assert counts(held, "test") == [30, 30]


@pytest.mark.parametrize("sizes", [[37, 3, 20, 20, 20], [60, 11, 9, 10, 10], [30] + [2] * 35])
def test_groups_of_unequal_size_are_exchanged_until_the_share_is_met(sizes, notes):
    group = np.repeat(np.arange(len(sizes)), sizes)
    manifest = dataclasses.replace(made(100, 100), group=np.tile(group, 2))
    for seed in range(5):
        held = hold_out(manifest, split="test", fraction=0.2, seed=seed)
        assert abs(len(held.rows("test")) / 200 - 0.2) <= 0.02, seed
        assert not set(held.group[held.rows("test")]) & set(held.group[held.rows("train")])
    assert not notes


def test_a_share_that_groups_cannot_meet_is_said_with_the_reason(notes):
    manifest = dataclasses.replace(made(100, 100), group=np.tile(np.repeat([0, 1], 50), 2))
    assert len(hold_out(manifest, split="test", fraction=0.2, seed=0).rows("test")) == 100
    assert "50 % of the images are held out for test instead of 20 %: groups stay together" in notes[0]


def test_groups_larger_than_the_share_still_give_one_of_each_class():
    manifest = dataclasses.replace(made(20, 20), group=np.repeat(np.arange(4), 10))
    held = hold_out(manifest, split="test", fraction=0.05, seed=0)
    assert counts(held, "test") == [10, 10]


def test_unlabelled_copies_move_with_the_held_out_image():
    manifest = made(20, 20)
    doubled = manifest.select(np.tile(np.arange(40), 2))
    label = doubled.label.copy()
    label[40:] = UNLABELLED
    held = hold_out(doubled.with_labels(label), split="test", fraction=0.25, seed=0)
    assert counts(held, "test") == [5, 5] and len(held.rows("test")) == 20
    assert not digests(held, "test") & digests(held, "train")


def test_nothing_to_hold_out():
    with pytest.raises(DataError, match="No image .* can be held out for test"):
        hold_out(made(1, 1), split="test", fraction=0.5, seed=0)
    with pytest.raises(ConfigError, match="between 0 and 1"):
        hold_out(made(9, 9), split="test", fraction=1.5, seed=0)


def test_limit_counts_train_rows_and_keeps_the_share_elsewhere():
    manifest = hold_out(made(400, 200, 100), split="test", fraction=0.5, seed=0)
    small = limit(manifest, 70, seed=0)
    assert counts(small, "train") == [40, 20, 10] and counts(small, "test") == [40, 20, 10]
    assert digests(small, "train") <= digests(manifest, "train")
    assert all(np.array_equal(small.image(r), manifest.image(int(small.kept[r]))) for r in range(0, 140, 10))


def test_limit_is_exact_keeps_rare_classes_and_counts_the_unlabelled():
    small = limit(made(1000, 3, 1, unlabelled=996), 100, seed=0)
    assert len(small.rows("train")) == 100 and counts(small, "train")[1:] == [1, 1]
    assert len(small.rows("train", labelled=False)) == 49


def test_limit_that_cannot_be_met(notes):
    manifest = made(5, 5)
    assert limit(manifest, 10, seed=0) is manifest and "the limit is 10" in notes[0]
    with pytest.raises(ConfigError, match="cannot cover the 2 classes"):
        limit(manifest, 1, seed=0)


def test_keep_labels_hides_the_others_and_leaves_test_alone():
    manifest = hold_out(made(100, 100), split="test", fraction=0.2, seed=0)
    few = keep_labels(manifest, 20, seed=0)
    assert counts(few, "train") == [10, 10] and counts(few, "test") == [20, 20]
    assert len(few.rows("train", labelled=False)) == 140
    kept = few.rows("train", labelled=True)
    assert np.array_equal(few.label[kept], manifest.label[kept])


def test_folds_cover_every_labelled_row_once():
    manifest = hold_out(made(23, 12, 6), split="test", fraction=0.2, seed=0)
    parts = folds(manifest, 4, seed=0)
    seen = np.concatenate([part.rows("validation") for part in parts])
    assert sorted(seen.tolist()) == np.flatnonzero(manifest.split != 2).tolist()
    assert all(np.array_equal(part.rows("test"), manifest.rows("test")) for part in parts)
    table = np.array([counts(part, "validation") for part in parts])
    assert (table.max(axis=0) - table.min(axis=0) <= 1).all() and (table > 0).all()


def test_folds_keep_groups_together_and_refuse_too_many():
    manifest = dataclasses.replace(made(30, 30), group=np.arange(60) // 3)
    for part in folds(manifest, 5, seed=0):
        assert not set(manifest.group[part.rows("validation")]) & set(manifest.group[part.rows("train")])
    with pytest.raises(ConfigError, match="'c0' has 10"):
        folds(manifest, 11, seed=0)


def with_validation(train: int, validation: int) -> Manifest:
    manifest = made(train + validation, train + validation)
    first = np.tile(np.arange(train + validation) < train, 2)
    return manifest.with_split(np.where(first, 0, 1).astype(np.uint8))


def test_a_test_split_is_half_of_the_validation_images_where_there_are_any(notes):
    manifest, config = with_validation(80, 20), DataConfig(path="x")
    read = _with_splits(manifest, config)
    assert [counts(read, split) for split in SPLITS] == [[80, 80], [10, 10], [10, 10]]
    assert "half of the validation images are used for testing, 20, and 20 for validation" in notes[-1]
    read = _with_splits(manifest, config.model_copy(update={"test_from": "train"}))
    assert [counts(read, split) for split in SPLITS] == [[64, 64], [20, 20], [16, 16]]
    read = _with_splits(manifest, config.model_copy(update={"test_from": "none"}))
    assert [counts(read, split) for split in SPLITS] == [[80, 80], [20, 20], [20, 20]]
    assert digests(read, "test") == digests(read, "validation") and "so they are optimistic" in notes[-1]


def test_a_test_split_from_validation_needs_one():
    with pytest.raises(ConfigError, match="has no validation images. Use --test-from train"):
        _with_splits(made(20, 20), DataConfig(path="x", test_from="val"))


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_split_without_any_label_is_left_out(split: str, notes):
    manifest = made(50, 50, unlabelled=10)
    given = np.where(manifest.label == UNLABELLED, SPLITS.index(split), 0).astype(np.uint8)
    read = _with_splits(manifest.with_split(given), DataConfig(path="photos"))
    assert [counts(read, one) for one in SPLITS] == [[36, 36], [4, 4], [10, 10]] and len(read) == 100
    assert any(f"the 10 images of its {split} split have no labels" in note for note in notes)


def test_folds_of_the_classes_that_occur():
    manifest = made(20, 20).select(np.arange(20))
    assert [len(part.rows("validation")) for part in folds(manifest, 5, seed=0)] == [4] * 5


def test_notes_count_what_is_used(notes):
    read = _with_splits(made(100, 100), DataConfig(path="x", limit=50))
    assert f"holding out {len(read.rows('test'))} images" in notes[-1] and len(read.rows("test")) < 20
