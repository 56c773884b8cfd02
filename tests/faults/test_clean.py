"""The cache is bounded, archives are known by content, and `clean` shows before it removes."""

from __future__ import annotations

import os
import shutil
import tarfile
import time
from pathlib import Path

import pytest

import potstill
from potstill import artifacts, progress
from potstill.data import cache
from potstill.data.formats import read_manifest
from potstill.errors import UserError
from tests.faults.damage import write_photos

DAY = 86400


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)


def part(name: str, *, size: int, days: float) -> Path:
    """Write a part of the cache that was last used so many days ago."""
    folder = cache.cache_folder() / "pixels" / name
    artifacts.write_text(folder / "pixels.u8", "x" * size)
    then = time.time() - days * DAY
    os.utime(folder, (then, then))
    return folder


def test_the_least_recently_used_parts_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(cache.LIMIT, "0.000005")  # 5,000 bytes
    old, older, fresh = (
        part("old", size=2000, days=2),
        part("older", size=2000, days=3),
        part("fresh", size=2000, days=0),
    )
    keep = part("new", size=2000, days=9)
    cache.make_room(keep)
    assert keep.exists() and fresh.exists() and not older.exists() and not old.exists()
    assert "Removed 2 unused parts of the cache" in progress.display().notes[0]
    monkeypatch.setenv(cache.LIMIT, "much")
    with pytest.raises(UserError, match="number of gigabytes"):
        cache.limit_bytes()


def test_an_archive_is_known_by_its_content() -> None:
    photos = write_photos(Path("photos"), 8)
    with tarfile.open("photos.tar.gz", "w:gz") as archive:
        archive.add(photos, "photos")
    first = read_manifest("photos.tar.gz")
    shutil.copyfile("photos.tar.gz", "copy.tar.gz")
    assert read_manifest("copy.tar.gz").fingerprint == first.fingerprint
    assert len(list((cache.cache_folder() / "archives").iterdir())) == 1
    (photos / "cat" / "1.png").unlink()
    with tarfile.open("photos.tar.gz", "w:gz") as archive:
        archive.add(photos, "photos")
    assert len(read_manifest("photos.tar.gz")) == len(first) - 1


def test_clean_shows_what_it_would_remove_and_removes_it_on_demand() -> None:
    unused, used = part("unused", size=100, days=40), part("used", size=100, days=1)
    for run, finished in (("done", True), ("going", False)):
        artifacts.write_text(Path("runs", run, "recipe.yaml"), "name: x\n")
        artifacts.write_text(Path("runs", run, "stores", "teacher", "part.safetensors"), "x" * 50)
        if finished:
            artifacts.write_text(Path("runs", run, "student.onnx.damaged"), "x" * 5)
            artifacts.finish(Path("runs", run), {"kind": "distill"})
    shown = potstill.clean()
    found = {str(unused), "runs/done/stores", "runs/done/student.onnx.damaged"}
    assert {one["path"] for one in shown.summary["found"]} == found and shown.bytes == 155
    assert all(Path(path).exists() for path in found)
    assert potstill.clean(yes=True).bytes == 155
    assert not any(Path(path).exists() for path in found) and used.exists()
    assert Path("runs/going/stores").exists() and not artifacts.damages(Path("runs/done"))
    assert potstill.clean(max_gb=0).summary["found"][0]["path"] == str(used)


def test_clean_refuses_a_folder_that_does_not_exist() -> None:
    with pytest.raises(UserError, match="There is no folder nowhere"):
        potstill.clean("nowhere")
