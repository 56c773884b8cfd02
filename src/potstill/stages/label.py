"""`potstill label`: soft labels of every training image, written once, for any number of students.

The folder records its source and stores a few of the views. Before a student is trained with it, these are compared
with the student's views, because a soft label is only valid for the same crop.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import save

from potstill import artifacts, distributed, progress
from potstill.config import Config
from potstill.data.loader import Loader
from potstill.errors import ConfigError
from potstill.evaluation import metrics
from potstill.progress import parts
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig, TeacherConfig, Views
from potstill.stages.run_folder import Journal
from potstill.stages.stage import stage
from potstill.stages.teacher.prepare import prepare_teacher, teacher_size
from potstill.stages.teacher.prepared import TeacherSource
from potstill.stages.teacher.replay import fill, probe, source_of
from potstill.stages.teacher.soft_labels import FACTS, LOGITS, PROBE
from potstill.teachers import logit_codec
from potstill.teachers.prediction_store import Store
from potstill.training import devices, predict

REVIEWED = 20_000_000  # probabilities in memory for the review


class LabelConfig(Config):
    """Images, teacher, and number of views."""

    data: DataConfig
    teacher: TeacherConfig = TeacherConfig()
    views: int = Field(default=1, ge=1, description="augmented views of each image")
    augment: str | list[Any] = Field(default="auto", description="augmentation policy")
    seed: int = Field(default=0, ge=0, description="random seed of the views")
    top_k: int | None = Field(
        default=None, ge=1, description="classes kept of each output; null: all, unless the store becomes too large"
    )
    to_review: int = Field(default=50, ge=0, description="number of images to propose for labelling by hand")


def run_label(config: LabelConfig, out: Path, *, command: str = "") -> dict[str, Any]:
    """Read the data, prepare the teacher, write soft labels into `out`; return the summary.

    The same call resumes an interrupted one.
    """
    chained = config.teacher.assistants or config.teacher.generations or config.teacher.mutual
    if chained:
        raise ConfigError(
            "`label` takes a trained teacher: leave out assistants, generations and mutual, which belong to the recipe "
            "of a student. The folder of such a run can be the teacher here."
        )
    return stage("label", config, out, lambda journal: _carry_out(config, out, journal), name=out.name, command=command)


def _carry_out(config: LabelConfig, out: Path, journal: Journal) -> dict[str, Any] | None:
    size, views = teacher_size(config.teacher), Views(config.augment, seed=config.seed)
    parts.announce("data", "teacher", "review")
    data = journal.timed("data", "Read and split the images", lambda: dataset.prepare(config.data, at_least=size))
    teacher = journal.timed(
        "teacher",
        "Prepared the teacher",
        lambda: prepare_teacher(config.teacher, data, out / "teacher", views=views, seed=config.seed),
    )
    name = ", ".join(member.model for member in config.teacher.ensemble) or config.teacher.model
    facts = label(
        data,
        teacher,
        out,
        views=config.views,
        augment=config.augment,
        seed=config.seed,
        top_k=config.top_k,
        name=name,
        own_size=size,
    )
    if not distributed.is_main():
        return None
    journal.timed(
        "review",
        "Wrote the tables and the page for review",
        lambda: review(data, teacher, facts, out, to_review=config.to_review),
    )
    figures: dict[str, Any] = {"name": name}
    if facts["accuracy"] is not None:
        figures["validation_accuracy"] = {"last": [facts["accuracy"]]}
    return {"data": data.facts(config.data.path), "models": {"teacher": figures}, "labels": facts}


def label(
    data: Data,
    teacher: TeacherSource,
    out: Path,
    *,
    views: int,
    augment: str | list[Any] = "auto",
    seed: int = 0,
    top_k: int | None = None,
    name: str = "",
    own_size: int = 0,
) -> dict[str, Any]:
    """Write the logits of `teacher` for `views` views of every training image into the folder `out`; return its facts.

    top_k: number of classes kept of each output, with the sum of the others; None keeps all unless the store becomes
    too large. own_size: the input size for which images were prepared, if the teacher has one.
    Raises `ConfigError` for a teacher that is not a model, and `RunError` if `out` has other soft labels.
    """
    if teacher.model is None:
        raise ConfigError(f"{name} is a file of predictions already. Use it directly: --teacher {name}")
    on, classes = devices.device(), len(data.manifest.classes)
    if teacher.network is not None:
        teacher.network.to(on)
    rows, best = data.manifest.rows("train"), _kept_classes(top_k, data, views)
    loader = data.loader(augment=augment, seed=seed, device=on)
    precision = predict.resolve_precision("auto", on, teacher.model, views * len(rows))
    source = source_of(teacher, data, loader, precision) | {"classes kept": best}
    store = Store(out / LOGITS, rows, views, source)
    fill(store, teacher.model, loader, precision=precision, classes=classes, best=best)
    _write_probe(store, loader, out)
    facts = {
        "teacher": name,
        "images": len(rows),
        "views": views,
        "augment": augment,
        "seed": seed,
        "own_size": own_size,
        "classes_kept": best,
        "known": teacher.known,
        "bytes": store.bytes,
        "accuracy": teacher.record.get("validation_accuracy", {}).get("last"),
        "card": teacher.card.to_json(),
        "source": source,
    }
    artifacts.write_json(out / FACTS, facts)
    return facts


def review(data: Data, teacher: TeacherSource, facts: dict[str, Any], out: Path, *, to_review: int) -> None:
    """Write labels.csv, to-review.csv and labels.html of the unlabelled images, or of all if all are labelled.

    Confidences are calibrated on the labelled validation images. Disagreement is between the views of an image.
    """
    from potstill.stages.selftrain.review import write_review

    manifest, classes, views = data.manifest, len(data.manifest.classes), range(facts["views"])
    rows = manifest.rows("train", labelled=False)
    rows = _at_most(rows if len(rows) else manifest.rows("train"), max(1, REVIEWED // classes))
    recall = logit_codec.Recall(Store(out / LOGITS, manifest.rows("train"), facts["views"], facts["source"]))
    index, temperature = torch.from_numpy(rows), _temperature(data, teacher)

    def probability(view: int) -> np.ndarray:
        logits = logit_codec.to_logits(recall(index, torch.full_like(index, view)), classes)
        return torch.softmax(logits / temperature, 1).numpy()

    mean = np.asarray(sum(probability(view) for view in views)) / len(views)
    disagreement = np.asarray(sum(0.5 * np.abs(probability(view) - mean).sum(1) for view in views)) / len(views)
    write_review(out, data, rows, mean, disagreement, to_review=to_review)


def _at_most(rows: np.ndarray, most: int) -> np.ndarray:
    if len(rows) <= most:
        return rows
    progress.note(f"The page and the tables show {most:,} of {len(rows):,} images, evenly spaced.")
    return rows[np.linspace(0, len(rows) - 1, most).astype(int)]


def _temperature(data: Data, teacher: TeacherSource) -> float:
    held = data.manifest.rows("validation", labelled=True)
    logits = teacher.validation_logits(data) if len(held) else None
    return 1.0 if logits is None else metrics.fit_temperature(logits, data.manifest.label[held], low=0.25, high=20.0)


def _kept_classes(top_k: int | None, data: Data, views: int) -> int | None:
    classes = len(data.manifest.classes)
    if top_k is None:
        return logit_codec.kept(classes, len(data.manifest.rows("train")), views)
    if top_k >= classes:
        progress.note(f"--top-k {top_k} is ignored: there are only {classes} classes, and all are kept.")
        return None
    return top_k


def _write_probe(store: Store, loader: Loader, out: Path) -> None:
    batch = probe(store, loader)
    views = {"image": batch.image.half().cpu().numpy(), "index": batch.index.cpu().numpy()}
    with artifacts.atomic(out / PROBE) as temporary:
        temporary.write_bytes(save(views))
