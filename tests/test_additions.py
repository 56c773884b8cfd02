"""What docs/architecture.md says of adding things: a loss or a kind of teacher, declared in one place, is used by all.

Each addition stands here as its own file would hold it, and is entered where the document says.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from potstill.config import build
from potstill.data.loader import Batch
from potstill.losses import SPECS
from potstill.losses.spec import Site, Spec
from potstill.models.hooks import Tap
from potstill.models.outputs import Outputs
from potstill.stages.dataset import Data
from potstill.stages.distill import train
from potstill.stages.recipe import OneTeacher, Recipe
from potstill.stages.teacher import prepare
from potstill.stages.teacher.prepare import prepare_teacher
from potstill.stages.teacher.prepared import Kind, Preparation, TeacherSource, plain_card
from potstill.teachers.base import Teacher
from tests.distill.lessons import losses, model, teach, teacher, world

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "potstill"


def test_one_place_trains_and_one_builds_the_objective() -> None:
    stages = {file: file.read_text(encoding="utf-8") for file in (SOURCE / "stages").rglob("*.py")}
    names = {file: file.relative_to(SOURCE).as_posix() for file in stages}
    training = [names[file] for file, text in stages.items() if re.search(r"(?<!def )\bfit\(\n", text)]
    building = [names[file] for file, text in stages.items() if re.search(r" Objective\(", text)]
    assert training == ["stages/training.py"] and building == ["stages/teacher/prepared.py"]
    assert "known=self.known" in stages[SOURCE / building[0]]


def test_the_document_names_files_that_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (\d) \| (.+?) \|$", text.partition("## 6. Adding things")[2], re.M)
    assert len(rows) == 4
    for _, count, where in rows:
        files = re.findall(r"`([\w/]+\.py)`", where)
        assert len(files) == int(count) - 1 and all((SOURCE / file).is_file() for file in files)


# -- a loss on logits, and a loss on features with parameters ------------------------------------------------------


def halved(student: Tensor, teacher: Tensor, *, share: float = 0.5) -> Tensor:
    """Return `share` of the squared distance of probabilities, [B]."""
    return share * (student.softmax(1) - teacher.softmax(1)).square().sum(1)


class Scaled(nn.Module):
    """The squared distance of pooled features after a linear layer of its own."""

    def __init__(self, student_width: int, teacher_width: int, *, bias: bool = True) -> None:
        super().__init__()
        self.layer = nn.Linear(student_width, teacher_width, bias=bias)

    @classmethod
    def at(cls, site: Site, **options: Any) -> Scaled:
        return cls(site.student_channels[0], site.teacher_channels[0], **options)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        return (self.layer(student) - teacher).square().mean(1)


@pytest.mark.parametrize(
    ("spec", "options"),
    [(Spec(halved), {"share": 0.9}), (Spec(Scaled, on="pooled", tap="pooled"), {"bias": False})],
    ids=["logits", "features with parameters"],
)
def test_a_declared_loss_is_a_term(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spec: Spec, options: dict[str, Any]
) -> None:
    monkeypatch.setitem(SPECS, "added", spec)
    term = {"loss": "added", "options": options}
    recipe = build(Recipe, {"data": {"path": "shapes"}, "objective": {"terms": [term]}})
    _, fitted = teach(recipe.objective.loss_terms, model("small-cnn", width=4), teacher(), tmp_path)
    assert losses(fitted, "added")[-1] < 0.7 * losses(fitted, "added")[0]


# -- a kind of teacher ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False, kw_only=True)
class BrightnessTeacher(TeacherSource):
    """Tells how bright an image is: the brighter, the rather the first class."""

    def function(self, taps: tuple[Tap, ...] = ()) -> Teacher:
        def logits(batch: Batch) -> Outputs:
            bright = batch.image.mean((1, 2, 3))
            return Outputs(torch.stack([20 * bright, torch.zeros_like(bright), torch.zeros_like(bright)], 1))

        return logits


def bright(config: OneTeacher, data: Data, work: Preparation) -> TeacherSource:
    return BrightnessTeacher(card=plain_card(config.model, data), identity=config.model)


def test_a_kind_of_teacher_teaches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = Kind(lambda config: config.model == "brightness", lambda config: 0, bright)
    monkeypatch.setattr(prepare, "KINDS", (kind, *prepare.KINDS))
    recipe = build(
        Recipe,
        {
            "data": {"path": "shapes"},
            "teacher": {"model": "brightness"},
            "student": {"model": "builtin:mlp", "options": {"hidden": 16}},
            "objective": {"alpha": 0.0, "temperature": 1.0},
            "train": {"epochs": 6, "batch_size": 48, "lr": 0.02, "precision": "fp32"},
            "seeds": 1,
        },
    )
    loader = world()
    data = Data(loader.manifest, loader.pixels, (8, 8), 8)
    source = prepare_teacher(recipe.teacher, data, tmp_path / "teacher", views=recipe.training_views, seed=0)
    assert prepare.teacher_size(recipe.teacher) == 0
    pair = train.experiment(recipe, data, source, tmp_path, tmp_path / "stores")
    rows = [json.loads(line) for line in (pair.students[0].folder / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["train"]["kd"] < 0.5 * rows[0]["train"]["kd"]
