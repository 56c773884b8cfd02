"""The report of transfer learning, `report.html`: the model kept and why, accuracies, the probe, frozen parts."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import yaml

from potstill import words
from potstill.artifacts import read_object, write_text
from potstill.evaluation.statistics import FINE
from potstill.report import charts
from potstill.report.pictures import Picture
from potstill.report.read import Row, read_rows
from potstill.report.templates import filled

COLOURS = {"probe": "control", "tuned": "student"}  # keys of charts.COLOURS


def write_transfer(folder: Path) -> Path:
    """Write report.html into the folder of a finished `finetune`; return its path."""
    summary = read_object(folder / "summary.json") | {"folder": str(folder)}
    text = render(summary, read_rows(folder / "tuned" / "metrics.jsonl"))
    write_text(folder / "report.html", text)
    return folder / "report.html"


def render(summary: dict[str, Any], epochs: list[Row]) -> str:
    """Return the page; it needs no network and no other file. epochs: the rows of fine-tuning's metrics.jsonl."""
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
    """Return the titles of the models."""
    tuned = "From scratch" if summary["recipe"]["from_scratch"] else "Fine-tuned"
    return {name: {"probe": "Probe", "tuned": tuned}[name] for name in summary["models"]}


def headline(summary: dict[str, Any]) -> str:
    """Return the result in one sentence."""
    choice = summary["choice"]
    if choice and choice["kept"] == "tuned":
        return f"Kept the fine-tuned model: {choice['difference']:.1f} points better than the linear probe"
    if choice:
        images = words.plural(summary["data"]["splits"]["validation"], "validation image")
        return f"Kept the linear probe: fine-tuning was not measurably better on {images}"
    accuracy = words.percent(summary["models"][summary["kept"]]["accuracy"])
    name = "Trained from scratch" if summary["recipe"]["from_scratch"] else "Linear probe"
    return f"{name}: {accuracy} test accuracy"


def meaning(summary: dict[str, Any]) -> str:
    """Return why the model was kept."""
    if summary["choice"]:
        return (
            f"{summary['choice']['sentence']} Fine-tuning is kept only if it beats the probe by more than one "
            "standard error on validation."
        )
    if summary["recipe"]["from_scratch"]:
        return "No pretrained weights were used: this is the baseline for transfer learning."
    return "A linear classifier on the features of the frozen network; fine-tuning was not requested."


def advice(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Return suggested next steps: (purpose, command)."""
    folder, source, recipe = summary["folder"], summary["data"]["source"], summary["recipe"]
    again = _again(summary)
    if recipe["from_scratch"]:
        return [("Compare with the pretrained weights:", again)]
    source, folder = shlex.quote(source), shlex.quote(folder)
    steps = [
        ("Distill it into a small network:", f"potstill distill {source} --teacher {folder}"),
        ("Export files for a device:", f"potstill export {folder}"),
    ]
    if recipe["features"] != "auto" and not recipe["options"]:  # options of an architecture are no flags
        steps.append(
            ("If the images are unlike photographs, an earlier layer may transfer better:", f"{again} --features auto")
        )
    return steps


def _again(summary: dict[str, Any]) -> str:
    """Return the command of the transfer, with the model that was kept and everything its weights need."""
    recipe, data = summary["recipe"], summary["recipe"]["data"]
    candidates = summary.get("candidates") or [{"model": recipe["model"], "accuracy": 0}]
    model = max(candidates, key=lambda each: each["accuracy"])["model"]
    flags = {"model": model, "weights": recipe["weights"], "mean": recipe["mean"], "std": recipe["std"]}
    flags |= {name: data[name] for name in ("size", "limit", "group", "test_from")}
    flags["fit"] = data["fit"] if data.get("fit") != "crop" else None
    words_of = [f"--{name.replace('_', '-')} {_typed(value)}" for name, value in flags.items() if value is not None]
    return " ".join(["potstill finetune", shlex.quote(summary["data"]["source"]), *words_of])


def _typed(value: Any) -> str:
    return shlex.quote(",".join(f"{x:g}" for x in value) if isinstance(value, list) else str(value))


def tiles(summary: dict[str, Any], digits: int) -> list[tuple[str, str]]:
    """Return the headline figures: (figure, caption)."""
    kept = summary["models"][summary["kept"]]
    low, high = (f"{bound:.{digits}f}" for bound in kept["interval"])
    figures = [(words.percent(kept["accuracy"], digits), f"test accuracy (95 % interval {low} to {high})")]
    if summary["probe"]:
        seconds = sum(part["seconds"] for part in summary["stages"] if part["name"] in ("features", "probe"))
        figures.append((words.duration(seconds), "feature extraction and linear probe"))
    figures.append((words.count(kept["parameters"]), "parameters"))
    return figures


def rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one row per model: its name, its figures, and whether it was kept."""
    validation = summary["choice"] or {"tuned": (summary["tuning"] or {}).get("validation_accuracy", {}).get("best")}
    titles = names(summary)
    return [
        {
            "name": titles[name],
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
        return "all layers, from random weights"
    unfreeze = str(summary["recipe"]["unfreeze"])
    part = {"all": "all layers", "none": "the head", "1": "the last stage"}.get(unfreeze, f"the last {unfreeze} stages")
    return f"{part}, starting from the probe"


def frozen(tuning: dict[str, Any]) -> str:
    """Return which parts were frozen during fine-tuning, with the digest that shows it."""
    trained, fixed = words.count(tuning["trainable_parameters"]), words.count(tuning["frozen_parameters"])
    text = f"{trained} parameters were trained, {fixed} were frozen."
    if tuning["norms"]:
        text += f" Of {words.plural(tuning['norms'], 'BatchNorm layer')}, {tuning['held_norms']} kept their statistics."
    if tuning["frozen_parameters"] or tuning["held_norms"]:
        text += f" Frozen parameters and statistics are bit-identical to before (sha256 {tuning['frozen_bits'][:12]})."
    return text


def penalties(probe: dict[str, Any]) -> Picture:
    """Return the cross-validated cross-entropy by L2 penalty."""
    tried = [(one["penalty"], one["loss"], one["loss_standard_error"]) for one in probe["penalties"]]
    values = "; ".join(f"{penalty:g}: {loss:.3f}" for penalty, loss, _ in tried)
    svg = charts.sweep(
        tried, chosen=probe["penalty"], axis="L2 penalty", name="penalties", alt=f"Cross-entropy by penalty: {values}."
    )
    return Picture("Cross-validated cross-entropy", "with its standard error; lower is better", svg)


def curves(summary: dict[str, Any], epochs: list[Row]) -> list[Picture]:
    """Return the charts of validation accuracy and training loss over epochs."""
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
            "after each epoch; higher is better",
            charts.curve(accuracy, name="accuracy", alt=f"Validation accuracy over epochs: {ends}.", from_zero=False),
        ),
        Picture(
            "Training cross-entropy",
            "on augmented images; lower is better",
            charts.curve(loss, name="loss", alt="Training loss over epochs.", from_zero=True),
        ),
    ]
