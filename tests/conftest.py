"""What all tests share: where the development data is, and small worlds made on the spot."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: see potstill.runtime


def shared_folder() -> Path:
    """Return the folder of the development data: $POTSTILL_SHARED, or `shared` beside the checkout."""
    return Path(os.environ.get("POTSTILL_SHARED", ROOT.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data; skips where it is absent."""
    folder = shared_folder()
    if not (folder / "data").is_dir():
        pytest.skip(f"the development data is not at {folder} (set POTSTILL_SHARED)")
    return folder


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the user's cache out of the tests."""
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def _fresh_display() -> Iterator[None]:
    """Give every test a display of its own, so that notes are told anew."""
    from potstill import progress

    with progress.use(progress.Display()):
        yield
