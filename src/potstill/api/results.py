"""What the verbs return: small frozen objects over a summary, which show themselves as text and in notebooks.

Every figure is read from the summary (docs/summary.md), none is computed anew, so that what is shown is what a script
reads from summary.json.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from potstill import words
from potstill.api.tables import Part, Table, as_html, as_text
from potstill.evaluation.measured import BALANCED
from potstill.evaluation.statistics import Verdict
from potstill.model_files import snippets
from potstill.plain_text import visible

REPORT = "report.html"


@dataclass(frozen=True)
class ModelFigures:
    """The figures of one model; None (or empty) where one was not measured.

    accuracy: on the test split in percent, over several seeds their mean, with its 95 % `interval`; test_accuracy: one
    a seed. lost: points of accuracy against the model it was made from, negative for a gain. bytes: of its file.
    latency_ms: milliseconds for a batch of one image on one thread, the median. figures: all that the summary holds.
    """

    role: str
    name: str = ""
    accuracy: float | None = None
    interval: tuple[float, float] | None = None
    test_accuracy: tuple[float, ...] = ()
    lost: float | None = None
    parameters: int | None = None
    bytes: int | None = None
    latency_ms: float | None = None
    file: str = ""
    figures: Mapping[str, Any] = dataclasses.field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, role: str, figures: Mapping[str, Any]) -> ModelFigures:
        """Return the figures of a model as they stand in a summary."""
        interval = figures.get("interval")
        plain = {
            name: figures[name]
            for name in ("name", "accuracy", "lost", "parameters", "bytes", "file")
            if name in figures
        }
        return cls(
            role,
            interval=None if interval is None else (interval[0], interval[1]),
            test_accuracy=tuple(figures.get("test_accuracy", ())),
            latency_ms=_latency(figures),
            figures=figures,
            **plain,
        )


def _latency(figures: Mapping[str, Any]) -> float | None:
    if "latency_ms" in figures:
        return figures["latency_ms"]
    timed = figures.get("latency") or []
    return next((one["median_ms"] for one in timed if (one["batch"], one["threads"]) == (1, 1)), None)


@dataclass(frozen=True, repr=False, eq=False)
class Result:
    """What a verb returns.

    summary: every figure, as JSON types. folder: what was made lies there; None where nothing is written.
    """

    summary: dict[str, Any]
    folder: Path | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know: settings ignored, images skipped, fallbacks taken."""
        return tuple(self.summary.get("notes", ()))

    @property
    def report(self) -> Path | None:
        """The page for people, where one was written."""
        file = None if self.folder is None else self.folder / REPORT
        return file if file is not None and file.is_file() else None

    def to_dict(self) -> dict[str, Any]:
        """Return the summary, with the paths of folder and report, as JSON types."""
        paths = {"folder": self.folder, "report": self.report}
        return {**self.summary, **{name: str(path) for name, path in paths.items() if path is not None}}

    def parts(self) -> Iterator[Part]:
        """Yield what is shown: tables and sentences."""
        yield from (f"Report: {self.report}",) if self.report else ()

    def __repr__(self) -> str:
        return visible(as_text(self.parts())) or f"{type(self).__name__}()"

    def _repr_html_(self) -> str:
        return as_html(self.parts())


@dataclass(frozen=True, repr=False, eq=False)
class StageResult(Result):
    """What a stage returns that trained or wrote models."""

    def parts(self) -> Iterator[Part]:
        """Yield what is shipped and how good that file is, the next commands, and the page."""
        from potstill.report.commands import next_steps
        from potstill.report.first import lines, verdict

        if self.summary.get("ship"):
            yield "\n".join([verdict(self.summary)[0], *lines(self.summary)])
        if self.folder is not None and self.summary:
            steps = [f"{why} {command}" for why, command in next_steps(self.summary, self.folder)]
            yield from ("\n".join(steps),) if steps else ()
        yield from super().parts()

    @property
    def models(self) -> dict[str, ModelFigures]:
        """The figures of each model, by role."""
        return {role: ModelFigures.of(role, figures) for role, figures in self.summary.get("models", {}).items()}


@dataclass(frozen=True, repr=False, eq=False)
class ShrinkResult(StageResult):
    """A search: the file to ship, the candidates that were tried, forecast and outcome."""

    @property
    def model(self) -> Path:
        """The file to ship."""
        name = self.summary["ship"]["file"]
        return Path(name) if self.folder is None else self.folder / name

    @property
    def shipped(self) -> ModelFigures:
        """Its figures, measured by running it."""
        return self.models["shipped"]

    @property
    def front(self) -> Table:
        """Every candidate that was trained, the most accurate on validation first."""
        ordered = sorted(self.summary["candidates"], key=lambda one: (-one["validation_accuracy"], one["bytes"]))
        rows = [
            (
                one["name"] + (" (chosen)" if one["chosen"] else ""),
                f"{one['validation_accuracy']:.1f}",
                words.size(one["bytes"]),
                words.milliseconds(one["latency_ms"]),
                words.size(one["ram_int8"]),
            )
            for one in ordered
        ]
        return Table(("network", "validation, %", "size", "ms/image", "activations"), tuple(rows), "Candidates")

    @property
    def forecast(self) -> dict[str, Any]:
        """What was expected before the search, and the outcome (docs/summary.md)."""
        return self.summary["forecast"]

    def parts(self) -> Iterator[Part]:
        """Yield what to ship, how good, how big, how fast, how sure; and the next command."""
        yield self.summary["verdict"]["sentence"]
        yield from super().parts()


@dataclass(frozen=True, repr=False, eq=False)
class RunResult(StageResult):
    """A run: the distilled student beside the control, which learned without the teacher, and the verdict.

    Under torchrun only process 0 has figures; the summary of the others is empty.
    """

    @property
    def verdict(self) -> Verdict | None:
        """BEATS, TIES or LOSES (`.result`), the difference in points, its interval, and a sentence."""
        return _verdict(self.summary.get("verdict"))

    @property
    def teacher(self) -> ModelFigures | None:
        """The teacher."""
        return self.models.get("teacher")

    @property
    def control(self) -> ModelFigures | None:
        """The student's network, trained without a teacher."""
        return self.models.get("control")

    @property
    def student(self) -> ModelFigures | None:
        """The distilled student."""
        return self.models.get("student")

    @property
    def student_int8(self) -> ModelFigures | None:
        """The student, quantized to 8 bits."""
        return self.models.get("student_int8")

    def parts(self) -> Iterator[Part]:
        if not self.summary:
            return
        title = self.summary["recipe"].get("title") or self.summary["name"]
        yield models_table(self.models, ("accuracy, %", "seeds", "parameters", "size", "ms/image"), title)
        verdicts = {"": self.summary.get("verdict")}
        verdicts |= {f"{other['name']}: ": other["verdict"] for other in self.summary.get("comparisons", ())}
        for name, verdict in verdicts.items():
            if verdict:
                yield f"{name}{verdict['result']}  {verdict['sentence']}"
        yield from super().parts()


def _verdict(figures: Mapping[str, Any] | None) -> Verdict | None:
    if figures is None:
        return None
    known = {field.name: figures[field.name] for field in dataclasses.fields(Verdict) if field.name in figures}
    return Verdict(**{**known, "interval": tuple(figures["interval"])})


@dataclass(frozen=True, repr=False, eq=False)
class CompareResult(StageResult):
    """Methods x students x seeds on equal terms."""

    def verdict(self, student: str, method: str) -> Verdict | None:
        """Return the verdict on a method against the control, not corrected for the number of methods."""
        methods = {one["method"]: one for one in self.summary["students"][student]["methods"]}
        return _verdict(methods[method].get("verdict"))

    def parts(self) -> Iterator[Part]:
        headings = ("method", "accuracy, %", *BESIDE, "vs control, points", "p (Holm)", "verdict")
        measures = ("accuracy", *BALANCED)
        for name, student in self.summary["students"].items():
            rows = tuple(
                (one["method"], *(_shown(one.get(measure), "{:.2f}") for measure in measures), *_against(one))
                for one in student["methods"]
            )
            yield Table(headings, rows, f"{name} ({student['model']})")
        yield from (f"note: {note}" for note in self.notes)
        yield from super().parts()


def _against(method: Mapping[str, Any]) -> tuple[str, str, str]:
    if "verdict" not in method:
        return "", "", ""
    low, high = (words.signed(bound, 2) for bound in method["verdict"]["interval"])
    difference = f"{words.signed(method['verdict']['difference'], 2)} ({low} to {high})"
    return difference, f"{method['p_holm']:.3f}", method["corrected"]


@dataclass(frozen=True, repr=False, eq=False)
class FinetuneResult(StageResult):
    """A pretrained network, fitted to the images."""

    @property
    def kept(self) -> ModelFigures:
        """The model in the folder: the probe, or the fine-tuned network where that was better on validation."""
        return self.models[self.summary["kept"]]

    def parts(self) -> Iterator[Part]:
        named = {f"{role}{' (kept)' * (role == self.kept.role)}": one for role, one in self.models.items()}
        yield models_table(named, ("accuracy, %", "95 % interval"), self.summary["data"]["source"])
        yield from super().parts()


@dataclass(frozen=True, repr=False, eq=False)
class SelftrainResult(StageResult):
    """Models with and without the unlabelled images, and which was kept."""

    @property
    def helped(self) -> bool:
        """Whether a model that learned from the unlabelled images was kept."""
        return self.summary["helped"]

    @property
    def kept(self) -> ModelFigures:
        """The model in the folder."""
        return self.models[self.summary["kept"]]

    def parts(self) -> Iterator[Part]:
        yield models_table(self.models, ("accuracy, %", "seeds", "steps"), self.summary["name"])
        yield self.summary["choice"]["sentence"]
        yield f"Labels to look at: {self.folder}/labels.html; to mend: {self.folder}/labels.csv"
        yield from super().parts()


@dataclass(frozen=True, repr=False, eq=False)
class LabelResult(StageResult):
    """Soft labels of every training image; the folder can be the teacher of any number of students."""

    def parts(self) -> Iterator[Part]:
        if part := self.summary.get("part"):
            done = f"{len(part['finished'])} of {part['of']} are finished"
            yield f"Labelled part {part['number']} of {part['of']}; {done}. The last one completes {self.folder}."
        facts = self.summary.get("labels")
        if not facts:
            return
        images, views = words.plural(facts["images"], "image"), words.plural(facts["views"], "view")
        yield f"Soft labels of {images} in {views}, {words.file_size(facts['bytes'])}: {self.folder}"
        yield f"Page: {self.folder}/labels.html; most informative images to label: {self.folder}/to-review.csv"
        yield from super().parts()


@dataclass(frozen=True, repr=False, eq=False)
class CompressResult(StageResult):
    """A smaller model and its files beside the original: what prune, quantize and export return."""

    @property
    def recommended(self) -> Path | None:
        """Of an export, the file to take."""
        if self.summary.get("kind") != "export" or self.folder is None:
            return None
        return self.folder / self.summary["ship"]["file"]

    def parts(self) -> Iterator[Part]:
        named = any(one.file not in ("", role) for role, one in self.models.items())
        columns = ("file", "size", "accuracy, %", "95 % interval") if named else ("size", "accuracy, %", "agreement, %")
        yield models_table(self.models, (*columns, "vs original", "ms/image"), str(self.folder))
        if "speed_up" in self.summary:
            yield f"{self.summary['speed_up']:.2f} times as fast as the original (batch 1, one thread)."
        if self.recommended is not None and "from_photo" in self.summary["models"][self.recommended.name]:
            yield f"To use it in Python (pip install {snippets.NEEDS}):\n\n{snippets.use(self.recommended)}"
        yield from super().parts()


def models_table(models: Mapping[str, ModelFigures], headings: Iterable[str], title: str) -> Table:
    """Return a row a model; a column in which no model has a figure is left out."""
    every = [part for one in headings for part in (one, *(BESIDE if one == "accuracy, %" else ()))]
    cells = {heading: [COLUMNS[heading](one) for one in models.values()] for heading in every}
    filled = {heading: column for heading, column in cells.items() if any(column)}
    names = [LABELS.get(role, role) for role in models]
    return Table(("model", *filled), tuple(zip(names, *filled.values(), strict=True)), title)


BESIDE = ("balanced, %", "lowest recall, %")
"""Columns that follow the accuracy: where classes are of unequal size, it hides the rare ones."""
LABELS: dict[str, str] = {"student_int8": "student, 8 bit"}


def _seeds(one: ModelFigures) -> str:
    """Return the lowest and the highest accuracy where there are several seeds."""
    return f"{min(one.test_accuracy):.1f} to {max(one.test_accuracy):.1f}" if len(one.test_accuracy) > 1 else ""


def _shown(value: float | None, text: str) -> str:
    return "" if value is None else text.format(value)


COLUMNS: dict[str, Callable[[ModelFigures], str]] = {
    "file": lambda one: one.file,
    "accuracy, %": lambda one: _shown(one.accuracy, "{:.2f}"),
    "balanced, %": lambda one: _shown(one.figures.get("balanced_accuracy"), "{:.2f}"),
    "lowest recall, %": lambda one: _shown(one.figures.get("worst_recall"), "{:.2f}"),
    "95 % interval": lambda one: "" if one.interval is None else "{:.2f} to {:.2f}".format(*one.interval),
    "vs original": lambda one: "" if one.lost is None else words.signed(-one.lost, 2),
    "agreement, %": lambda one: _shown(one.figures.get("agreement"), "{:.2f}"),
    "seeds": _seeds,
    "steps": lambda one: _shown(one.figures.get("steps"), "{:,}"),
    "parameters": lambda one: _shown(one.parameters, "{:,}"),
    "size": lambda one: "" if one.bytes is None else words.file_size(one.bytes),
    "ms/image": lambda one: _shown(one.latency_ms, "{:.3f}"),
}
