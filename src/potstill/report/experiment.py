"""The page of an experiment as Markdown, in English and Korean, and its plots as SVG files; from the summary alone."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from potstill import words
from potstill.artifacts import read_object, write_text
from potstill.report.experiment_plots import Curve, draw
from potstill.report.language import ENGLISH, translator
from potstill.words import argument

PAGE = {"en": "experiment.md", "ko": "experiment.ko.md"}
PLOT = "plot-{}.svg"
NOT_RUN = "not measured"


@dataclass(frozen=True)
class Language:
    """The language of a page: translates its texts, and has own ones in recipes."""

    name: str = ENGLISH

    @property
    def translates(self) -> bool:
        """Whether the page is not in English."""
        return self.name != ENGLISH

    def __call__(self, text: str) -> str:
        return translator(self.name)(text)


def write_experiment(folder: Path) -> Path:
    """Write experiment.md, experiment.ko.md and plot-1.svg, ...; return the page's path."""
    summary = read_object(folder / "summary.json")
    for number, (plot, curves) in enumerate(plots(summary), 1):
        write_text(folder / PLOT.format(number), draw(plot, curves))
    for language, name in PAGE.items():
        write_text(folder / name, page(summary, language))
    return folder / PAGE["en"]


def page(summary: Mapping[str, Any], language: str = ENGLISH, *, plot: str = PLOT, commit: str = "") -> str:
    """Return the page. plot: path of the plots, with {} for their number; commit: of the code, where it is known."""
    recipe, say = summary["recipe"], Language(language)
    korean = recipe["korean"] if say.translates else {}
    parts = [
        f"# {korean.get('title') or recipe['title']}",
        (korean.get("shows") or recipe["shows"]).strip(),
        f"```\n{command(summary)}\n```",
        f"## {say('What was measured')}",
        table(summary, say),
        *_judged(summary, say),
        *_pictures(summary, say, plot),
        *_published(recipe, korean, say),
        f"## {say('The recipe')}",
        f"{say('Images')}: {recipe['data']}. {say('Knobs')} (`KEY=VALUE`):",
        f"```text\n{yaml.safe_dump(knobs(recipe), sort_keys=False, allow_unicode=True).strip()}\n```",
        _steps(summary, say),
        f"## {say('How it was measured')}",
        _how(summary, say, commit),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _steps(summary: Mapping[str, Any], say: Language) -> str:
    name = summary["recipe"]["name"]
    if _recipe(summary) != name:  # a file of the user
        return ""
    text = say("The steps: `potstill recipes show NAME`; a copy to change: `potstill recipes copy NAME`.")
    return text.replace("NAME", name)


def command(summary: Mapping[str, Any]) -> str:
    """Return the command without the paths of the machine it ran on: data=DATA."""
    name = _recipe(summary)
    typed = [word for word in shlex.split(summary["command"]) if not word.startswith("-") and "=" in word]
    shown = [argument(f"{word.partition('=')[0]}={_placeholder(*word.split('=', 1))}") for word in typed]
    budget = re.findall(r"--(?:budget|workers)[ =]\w+", summary["command"])
    return " ".join(["potstill run", argument(name), *shown, *budget])


def _recipe(summary: Mapping[str, Any]) -> str:
    """Return the recipe as it was typed: a file of the user, without its folder, or the name of a packaged one."""
    files = [Path(word).name for word in shlex.split(summary["command"]) if word.endswith((".yaml", ".yml"))]
    return files[0] if files else summary["recipe"]["name"]


def _placeholder(name: str, value: str) -> str:
    return name.rpartition(".")[2].upper() if "/" in value else value


def knobs(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Return the knobs, without the paths of the machine."""
    return {
        name: _placeholder(name, value) if isinstance(value, str) else value for name, value in recipe["knobs"].items()
    }


def selected(results: Mapping[str, Any], pattern: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield (name, parts) of the results that match a pattern with {names}, in order; "A | B" are two."""
    for one in pattern.split(" | "):
        yield from _matching(results, one)


def _matching(results: Mapping[str, Any], pattern: str) -> Iterator[tuple[str, dict[str, str]]]:
    pieces = re.split(r"\{(\w+)\}", pattern)
    texts = [re.escape(text) if place % 2 == 0 else f"(?P<{text}>[^/]+?)" for place, text in enumerate(pieces)]
    whole = re.compile("".join(texts))
    yield from ((name, match.groupdict()) for name in results if (match := whole.fullmatch(name)))


def rows(summary: Mapping[str, Any], say: Language) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (label, result) of every row of the table; every result where the recipe lists none."""
    for label, name in labels(summary, say):
        yield label, summary["results"][name]


def labels(summary: Mapping[str, Any], say: Language) -> Iterator[tuple[str, str]]:
    """Yield (label, name of the result) of every row of the table."""
    results = summary["results"]
    for row in summary["recipe"]["rows"] or [{"of": name, "label": "", "korean": ""} for name in results]:
        label = (row["korean"] if say.translates else "") or row["label"]
        for name, parts in selected(results, row["of"]):
            yield label.format(**parts) or name, name


def table(summary: Mapping[str, Any], say: Language) -> str:
    """Return the table of the results as Markdown."""
    columns = summary["recipe"]["columns"]
    head = [say("result"), *(say(HEADINGS[name] if name in HEADINGS else str(name)) for name in columns), say("seeds")]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for label, result in rows(summary, say):
        lines.append([label, *(say(cell(result, name)) for name in columns), str(len(result["accuracy"]))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


HEADINGS = {
    "accuracy": "test accuracy, %",
    "error": "test error, %",
    "interval": "95 % interval",
    "each": "each seed",
    "parameters": "parameters",
    "macs": "multiply-accumulates",
    "bytes": "bytes",
    "latency_ms": "ms per image",
    "lost": "lost, points",
    "train_error": "training error, %",
    "bits": "bits",
    "weight_error": "rounding error of weights, %",
    "rounded_to_zero": "layers whose gradient is mostly 0, %",
    "agreement": "same answer as before, %",
}


def cell(result: Mapping[str, Any], name: str) -> str:
    """Return a cell: the mean over seeds of a measure, or its interval."""
    accuracy = result["accuracy"]
    if name == "interval":
        return "" if result["interval"] is None else "{:.2f} to {:.2f}".format(*result["interval"])
    if name == "each":
        return ", ".join(f"{value:.2f}" for value in accuracy)
    if name == "accuracy":
        return f"{result['mean']:.2f}"
    if name == "error":
        return f"{100 - result['mean']:.2f}"
    values = result["measures"].get(name)
    if not values:
        return ""
    mean = sum(values) / len(values)
    return f"{mean:,.0f}" if name in ("parameters", "macs", "bytes", "bits") else f"{mean:.4g}"


def _judged(summary: Mapping[str, Any], say: Language) -> Iterator[str]:
    if summary["goals"]:
        yield f"## {say('Goals')}"
        yield "\n".join(_item(judged_goal(goal, say)) for goal in summary["goals"])
    if summary["claims"]:
        yield f"## {say('The statements of the lecture')}"
        yield "\n".join(_item(judged_claim(claim, say)) for claim in summary["claims"])


def _text(one: Mapping[str, Any], say: Language) -> str:
    return (one["korean"] if say.translates else "") or one["text"]


Judged = tuple[str, str, str]  # what was to be judged, the result, the figures that it was judged by


def judged_goal(goal: Mapping[str, Any], say: Language) -> Judged:
    """Return a goal, whether it is met, and what was measured."""
    if goal["result"] == NOT_RUN:
        return _text(goal, say), say(NOT_RUN), ""
    distance = "" if goal["result"] == "met" else f", {say('short by')} {goal['distance']:g}"
    each = ", ".join(f"{value:g}" for value in goal["values"])
    return _text(goal, say), say(goal["result"]), f"{goal['mean']:g} ({each}){distance}"


def judged_claim(claim: Mapping[str, Any], say: Language) -> Judged:
    """Return a statement, whether it holds, and the difference that was measured."""
    if claim["result"] == NOT_RUN:
        return _text(claim, say), say(NOT_RUN), ""
    interval = claim["interval"]
    span = say("one seed") if interval is None else say("{:+z.2f} to {:+z.2f}".format(*interval))
    seeds = "" if interval is None else f", {say(words.plural(claim['seeds'], 'seed'))}"
    return _text(claim, say), say(claim["result"]), f"{claim['difference']:+z.2f} ({span}{seeds})"


def _item(judged: Judged) -> str:
    text, result, figures = judged
    return f"- {text} **{result}**{f': {figures}' if figures else ''}."


def _pictures(summary: Mapping[str, Any], say: Language, plot: str) -> Iterator[str]:
    for number, (one, _) in enumerate(plots(summary), 1):
        title = (one["korean"] if say.translates else "") or one["title"]
        yield f"![{title}]({plot.format(number)})"


def _published(recipe: Mapping[str, Any], korean: Mapping[str, Any], say: Language) -> Iterator[str]:
    explained = korean.get("explained") or recipe["explained"]
    if recipe["published"] or explained:
        yield f"## {say('Published figures')}"
    if recipe["published"]:
        lines = [[say("what"), say("published"), say("source")], ["---"] * 3]
        for one in recipe["published"]:
            what = (one["korean"] if say.translates else "") or one["what"]
            lines.append([what, one["value"], one["source"]])
        yield "\n".join(f"| {' | '.join(line)} |" for line in lines)
    yield explained.strip()


def _how(summary: Mapping[str, Any], say: Language, commit: str) -> str:
    machine, splits = summary["machine"], summary["data"]["splits"]
    facts = [
        f"{say('Images of the first step')}: " + ", ".join(f"{say(name)} {splits[name]:,}" for name in splits),
        f"{words.duration(summary['seconds'])}, {machine['cpu']}, {say('threads')}: {machine['threads']}",
        ", ".join(f"{name} {version}" for name, version in summary["versions"].items()),
        f"potstill {summary['potstill']}" + (f", commit {commit}" if commit else "") + f", {summary['date'][:10]}",
    ]
    intervals = say(
        "Accuracy is that of the last epoch on the test split, which is evaluated once. Intervals are Student's t over "
        "seeds; for one seed, Wilson's over the test images."
    )
    return "\n".join([intervals, *(f"- {fact}" for fact in facts)])


def plots(summary: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], list[Curve]]]:
    """Yield every plot of the recipe that has results, and its curves."""
    for plot in summary["recipe"]["plots"]:
        curves = list(_curves(plot, summary["results"], list(selected(summary["results"], plot["of"]))))
        if curves:
            yield plot, curves


def _curves(plot: Mapping[str, Any], results: Mapping[str, Any], found: Sequence[Any]) -> Iterator[Curve]:
    if plot["x"] in ("epoch", "layer"):
        for name, parts in found:
            label = parts.get(plot["lines"], name)
            yield (
                _over_epochs(label, results[name], plot["y"])
                if plot["x"] == "epoch"
                else _over_layers(label, results[name], plot["y"])
            )
        return
    lines: dict[str, list[tuple[float, list[float]]]] = {}
    for name, parts in found:
        x = _number(parts[plot["x"]]) if plot["x"] in parts else _mean(results[name]["measures"].get(plot["x"]))
        y = _values(results[name], plot["y"])
        if x is not None and y:
            lines.setdefault(parts.get(plot["lines"], ""), []).append((x, y))
    for label, points in lines.items():
        points.sort(key=lambda point: point[0])
        yield Curve(label, [x for x, _ in points], [y for _, y in points])


def _values(result: Mapping[str, Any], name: str) -> list[float]:
    if name == "error":
        return [100 - value for value in result["accuracy"]]
    return result["accuracy"] if name == "accuracy" else result["measures"].get(name, [])


def _mean(values: Sequence[float] | None) -> float | None:
    return sum(values) / len(values) if values else None


def _number(text: str) -> float | None:
    """Return the number in a label: 4 of "T4"; None if it has none, and no place on the axis."""
    match = re.search(r"(?<![\w.])-?\d+(\.\d+)?(e[+-]?\d+)?|\d+(\.\d+)?(e[+-]?\d+)?", text)
    return float(match.group()) if match else None


def _over_epochs(label: str, result: Mapping[str, Any], name: str) -> Curve:
    """Return a measure of every epoch, of all seeds that were trained so long (`patience` ends some earlier)."""
    curves = result["curves"]
    epochs = max((curve["epoch"] for curve in curves), key=len)
    values = [[curve[name][n] for curve in curves if n < len(curve["epoch"])] for n in range(len(epochs))]
    return Curve(label, list(epochs), values)


def _over_layers(label: str, result: Mapping[str, Any], name: str) -> Curve:
    """Return a measure of every layer, from the images on. name: start.MEASURE (before training) or end.MEASURE."""
    when, _, what = name.partition(".")
    layers = result["gradients"][when]
    return Curve(label, [float(number) for number in range(1, len(layers) + 1)], [[layer[what]] for layer in layers])
