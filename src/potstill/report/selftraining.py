"""The pages of selftrain and label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from potstill import words
from potstill.report import insights, sections
from potstill.report.commands import next_steps
from potstill.report.first import digits_of, first
from potstill.report.page import Block, Effect, First
from potstill.report.read import Run
from potstill.report.tables import forest
from potstill.words import plural


def head(run: Run) -> First:
    """Return the first screen of a self-training: what is kept, then whether the unlabelled images helped."""
    summary = run.summary
    start, choice = first(summary, run.folder), summary["choice"]
    title = "The unlabelled images helped" if summary["helped"] else "The unlabelled images did not help"
    effect = Effect(title, "good" if summary["helped"] else "even", choice["sentence"])
    return First(start.headline, start.tone, start.stamp, start.lines, start.tiles, effect, start.next)


def blocks(run: Run) -> Iterator[Block]:
    """Yield the blocks of a self-training."""
    summary = run.summary
    titles = {name: (name[0].upper() + name[1:], _role(one)) for name, one in summary["models"].items()}
    rows = sections.rows_of(summary, titles)
    yield sections.models(summary, rows)
    yield from _gains(summary)
    yield from sections.notes(summary, summary["choice"]["sentence"])
    yield from insights.blocks(summary, run.examples)
    yield _recall(summary["recall"])
    yield _pool(summary)
    yield from sections.last(run)


def _role(one: Mapping[str, Any]) -> str:
    steps = f"{words.count(one['steps'])} steps" if one.get("steps") else ""
    return ", ".join(part for part in ("with the pool" if one.get("pool") else "labels only", steps) if part)


def _gains(summary: Mapping[str, Any]) -> Iterator[Block]:
    rows = [
        {
            "name": name,
            **one["against_labels_only"],
            "label": "",
            "tone": sections.tone(one["against_labels_only"]["interval"]),
        }
        for name, one in summary["models"].items()
        if one.get("against_labels_only")
    ]
    if rows:
        text = "Points of test accuracy against the model that had the labels only, with 95 % intervals."
        yield Block("gains", "Gains and losses", "forest", {"text": [text], **forest(rows, digits_of(summary))})


def _recall(recall: Mapping[str, Mapping[str, float]]) -> Block:
    rows = [
        (name, words.percent(one["before"]), words.percent(one["after"]), words.signed(one["after"] - one["before"]))
        for name, one in sorted(recall.items(), key=lambda item: item[1]["after"] - item[1]["before"])
    ]
    text = "Recall of each class, mean over seeds: a pool can raise the accuracy and make a class worse."
    headings = ("Class", "Labels only", "Kept model", "Difference, points")
    values = {"text": [text], "headings": headings, "rows": rows, "small": []}
    return Block("classes", "Before and after", "table", values)


def _pool(summary: Mapping[str, Any]) -> Block:
    pool = summary["pool"]
    rows = [(reason, words.count(count)) for reason, count in pool["left_out"].items()]
    text = [
        f"{plural(summary['data']['splits']['pool'], 'image')} from {pool['source']}, of which {pool['kept']:,} were "
        "kept. labels.html shows the predicted labels, to-review.csv those to label by hand, labels.csv all of them."
    ]
    values = {"text": text, "headings": ("Left out because", "Images"), "rows": rows, "small": []}
    return Block("pool", "Pool", "table", values)


def label_head(run: Run) -> First:
    """Return the first screen of soft labels."""
    summary, facts = run.summary, run.summary["labels"]
    images, views = plural(facts["images"], "image"), plural(facts["views"], "view")
    lines = [f"Teacher: {summary['models']['teacher']['name']}."]
    if facts["accuracy"] is not None:
        lines.append(f"It classifies {words.percent(facts['accuracy'])} of the validation images correctly.")
    headline = f"Soft labels of {images} in {views}"
    return First(headline, "even", "", tuple(lines), ((words.size(facts["bytes"]), "on disk"),), None,
                 tuple(next_steps(summary, run.folder)))  # fmt: skip


def label_blocks(run: Run) -> Iterator[Block]:
    """Yield the blocks of soft labels."""
    yield from sections.notes(run.summary)
    text = "labels.html shows the predicted labels, to-review.csv the most informative images to label by hand."
    links = [(name, name) for name in ("labels.html", "labels.csv", "to-review.csv") if (run.folder / name).is_file()]
    yield Block("files", "Files", "use", {"text": [text], "links": links, "parity": None, "code": ""})
    yield from sections.last(run)
