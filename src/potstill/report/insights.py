"""The blocks behind the accuracy of the shipped file: recall, confusions, mistakes, confidence, soft labels, data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from potstill import words
from potstill.report import charts
from potstill.report.first import NAMES
from potstill.report.page import Block
from potstill.report.pictures import Picture
from potstill.report.tables import bars

SHOWN = 10  # pairs of classes in the list of confusions
FEW = 12  # classes whose recall is shown at once; of more, the lowest ones


def blocks(summary: Mapping[str, Any], examples: Mapping[str, Any] | None) -> Iterator[Block]:
    """Yield the blocks for which there are figures."""
    found, classes = summary.get("insight"), summary["data"]["classes"]
    if found is not None:
        yield recall(found["recall"], summary)
        yield confusion(found["confusion"], classes)
    if examples is not None and (examples["mistakes"] or examples.get("disagreed")):
        yield mistakes(examples)
    if found is not None:
        yield confidence(found["calibration"], found["thresholds"], summary)
    if examples is not None and examples.get("soft"):
        yield soft(examples)


def recall(rows: list[dict[str, Any]], summary: Mapping[str, Any]) -> Block:
    """Return the recall of each class with its interval, the lowest first."""
    balanced, ship = summary["ship"]["balanced_accuracy"], summary["ship"]
    text = (
        f"The share of a class's test images that {ship['file']} classifies correctly, the lowest first. Their mean, "
        f"the balanced accuracy, is {words.percent(balanced)}; the lowest is {words.percent(ship['worst_recall'])}."
    )
    shown = [row | {"text": _interval(row["recall"], row["interval"])} for row in rows]
    more = shown if len(shown) > FEW else []
    return Block("recall", "Recall by class", "recall", {"text": text, "rows": shown[:FEW], "more": more})


def _interval(value: float, interval: list[float]) -> str:
    return f"{words.percent(value)} ({interval[0]:.1f} to {interval[1]:.1f})"


def confusion(found: Mapping[str, Any], classes: list[str]) -> Block:
    """Return the confusion matrix of few classes, and the most frequent confusions."""
    pairs = [(one["label"], one["predicted"], words.count(one["images"])) for one in found["pairs"][:SHOWN]]
    matrix = [_matrix_row(number, row) for number, row in enumerate(found.get("matrix", []))]
    text = "The most frequent mistakes." if pairs else "Every test image is classified correctly."
    values = {"text": text, "matrix": matrix, "classes": classes, "pairs": pairs}
    return Block("confusion", "Confusions", "confusion", values)


def _matrix_row(number: int, row: list[int]) -> list[dict[str, Any]]:
    total = sum(row) or 1
    return [
        {"count": count, "share": round(count / total, 3), "kind": "right" if k == number else "wrong"}
        for k, count in enumerate(row)
    ]


def mistakes(examples: Mapping[str, Any]) -> Block:
    """Return the gallery: mistakes that the reference does not make, those that both make, and disagreements."""
    classes, role = examples["classes"], examples["reference"]
    name = NAMES.get(role, role) if role else ""
    own = [one for one in examples["mistakes"] if one.get("reference", one["label"]) == one["label"]]
    shared = [one for one in examples["mistakes"] if one not in own]
    title = f"Right by {name}, wrong by the shipped file" if role else "Mistakes, the most confident first"
    groups = [
        (title, "The most confident first: label, prediction and its probability.", own, _mistaken),
        (f"Wrong by both {name} and the shipped file", "Look at the labels of these first.", shared, _mistaken),
        (f"Disagrees most with {name}", "Predictions of both.", examples.get("disagreed", []), _disagreed),
    ]
    shown = [
        {"title": title, "text": text, "shown": [one | {"lines": lines(one, classes)} for one in found]}
        for title, text, found, lines in groups
        if found
    ]
    return Block("mistakes", "Mistakes", "mistakes", {"groups": shown, "classes": classes})


def _mistaken(one: Mapping[str, Any], classes: list[str]) -> list[str]:
    return [f"is {classes[one['label']]}", f"predicted {classes[one['predicted']]}, {100 * one['confidence']:.0f} %"]


def _disagreed(one: Mapping[str, Any], classes: list[str]) -> list[str]:
    return [f"is {classes[one['label']]}", f"{classes[one['reference']]} vs {classes[one['predicted']]}"]


def confidence(calibration: Mapping[str, Any], thresholds: Mapping[str, Any], summary: Mapping[str, Any]) -> Block:
    """Return calibration, and what is decided if only confident answers count."""
    points = list(zip(calibration["confidence"], calibration["accuracy"], strict=True))
    values = "; ".join(f"confidence {x:.0f} %, accuracy {y:.0f} %" for x, y in points)
    diagram = charts.reliability(
        points, calibration["count"], model="student", name="reliability", alt=f"Reliability of the file: {values}."
    )
    curve = charts.precision(thresholds["curve"], name="thresholds", alt=_curve_alt(thresholds["curve"]))
    error = f"expected calibration error {calibration['error']:.1f} points"
    pictures = [
        Picture("Confidence and accuracy", f"{error}; on the diagonal a model is calibrated", diagram),
        Picture("Precision of the answers", "if the least confident images are left to a person", curve),
    ]
    small = (
        "Read off the test images, so a little optimistic; --reject 'precision>=0.99' chooses a threshold on "
        "validation images with a guarantee."
    )
    text = "The probability of the predicted class is the confidence. Images below a threshold can be left to a person."
    at = [
        f"At {one['precision']:g} % precision it decides {words.percent(one['share'])} of the images alone: those with "
        f"a probability of at least {one['threshold']:.3f} ({words.count(one['answered'])} of "
        f"{words.count(thresholds['images'])})."
        for one in thresholds["at"]
    ]
    return Block("confidence", "Confidence", "confidence", {
        "text": [text, *_guarantee(summary)], "at": at, "pictures": pictures, "small": small,
    })  # fmt: skip


def _guarantee(summary: Mapping[str, Any]) -> list[str]:
    """Return what a threshold on the model's card guarantees."""
    reject = summary["models"].get(summary["ship"]["role"], {}).get("reject")
    if not reject:
        return []
    test = reject["test"]
    answered, images = words.count(test["answered"]), words.count(test["images"])
    return [
        f"The file answers only where precision>={reject['precision']:g} is guaranteed: {answered} of {images} test "
        f"images, of which at least {100 * test['at_least']:.1f} % are right."
    ]


def _curve_alt(curve: list[list[float]]) -> str:
    shown = curve[:: len(curve) // 5 or 1]
    ends = "; ".join(f"{share:.0f} % answered, {precision:.0f} % right" for share, precision in shown)
    return f"Precision by share of images answered: {ends}."


def soft(examples: Mapping[str, Any]) -> Block:
    """Return some images with the probabilities of teacher and student at several temperatures."""
    classes, role = examples["classes"], examples["reference"]
    shown = [one | {"bars": bars(one, classes)} for one in examples["soft"]]
    values = ", ".join(f"{value:g}" for value in examples["temperatures"])
    text = (
        "A label names one class; a network assigns a probability to every class. At temperature 1 they are often "
        "close to 1 for a single class; at higher temperatures they also show which classes are considered similar. "
        f"Shown at {values}."
    )
    teacher = str(NAMES.get(role, role)).removeprefix("the ").capitalize()
    names = {"teacher": teacher, "student": "Shipped file"}
    return Block("soft", "Soft labels", "soft", {
        "text": text, "names": names, "shown": shown, "classes": classes, "temperatures": examples["temperatures"],
    })  # fmt: skip


def data(summary: Mapping[str, Any], examples: Mapping[str, Any] | None) -> Block:
    """Return the images: splits, counts by class, samples, and labels that look wrong."""
    found = summary["data"]
    classes = examples["classes"] if examples else found["classes"]
    counts = [(name, *map(words.count, each)) for name, each in found.get("counts", {}).items()]
    samples = examples["samples"] if examples else []
    values = {"facts": _facts(found), "counts": counts, "samples": samples, "classes": classes, "errors": None}
    errors = summary.get("label_errors")
    if errors and errors.get("suspicious"):
        shown = examples["suspicious"] if examples else []
        lines = [one | {"lines": _suspicious(one, classes)} for one in shown]
        values["errors"] = {"text": _errors(errors), "shown": lines}
    return Block("data", "Data", "data", values)


def _suspicious(one: Mapping[str, Any], classes: list[str]) -> list[str]:
    return [f"labelled {classes[one['label']]}", f"looks like {classes[one['looks']]}, {100 * one['confidence']:.0f} %"]


def _errors(errors: Mapping[str, Any]) -> str:
    low, high = errors["interval"]
    return (
        f"{words.count(errors['suspicious'])} of {words.plural(errors['images'], 'test label')} look wrong, "
        f"{words.percent(errors['share'])} (95 % interval {low:.1f} to {high:.1f}): confident learning with the "
        f"probabilities of {NAMES.get(errors['by'], 'the model')}, which was not trained on these images and is right "
        f"on {words.percent(errors['accuracy'])} of them. Its own consistent mistakes count too, so look before "
        "changing anything. All are in suspicious-labels.csv: fill in the column label where the recorded one is wrong."
    )


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    splits, image = found["splits"], found["image"]
    training = words.plural(splits["train"], "image")
    if splits.get("unlabelled"):
        training += f": {words.count(splits['labelled'])} labelled, {words.count(splits['unlabelled'])} unlabelled"
    if splits.get("pool"):
        training += f"; {words.plural(splits['pool'], 'image')} of the pool"
    colour = "grey" if image["channels"] == 1 else "colour"
    return [
        ("Source", found["source"]),
        ("Training", training),
        ("Validation", words.plural(splits["validation"], "image")),
        ("Test", words.plural(splits["test"], "image")),
        (words.plural(len(found["classes"]), "class"), ", ".join(found["classes"])),
        ("Size", f"{image['width']} × {image['height']} pixels, {colour}"),
    ]
