"""What `check` finds: each finding is provoked by files that the test makes, and none is made up."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import potstill
from potstill.cli import app
from potstill.data.checks import check, examine
from potstill.data.checks.fix import fix
from potstill.data.formats import from_arrays, read_manifest
from potstill.data.formats.near import near_hashes
from potstill.data.formats.rules import near_equal
from potstill.errors import DataError, UserError
from potstill.report.checks import write_page
from potstill.stages.check import check as check_stage
from tests.data.pictures import bomb, encoded, picture

PAIRS = tuple(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(3))
SPLIT = tuple(f"{split}/{name}" for split in ("train", "test") for name in PAIRS)


def codes(root) -> dict[str, int]:
    return {finding.code: finding.count for finding in check(root)}


def photo(seed: int, side: int = 64) -> Image.Image:
    """Return a smooth picture, as near copies need one."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)


def test_a_sound_set_has_no_findings(tree):
    report = examine(tree(*SPLIT, size=(32, 32)))
    assert report.findings == [] and report.worst == "none"
    assert report.to_json()["splits"]["test"] == {"images": 6, "labelled": 6}


def test_every_kind_of_unreadable_file_is_named(tree):
    root = tree(*PAIRS)
    whole = encoded(picture("x", (60, 60)), "JPEG")
    wrong = {
        "empty": b"",
        "foreign": b"<!doctype html>Not Found",
        "damaged": whole[: len(whole) // 2],
        "drawing": b'<?xml version="1.0"?><svg/>',
        "plug-in": b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(40),
        "bomb": bomb(30_000, 30_000),
        "range": encoded(Image.fromarray(np.full((4, 4), 300.0, np.float32)), "TIFF"),
    }
    for fault, content in wrong.items():
        (root / "cat" / f"{fault}.jpg").write_bytes(content)
    (root / "dog" / "missing.jpg").symlink_to(root / "nowhere.jpg")
    found = {finding.code: finding for finding in check(root)}
    for fault in [*wrong, "missing"]:
        assert found[fault].severity == "error" and found[fault].count == 1
        assert f"{fault}.jpg" in found[fault].text and "--fix clean.csv" in found[fault].advice


def test_a_few_unreadable_images_are_a_warning(tree):
    root = tree(*(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(60)))
    (root / "cat" / "0.png").write_bytes(b"")
    assert [f.severity for f in check(root) if f.code == "empty"] == ["warning"]


def test_what_is_unusual_but_handled(tree):
    root = tree(*PAIRS, size=(32, 32))
    exif = Image.Exif()
    exif[0x0112] = 6
    noise = np.random.default_rng(0).integers(0, 256, (9, 9, 4), dtype=np.uint8)
    frames = [picture("frame a", (9, 9)), picture("frame b", (9, 9))]
    picture("turned", (9, 12)).save(root / "cat" / "turned.jpg", exif=exif)
    Image.fromarray(noise[..., 0].astype(np.uint16) * 200).save(root / "cat" / "16-bit.png")
    Image.fromarray(noise[..., 0].astype(np.float32) / 255).save(root / "cat" / "float.tiff")
    Image.fromarray(noise).save(root / "cat" / "alpha.png")
    Image.fromarray(noise, "CMYK").save(root / "cat" / "cmyk.jpg")
    Image.fromarray(noise[..., :3]).quantize(16).save(root / "cat" / "palette.png")
    Image.fromarray(noise[..., 0]).save(root / "cat" / "grey.png")
    Image.new("RGB", (9, 9), "red").save(root / "cat" / "blank.png")
    frames[0].save(root / "cat" / "animated.webp", save_all=True, append_images=frames[1:], lossless=True)
    (root / "cat" / "wrong-ending.jpg").write_bytes(encoded(picture("w", (9, 9)), "PNG"))
    expected = {"rotated", "16-bit", "float", "alpha", "cmyk", "palette", "blank", "animated", "wrong-ending"}
    found = codes(root)
    assert {code: found.get(code) for code in expected} == dict.fromkeys(expected, 1)
    assert found["grey"] == 3  # with the 16-bit and the float one
    assert {finding.severity for finding in check(root)} == {"info", "warning"}


def test_junk_and_other_files(tree):
    root = tree(*PAIRS, ".ipynb_checkpoints/0.png", "__MACOSX/0.png")
    (root / "cat" / ".DS_Store").write_bytes(b"")
    (root / "notes.txt").write_text("x")
    assert codes(root) == {"junk": 3, "no-image-name": 1}


def test_a_layout_that_is_refused_is_a_finding_and_the_images_are_looked_at_anyway(tree):
    root = tree(*(f"pets/{name}" for name in SPLIT))
    (root / "pets" / "train" / "cat" / "0.png").write_bytes(b"")
    found = {finding.code: finding for finding in check(root)}
    assert "one level too high" in found["layout"].text and found["empty"].count == 1
    assert found["empty"].advice.endswith("Or leave them out with --fix, after the layout is mended.")
    with pytest.raises(DataError, match="There is no"):
        check(root / "nowhere")


def test_classes(tree):
    names = [
        *SPLIT,
        "train/Cat /9.png",
        "train/fox/",
        "train/owl/9.png",
        *(f"train/dog/{n}.png" for n in range(10, 40)),
    ]
    found = {finding.code: finding for finding in check(tree(*names))}
    assert found["near-equal-classes"].names == ["cat", "Cat "]
    assert found["empty-class"].names == ["fox"]
    assert found["one-image-class"].names == ["Cat ", "owl"]
    assert found["class-not-in-test"].names == ["Cat ", "owl"]
    assert "'dog' has 36 images" in found["imbalance"].text


def test_class_of_test_that_is_not_in_train_and_one_class(tree):
    found = codes(tree(*(f"train/cat/{n}.png" for n in range(3)), "test/fox/0.png", root="a"))
    assert found["class-not-in-train"] == 1 and found["class-not-in-test"] == 1
    assert "one-class" in codes(tree("cat/0.png", root="b"))


def test_split_names_in_a_label_column(tree):
    root = tree(*PAIRS)
    lines = [f"{name},{('train', 'val')[i % 2]}" for i, name in enumerate(PAIRS)]
    (root / "list.csv").write_text("\n".join(["path,label", *lines]))
    assert codes(root / "list.csv")["splits-as-classes"] == 2


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["Cat ", "cat", "dog"], [["Cat ", "cat"]]),
        (["hot_dog", "Hot Dog", "hot-dogs"], [["hot_dog", "Hot Dog", "hot-dogs"]]),
        (["café", "cafe"], [["café", "cafe"]]),
        (["class1", "class2", "class10", "bus", "bu", "0", "1", "猫", "犬"], []),
    ],
)
def test_near_equal_names(names, groups):
    assert near_equal(names) == groups


COPIES = {
    "copies-test": ("train/cat/0.png", "test/cat/0.png"),
    "copies-validation": ("train/cat/0.png", "val/cat/0.png"),
    "copies-unlabelled-test": ("unlabelled/0.png", "test/cat/0.png"),
    "copies-within": ("train/cat/0.png", "train/cat/1.png"),
    "copies-conflict": ("train/cat/0.png", "train/dog/0.png"),
}
TREE = [*SPLIT, *(f"val/{name}" for name in PAIRS), "unlabelled/0.png", "unlabelled/1.png"]


@pytest.mark.parametrize("code", COPIES)
def test_exact_copies(tree, code):
    root = tree(*TREE, size=(32, 32))
    source, copy = COPIES[code]
    (root / copy).write_bytes((root / source).read_bytes())
    (finding,) = check(root)
    assert (finding.code, finding.count) == (code, 1)
    assert finding.severity == ("warning" if code.endswith(("within", "validation")) else "error")


@pytest.mark.parametrize("code", COPIES)
def test_near_copies(tree, code):
    root = tree(*TREE, size=(32, 32))
    source, copy = COPIES[code]
    photo(1, 96).save(root / source)
    photo(1, 96).resize((80, 80)).save(root / copy, "JPEG", quality=80)
    found = {finding.code: finding for finding in check(root)}
    assert found[f"near-{code}"].count == (2 if code in ("copies-within", "copies-conflict") else 1)
    assert found[f"near-{code}"].severity in ("warning", "info")
    assert not any(c.startswith(("near", "copies")) for c in found if c != f"near-{code}")


def test_blank_and_unlike_images_are_no_near_copies(tree):
    root = tree("cat/", "dog/")
    for n in range(20):
        photo(n).save(root / ("cat", "dog")[n % 2] / f"{n}.png")
        Image.new("RGB", (30 + n, 30), (n, n, n)).save(root / "cat" / f"blank {n}.png")
    assert codes(root) == {"blank": 20}


def test_near_hashes_are_those_of_all_pairs():
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, 300, dtype=np.uint64)
    changed = hashes[:60].copy()
    for bits in range(60):
        for bit in rng.choice(64, bits % 10, replace=False).tolist():
            changed[bits] ^= np.uint64(1 << bit)
    hashes = np.concatenate([hashes, changed])
    pairs, complete = near_hashes(hashes, 6)
    apart = np.bitwise_count(hashes[:, None] ^ hashes[None])
    expected = np.argwhere(np.triu(apart <= 6, 1))
    assert complete and np.array_equal(pairs, expected) and len(expected) >= 42


def test_the_search_gives_up_on_endless_likeness(monkeypatch):
    monkeypatch.setattr("potstill.data.formats.near._FOUND", 1000)
    pairs, complete = near_hashes(np.zeros(3000, np.uint64), 6)
    assert not complete and len(pairs) > 1000


def test_arrays_are_checked_too(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)
    images[11] = images[0]
    np.savez(tmp_path / "a.npz", x_train=images[:8], y_train=np.arange(8) % 2, x_test=images[8:], y_test=[0, 1, 0, 0])
    report = examine(tmp_path / "a.npz")
    assert [finding.code for finding in report.findings] == ["copies-test"]
    assert report.to_json()["findings"][0]["examples"] == [["train/0", "test/3"]]
    with pytest.raises(DataError, match="is an archive or an array"):
        fix(report, tmp_path / "clean.csv")


def test_fix_writes_a_list_that_is_sound_and_touches_nothing(tree, tmp_path):
    root = tree(*TREE, *(f"train/{label}/{n}.png" for label in ("cat", "dog") for n in (3, 4)), size=(32, 32))
    copies = {
        "unlabelled/0.png": "test/cat/0.png",
        "train/cat/0.png": "test/cat/0.png",
        "train/cat/1.png": "val/cat/1.png",
        "train/dog/1.png": "train/dog/0.png",
        "test/cat/2.png": "test/dog/2.png",
    }
    for copy, source in copies.items():
        (root / copy).write_bytes((root / source).read_bytes())
    photo(1, 96).save(root / "train/dog/3.png")
    photo(1, 96).resize((80, 80)).save(root / "test/dog/1.png")
    (root / "train/dog/2.png").write_bytes(b"")
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match="images cannot be read"):
        read_manifest(root)
    (tmp_path / "lists").mkdir()
    result = fix(examine(root), tmp_path / "lists" / "clean.csv")
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before
    clean = read_manifest(tmp_path / "lists" / "clean.csv")
    left = {str(path.relative_to(root)) for path in before}
    left -= {"unlabelled/0.png", "train/cat/0.png", "train/cat/1.png", "train/dog/1.png", "train/dog/2.png"}
    left -= {"test/cat/2.png", "test/dog/2.png", "train/dog/3.png"}
    assert {name.removeprefix("../images/") for name in clean.source.names} == left
    assert result["kept"] == len(left) and sum(result["dropped"].values()) == len(before) - len(left)
    assert check(tmp_path / "lists" / "clean.csv") == []


def test_fix_keeps_groups_and_refuses_what_it_must_not_overwrite(tree, tmp_path):
    report = examine(tree("cat/7_a.png", "cat/8_b.png", "dog/7_c.png", "dog/9_d.png"), group=r"/(\d+)_")
    fix(report, tmp_path / "clean.csv")
    group = read_manifest(tmp_path / "clean.csv").group
    assert group[0] == group[2] and len(set(group.tolist())) == 3
    for name, sentence in (("clean.csv", "this file exists"), ("clean.txt", "must end with .csv")):
        with pytest.raises(UserError, match=sentence):
            fix(report, tmp_path / name)


def test_the_page_shows_thumbnails_and_escapes_names(tree, tmp_path):
    root = tree(*TREE, "train/<b>/0.png", "train/<b>/1.png", size=(32, 32))
    (root / "test/cat/0.png").write_bytes((root / "train/cat/0.png").read_bytes())
    (root / "train/<b>/0.png").write_bytes(b"")
    write_page(examine(root), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 2 and 'id="copies-test"' in page
    assert "&lt;b&gt;" in page and "<b>" not in page and "http" not in page


def test_the_stage_returns_plain_values(tree, tmp_path):
    root = tree(*SPLIT, size=(32, 32))
    (root / "test/cat/0.png").write_bytes((root / "train/cat/0.png").read_bytes())
    result = check_stage(str(root), html=tmp_path / "a.html", fix=tmp_path / "a.csv")
    assert json.loads(json.dumps(result)) == result
    assert result["worst"] == "error" and result["fixed"]["dropped"] == {"copies-test": 1}
    assert result["findings"][0]["examples"] == [["test/cat/0.png", "train/cat/0.png"]]


def test_the_stage_shows_augmentations(tree, tmp_path):
    root = tree(*(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(10)))
    check_stage(str(root), augment="shift", sheet=tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) > 300


def test_the_digits_of_the_demo_are_sound():
    result = check_stage("digits")
    assert result["images"] == 1797 and result["worst"] in ("none", "info", "warning")


def test_the_second_look_reads_no_image(tree, monkeypatch):
    root = tree(*TREE, size=(32, 32))
    first = examine(root).to_json()
    monkeypatch.setattr("potstill.data.formats.sources.read_bytes", None)
    assert examine(root).to_json() == first


def test_refusals_of_leaks_when_reading(tree, notes):
    root = tree(*TREE, size=(32, 32))
    (root / "test/cat/0.png").write_bytes((root / "unlabelled/0.png").read_bytes())
    with pytest.raises(DataError, match="1 of 6 test images .* --fix clean.csv"):
        read_manifest(root)
    images = np.repeat(np.arange(4, dtype=np.uint8), 9).reshape(4, 3, 3)
    from_arrays(images[[0, 1, 0]], [0, 1, 0], ["train", "train", "test"])
    assert any("1 of 1 test image of arrays is also" in note for note in notes)


def test_the_last_line_counts_and_strict_fails_only_on_errors(tree):
    root = tree("train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "test/cat/3.png", "test/dog/4.png")
    fine = potstill.check(root, strict=True)
    assert repr(fine).splitlines()[-1] == "5 images (3 train, 2 test), 2 classes, 0 errors, 0 warnings."
    assert fine.exit_status == 0
    (root / "test/cat/3.png").write_bytes((root / "train/cat/0.png").read_bytes())
    assert potstill.check(root).exit_status == 0 and potstill.check(root, strict=True).exit_status == 1
    assert CliRunner().invoke(app, ["check", str(root), "--strict"]).exit_code == 1
    assert CliRunner().invoke(app, ["check", str(root)]).exit_code == 0


@pytest.mark.parametrize("folders", [(), ("cat", "dog"), ("train/cat", "other")])
def test_a_folder_without_images_is_an_error_as_in_training(tmp_path, folders):
    for folder in folders:
        (tmp_path / "data" / folder).mkdir(parents=True)
    (tmp_path / "data").mkdir(exist_ok=True)
    (tmp_path / "data" / "notes.txt").touch()
    result = CliRunner().invoke(app, ["check", str(tmp_path / "data")])
    assert result.exit_code == 2 and result.stdout == ""
    assert f"error: {tmp_path}/data holds no images. Give a folder of images" in result.stderr
    assert "ignored 1 file without an image extension: notes.txt" in result.stderr
