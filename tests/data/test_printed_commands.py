"""A command that a message prints works as printed, whatever the folder is called."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import potstill
from potstill.errors import DataError, ModelError
from potstill.model_files.open import model_folder
from potstill.own_code import _sentence

NAME = "my photos [1] (it's)"


def write(folder: Path, *, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (16, 16, 3)).astype(np.uint8)
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(folder / f"{seed}.png")


def folders(text: str, pattern: str) -> list[list[str]]:
    return [shlex.split(found) for found in re.findall(pattern, text)]


def test_check_prints_its_folder_as_one_word(tmp_path: Path) -> None:
    root = tmp_path / NAME
    for seed in range(4):
        write(root / f"class {seed % 2}", seed=seed)
    (root / "class 0" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (root / "class 0" / "again.png").write_bytes((root / "class 0" / "0.png").read_bytes())
    advice = [finding["advice"] for finding in potstill.check(root).findings]
    named = folders("\n".join(advice), r"potstill check (.+) --fix clean\.csv")
    assert len(named) == 2 and all(one == [str(root)] for one in named)


def test_a_leak_is_refused_with_its_folder_as_one_word(tmp_path: Path) -> None:
    root = tmp_path / NAME
    for seed in range(8):
        write(root / "train" / f"class {seed % 2}", seed=seed)
        write(root / "test" / f"class {seed % 2}", seed=seed)
    with pytest.raises(DataError) as error:
        potstill.distill(root, out=tmp_path / "run")
    assert folders(str(error.value), r"potstill check (.+) --fix clean\.csv") == [[str(root)]]


def test_an_unfinished_run_is_named_with_how_to_finish_it(tmp_path: Path) -> None:
    run = tmp_path / NAME
    run.mkdir()
    (run / "recipe.yaml").write_text("{}")
    with pytest.raises(ModelError) as error:
        model_folder(run)
    assert folders(str(error.value), r"potstill (run .+)") == [["run", str(run / "recipe.yaml"), "--out", str(run)]]


def test_a_file_of_code_cannot_add_a_command() -> None:
    assert folders(_sentence("x; rm -rf y.py:f"), r"--allow-code (.+) \(from") == [["x; rm -rf y.py"]]


def test_a_comparison_is_no_unfinished_run_and_own_losses_are_allowed_again(tmp_path: Path) -> None:
    run = tmp_path / NAME
    run.mkdir()
    (run / "recipe.yaml").write_text("methods: {kd: {}}")
    with pytest.raises(ModelError, match="is a comparison, not a model"):
        model_folder(run)
    (run / "recipe.yaml").write_text("objective: {terms: [{loss: 'my loss.py:f'}]}")
    with pytest.raises(ModelError, match=r"--allow-code 'my loss\.py'$"):
        model_folder(run)


def test_images_of_an_archive_are_left_out_where_it_is_made(tmp_path: Path) -> None:
    for seed in range(4):
        write(tmp_path / "photos" / f"class {seed % 2}", seed=seed)
    (tmp_path / "photos" / "class 0" / "again.png").write_bytes(
        (tmp_path / "photos" / "class 0" / "0.png").read_bytes()
    )
    packed = shutil.make_archive(str(tmp_path / "photos"), "tar", tmp_path / "photos")
    advice = [finding["advice"] for finding in potstill.check(packed).findings]
    assert any("leave them out when the archive or array is made" in one for one in advice)
    assert not any("--fix" in one for one in advice)
