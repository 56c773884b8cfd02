"""Malformed files by the hundred: all are reported, none ends a command with anything but a sentence."""

from __future__ import annotations

import gzip
import pickle
import sqlite3
import zipfile
from collections.abc import Iterator
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from potstill.data.checks import examine
from potstill.data.formats import read_manifest
from potstill.data.formats.facts import facts_of
from potstill.errors import DataError
from tests.data.pictures import encoded

FILES = 200
KINDS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "TGA", "JPEG2000")
SIGNED = ("GIF", "TIFF", "WEBP", "JPEG2000")  # formats of which every bit of the first four bytes counts


@pytest.fixture(scope="module")
def whole() -> dict[str, bytes]:
    coarse = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((70, 50), Image.Resampling.BICUBIC)
    return {kind: encoded(image, kind) for kind in KINDS}


def flipped(content: bytes, byte: int, bit: int) -> bytes:
    return content[:byte] + bytes([content[byte] ^ 1 << bit]) + content[byte + 1 :]


def foreign() -> list[bytes]:
    zipped = BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("a.txt", "hello")
    database = sqlite3.connect(":memory:")
    database.execute("create table a (b)")
    stored = database.serialize()
    database.close()
    text = [
        "",
        " ",
        "Not Found",
        "<html><body>403",
        "<?xml version='1.0'?><svg/>",
        "%PDF-1.7",
        "{}",
        "\ufeffimage",
        "\0" * 99,
    ]
    return [
        *(part.encode() for part in text),
        *("bild".encode(code) for code in ("utf-16", "utf-32")),
        *(b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\x00", b"RIFF\x00\x00\x00\x00WEBP"),
        *(zipped.getvalue(), stored, gzip.compress(b"image"), pickle.dumps({"image": 1}), b"\x7fELF" + bytes(60)),
        b"\x00\x00\x00\x20ftypisom" + bytes(50),
    ]


def malformed(whole: dict[str, bytes], seed: int) -> Iterator[bytes]:
    """Yield files that are cut off, have a flipped bit, or are something else."""
    rng = np.random.default_rng(seed)
    others = foreign()
    while True:
        kind = KINDS[rng.integers(len(KINDS))]
        yield whole[kind][: int(len(whole[kind]) * rng.uniform(0.02, 0.95))]
        signed = SIGNED[rng.integers(len(SIGNED))]
        yield flipped(whole[signed], rng.integers(4), int(rng.integers(8)))
        yield flipped(whole["PNG"], rng.integers(len(whole["PNG"])), int(rng.integers(8)))
        yield others[rng.integers(len(others))]
        yield rng.bytes(rng.integers(1, 400))


def test_two_hundred_malformed_files_are_all_reported(tree, whole):
    root = tree("cat/0.png", "dog/0.png", size=(32, 32))
    files = malformed(whole, seed=0)
    for n in range(FILES):
        (root / ("cat", "dog")[n % 2] / f"bad {n}.{('jpg', 'png', 'tif')[n % 3]}").write_bytes(next(files))
    report = examine(root)
    faults = {report.survey.paths[row]: fact.fault for row, fact in enumerate(report.survey.facts)}
    assert {name for name, fault in faults.items() if not fault} == {"cat/0.png", "dog/0.png"}
    found = {finding.code: finding.count for finding in report.findings if finding.severity == "error"}
    assert sum(found.values()) == FILES and len(found) >= 4
    with pytest.raises(DataError, match="200 of 202 images cannot be read"):
        read_manifest(root)


def test_few_malformed_files_are_skipped_and_named(tree, whole, notes):
    root = tree(*(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(150)))
    files = malformed(whole, seed=1)
    for n in range(3):
        (root / "cat" / f"bad {n}.jpg").write_bytes(next(files))
    assert len(read_manifest(root)) == 300
    assert any(all(f"bad {n}.jpg" in note for n in range(3)) for note in notes)


def test_flips_anywhere_end_in_facts_never_in_another_error(whole):
    rng = np.random.default_rng(2)
    for n in range(FILES):
        content = whole[KINDS[n % len(KINDS)]]
        for _ in range(n % 4 + 1):
            content = flipped(content, rng.integers(len(content)), int(rng.integers(8)))
        facts = facts_of(content, name="a.jpg")
        assert bool(facts.fault) == facts.problem.startswith("a.jpg ") and bool(facts.fault) == (facts.width == 0)
