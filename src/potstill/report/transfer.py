"""The page of transfer learning: the model kept and why, the probe, frozen parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from potstill import words
from potstill.report import charts, insights, sections
from potstill.report.first import first
from potstill.report.page import Block, Effect, First
from potstill.report.pictures import Picture
from potstill.report.read import Row, Run
from potstill.report.tables import TITLES


def head(run: Run) -> First:
    """Return the first screen: what is kept and how good it is, then whether fine-tuning helped."""
    summary = run.summary
    start, choice = first(summary, run.folder), summary["choice"]
    kept = bool(choice) and choice["kept"] == "tuned"
    effect = Effect(headline(summary), "good" if kept else "even", meaning(summary))
    return First(start.headline, start.tone, start.stamp, start.lines, start.tiles, effect, start.next)


def headline(summary: Mapping[str, Any]) -> str:
    """Return what was kept in one sentence."""
    choice = summary["choice"]
    if choice and choice["kept"] == "tuned":
        return "Kept the fine-tuned model"
    if choice:
        return "Kept the linear probe"
    return "Trained from scratch" if summary["recipe"]["from_scratch"] else "Linear probe"


def meaning(summary: Mapping[str, Any]) -> str:
    """Return why the model was kept."""
    if summary["choice"]:
        why = summary["choice"]["sentence"].partition(": ")[2]  # what was kept is the headline
        return (
            f"{why[:1].upper()}{why[1:]} Fine-tuning is kept only if it beats the probe by more than one "
            "standard error on validation."
        )
    if summary["recipe"]["from_scratch"]:
        return "No pretrained weights were used: this is the baseline for transfer learning."
    return "A linear classifier on the features of the frozen network; fine-tuning was not requested."


def blocks(run: Run) -> Iterator[Block]:
    """Yield the blocks of a transfer."""
    summary = run.summary
    titles = TITLES | {
        "tuned": ("From scratch" if summary["recipe"]["from_scratch"] else "Fine-tuned", _tuned(summary))
    }
    rows = sections.rows_of(summary, titles)
    for row in rows:
        validation = (summary["choice"] or {}).get(row.key)
        if validation is not None:
            row.cells["validation"] = (words.percent(validation), "")
    yield sections.models(summary, rows)
    yield from sections.gains(summary)
    yield from sections.notes(summary, (summary["choice"] or {}).get("sentence", ""))
    yield from insights.blocks(summary, run.examples)
    if summary["probe"]:
        yield from _probe(summary["probe"])
    if summary["tuning"]:
        yield _tuning(run)
    if summary.get("candidates"):
        yield _candidates(summary["candidates"])
    card = summary["card"]
    normal = f"mean {', '.join(map(str, card['mean']))}; std {', '.join(map(str, card['std']))}"
    yield from sections.last(run, (("Normalisation", normal),))


def _candidates(found: list[dict[str, Any]]) -> Block:
    rows = [
        (one["model"], words.percent(one["accuracy"]), "{:.1f} to {:.1f}".format(*one["interval"])) for one in found
    ]
    text = "Cross-validated accuracy of a probe on each pretrained network; the best is kept."
    headings = ("Network", "Probe", "95 % interval")
    return Block("candidates", "Networks", "table", {"text": [text], "headings": headings, "rows": rows, "small": []})


def _probe(probe: Mapping[str, Any]) -> Iterator[Block]:
    chosen = ", chosen by stratified cross-validation in which all views of an image are in the same fold"
    text = (
        f"Multinomial logistic regression on {probe['layer']} features of the frozen network, with L2 penalty "
        f"{probe['penalty']:g}{chosen if probe['penalties'] else ''}."
    )
    pictures = [penalties(probe)] if probe["penalties"] else []
    yield Block("probe", "Linear probe", "charts", {"text": [text], "pictures": pictures, "small": []})
    if len(probe["layers"]) > 1:
        rows = [
            (f"{one['layer']}{' (used)' * (one['layer'] == probe['layer'])}", f"{one['penalty']:g}",
             words.percent(one["accuracy"]), f"{one['loss']:.3f}")
            for one in probe["layers"]
        ]  # fmt: skip
        headings = ("Layer", "L2 penalty", "Cross-validated accuracy", "Cross-entropy")
        yield Block("layers", "Layers", "table", {"text": [], "headings": headings, "rows": rows, "small": []})


def _tuning(run: Run) -> Block:
    tuning = run.summary["tuning"]
    steps = words.plural(tuning["steps"], "step")
    kept = f"{steps}; the weights are those of epoch {tuning['kept_epoch']}, which is best on validation."
    drawn = curves(run.summary, run.tuned)
    values = {"text": [], "pictures": drawn, "small": [kept, frozen(tuning)]}
    return Block("tuning", "Training curves", "charts", values)


def _tuned(summary: Mapping[str, Any]) -> str:
    if summary["recipe"]["from_scratch"]:
        return "all layers, from random weights"
    unfreeze = str(summary["recipe"]["unfreeze"])
    part = {"all": "all layers", "none": "the head", "1": "the last stage"}.get(unfreeze, f"the last {unfreeze} stages")
    return f"{part}, starting from the probe"


def frozen(tuning: Mapping[str, Any]) -> str:
    """Return which parts were frozen during fine-tuning, with the digest that shows it."""
    trained, fixed = words.count(tuning["trainable_parameters"]), words.count(tuning["frozen_parameters"])
    text = f"{trained} parameters were trained, {fixed} were frozen."
    if tuning["norms"]:
        text += f" Of {words.plural(tuning['norms'], 'BatchNorm layer')}, {tuning['held_norms']} kept their statistics."
    if tuning["frozen_parameters"] or tuning["held_norms"]:
        text += f" Frozen parameters and statistics are bit-identical to before (sha256 {tuning['frozen_bits'][:12]})."
    return text


def penalties(probe: Mapping[str, Any]) -> Picture:
    """Return the cross-validated cross-entropy by L2 penalty."""
    tried = [(one["penalty"], one["loss"], one["loss_standard_error"]) for one in probe["penalties"]]
    values = "; ".join(f"{penalty:g}: {loss:.3f}" for penalty, loss, _ in tried)
    svg = charts.sweep(
        tried, chosen=probe["penalty"], axis="L2 penalty", name="penalties", alt=f"Cross-entropy by penalty: {values}."
    )
    return Picture("Cross-validated cross-entropy", "with its standard error; lower is better", svg)


def curves(summary: Mapping[str, Any], epochs: list[Row]) -> list[Picture]:
    """Return the charts of validation accuracy and training loss over epochs."""
    if not epochs:
        return []
    scratch = summary["recipe"]["from_scratch"]
    at, label = [row["epoch"] for row in epochs], "from scratch" if scratch else "fine-tuned"
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
