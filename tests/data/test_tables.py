"""Tables, archives and Hugging Face data sets become the same manifest as the folder they describe."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import tarfile

import numpy as np
import pytest

from potstill.data.formats import read_manifest
from potstill.data.manifest import UNLABELLED
from potstill.errors import DataError

PAIRS = tuple(f"{label}/{n}.png" for label in ("cat", "dog") for n in range(3))
ROWS = [{"path": name, "label": name[:3], "split": ("train", "train", "test")[int(name[4])]} for name in PAIRS]


def same(first, second) -> bool:
    """Tell whether two manifests hold the same images, labels and splits, whatever their order."""

    def rows(manifest):
        names = [manifest.classes[k] if k != UNLABELLED else None for k in manifest.label]
        return sorted(zip(manifest.digest.tolist(), names, manifest.split.tolist(), strict=True))

    return rows(first) == rows(second)


@pytest.fixture
def split_tree(tree):
    return tree(*(f"{split}/{name}" for split in ("train", "test") for name in PAIRS))


def csv_text(rows, delimiter=",") -> str:
    return "\n".join([delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]) + "\n"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_with_any_delimiter_and_a_byte_order_mark(tree, delimiter):
    root = tree(*PAIRS)
    (root / "list.csv").write_text(csv_text(ROWS, delimiter), encoding="utf-8-sig")
    manifest = read_manifest(root / "list.csv")
    assert manifest.classes == ("cat", "dog") and len(manifest.rows("test")) == 2
    assert manifest.name(1) == "cat/1.png" and np.array_equal(manifest.image(1), read_manifest(root).image(1))


def test_jsonl_with_groups_numbers_and_unlabelled(tree):
    root = tree(*PAIRS)
    rows = [{"image": n, "class": i % 2 if i < 4 else None, "group": i // 2} for i, n in enumerate(PAIRS)]
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    manifest = read_manifest(root / "list.jsonl")
    assert manifest.classes == ("0", "1") and manifest.label.tolist() == [0, 1, 0, 1, UNLABELLED, UNLABELLED]
    assert len(set(manifest.group.tolist())) == 3 and manifest.group[0] == manifest.group[1]


def test_absolute_paths_and_repeated_rows(tree, tmp_path, notes):
    root = tree(*PAIRS)
    rows = [{"path": root / row["path"], "label": row["label"]} for row in ROWS]
    (tmp_path / "list.csv").write_text(csv_text([*rows, rows[0]]))
    assert same(read_manifest(tmp_path / "list.csv"), read_manifest(root))
    assert any("ignored 1 repeated row" in note for note in notes)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "has no rows"),
        ("a,b\n1,2\n", "has no column 'path', only: a, b"),
        ("path,label\ncat/0.png,cat\n,dog\n", r"1 row \(line 3\) has no path"),
        ("path,label,split\ncat/0.png,cat,holdout\n", r"1 row \(line 2\) has the split 'holdout'; .* or test\.$"),
        ("path,label\ncat/0.png,cat\ncat/0.png,dog\n", "lists cat/0.png twice, as 'cat' in train and as 'dog'"),
        ("path,label\ncat/0.png,cat,extra\n", "line 2: 3 fields, but the header has 2"),
        (
            "path,label\ncat/0.png,cat\nnowhere.png,dog\n",
            "1 of 2 images cannot be read(.|\n)*nowhere.png does not exist",
        ),
    ],
)
def test_wrong_tables(tree, text, sentence):
    root = tree(*PAIRS)
    (root / "list.csv").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_manifest(root / "list.csv")


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_wrong_split_is_told_once(tmp_path, ending):
    splits = ["train", "trian", "test", "trian", "tset", "", "trian"]
    rows = [{"path": f"{number}.png", "label": "cat", "split": split} for number, split in enumerate(splits)]
    rows += [{"path": "", "label": "cat", "split": "train"}] * 2
    file = tmp_path / f"list.{ending}"
    file.write_text(csv_text(rows) if ending == "csv" else "\n".join(map(json.dumps, rows)))
    first = 2 if ending == "csv" else 1
    with pytest.raises(DataError) as caught:
        read_manifest(file)
    must = "a split must be train, validation or test. Did you mean"
    assert caught.value.problems == [
        f"{file}: 2 rows (the first is line {first + 7}) have no path.",
        f"{file}: 3 rows (the first is line {first + 1}) have the split 'trian'; {must} 'train'?",
        f"{file}: 1 row (line {first + 4}) has the split 'tset'; {must} 'test'?",
    ]


@pytest.mark.parametrize(("text", "sentence"), [("{\n", "line 1: not JSON"), ("[1]\n", "line 1: not an object")])
def test_wrong_jsonl(tmp_path, text, sentence):
    (tmp_path / "list.jsonl").write_text(text)
    with pytest.raises(DataError, match=sentence):
        read_manifest(tmp_path / "list.jsonl")


def test_a_table_that_is_not_utf8(tmp_path):
    (tmp_path / "list.csv").write_bytes(b"path\n\xff\xfe\n")
    with pytest.raises(DataError, match="not text in UTF-8"):
        read_manifest(tmp_path / "list.csv")


def packed(root, file, prefix="", compress=None):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file():
                archive.add(path, f"{prefix}{path.relative_to(root)}")
    file.write_bytes(compress(buffer.getvalue()) if compress else buffer.getvalue())
    return file


@pytest.mark.parametrize("prefix", ["", "./", "data/pets/"])
@pytest.mark.parametrize(("ending", "compress"), [("tar", None), ("tar.gz", gzip.compress), ("tar.bz2", bz2.compress)])
def test_archives_of_class_folders_are_read_in_place(split_tree, tmp_path, prefix, ending, compress):
    archive = read_manifest(packed(split_tree, tmp_path / f"pets.{ending}", prefix, compress))
    folder = read_manifest(split_tree)
    assert same(archive, folder) and archive.classes == folder.classes
    assert np.array_equal(archive.image(5), folder.image(5)) and archive.name(5) == folder.name(5)


def test_a_large_archive_is_uncompressed_once(split_tree, tmp_path, notes, cache):
    file = packed(split_tree, tmp_path / "pets.tar.gz", compress=gzip.compress)
    for _ in range(2):
        read_manifest(file)
    assert len([note for note in notes if "Decompressing" in note]) == 1
    assert len(list((cache / "archives").iterdir())) == 1


@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_a_cut_off_archive(split_tree, tmp_path, ending, cache):
    file = packed(split_tree, tmp_path / f"pets.{ending}", compress=gzip.compress if ending == "tar.gz" else None)
    file.write_bytes(file.read_bytes()[: 2500 if ending == "tar" else 900])
    with pytest.raises(DataError, match="pets.tar.* is damaged or truncated"):
        read_manifest(file)
    assert not list(cache.rglob("*.tar"))


def shard(file, names, root, labels) -> None:
    with tarfile.open(file, "w") as archive:
        for name in names:
            key = name.replace("/", "_").removesuffix(".png")
            archive.add(root / name, f"{key}.png")
            for ending, content in labels(name).items():
                info = tarfile.TarInfo(f"{key}.{ending}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def in_cls(name: str) -> dict[str, bytes]:
    return {"cls": str(["cat", "dog"].index(name[:3])).encode()}


def in_json(name: str) -> dict[str, bytes]:
    return {"json": json.dumps({"label": name[:3]}).encode()}


@pytest.mark.parametrize("labels", [in_cls, in_json])
def test_webdataset_shards(tree, tmp_path, labels):
    root = tree(*PAIRS)
    (tmp_path / "shards").mkdir()
    shard(tmp_path / "shards" / "pets-train-000.tar", PAIRS[::2], root, labels)
    shard(tmp_path / "shards" / "pets-train-001.tar", PAIRS[1:4:2], root, labels)
    shard(tmp_path / "shards" / "pets-val-000.tar", PAIRS[5:], root, labels)
    manifest = read_manifest(tmp_path / "shards")
    assert len(manifest.rows("train")) == 5 and len(manifest.rows("validation")) == 1
    folder = read_manifest(root)
    order = [folder.digest.tolist().index(d) for d in manifest.digest.tolist()]
    assert manifest.label.tolist() == folder.label[order].tolist()
    assert np.array_equal(manifest.image(0), folder.image(order[0]))
    alone = read_manifest(tmp_path / "shards" / "pets-train-000.tar")
    assert len(alone) == 3 and set(alone.split) == {0}


def test_names_that_no_format_takes(tmp_path):
    for name in ("notes.txt", "picture.png"):
        (tmp_path / name).write_text("x")
        with pytest.raises(DataError, match="not in a supported format|single image"):
            read_manifest(tmp_path / name)


def test_parquet_of_paths_and_of_images(tree, tmp_path):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    root = tree(*PAIRS)
    parquet.write_table(arrow.Table.from_pylist(ROWS), root / "list.parquet")
    assert len(read_manifest(root / "list.parquet").rows("test")) == 2
    rows = [{"image": {"bytes": (root / n).read_bytes(), "path": n}, "label": int(n[:3] == "dog")} for n in PAIRS]
    features = {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}
    table = arrow.Table.from_pylist(rows)
    table = table.replace_schema_metadata({"huggingface": json.dumps({"info": features})})
    (tmp_path / "hub" / "data").mkdir(parents=True)
    parquet.write_table(table, tmp_path / "hub" / "data" / "train-00000-of-00001.parquet")
    manifest = read_manifest(tmp_path / "hub")
    assert same(manifest, read_manifest(root)) and manifest.classes == ("cat", "dog")


def test_parquet_without_pyarrow_says_what_to_type(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pip install pyarrow"):
        read_manifest(tmp_path / "a.parquet")


def test_damaged_parquet(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_manifest(tmp_path / "a.parquet")


@pytest.mark.filterwarnings("ignore")  # of the library's own dependencies
def test_hugging_face_data_sets_saved_to_disk(tree, tmp_path):
    datasets = pytest.importorskip("datasets")
    root = tree(*PAIRS)
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=["cat", "dog"]))
    columns = {"image": [str(root / n) for n in PAIRS], "label": [int(n[:3] == "dog") for n in PAIRS]}
    part = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(train=part).save_to_disk(tmp_path / "saved")
    assert same(read_manifest(tmp_path / "saved"), read_manifest(root))


def test_hugging_face_without_the_library(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "datasets", None)
    with pytest.raises(DataError, match="pip install datasets"):
        read_manifest("hf:nobody/nothing")
