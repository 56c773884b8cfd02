"""The command line of a transfer: every flag reaches its setting, and the help is in sections."""

from __future__ import annotations

from typing import Any

import pytest
from typer.testing import CliRunner

import potstill
from potstill.api.keywords import settings_of
from potstill.api.results import Result
from potstill.cli import app
from potstill.config import build
from potstill.stages.finetune import FinetuneConfig

FLAGS = {
    "--weights w.pth": ("weights", "w.pth"),
    "--mean 0.1,0.2,0.3 --std 1,1,1": ("mean", (0.1, 0.2, 0.3)),
    "--size 64": ("data.size", 64),
    "--limit 70": ("data.limit", 70),
    "--augment none": ("augment", "none"),
    "--features stage:2": ("features", "stage:2"),
    "--views 3": ("views", 3),
    "--penalty 0.5": ("penalty", 0.5),
    "--folds 4": ("folds", 4),
    "--unfreeze 2": ("unfreeze", 2),
    "--unfreeze none": ("unfreeze", "none"),
    "--epochs 6": ("train.epochs", 6),
    "--batch-size 16": ("train.batch_size", 16),
    "--lr 0.01": ("train.lr", 0.01),
    "--head-rate 10": ("head_rate", 10),
    "--layer-decay 0.5": ("layer_decay", 0.5),
    "--batchnorm adapted": ("batchnorm", "adapted"),
    "--ema 0": ("train.ema", 0),
    "--patience 2": ("train.patience", 2),
    "--seed 9": ("seed", 9),
}


@pytest.mark.parametrize(("flags", "expected"), FLAGS.items(), ids=lambda one: str(one))
def test_a_flag_reaches_its_setting(flags: str, expected: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(potstill, "finetune", lambda **keywords: asked.update(keywords) or Result({}))
    result = CliRunner().invoke(app, ["finetune", "photos", "--model", "resnet18", "--json", *flags.split()])
    assert result.exit_code == 0, result.output
    config = build(FinetuneConfig, settings_of("finetune", asked))
    found: Any = config
    for key in expected[0].split("."):
        found = getattr(found, key)
    assert found == expected[1]
    assert config.train.select == "best"  # what was not asked for has the defaults of a transfer


def test_the_help_has_a_section_for_each_step() -> None:
    told = CliRunner().invoke(app, ["finetune", "--help-all"]).output
    places = [
        told.index(f"\n{title}:\n") for title in ("Arguments", "Networks", "Images", "Probe", "Fine-tuning", "Others")
    ]
    assert places == sorted(places)
    assert places[3] < told.index("--penalty") < places[4] < told.index("--ema") < places[5] < told.index("--json")
