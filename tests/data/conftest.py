"""Small image trees for the tests of the data layer, and a cache folder of their own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from potstill.progress import Display, use
from tests.data.pictures import picture


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("POTSTILL_CACHE", str(folder))
    return folder


@pytest.fixture
def notes() -> list[str]:
    with use(Display()) as shown:
        yield shown.notes


@pytest.fixture
def tree(tmp_path: Path) -> Callable[..., Path]:
    """Write pictures of these names (relative paths) under a new folder and return it."""

    def write(*names: str, size: tuple[int, int] = (8, 8), root: str = "images") -> Path:
        for name in names:
            file = tmp_path / root / name
            file.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                file.mkdir(exist_ok=True)
            else:
                picture(name, size).save(file)
        return tmp_path / root

    return write
