"""The commands that pages and messages print as next steps. Each works as printed, from the folder it is printed in."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from potstill.words import argument

IMAGES = ("limit", "group", "test_from", "seed")
"""Settings of the images that decide which are in which split, and so must not change on the way."""


OF_FILES = ("distill", "shrink", "prune", "quantize", "export")
"""The stages that end in files."""


def next_steps(summary: Mapping[str, Any], folder: Path) -> list[tuple[str, str]]:
    """Return (purpose, command) for a finished stage in `folder`."""
    kind = summary.get("kind", "")
    if kind in OF_FILES and not summary.get("ship"):  # a simulation writes no file
        return []
    return STEPS.get(kind, lambda *_: [])(summary, argument(folder))


def _again(summary: Mapping[str, Any], folder: str) -> tuple[str, str]:
    file = argument(Path(shlex.split(folder)[0]) / summary["ship"]["file"])
    return "Measure the file again:", f"potstill evaluate {file} {_source(summary)}"


def _source(summary: Mapping[str, Any]) -> str:
    return argument(summary["data"]["source"])


def _of_files(summary: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    narrow = summary["recipe"].get("activation_bits") not in (None, 8)  # which no runtime computes with
    more = [] if narrow else [("Files for a device (--to onnx, tflite, c ...):", f"potstill export {folder}")]
    return [_again(summary, folder), *more]


def _of_run(summary: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    steps = _of_files(summary, folder)
    if (summary.get("verdict") or {}).get("result") == "LOSES":
        control = f"potstill export {folder}/control/seed-{summary['recipe']['seed']}"
        steps.insert(0, ("Export the control instead, which is better:", control))
    return steps


def _of_model(summary: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    """Return the next steps of a stage whose result is a model that no device runs yet."""
    distill = f"potstill distill {_source(summary)} --teacher {folder}{_images(summary)}"
    return [
        ("Distill it into a small network:", distill),
        ("Export files for a device:", f"potstill export {folder}"),
    ]


def _images(summary: Mapping[str, Any]) -> str:
    """Return the flags of the images, so that the next command reads the same ones with the same splits."""
    data = summary["recipe"].get("data", {})
    flags = {name: data[name] for name in ("limit", "group", "test_from") if data.get(name) is not None}
    flags |= {"fit": data["fit"]} if data.get("fit", "crop") != "crop" else {}
    return "".join(f" --{name.replace('_', '-')} {argument(value)}" for name, value in flags.items())


def _of_finetune(summary: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    recipe = summary["recipe"]
    again = finetuned_again(summary)
    if recipe["from_scratch"]:
        own = recipe["model"].startswith("builtin:")  # of which no weights are published
        return [] if own else [("Compare with the pretrained weights:", again)]
    steps = _of_model(summary, folder)
    if recipe["features"] != "auto" and not recipe["options"]:  # options of an architecture are no flags
        why = "If the images are unlike photographs, an earlier layer may transfer better:"
        steps.append((why, f"{again} --features auto"))
    return steps


def finetuned_again(summary: Mapping[str, Any]) -> str:
    """Return the command of a transfer, with the model that was kept and everything its weights need."""
    recipe, data = summary["recipe"], summary["recipe"]["data"]
    candidates = summary.get("candidates") or [{"model": recipe["model"], "accuracy": 0}]
    model = max(candidates, key=lambda each: each["accuracy"])["model"]
    flags = {"model": model, "weights": recipe["weights"], "mean": recipe["mean"], "std": recipe["std"]}
    flags |= {name: data[name] for name in ("size", "limit", "group", "test_from")}
    flags["fit"] = data["fit"] if data.get("fit") != "crop" else None
    typed = [f"--{name.replace('_', '-')} {_typed(value)}" for name, value in flags.items() if value is not None]
    return " ".join(["potstill finetune", _source(summary), *typed])


def _typed(value: Any) -> str:
    return argument(",".join(f"{x:g}" for x in value) if isinstance(value, list) else value)


def _of_label(summary: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    recipe = summary["recipe"]
    of_views = (("augment", "auto"), ("seed", 0))  # the student must see the views that were labelled
    given = [(name, recipe[name]) for name, usual in of_views if recipe[name] != usual]
    flags = "".join(f" --{name} {argument(value)}" for name, value in given if not isinstance(value, list))
    return [("Teach with them:", f"potstill distill {_source(summary)} --teacher {folder}{_images(summary)}{flags}")]


def _of_export(summary: Mapping[str, Any], folder: str) -> list[tuple[str, str]]:
    steps = [_again(summary, folder)]
    if summary["recipe"]["golden"]:
        steps.append(("Check the files where they are used:", f"python {folder}/golden/verify.py"))
    return steps


STEPS = {
    "distill": _of_run,
    "shrink": _of_files,
    "prune": _of_files,
    "quantize": _of_files,
    "export": _of_export,
    "finetune": _of_finetune,
    "selftrain": _of_model,
    "label": _of_label,
}
