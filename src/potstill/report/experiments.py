"""The pages of an experiment and of its step `train`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from potstill import words
from potstill.report import sections
from potstill.report.experiment import PAGE, Judged, Language, judged_claim, judged_goal, labels
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
    titles = {name: (f"{label[:1].upper()}{label[1:]}", "") for label, name in labels(summary, Language())}
    yield sections.models(summary, sections.rows_of(summary, titles))
    yield from _judged("goals", "Goals", [judged_goal(one, Language()) for one in summary["goals"]])
    claims = [judged_claim(one, Language()) for one in summary["claims"]]
    yield from _judged("claims", "The statements of the lecture", claims)
    links = [(name, name) for name in (*PAGE.values(), *sorted(file.name for file in run.folder.glob("plot-*.svg")))]
    text = "The page of the experiment with its plots, in English and Korean."
    yield Block("files", "Files", "use", {"text": [text], "links": links, "parity": None, "code": ""})
    yield from sections.notes(summary)
    yield from sections.last(run)


def _judged(name: str, title: str, rows: Sequence[Judged]) -> Iterator[Block]:
    if rows:
        headings = ("Goal" if name == "goals" else "Statement", "Result", "Measured")
        yield Block(name, title, "table", {"text": [], "headings": headings, "rows": rows, "small": []})


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
