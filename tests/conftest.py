"""What all tests share: where the development data is, and small worlds made on the spot."""

from __future__ import annotations

import functools
import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser import Browser, browser

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch is imported: see potstill.runtime
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before numpy is: for matrices this small, threads cost tenfold


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


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """A browser, which each test opens windows of its own in; skips where there is none."""
    with browser() as running:
        yield running


def pytest_collection_finish() -> None:
    """Spare the garbage collector the million objects of torch and of the tests, which live until the end anyway."""
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)  # exports make many small objects: collecting them so often took 6 % of the time


def pytest_sessionfinish() -> None:
    """Let what was frozen be freed in order when Python ends."""
    gc.unfreeze()


@pytest.fixture(scope="session", autouse=True)
def _short_measurements() -> Iterator[None]:
    """Time files and precisions for a moment instead of seconds: what is found is not looked at by these tests."""
    from potstill.model_files import latency
    from potstill.training import autotune

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(latency.latency_ms.__kwdefaults__, "seconds", 0.01)
        patch.setattr(autotune, "TRIAL_SECONDS", 0.05)
        yield


@pytest.fixture(scope="session", autouse=True)
def _one_table_of_operators() -> Iterator[None]:
    """Let torch.onnx translate its table of operators once instead of for each export, which costs 0.3 s each time."""
    try:
        from torch.onnx._internal.exporter._registration import ONNXRegistry
    except ImportError:  # another torch than this was written for: exports take longer, and that is all
        yield
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
        yield


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the user's cache out of the tests, and of what they share."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POTSTILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(autouse=True)
def _fresh_display() -> Iterator[None]:
    """Give every test a display of its own, so that notes are told anew."""
    from potstill import progress

    with progress.use(progress.Display()):
        yield
