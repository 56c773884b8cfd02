"""Groups: what `--group` takes, and what `check` proposes where images belong together without saying so."""

from __future__ import annotations

import time

import numpy as np
import pytest

from potstill.data.checks import examine, propose_groups
from potstill.data.formats import read_manifest
from potstill.data.formats.groups import groups_of
from potstill.data.splits import hold_out
from potstill.errors import ConfigError
from tests.data import films


def sizes(manifest) -> list[int]:
    return sorted(np.unique(manifest.group, return_counts=True)[1].tolist())


@pytest.fixture(scope="module")
def signs(tmp_path_factory):
    return films.write(tmp_path_factory.mktemp("films") / "signs", films.signs())


def test_tracks_numbered_anew_in_each_class_are_proposed_and_do_not_merge(signs):
    proposal = propose_groups(read_manifest(signs))
    assert (proposal.groups, proposal.images) == (4 * 5, 120) and proposal.alike > 0.9 > 0.1 > proposal.chance
    grouped = read_manifest(signs, group=proposal.pattern)
    assert sizes(grouped) == [6] * 20
    assert sizes(read_manifest(signs, group="{class}/(.+)_")) == [6] * 20, "the class is part of the key"
    assert sizes(read_manifest(signs, group="/(.+)_")) == [24] * 5, "and is not where the pattern leaves it out"
    assert propose_groups(grouped) is None, "they are grouped"
    held = hold_out(grouped, split="test", fraction=0.2, seed=0)
    assert len(held.rows("test")) == 24
    assert not set(held.group[held.rows("test")]) & set(held.group[held.rows("train")])


def test_check_prints_the_flag_with_the_number_of_groups(signs):
    (finding,) = [finding for finding in examine(signs).findings if finding.code == "groups"]
    proposal = propose_groups(read_manifest(signs))
    assert finding.severity == "warning" and f"{proposal.flag} (20 groups)" in finding.advice
    assert not [finding for finding in examine(signs, group=proposal.pattern).findings if finding.code == "groups"]


def test_a_patient_in_two_classes_is_one_group(tmp_path):
    names = {
        f"train/{k}/patient{patient}_{number}.png": (patient, number)
        for patient in (31, 77, 140, 211, 305, 498)
        for k, numbers in (("ill", (0, 1, 2)), ("well", (3, 4, 5)))
        for number in numbers
    }
    proposal = propose_groups(read_manifest(films.write(tmp_path / "x", names)))
    assert proposal.groups == 6
    assert sizes(read_manifest(tmp_path / "x", group=proposal.pattern)) == [6] * 6


def test_folders_below_the_classes_are_found(tmp_path):
    names = {f"{k}/film {f}/{'abcdef'[n]}.png": (10 * k + f, n) for k in (1, 2) for f in range(4) for n in range(6)}
    proposal = propose_groups(read_manifest(films.write(tmp_path / "x", names)))
    assert proposal.groups == 8 and proposal.what == "lie in one folder"


def test_names_that_mean_nothing_are_not_proposed(tmp_path):
    names = {f"{k}/{t}_{n}.png": (1000 * k + 100 * t + n, 0) for k in (1, 2) for t in range(6) for n in range(6)}
    assert propose_groups(read_manifest(films.write(tmp_path / "x", names))) is None


def test_near_duplicates_without_names_are_grouped_through_each_other(tmp_path):
    names = {(k, scene): hash((k, scene)) % 10**9 for k in (1, 2) for scene in range(7)}
    root = films.write(tmp_path / "x", {f"{k}/{name}.png": (10 * k + s, 0) for (k, s), name in names.items()})
    for (k, scene), name in names.items():
        films.frame(10 * k + scene, 0).save(root / f"{k}/{name + 12345}.jpg", quality=70)
    proposal = propose_groups(read_manifest(root))
    assert proposal.flag == "--group near-copies" and (proposal.groups, proposal.images) == (14, 28)
    assert sizes(read_manifest(root, group="near-copies")) == [2] * 14


def test_photos_of_one_camera_within_a_minute_are_a_burst(tmp_path):
    root = tmp_path / "x"
    for scene in range(12):
        for number in range(4):
            image = films.frame(scene, number)
            exif = image.getexif()
            exif[0x0110], exif[0x0132] = f"camera {scene % 2}", f"2026:03:04 1{scene // 2}:00:{20 * number % 60:02}"
            file = root / f"{scene % 2}" / f"{hash((scene, number)) % 10**9}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            image.save(file, exif=exif, quality=95)
    proposal = propose_groups(read_manifest(root))
    assert proposal.flag == "--group exif" and proposal.groups == 12
    assert sizes(read_manifest(root, group="exif")) == [4] * 12


@pytest.mark.slow
def test_a_pattern_that_never_ends_is_stopped(tree, monkeypatch):
    root = tree(f"cat/{'a' * 60}!.png", "dog/b.png")
    monkeypatch.setattr("potstill.data.formats.groups._SECONDS", 1.0)
    start = time.perf_counter()
    with pytest.raises(ConfigError, match="exponential time"):
        read_manifest(root, group=r"^cat/(a|aa)+$")
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("pattern", ["(", "a" * 1001, "(" * 900 + ")" * 900])
def test_patterns_are_refused(tree, pattern):
    with pytest.raises(ConfigError, match="--group"):
        read_manifest(tree("cat/a.png", "dog/b.png"), group=pattern)


def test_a_pattern_matches_the_path_below_the_root(tree):
    root = tree("cat/7_a.png", "cat/7_b.png", "dog/7_c.png", root="7_data")
    assert sizes(read_manifest(root, group=r"/(\d)_")) == [3]
    assert sizes(read_manifest(root, group=r"^(\w+)/(\d)_")) == [1, 2], "all groups of the pattern are the key"
    assert groups_of("", [], read_manifest(root).source, [], None) is None


def test_groups_in_two_splits_of_the_data_are_found(tmp_path):
    names = {
        f"{s}/{k}/t{t}_{n}.png": (10 * k + t, n)
        for k in (1, 2)
        for t in range(3)
        for n, s in enumerate(("train", "test"))
    }
    root = films.write(tmp_path / "x", names)
    (finding,) = [one for one in examine(root, group=r"([^/]+/\w+)_").findings if one.code == "groups-across"]
    assert finding.count == 6 and not [f for f in examine(root).findings if f.code == "groups-across"]
