"""The store: what was written is read back by (view, index), whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from potstill import store as store_module
from potstill.errors import RunError
from potstill.store import Store

ROWS = np.array([3, 5, 8, 13, 21, 34, 55])


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "PART_ROWS", 3)


def said(view: int, rows: np.ndarray) -> np.ndarray:
    return (1000 * view + rows[:, None] + np.arange(4) / 8).astype(np.float16)


def fill(store: Store) -> None:
    for view, part in store.missing():
        store.write(view, part, {"logits": said(view, store.part_rows(part))})


def test_rows_come_back_in_any_order_and_views_wrap(tmp_path: Path, small_parts: None) -> None:
    store = Store(tmp_path, ROWS, 2, {"teacher": "t"})
    fill(store)
    store.close()
    index, view = np.array([55, 3, 13, 3, 21]), np.array([1, 0, 1, 3, 2])
    read = Store(tmp_path, ROWS, 2, {"teacher": "t"}).read(index, view)["logits"]
    expected = np.stack([said(v % 2, np.array([i]))[0] for i, v in zip(index, view, strict=True)])
    assert read.dtype == np.float16 and np.array_equal(read, expected)


def test_only_what_is_missing_is_written_again(tmp_path: Path, small_parts: None) -> None:
    store = Store(tmp_path, ROWS, 2, {})
    fill(store)
    lost = tmp_path / "view-0001" / "part-00001.safetensors"
    lost.unlink()
    assert not store.complete and store.missing() == [(1, 1)]


def test_another_source_is_refused_by_name(tmp_path: Path) -> None:
    Store(tmp_path, ROWS, 2, {"teacher": "a", "images": "x"})
    with pytest.raises(RunError, match="another teacher and views"):
        Store(tmp_path, ROWS, 3, {"teacher": "b", "images": "x"})


def test_a_part_is_written_whole_or_not_at_all(
    tmp_path: Path, small_parts: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path, ROWS, 1, {})

    def dies(*args: object) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(store_module, "save", dies)
    with pytest.raises(KeyboardInterrupt):
        fill(store)
    assert len(store.missing()) == 3 and not list(tmp_path.rglob("*.tmp"))
