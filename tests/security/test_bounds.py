"""Inputs that would hang a command or fill the memory are refused, and said."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import socket
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest

from potstill.config import override, read_yaml
from potstill.data.decode import ImageError, decode
from potstill.data.formats import read_manifest
from potstill.errors import ConfigError, DataError, UserError
from potstill.progress import Display, use
from tests.data.pictures import picture

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join(['*' + p] * 9)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
)
YAMLS = {
    "laughs": LAUGHS,
    "itself": "a: &a [*a]\n",
    "deep": "a: " + "[" * 5000 + "]" * 5000,
    "deep enough": "a: " + "[" * 60 + "]" * 60,
    "long": "a: " + "x" * 2_000_000,
    "tag": "a: !!python/object/apply:os.system [true]\n",
    "number": "a: 0b\n? [1]\n: 2\n",
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.mark.parametrize("kind", YAMLS)
def test_yaml_is_bounded(tmp_path: Path, kind: str) -> None:
    (tmp_path / "r.yaml").write_text(YAMLS[kind])
    with pytest.raises(ConfigError, match="is not valid YAML"):
        read_yaml(tmp_path / "r.yaml")


def test_aliases_and_dates_of_ordinary_recipes_are_read(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "x: &x {lr: 0.1}\na: *x\nb: {<<: *x, c: 1}\nname: 2026-01-31\nat: 2026-01-31 10:00:00\n"
    )
    content = read_yaml(tmp_path / "r.yaml")
    assert content["a"] == {"lr": 0.1} and content["b"] == {"lr": 0.1, "c": 1}
    assert content["name"] == "2026-01-31" and content["at"] == "2026-01-31 10:00:00"


def test_an_assignment_that_is_no_yaml_is_named() -> None:
    with pytest.raises(ConfigError, match=r"'train.epochs=\[': '\[' is not valid YAML") as caught:
        override({}, ["train.epochs=[", "augment={", "seed=3"])
    assert len(caught.value.problems) == 2


@pytest.fixture
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for k in ("a", "b"):
        (tmp_path / "data" / k).mkdir(parents=True)
        for i in range(3):
            picture(f"{k}{i}").save(tmp_path / "data" / k / f"{i}.png")
    folder = tmp_path / "data" / "a"
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "up").symlink_to(tmp_path / "data")
    with socket.socket(socket.AF_UNIX) as listening:
        monkeypatch.chdir(folder)
        listening.bind("socket.png")
    return tmp_path / "data"


def test_what_is_no_file_is_left_out_of_a_folder_and_said(odd: Path) -> None:
    with use(Display()) as shown:
        assert len(read_manifest(odd)) == 6
    assert any("no regular file" in note and "pipe.png" in note and "zero.png" in note for note in shown.notes)


@pytest.mark.parametrize("name", ["pipe.png", "zero.png"])
def test_a_table_cannot_name_a_pipe_or_a_device(odd: Path, name: str) -> None:
    with pytest.raises(ImageError, match="pipe, device or socket"):
        decode(odd / "a" / name, name=name)
    rows = "".join(f"{k}/{i}.png,{k}\n" for k in "ab" for i in range(3))
    (odd / "list.csv").write_text(f"path,label\n{rows}a/{name},a\n")
    with pytest.raises(DataError, match="pipe, device or socket"):
        read_manifest(odd / "list.csv")


@pytest.mark.parametrize("name", ["list.csv", "x.npz", "x.tar", "x.npy"])
def test_a_pipe_is_no_data_set(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(DataError, match="pipe, device or socket"):
        read_manifest(tmp_path / name)


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()


def test_archives_unpack_only_so_far(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("potstill.bounded.SMALL", 2**20)
    bomb = bytes(30 * 2**20)
    for name, packed in (
        ("x.tar.gz", gzip.compress(bomb)),
        ("x.tar.bz2", bz2.compress(bomb)),
        ("x.tar.xz", lzma.compress(bomb)),
    ):
        (tmp_path / name).write_bytes(packed)
        with pytest.raises(DataError, match="unpacks to more than"):
            read_manifest(tmp_path / name)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", bomb)
    with pytest.raises(DataError, match="unpacks to 31 MB"):
        read_manifest(tmp_path / "x.npz")
    (tmp_path / "idx").mkdir()
    (tmp_path / "idx" / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(bomb))
    (tmp_path / "idx" / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(np.zeros(1, np.uint8))))
    with pytest.raises(DataError, match="unpacks to more than"):
        read_manifest(tmp_path / "idx")


@pytest.mark.parametrize("ending", ["gz", "bz2", "xz"])
def test_a_damaged_archive_is_called_damaged(tmp_path: Path, ending: str) -> None:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode="w") as archive:
        info = tarfile.TarInfo("a/0.png")
        info.size = 30_000
        archive.addfile(info, io.BytesIO(os.urandom(30_000)))
    packed = bytearray({"gz": gzip, "bz2": bz2, "xz": lzma}[ending].compress(memory.getvalue()))
    packed[len(packed) // 2] ^= 255
    (tmp_path / f"x.tar.{ending}").write_bytes(packed)
    with pytest.raises(DataError, match="is damaged or truncated"):
        read_manifest(tmp_path / f"x.tar.{ending}")


def test_idx_files_of_two_sizes_are_named(tmp_path: Path) -> None:
    for split, side in (("train", 4), ("t10k", 5)):
        (tmp_path / f"{split}-images-idx3-ubyte").write_bytes(idx(np.zeros((2, side, side), np.uint8)))
        (tmp_path / f"{split}-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1], np.uint8)))
    with pytest.raises(DataError, match=r"train images of \[4, 4\] and test images of \[5, 5\] pixels"):
        read_manifest(tmp_path)


def test_an_idx_header_of_astronomic_size_is_truncation(tmp_path: Path) -> None:
    header = bytes([0, 0, 8, 3]) + b"\xff" * 12
    (tmp_path / "train-images-idx3-ubyte").write_bytes(header)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(1, np.uint8)))
    with pytest.raises(UserError, match="is truncated"):
        read_manifest(tmp_path)
