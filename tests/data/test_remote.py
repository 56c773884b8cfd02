"""Shards behind a URL are the data set that the same shards are on disk, with few of them on disk at a time."""

from __future__ import annotations

import functools
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from potstill.data.cache import cache_folder
from potstill.data.formats import read_manifest, remote
from potstill.data.pixels import load_pixels
from potstill.errors import DataError


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    random = np.random.default_rng(0)
    for number in range(4):
        split = "test" if number == 3 else "train"
        with tarfile.open(folder / f"{split}-{number:03}.tar", "w") as archive:
            for row in range(6):
                buffer = io.BytesIO()
                Image.fromarray(random.integers(0, 255, (12, 12, 3), np.uint8)).save(buffer, "png")
                for ending, content in (("png", buffer.getvalue()), ("cls", b"ab"[row % 2 : row % 2 + 1])):
                    member = tarfile.TarInfo(f"{number}-{row}.{ending}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return folder


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files without a line for each."""

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def served(shards: Path) -> Iterator[str]:
    handler = functools.partial(Quiet, directory=str(shards))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_url_is_the_folder_of_its_shards(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "KEPT", 2)
    here = read_manifest(shards)
    there = read_manifest(f"file://{shards}")
    assert there.fingerprint == here.fingerprint and len(there) == 24
    assert len(list((cache_folder() / "shards").glob("*.tar"))) == 2
    pixels = [load_pixels(one, size=(12, 12), resize=12, channels=3).take(np.arange(24)) for one in (here, there)]
    assert (pixels[0] == pixels[1]).all()
    some = read_manifest(f"file://{shards}/train-{{000..001}}.tar", trains=False)
    assert len(some) == 12 and {some.name(row).partition("/")[0] for row in range(12)} == {
        "train-000.tar", "train-001.tar"
    }  # fmt: skip
    assert len(read_manifest(f"file://{shards}/train-*.tar", trains=False)) == 18


def test_shards_are_read_from_a_server(shards: Path, served: str) -> None:
    pytest.importorskip("aiohttp", reason="the extra potstill[remote] is not installed")
    there = read_manifest(f"{served}/train-{{000..002}}.tar", trains=False)
    here = read_manifest(f"file://{shards}/train-*.tar", trains=False)
    assert there.fingerprint == here.fingerprint
    with pytest.raises(DataError, match="train-009.tar.* cannot be read .FileNotFoundError"):
        read_manifest(f"{served}/train-009.tar", trains=False)


def test_what_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="There are no .tar shards at file://"):
        read_manifest(f"file://{tmp_path}")
    with pytest.raises(DataError, match="fsspec knows no nowhere://"):
        read_manifest("nowhere://x.tar")
    monkeypatch.setenv("POTSTILL_OFFLINE", "1")
    with pytest.raises(DataError, match="which --offline forbids"):
        read_manifest("s3://bucket/x.tar")
