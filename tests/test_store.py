"""The store: what was written is read back by (view, index), whole or not at all, whatever happens to its writers."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from potstill import artifacts, progress
from potstill.errors import RunError
from potstill.teachers import prediction_store as store_module
from potstill.teachers.prediction_store import Store, map_safetensors

ROWS = np.array([3, 5, 8, 13, 21, 34, 55])
SOURCE = {"teacher": "a", "images": "x", "augmentation": "shift", "normalisation": [0.5]}


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PART_ROWS", 3)


def said(view: int, rows: np.ndarray) -> np.ndarray:
    return (1000 * view + rows[:, None] + np.arange(4) / 8).astype(np.float16)


def fill(store: Store, rank: int = 0, world: int = 1) -> None:
    for view, part in store.missing()[rank::world]:
        store.write(view, part, {"logits": said(view, store.part_rows(part))})


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_rows_come_back_in_any_order_and_views_wrap(tmp_path: Path, small_parts: None) -> None:
    store = Store(tmp_path, ROWS, 2, SOURCE)
    fill(store)
    store.close()
    index, view = np.array([55, 3, 13, 3, 21]), np.array([1, 0, 1, 3, 2])
    read = Store(tmp_path, ROWS, 2, SOURCE).read(index, view)["logits"]
    expected = np.stack([said(v % 2, np.array([i]))[0] for i, v in zip(index, view, strict=True)])
    assert read.dtype == np.float16 and np.array_equal(read, expected)


def test_several_columns_of_several_types(tmp_path: Path, small_parts: None) -> None:
    store = Store(tmp_path, ROWS, 1, SOURCE)
    columns = {
        "values": np.arange(14, dtype=np.float16).reshape(7, 2),
        "classes": np.arange(14, dtype=np.uint16).reshape(7, 2) + 60_000,
        "rest": np.arange(7, dtype=np.float16),
    }
    for view, part in store.missing():
        store.write(view, part, {name: values[3 * part : 3 * part + 3] for name, values in columns.items()})
    read = store.read(ROWS[::-1], np.zeros(7, np.int64))
    for name, values in columns.items():
        assert read[name].dtype == values.dtype and np.array_equal(read[name], values[::-1])


def test_more_parts_than_may_be_open(tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "OPEN_PARTS", 2)
    store = Store(tmp_path, ROWS, 3, SOURCE)
    fill(store)
    for view in (0, 1, 2, 0):
        assert np.array_equal(store.read(ROWS, np.full(7, view))["logits"], said(view, ROWS))
    assert len(store._parts) == 2


def test_only_what_is_missing_is_written_again(tmp_path: Path, small_parts: None) -> None:
    store = Store(tmp_path, ROWS, 2, SOURCE)
    fill(store)
    store.close()
    assert store.complete
    (tmp_path / "view-0001" / "part-00001.safetensors").unlink()
    assert not store.complete and store.missing() == [(1, 1)]


def test_writers_have_parts_of_their_own_and_others_go_on(tmp_path: Path, small_parts: None) -> None:
    """Three writers, of which one does nothing; then two others finish. Nobody writes what another has written."""
    store = Store(tmp_path, ROWS, 3, SOURCE)
    todo = store.missing()
    stripes = [todo[rank::3] for rank in range(3)]
    assert sorted(sum(stripes, [])) == todo
    for rank in (0, 2):
        for view, part in stripes[rank]:
            store.write(view, part, {"logits": said(view, store.part_rows(part))})
    assert store.missing() == stripes[1]
    before = {file: file.stat().st_mtime_ns for file in files(tmp_path)}
    left = store.missing()
    for rank in range(2):
        for view, part in left[rank::2]:
            store.write(view, part, {"logits": said(view, store.part_rows(part))})
    store.close()
    assert {file: file.stat().st_mtime_ns for file in before} == before
    for view in range(3):
        assert np.array_equal(store.read(ROWS, np.full(7, view))["logits"], said(view, ROWS))


@pytest.mark.parametrize(
    ("changed", "views", "rows"),
    [
        *((key, 2, ROWS) for key in SOURCE),
        ("views", 3, ROWS),
        ("rows", 2, ROWS[::-1].copy()),
        ("rows", 2, ROWS[1:]),
    ],
)
def test_another_source_is_refused_by_name(tmp_path: Path, changed: str, views: int, rows: np.ndarray) -> None:
    Store(tmp_path, ROWS, 2, SOURCE)
    with pytest.raises(RunError, match=f"different: {changed}\\)"):
        Store(tmp_path, rows, views, {**SOURCE, **({changed: "other"} if changed in SOURCE else {})})


def test_two_differences_are_both_named(tmp_path: Path) -> None:
    Store(tmp_path, ROWS, 2, SOURCE)
    with pytest.raises(RunError, match="different: teacher, views"):
        Store(tmp_path, ROWS, 3, {**SOURCE, "teacher": "b"})


def test_a_part_is_written_whole_or_not_at_all(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, ROWS, 1, SOURCE)

    def dies(*args: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        fill(store)
    assert len(store.missing()) == 3 and not list(tmp_path.rglob("*.tmp"))


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [flip, lambda file: file.write_bytes(file.read_bytes()[:-3]), lambda file: file.write_bytes(b"")],
    ids=["one bit", "cut short", "empty"],
)
def test_damage_on_disk_is_not_read_but_made_again(tmp_path: Path, small_parts: None, damage: object) -> None:
    fill(Store(tmp_path, ROWS, 2, SOURCE))
    damage(files(tmp_path)[4])
    store = Store(tmp_path, ROWS, 2, SOURCE)
    assert np.array_equal(store.read(ROWS, np.zeros(7, np.int64))["logits"], said(0, ROWS))
    with pytest.raises(RunError, match=r"view-0001.part-00001.safetensors is damaged"):
        store.read(ROWS, np.ones(7, np.int64))
    store.discard_damaged()
    assert store.missing() == [(1, 1)] and "1 part of" in progress.display().notes[0]
    fill(store)
    assert np.array_equal(store.read(ROWS, np.ones(7, np.int64))["logits"], said(1, ROWS))


def test_a_damaged_source_is_no_other_source(tmp_path: Path, small_parts: None) -> None:
    fill(Store(tmp_path, ROWS, 2, SOURCE))
    source = tmp_path / "source.json"
    source.write_text(source.read_text().replace("teacher", "tEacher", 1))
    store = Store(tmp_path, ROWS, 2, SOURCE)
    assert store.missing() == [] and "source.json has another content" in progress.display().notes[0]
    assert np.array_equal(store.read(ROWS, np.zeros(7, np.int64))["logits"], said(0, ROWS))
    with pytest.raises(RunError, match="another source"):
        Store(tmp_path, ROWS, 2, {**SOURCE, "teacher": "other"})


WRITER = """
import sys
import numpy as np
from pathlib import Path
from potstill.teachers import prediction_store as store
store.PART_ROWS = 1024
sys.stdin.readline()
made = store.Store(Path(sys.argv[1]), np.arange(20 * 1024), 5, {"teacher": "t"})
print("ready", flush=True)
for view, part in made.missing():
    rows = made.part_rows(part)
    made.write(view, part, {"logits": (1000.0 * view + rows[:, None] % 977 + np.zeros(256)).astype(np.float16)})
made.close()
"""


def writer(folder: Path) -> subprocess.Popen:
    """Start a writer that waits for a line: what it imports takes longer than what it writes."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", WRITER, str(folder)], **pipes)


def kill(child: subprocess.Popen, folder: Path, *, parts: int, after: float) -> None:
    """Kill a writer some seconds after it has finished so many parts."""
    wanted = len(files(folder)) + parts
    child.stdin.write(b"go\n")
    child.stdin.flush()
    child.stdout.readline()
    while len(files(folder)) < wanted and child.poll() is None:
        time.sleep(0.0005)
    time.sleep(after)
    child.send_signal(signal.SIGKILL)
    child.communicate()


@pytest.mark.slow
def test_twenty_writers_killed_at_any_moment(tmp_path: Path) -> None:
    """Nothing half-written is ever read, and nothing finished is done again."""
    dice, finished = random.Random(0), {}
    waiting = [writer(tmp_path) for _ in range(4)]
    for _ in range(20):
        kill(waiting.pop(0), tmp_path, parts=dice.randrange(3), after=dice.uniform(0, 0.005))
        waiting.append(writer(tmp_path))
        now = {file: file.stat().st_mtime_ns for file in files(tmp_path)}
        assert finished.items() <= now.items()
        for file in now.keys() - finished.keys():
            columns, facts = map_safetensors(file)
            source = artifacts.fingerprint(artifacts.read_sealed_if_whole(tmp_path / "source.json"))
            assert store_module.digest(columns, source) == facts["sha256"] and columns["logits"].shape == (1024, 256)
        finished = now
    assert 0 < len(finished) < 100 and not (tmp_path / "manifest.json").exists()
    waiting[0].communicate(b"go\n")
    for child in waiting[1:]:
        child.kill()
        child.communicate()
    assert finished.items() <= {file: file.stat().st_mtime_ns for file in files(tmp_path)}.items()
    assert json.loads((tmp_path / "manifest.json").read_text())["bytes"] > 0 and not list(tmp_path.rglob("*.tmp"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store_module, "PART_ROWS", 1024)
        store = Store(tmp_path, np.arange(20 * 1024), 5, {"teacher": "t"})
        for view in range(5):
            read = store.read(store.rows, np.full(len(store.rows), view))["logits"]
            assert np.array_equal(read[:, 7], (1000.0 * view + store.rows % 977).astype(np.float16))
