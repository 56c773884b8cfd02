"""The pages of an experiment and of its step `train`."""

from __future__ import annotations

from collections.abc import Iterator

from potstill import words
from potstill.report import sections
from potstill.report.experiment import PAGE
from potstill.report.page import Block, First
from potstill.report.read import Run


def head(run: Run) -> First:
    """Return the first screen: how many goals are met and statements hold."""
    summary = run.summary
    goals, claims = ([one["result"] for one in summary[key]] for key in ("goals", "claims"))
    counted = [
        f"{results.count(good)} of {words.plural(len(results), noun)} {verb}"
        for results, good, noun, verb in ((goals, "met", "goal", "met"), (claims, "holds", "statement", "hold"))
        if results
    ]
    title = summary["recipe"]["title"] or summary["name"]
    return First(", ".join(counted) or title, "even", "", (f"{title}. {summary['recipe']['shows'].strip()}",))


def blocks(run: Run) -> Iterator[Block]:
    """Yield what was measured, and the files of the experiment's own page."""
    summary = run.summary
    yield sections.models(summary, sections.rows_of(summary, {}))
    links = [(name, name) for name in (*PAGE.values(), *sorted(file.name for file in run.folder.glob("plot-*.svg")))]
    text = "The page of the experiment with its plots, in English and Korean."
    yield Block("files", "Files", "use", {"text": [text], "links": links, "parity": None, "code": ""})
    yield from sections.notes(summary)
    yield from sections.last(run)


def train_head(run: Run) -> First:
    """Return the first screen of a training with labels alone."""
    (figures,) = run.summary["models"].values()
    seeds = words.plural(len(figures["test_accuracy"]), "seed")
    return First(f"{figures['name']}: {words.percent(figures['accuracy'])}, mean over {seeds}")


def train_blocks(run: Run) -> Iterator[Block]:
    """Yield the figures of a training with labels alone."""
    yield sections.models(run.summary, sections.rows_of(run.summary))
    yield from sections.notes(run.summary)
    yield from sections.last(run)
