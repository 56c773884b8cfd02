"""Side heads are trained by the teacher's terms too, and nothing of them is in what is delivered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from potstill.exporters import export_onnx
from potstill.model_files.folder import load_model, save_model
from potstill.models import zoo
from potstill.models.aux_heads import attach_aux, strip_aux
from potstill.models.outputs import Classifier
from potstill.objectives.objective import Objective, Term
from potstill.teachers.live import LiveTeacher
from tests.distill.lessons import SHORT, model, order, teach, teacher, world


def with_heads(hidden: int = 16) -> Classifier:
    return attach_aux(model("small-cnn", width=4), ["stage1", "stage:-1"], width=4, hidden=hidden, dropout=0.0)


@pytest.mark.parametrize("loss", ["kd", "dist", "cross_entropy"])
def test_every_logit_term_acts_on_every_head(loss: str) -> None:
    terms, student = [Term(loss=loss)], with_heads()
    batch = world().train_batch(order(world()), 0)
    objective = Objective(terms, classes=3, teacher=LiveTeacher(teacher()), aux_weight=0.3)
    outputs = student.train()(batch.image)
    assert len(outputs.aux) == 2
    objective(outputs, batch)["loss"].backward()
    heads = [name for name, p in student.named_parameters() if "heads" in name and (p.grad is None or not p.grad.any())]
    assert heads == []


def test_features_and_side_heads_go_together(tmp_path: Path) -> None:
    student, fitted = teach(
        [Term(loss="kd"), Term(loss="at", weight=10)], with_heads(), teacher(), tmp_path, config=SHORT
    )
    assert fitted.rows[-1]["train"]["kd"] < fitted.rows[0]["train"]["kd"]
    assert student.train()(torch.rand(2, 1, 8, 8)).aux[1].shape == (2, 3)


@pytest.mark.slow
def test_what_is_saved_and_exported_holds_no_head(tmp_path: Path) -> None:
    student, _ = teach([Term(loss="kd")], with_heads(hidden=77), teacher(), tmp_path, config=SHORT)
    plain = model("small-cnn", width=4)
    save_model(student, tmp_path)
    loaded = load_model(tmp_path)
    assert set(loaded.state_dict()) == set(plain.state_dict())
    assert zoo.count_parameters(student) == zoo.count_parameters(loaded) == zoo.count_parameters(plain)
    export_onnx(student.eval(), tmp_path / "student.onnx")
    export_onnx(strip_aux(student), tmp_path / "stripped.onnx")
    assert (tmp_path / "student.onnx").read_bytes() == (tmp_path / "stripped.onnx").read_bytes()
    tensors = onnx.load(tmp_path / "student.onnx").graph.initializer
    assert not any(77 in tensor.dims for tensor in tensors)
    assert sum(np.prod(tensor.dims) for tensor in tensors) < 1.1 * zoo.count_parameters(plain) + 500
