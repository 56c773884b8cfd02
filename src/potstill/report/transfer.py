"""The page of a transfer, `report.html`: what was kept and why, what the probe and fine-tuning reached, what rested."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from potstill.artifacts import read_json, write_text
from potstill.evaluation.statistics import FINE
from potstill.report import charts, words
from potstill.report.pictures import Picture
from potstill.report.read import Row, read_rows
from potstill.report.templates import filled

COLOURS = {"probe": "control", "tuned": "student"}  # the report's colours for them


def write_transfer(folder: Path) -> Path:
    """Write report.html into the folder of a finished transfer; return its path."""
    summary = read_json(folder / "summary.json") | {"folder": str(folder)}
    text = render(summary, read_rows(folder / "tuned" / "metrics.jsonl"))
    write_text(folder / "report.html", text)
    return folder / "report.html"


def render(summary: dict[str, Any], epochs: list[Row]) -> str:
    """Return the page; it needs no network and no other file. epochs: of fine-tuning, a row each."""
    digits = 2 if summary["data"]["splits"]["test"] >= FINE else 1
    return filled(
        "transfer.html",
        words=words,
        summary=summary,
        digits=digits,
        headline=headline(summary),
        meaning=meaning(summary),
        notes=[note for note in summary["notes"] if note != (summary["choice"] or {}).get("sentence")],
        tone="good" if summary["choice"] and summary["kept"] == "tuned" else "even",
        advice=advice(summary),
        tiles=tiles(summary, digits),
        rows=rows(summary),
        probe_pictures=[penalties(summary["probe"])] if summary["probe"] and summary["probe"]["penalties"] else [],
        curves=curves(summary, epochs),
        frozen=frozen(summary["tuning"]) if summary["tuning"] else "",
        recipe=yaml.safe_dump(summary["recipe"], sort_keys=False, allow_unicode=True, width=90),
    )


def names(summary: dict[str, Any]) -> dict[str, str]:
    """Return what the models of a transfer are called."""
    tuned = "From scratch" if summary["recipe"]["from_scratch"] else "Fine-tuned"
    return {name: {"probe": "Probe", "tuned": tuned}[name] for name in summary["models"]}


def headline(summary: dict[str, Any]) -> str:
    """Return in one sentence what came out."""
    choice = summary["choice"]
    if choice and choice["kept"] == "tuned":
        return f"Fine-tuning was worth it: {choice['difference']:.1f} points more than the probe"
    if choice:
        return "The probe was kept: fine-tuning brought nothing that luck would not"
    accuracy = words.percent(summary["models"][summary["kept"]]["accuracy"])
    return f"{'Trained from scratch' if summary['recipe']['from_scratch'] else 'A probe'}: {accuracy} right"


def meaning(summary: dict[str, Any]) -> str:
    """Return why the model that was kept was kept."""
    if summary["choice"]:
        return f"{summary['choice']['sentence']} It had to win by more than one standard error."
    if summary["recipe"]["from_scratch"]:
        return "Nothing was transferred: this is what a transfer is compared with."
    return "A linear classifier on the features of the frozen network. Nothing was fine-tuned, as was asked for."


def advice(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return what to do next: (why, command), the command perhaps empty."""
    folder, source, recipe = summary["folder"], summary["data"]["source"], summary["recipe"]
    again = f"potstill finetune {source} --model {recipe['model']}"
    if recipe["from_scratch"]:
        return [("Compare with the published weights:", again)]
    told = [
        ("Let it teach a small network:", f"potstill distill {source} --teacher {folder}"),
        ("Write the files that a device needs:", f"potstill export {folder}"),
    ]
    if recipe["features"] != "auto":
        told.append(("Images far from photographs? Other depths may transfer better:", f"{again} --features auto"))
    return told


def tiles(summary: dict[str, Any], digits: int) -> list[tuple[str, str]]:
    """Return the figures that people ask for first: (figure, what it is)."""
    found = summary["models"][summary["kept"]]
    low, high = (f"{bound:.{digits}f}" for bound in found["interval"])
    shown = [(words.percent(found["accuracy"], digits), f"test accuracy of what was kept ({low} to {high})")]
    if summary["probe"]:
        seconds = sum(part["seconds"] for part in summary["stages"] if part["name"] in ("features", "probe"))
        shown.append((words.duration(seconds), "from the images to a probe"))
    shown.append((words.count(summary["models"][summary["kept"]]["parameters"]), "parameters"))
    return shown


def rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each model: its name, its figures, and whether it was kept."""
    validation = summary["choice"] or {"tuned": (summary["tuning"] or {}).get("validation_accuracy", {}).get("best")}
    called = names(summary)
    return [
        {
            "name": called[name],
            "role": "a linear layer on the frozen network" if name == "probe" else _tuned(summary),
            "colour": COLOURS[name],
            "kept": name == summary["kept"],
            "validation": validation.get(name),
            **figures,
        }
        for name, figures in summary["models"].items()
    ]


def _tuned(summary: dict[str, Any]) -> str:
    if summary["recipe"]["from_scratch"]:
        return "all of it, from random weights"
    part = {"all": "all of it", "none": "the head"}.get(
        part := summary["recipe"]["unfreeze"], f"the last {part} stages"
    )
    return f"{part}, from the probe on"


def frozen(tuning: dict[str, Any]) -> str:
    """Return what rested in fine-tuning, and how that is known."""
    learning, rested = words.count(tuning["trainable_parameters"]), words.count(tuning["frozen_parameters"])
    told = f"{learning} parameters learned and {rested} were frozen."
    if tuning["norms"]:
        told += f" Of {words.plural(tuning['norms'], 'BatchNorm layer')}, {tuning['held_norms']} kept their statistics."
    if tuning["frozen_parameters"] or tuning["held_norms"]:
        told += (
            f" All that was frozen is bit for bit what it was (sha256 {tuning['frozen_bits'][:12]} before and after)."
        )
    return told


def penalties(probe: dict[str, Any]) -> Picture:
    """Return the cross-entropy of held-out images by penalty."""
    tried = [(one["penalty"], one["loss"], one["loss_standard_error"]) for one in probe["penalties"]]
    told = "; ".join(f"{penalty:g}: {loss:.3f}" for penalty, loss, _ in tried)
    svg = charts.sweep(
        tried, chosen=probe["penalty"], axis="penalty", name="penalties", alt=f"Cross-entropy by penalty: {told}."
    )
    return Picture("Cross-entropy in the folds", "of images held out, with its standard error; lower is better", svg)


def curves(summary: dict[str, Any], epochs: list[Row]) -> list[Picture]:
    """Return how validation accuracy and training loss went over the epochs."""
    if not epochs:
        return []
    at, label = [row["epoch"] for row in epochs], names(summary)["tuned"].lower()
    accuracy = [charts.Line("student", label, ((at, [row["validation"]["accuracy"] for row in epochs]),))]
    if summary["choice"]:
        accuracy.append(charts.Line("control", "probe", ((at, [summary["choice"]["probe"]] * len(at)),)))
    loss = [charts.Line("student", label, ((at, [row["train"]["loss"] for row in epochs]),))]
    ends = f"{label} ends at {accuracy[0].seeds[0][1][-1]:.2f} %"
    return [
        Picture(
            "Validation accuracy, %",
            "after each epoch, on images that training never saw",
            charts.curve(accuracy, name="accuracy", alt=f"Validation accuracy over epochs: {ends}.", from_zero=False),
        ),
        Picture(
            "Cross-entropy",
            "in training, of augmented images; lower is better",
            charts.curve(loss, name="loss", alt="Training loss over epochs.", from_zero=True),
        ),
    ]
