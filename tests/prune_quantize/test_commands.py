"""What the command line and run folders add: defaults read off a run, one sentence and exit status 2 for mistakes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from potstill import artifacts
from potstill.cli import app
from potstill.config import build
from potstill.errors import ConfigError
from potstill.report import charts
from potstill.stages.compress import common, data_settings
from potstill.stages.compress.quantize_config import QuantizeConfig


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run folder whose student and teacher are the same small network."""
    folder = tmp_path / "run"
    for stage in ("teacher", "distill/seed-0"):
        shutil.copytree(trained, folder / stage)
    recipe = {"data": {"path": "digits", "limit": 600}, "teacher": {"model": "builtin:cnn"}}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    artifacts.write_json(folder / "student.json", {"folder": "distill/seed-0"})
    return folder


def test_a_run_brings_its_data_and_its_teacher(run: Path) -> None:
    given = common.open_model(QuantizeConfig(model=str(run), mode="qat", seed=3))
    assert len(given.data.manifest) < 1000  # the test images are not limited
    assert given.teacher.model == given.teacher_name == str(run / "teacher") and given.seed == 3


def test_images_given_in_part_are_those_of_the_run(run: Path, trained: Path) -> None:
    given = build(QuantizeConfig, {"model": str(run), "data": {"limit": 300, "group": "(.)"}})
    settings = data_settings.settings_of(given.model, given.data)
    assert (settings.path, settings.limit, settings.group) == ("digits", 300, "(.)")
    with pytest.raises(ConfigError, match="No record tells which data .* Give them with --data"):
        build(QuantizeConfig, {"model": str(trained), "data": {"limit": 300}})


def test_a_model_without_a_run_is_its_own_teacher(trained: Path) -> None:
    given = common.open_model(QuantizeConfig(model=str(trained), data={"path": "digits", "limit": 300}))
    teacher = common.teacher_of(given, Path("unused"))
    assert given.teacher_name == common.ORIGINAL
    assert teacher.network is not given.model  # a copy, which training does not change
    nobody = QuantizeConfig(model=str(trained), data={"path": "digits", "limit": 300}, teacher="none")
    assert common.teacher_of(common.open_model(nobody), Path("unused")) is None


def test_a_budget_in_images_is_kept(trained: Path) -> None:
    settings = {
        "model": str(trained),
        "data": {"path": "digits"},
        "train": {"batch_size": 64, "epochs": 9, "weight_decay": 0},
    }
    for images, epochs in ((640, 1), (3000, 3)):
        given = common.open_model(QuantizeConfig(**settings, images=images))
        assert given.train.epochs == epochs
        assert images - 64 * 3 < epochs * given.steps * 64 <= images + 64 * 3


@pytest.mark.parametrize(("epochs", "views", "expected"), [(1, 4, 1), (9, 4, 4), (2, None, None)])
def test_views_that_no_epoch_uses_are_not_asked_for(
    trained: Path, epochs: int, views: int | None, expected: int | None
) -> None:
    settings = {"model": str(trained), "data": {"path": "digits"}, "mode": "qat", "views": views}
    given = common.open_model(QuantizeConfig.model_validate(settings | {"train": {"epochs": epochs}}))
    assert given.views.count == expected


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["quantize", "MODEL", "--data", "digits", "--weight-bits", "1"], "--weight-bits: must be"),
        (["quantize", "MODEL", "--data", "digits", "--activation-bits", "16"], "--activation-bits: must be"),
        (["quantize", "MODEL", "--data", "digits", "--calibration", "2"], "calibration: must be"),
        (["quantize", "MODEL"], "--data"),
        (["quantize", "MODEL", "--data", "nowhere"], "nowhere"),
        (["prune", "MODEL", "--data", "digits"], "--keep"),
        (["prune", "MODEL", "--data", "digits", "--keep", "1.5"], "keep: must be"),
        (["prune", "builtin:mlp", "--data", "digits", "--keep", "0.5"], "--weights"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(trained: Path, tmp_path: Path, words: list[str], says: str) -> None:
    words = [str(trained) if word == "MODEL" else word for word in words]
    told = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")])
    assert told.exit_code == 2 and says in told.stderr and "Traceback" not in told.stderr


def test_the_picture_names_every_layer() -> None:
    rises = {"conv1": {0.25: 1.0, 0.5: 0.2}, "conv2": {0.25: 0.3, 0.5: 0.0}}
    svg = charts.sensitivity(rises, name="layers", alt="layers")
    assert all(name in svg for name in ("conv1", "conv2", "25% of channels kept"))
