"""The blocks that every stage has: models, front, gains, notes, steps, use, method, recipe."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from potstill import words
from potstill.model_files import snippets
from potstill.report import insights, pictures
from potstill.report.first import NAMES, digits_of
from potstill.report.page import Block
from potstill.report.read import Run
from potstill.report.tables import TITLES, ModelRow, columns, forest, model_rows
from potstill.words import plural

ONE_SEED = "Intervals are 95 % confidence intervals over test images (Wilson)."
SEEDS = (
    "Intervals are 95 % confidence intervals: over seeds (Student's t), for the variation of training; over images "
    "(Wilson), for the choice of test images."
)


def rows_of(summary: Mapping[str, Any], titles: Mapping[str, tuple[str, str]] = TITLES) -> list[ModelRow]:
    """Return the rows of the models of a stage."""
    models, images = summary["models"], summary["data"]["splits"]["test"]
    whole = models.get("teacher", {}).get("bytes")
    return model_rows(models, images, digits_of(summary), whole=whole, titles=titles, ship=summary.get("ship"))


def models(summary: Mapping[str, Any], rows: Sequence[ModelRow]) -> Block:
    """Return the table of all models."""
    test = plural(summary["data"]["splits"]["test"], "test image")
    seeds = max((len(row.facts.get("test_accuracy", ())) for row in rows), default=1)
    text = [f"Accuracy is the percentage of the {test} classified correctly."]
    if seeds > 1:
        text[0] += f" Trained with {seeds} seeds: the table has the mean, with the value of each seed below it."
    small = [SEEDS if seeds > 1 else ONE_SEED]
    return Block("models", "Models", "models", {"text": text, "rows": rows, "columns": columns(rows), "small": small})


def front(rows: Sequence[ModelRow]) -> Iterator[Block]:
    """Yield accuracy against size and latency, if at least two models have the figures."""
    drawn = pictures.tradeoffs(rows)
    if drawn:
        yield Block("front", "Front", "charts", {"text": [], "pictures": drawn, "small": []})


def gains(summary: Mapping[str, Any]) -> Iterator[Block]:
    """Yield what each station gained or lost, with its interval."""
    digits = digits_of(summary)
    found = list(summary.get("gains", []))
    if (summary.get("ship") or {}).get("reference"):
        reference = summary["ship"]["reference"]
        name = NAMES.get(reference["role"], reference["role"])
        if reference["role"] not in ("original", "network"):
            found.insert(0, {"name": f"{summary['ship']['file']}, against {name}", **reference})
    if summary.get("verdict"):
        seeds = plural(summary["verdict"]["seeds"], "seed")
        found.insert(0, {"name": f"Distillation, against the control ({seeds})", **summary["verdict"]})
    if found:
        text = (
            "Points of test accuracy with 95 % intervals, paired image by image: right of the line it gained, left of "
            "it it lost; where the bar crosses the line, the difference may be chance."
        )
        values = forest([one | {"tone": tone(one["interval"]), "label": ""} for one in found], digits)
        yield Block("gains", "Gains and losses", "forest", {"text": [text], **values})


def tone(interval: Sequence[float]) -> str:
    """Return the tone of a difference: good or bad only where its interval excludes zero."""
    return "good" if interval[0] > 0 else "bad" if interval[1] < 0 else "even"


def notes(summary: Mapping[str, Any], but: str = "") -> Iterator[Block]:
    """Yield the notes. but: a note that stands elsewhere on the page."""
    sentences = [note for note in summary.get("notes", []) if note != but]
    if sentences:
        yield Block("notes", "Notes", "notes", {"sentences": sentences})


def use(summary: Mapping[str, Any], folder: Path) -> Iterator[Block]:
    """Yield the files with links, how they agree with the network, and ten lines of Python that use the shipped one."""
    ship = summary.get("ship")
    if not ship:
        return
    names = [ship["file"], *ship["others"], "summary.json", "suspicious-labels.csv", "labels.html"]
    links = [(name, name) for name in dict.fromkeys(names) if (folder / name).is_file()]
    is_photo = ship["file"].endswith(".onnx") and "from_photo" in summary["models"].get(ship["role"], {})
    text = [] if ship["file"].endswith(".onnx") else [
        "These are weights of a network, which potstill reads; potstill export makes files for devices from them."
    ]  # fmt: skip
    code = snippets.use(ship["file"]) if is_photo else ""
    values = {"text": text, "links": links, "parity": _parity(summary), "code": code}
    yield Block("files", "Files", "use", values)


def _parity(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    exported = summary.get("export")
    if not exported:
        return None
    rows = [
        (f"{name}.onnx", words.percent(one["agreement"], 2), words.significant(one["max_logit_difference"]),
         words.count(one["images"]))
        for name, one in exported.items()
    ]  # fmt: skip
    headings = ("File", "Agreement with the trained student", "Maximum logit difference", "Images")
    return {"headings": headings, "rows": rows}


def method(summary: Mapping[str, Any], facts: Sequence[tuple[str, str]] = ()) -> Block:
    """Return how the figures were measured. facts: more of them."""
    verdict, ship, machine = summary.get("verdict"), summary.get("ship"), summary["machine"]
    text = [
        "The test images were evaluated once, at the end, after every choice had been made on the validation images."
    ]
    if verdict:
        over = "test images and seeds" if verdict["seeds"] > 1 else "test images"
        text.append(f"The interval of the verdict is a paired bootstrap over {over}.")
    if ship and ship["latency_ms"] is not None:
        text.append(
            "Size and latency are those of the file; latency is the median per image at batch size 1 on one core."
        )
    device = "the CPU" if machine["device"] == "cpu" else machine["device"]
    cores, threads = plural(machine["cores"], "core"), plural(machine["threads"], "thread")
    versions = "".join(f", {name} {version}" for name, version in summary["versions"].items())
    shown = [*facts, ("Date", words.date(summary["date"]))]
    if ship and "weights" in ship:
        licence = "" if ship["licence"] == "unknown" else f", licence {ship['licence']}"
        shown.append(("Weights", f"{ship['model']}: {ship['weights']}{licence}"))
    if "seed" in summary["recipe"]:
        count = summary["recipe"].get("seeds", 1)
        first = summary["recipe"]["seed"]
        shown.append(
            ("Seeds", ", ".join(str(first + n) for n in range(count)) if isinstance(count, int) else str(count))
        )
    shown += [
        ("Machine", f"{machine['cpu']}, {cores}; trained on {device} with {threads}"),
        ("Versions", f"potstill {summary['potstill']}, Python {machine['python']}{versions}"),
    ]
    return Block("measured", "Method", "method", {"text": text, "facts": shown})


def last(run: Run, facts: Sequence[tuple[str, str]] = ()) -> Iterator[Block]:
    """Yield the blocks that end every page: files, steps, data, method, recipe."""
    summary = run.summary
    yield from use(summary, run.folder)
    if summary.get("stages"):
        total = summary.get("seconds") or sum(one["seconds"] for one in summary["stages"])
        yield Block("steps", "Steps", "steps", {"stages": summary["stages"], "seconds": total})
    yield insights.data(summary, run.examples)
    yield method(summary, facts)
    recipe = yaml.safe_dump(summary.get("recipe", {}), sort_keys=False, allow_unicode=True, width=90)
    yield Block("recipe", "Recipe", "recipe", {"command": summary["command"], "recipe": recipe})
