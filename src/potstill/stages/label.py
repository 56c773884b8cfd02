"""`potstill label`: soft labels of every training image, written once, for any number of students.

The folder records its source and stores a few of the views. Before a student is trained with it, these are compared
with the student's views, because a soft label is only valid for the same crop.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from safetensors.numpy import save

from potstill import artifacts, distributed, progress
from potstill.config import Config, build
from potstill.data.loader import Loader
from potstill.errors import ConfigError
from potstill.evaluation import metrics
from potstill.progress import parts
from potstill.scheduling import Scheduler, carried_out
from potstill.stages import dataset
from potstill.stages.dataset import Data
from potstill.stages.recipe import DataConfig, TeacherConfig, Views
from potstill.stages.run_folder import Journal, check_free, check_writable_if_unfinished, write_record
from potstill.stages.run_lock import Locked, locked
from potstill.stages.stage import stage
from potstill.stages.teacher.prepare import prepare_teacher, teacher_size, trained_here
from potstill.stages.teacher.prepared import TeacherSource
from potstill.stages.teacher.replay import fill, probe, source_of
from potstill.stages.teacher.soft_labels import FACTS, LOGITS, PROBE
from potstill.teachers import logit_codec
from potstill.teachers.prediction_store import WHOLE, Store, Stripe
from potstill.training import devices, predict
from potstill.words import argument

TEACHER, PARTS = "teacher", "parts"  # folders
STRIPES = 4  # cells for each process, so that those on fast machines do more
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


def run_label(
    config: LabelConfig,
    out: Path,
    *,
    part: Stripe | None = None,
    command: str = "",
    scheduler: Scheduler | None = None,
) -> dict[str, Any]:
    """Read the data, prepare the teacher, write soft labels into `out`; return the summary.

    part: label one stripe of many commands that share `out`; the one that finishes last returns the summary, the others
    {"part": ...}. scheduler: carries out the stripes of one command. The same call resumes an interrupted one.
    """
    chained = config.teacher.assistants or config.teacher.generations or config.teacher.mutual
    if chained:
        raise ConfigError(
            "`label` takes a trained teacher: leave out assistants, generations and mutual, which belong to the recipe "
            "of a student. The folder of such a run can be the teacher here."
        )
    if part is not None and not _labelled_part(config, out, part):
        return _part_of(out, part)

    def work(journal: Journal) -> dict[str, Any] | None:
        return _carry_out(config, out, journal, scheduler)

    try:
        return stage("label", config, out, work, name=out.name, command=command)
    except Locked:
        if part is None:
            raise
        return _part_of(out, part)  # another part saw the last marker too, and merges


def _part_of(out: Path, part: Stripe) -> dict[str, Any]:
    return {"part": {"number": part[0] + 1, "of": part[1], "finished": _finished(out, part[1])}}


def _carry_out(config: LabelConfig, out: Path, journal: Journal, scheduler: Scheduler | None) -> dict[str, Any] | None:
    size = teacher_size(config.teacher)
    parts.announce("data", "teacher", "review")
    data = journal.timed("data", "Read and split the images", lambda: dataset.prepare(config.data, at_least=size))
    teacher = journal.timed("teacher", "Prepared the teacher", lambda: _teacher(config, data, out / TEACHER))
    if scheduler is not None and scheduler.parallel:
        count = scheduler.count * STRIPES
        opened(config, data, teacher, out)  # the workers find its precision there
        settings = json.dumps(config.to_json())
        cells = [LabelCell(settings, out.absolute(), (number, count)) for number in range(count)]
        carried_out(scheduler, cells, "Labelling side by side")
    facts = label(config, data, teacher, out, own_size=size)
    if not distributed.is_main():
        return None
    journal.timed(
        "review",
        "Wrote the tables and the page for review",
        lambda: review(data, teacher, facts, out, to_review=config.to_review),
    )
    figures: dict[str, Any] = {"name": facts["teacher"]}
    if facts["accuracy"] is not None:
        figures["validation_accuracy"] = {"last": [facts["accuracy"]]}
    return {"data": data.facts(config.data.path), "models": {"teacher": figures}, "labels": facts}


def _teacher(config: LabelConfig, data: Data, folder: Path) -> TeacherSource:
    views = Views(config.augment, seed=config.seed)
    return prepare_teacher(config.teacher, data, folder, views=views, seed=config.seed)


@dataclass(frozen=True)
class Labelling:
    """A store and what fills it. best: number of classes kept of each output, None for all."""

    store: Store
    loader: Loader
    source: dict[str, Any]
    best: int | None


def opened(config: LabelConfig, data: Data, teacher: TeacherSource, out: Path, *, shared: bool = False) -> Labelling:
    """Return the store of soft labels in `out`, whose precision is that of the first who opened it.

    shared: several commands may open it at once. Raises `ConfigError` for a teacher that is not a model, and `RunError`
    if `out` has other soft labels.
    """
    name = _name(config)
    if teacher.model is None:
        use = f"potstill distill {argument(config.data.path)} --teacher {argument(name)}"
        raise ConfigError(f"{name} is a file of predictions already. Use it directly: {use}")
    on = devices.device()
    if teacher.network is not None:
        teacher.network.to(on)
    rows, best = data.manifest.rows("train"), _kept_classes(config.top_k, data, config.views)
    loader = data.loader(augment=config.augment, seed=config.seed, device=on)
    recorded = artifacts.read_sealed_if_whole(out / LOGITS / "source.json")
    precision = recorded["precision"] if recorded else _measured(teacher, on, config.views * len(rows))
    if shared and not recorded:
        precision = artifacts.write_first(out / PARTS / "precision.json", precision)
    source = source_of(teacher, data, loader) | {"precision": precision, "classes kept": best}
    return Labelling(Store(out / LOGITS, rows, config.views, source), loader, source, best)


def _measured(teacher: TeacherSource, on: torch.device, images: int) -> str:
    return predict.resolve_precision("auto", on, teacher.model, images)


def _name(config: LabelConfig) -> str:
    return ", ".join(member.model for member in config.teacher.ensemble) or config.teacher.model


def filled(data: Data, teacher: TeacherSource, work: Labelling, stripe: Stripe = WHOLE) -> None:
    """Compute the missing logits of a stripe of the store."""
    assert teacher.model is not None, "`opened` refuses it"
    fill(
        work.store,
        teacher.model,
        work.loader,
        precision=work.source["precision"],
        classes=len(data.manifest.classes),
        best=work.best,
        stripe=stripe,
    )


def label(config: LabelConfig, data: Data, teacher: TeacherSource, out: Path, *, own_size: int = 0) -> dict[str, Any]:
    """Write the logits of `teacher` for the views of every training image into the folder `out`; return its facts.

    own_size: the input size for which images were prepared, if the teacher has one. Raises as `opened` does.
    """
    work = opened(config, data, teacher, out)
    filled(data, teacher, work)
    _write_probe(work.store, work.loader, out)
    facts = {
        "teacher": _name(config),
        "images": len(work.store.rows),
        "views": config.views,
        "augment": config.augment,
        "seed": config.seed,
        "own_size": own_size,
        "classes_kept": work.best,
        "known": teacher.known,
        "bytes": work.store.bytes,
        "accuracy": teacher.accuracy,
        "card": teacher.card.to_json(),
        "source": work.source,
    }
    artifacts.write_json(out / FACTS, facts)
    return facts


@dataclass(frozen=True)
class LabelCell:
    """A stripe of the store as a cell of `potstill.scheduling`. config: as JSON; out: of the command."""

    config: str
    out: Path
    stripe: Stripe

    @property
    def place(self) -> Path:
        """The folder of the store."""
        return self.out / LOGITS

    def carry_out(self) -> None:
        """Label the stripe, with a teacher that is prepared."""
        config, data, teacher = _prepared(self.config, self.out)
        filled(data, teacher, opened(config, data, teacher, self.out), self.stripe)


@functools.lru_cache(maxsize=1)
def _prepared(settings: str, out: Path) -> tuple[LabelConfig, Data, TeacherSource]:
    config = build(LabelConfig, json.loads(settings))
    data = dataset.prepare(config.data, at_least=teacher_size(config.teacher))
    return config, data, _teacher(config, data, out / TEACHER)


def _labelled_part(config: LabelConfig, out: Path, part: Stripe) -> bool:
    """Label one stripe unless it is finished; return whether all are, so that they can be merged by this command."""
    if named := trained_here(config.teacher):
        raise ConfigError(
            f"--part shares out the labelling, but {', '.join(named)} would be trained by every part first. Train it "
            "once, for instance with `potstill finetune`, and give its folder: --teacher FOLDER."
        )
    check_writable_if_unfinished(out)
    check_free(out, config, "label")
    place = out / PARTS / f"{part[0] + 1}-of-{part[1]}"
    with locked(place, now=True):
        write_record(out, config, "label")

        def work() -> dict[str, Any]:
            data = dataset.prepare(config.data, at_least=teacher_size(config.teacher))
            teacher = _teacher(config, data, place / TEACHER)
            filled(data, teacher, opened(config, data, teacher, out, shared=True), part)
            return {}

        artifacts.stage(place, {"settings": artifacts.fingerprint(config.to_json())}, work)
    return len(_finished(out, part[1])) == part[1]


def _finished(out: Path, count: int) -> list[int]:
    """Return the numbers of the finished parts of `count`, from 1."""
    each = range(1, count + 1)
    return [number for number in each if artifacts.finished(out / PARTS / f"{number}-of-{count}") is not None]


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
