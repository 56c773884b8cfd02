"""How results and progress look in a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from potstill import progress
from potstill.cli.console import PlainConsole, styled
from potstill.cli.plain import visible

BAR_WIDTH = 20  # characters
MOST_CLASSES = 12
LABELS = {
    "teacher": "teacher",
    "control": "control",
    "student": "student",
    "student_int8": "student, 8 bit",
}


class _Bar(progress.Task):
    def __init__(self, bars: Progress, number: TaskID) -> None:
        self._bars, self._number = bars, number

    def advance(self, steps: int = 1, text: str = "") -> None:
        self._bars.advance(self._number, steps)
        if text:
            self._bars.update(self._number, text=visible(text))


class LiveDisplay(progress.Display):
    """Bars and notes on standard error; standard output stays clean for figures."""

    def __init__(self) -> None:
        super().__init__()
        self._console = PlainConsole(stderr=True)
        self._bars: Progress | None = None

    @contextlib.contextmanager
    def task(self, title: str, total: int, done: int = 0) -> Iterator[progress.Task]:
        if not self._console.is_terminal:  # a log file: bars would be noise
            yield progress.Task()
            return
        if self._bars is not None:  # a task inside a task
            with self._counted(self._bars, title, total, done) as task:
                yield task
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(
            *columns, TextColumn("{task.fields[text]}", markup=False), console=self._console, transient=True
        ) as bars:
            self._bars = bars
            try:
                with self._counted(bars, title, total, done) as task:
                    yield task
            finally:
                self._bars = None

    @contextlib.contextmanager
    def _counted(self, bars: Progress, title: str, total: int, done: int) -> Iterator[progress.Task]:
        number = bars.add_task(visible(title), total=total, completed=done, text="")
        yield _Bar(bars, number)
        bars.remove_task(number)

    def note(self, sentence: str) -> None:
        if sentence not in self.notes:
            self.notes.append(sentence)
            self._console.print(f"note: {sentence}", style="yellow", soft_wrap=True)


def run_summary(summary: dict[str, Any]) -> None:
    """Print the table of models, the verdicts, and where the report is."""
    console = PlainConsole()
    console.print(_models(summary["models"], summary["recipe"].get("title") or summary["name"]))
    console.print(_verdict(summary["verdict"]), soft_wrap=True)
    for other in summary["comparisons"]:
        console.print(_verdict(other["verdict"], f"{other['name']}: "), soft_wrap=True)
    console.print(f"Report: {summary['report']}", soft_wrap=True)


def _verdict(verdict: dict[str, Any], before: str = "") -> Text:
    return styled(before, (verdict["result"], "bold"), f"  {verdict['sentence']}")


def _models(models: dict[str, Any], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("model", no_wrap=True)
    for name in ("accuracy %", "seeds", "parameters", "kB", "ms/image"):
        table.add_column(name, justify="right", no_wrap=True)
    for kind, facts in models.items():
        table.add_row(
            LABELS.get(kind, kind),
            f"{facts['accuracy']:.2f}" if "accuracy" in facts else "",
            _spread(facts.get("test_accuracy", ())),
            f"{facts['parameters']:,}" if "parameters" in facts else "",
            f"{facts['bytes'] / 1000:,.1f}" if "bytes" in facts else "",
            f"{facts['latency_ms']:.3f}" if "latency_ms" in facts else "",
        )
    return table


def _spread(seeds: Sequence[float]) -> str:
    """Return lowest and highest of the seeds where there are several."""
    return f"{min(seeds):.1f} to {max(seeds):.1f}" if len(seeds) > 1 else ""


def evaluation(result: dict[str, Any]) -> None:
    """Print what `evaluate` found."""
    console = PlainConsole()
    low, high = result["interval"]
    console.print(
        f"{result['model']} on {result['images']:,} {result['split']} images of {result['data']}:\n"
        f"accuracy {result['accuracy']:.2f} %  (95 % interval {low:.2f} to {high:.2f}), "
        f"loss {result['loss']:.4f}, calibration error {result['calibration_error']:.2f} %",
        soft_wrap=True,
    )
    worst = sorted(result["recall"].items(), key=lambda pair: pair[1])[:5]
    console.print("found least often: " + ", ".join(f"{name} {value:.1f} %" for name, value in worst), soft_wrap=True)


def compression(result: dict[str, Any]) -> None:
    """Print what pruning or quantizing made of a model, its files beside the original's."""
    console = PlainConsole()
    table = Table("file", "bytes", "accuracy %", "95 % interval", "lost", "ms an image", title=result["folder"])
    for name, row in result["models"].items():
        low, high = row["interval"]
        speed = f"{row['latency_ms']:.3f}" if "latency_ms" in row else ""
        lost = "" if name == "original" else f"{row['lost']:.2f}"
        size = f"{row['bytes']:,}" if "bytes" in row else ""
        file = row.get("file", f"({name})")  # a simulated format has none
        table.add_row(file, size, f"{row['accuracy']:.2f}", f"{low:.2f} to {high:.2f}", lost, speed)
    console.print(table)
    if "speed_up" in result:
        console.print(f"{result['speed_up']:.2f} times as fast as the original (batch 1, one thread).")


def predictions(result: list[dict[str, Any]]) -> None:
    """Print a line an image."""
    console = PlainConsole()
    for one in result:
        others = ", ".join(f"{each['class']} {100 * each['probability']:.1f} %" for each in one["top"][1:3])
        console.print(
            f"{one['image']}: {one['class']} {100 * one['probability']:.1f} %  (then {others})",
            soft_wrap=True,
        )


def findings(result: dict[str, Any]) -> None:
    """Print what `check` found, worst first."""
    console = PlainConsole()
    colours = {"error": "red", "warning": "yellow"}
    for finding in result["findings"]:
        severity = finding["severity"], colours.get(finding["severity"], "cyan")
        console.print(styled(severity, f" {finding['text']}"), soft_wrap=True)
        for example in finding["examples"][:3]:
            console.print(f"    {'  =  '.join(example)}", soft_wrap=True)
        console.print(f"    -> {finding['advice']}", soft_wrap=True)
    if not result["findings"]:
        console.print("Nothing was found that would harm a model.")
    for key in ("html", "fixed", "sheet"):
        if key in result:
            console.print(f"{key}: {result[key]}", soft_wrap=True)
    for effect in result.get("probe", []):
        console.print(f"{effect}", soft_wrap=True)


def catalogue(result: dict[str, Any]) -> None:
    """Print the models that match."""
    table = Table()
    for name, side in (("model", "left"), ("parameters", "right"), ("pixels", "right"), ("ImageNet top-1 %", "right")):
        table.add_column(name, justify=side, no_wrap=True)
    for row in result["models"]:
        accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1f}"
        table.add_row(row["name"], f"{row['parameters']:,}", "x".join(map(str, row["size"])), accuracy)
    console = PlainConsole()
    console.print(table)
    left = result["count"] - len(result["models"])
    if left:
        console.print(f"... and {left:,} more; --most {result['count']} lists them.")


def layers(result: list[dict[str, Any]]) -> None:
    """Print the layers of a model."""
    table = Table()
    for name, side in (("layer", "left"), ("kind", "left"), ("output", "right"), ("parameters", "right"), ("", "left")):
        table.add_column(name, justify=side, no_wrap=True)
    for row in result:
        shape = "x".join(map(str, row["shape"])) if row["shape"] else ""
        table.add_row(row["path"], row["kind"], shape, f"{row['parameters']:,}", row["stage"])
    PlainConsole().print(table)


def explanation(result: dict[str, Any]) -> None:
    """Print the probabilities of an image's classes as bars, teacher beside student, a table a temperature."""
    console = PlainConsole()
    shown = min(len(result["classes"]), MOST_CLASSES)
    asked = [who for who in ("teacher", "student") if who in result["models"]]
    for at, temperature in enumerate(result["temperatures"]):
        table = Table(title=f"{result['image']}, T = {temperature:g}", title_justify="left", box=None)
        for heading in ("class", *(who if len(asked) > 1 else "" for who in asked)):
            table.add_column(heading, no_wrap=True)
        said = [result["probabilities"][who][at] for who in asked]
        for number, name in enumerate(result["classes"][:shown]):
            table.add_row(name, *(_text_bar(probability[number]) for probability in said))
        if shown < len(result["classes"]):
            others = f"{len(result['classes']) - shown} others"
            table.add_row(others, *(_text_bar(sum(probability[shown:])) for probability in said))
        console.print(table)


def _text_bar(probability: float) -> str:
    eighths = round(8 * BAR_WIDTH * probability)
    drawn = "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return f"{drawn:<{BAR_WIDTH}} {100 * probability:5.1f} %"


def comparison(summary: dict[str, Any]) -> None:
    """Print a table a student: each method's accuracy, its difference to the control and the corrected verdict."""
    console = PlainConsole()
    for name, student in summary["students"].items():
        table = Table(title=f"{name} ({student['model']})", title_justify="left")
        table.add_column("method", no_wrap=True)
        for heading in ("test %", "beside control, points", "p (Holm)", "verdict"):
            table.add_column(heading, justify="right", no_wrap=True)
        for method in student["methods"]:
            table.add_row(method["method"], f"{method['accuracy']:.2f}", *_beside(method))
        console.print(table)
    for note in summary["notes"]:
        console.print(f"note: {note}", style="yellow", soft_wrap=True)


def _beside(method: dict[str, Any]) -> tuple[str, str, str]:
    if "verdict" not in method:
        return "", "", ""
    low, high = method["verdict"]["interval"]
    difference = f"{method['verdict']['difference']:+.2f} ({low:+.2f} to {high:+.2f})"
    return difference, f"{method['p_holm']:.3f}", method["corrected"]


def benchmarks(bars: dict[str, dict[str, Any]]) -> None:
    """Print the figures of every benchmark beside their bars, by title."""
    console = PlainConsole()
    colours = {"met": "green", "missed": "red"}
    for title, figures in bars.items():
        table = Table("figure", "what it is", "measured", "bar", "", title=title)
        for name, bar in figures.items():
            verdict = bar["verdict"]
            table.add_row(name, bar["what"], bar["measured"], bar["bar"], verdict, style=colours.get(verdict))
        console.print(table)


def likeness(result: dict[str, Any]) -> None:
    """Print how like its teacher a student is, over a whole data set."""
    console = PlainConsole()
    for who, agreed in result["agreement"].items():
        mistakes, kl = result["inherited"][who], result["divergence"][who]["1"]
        console.print(
            f"{who} ({result['models'][who]}): accuracy {result['accuracy'][who]:.2f} %, same class as the teacher on "
            f"{agreed:.2f} % of {result['images']:,} images, KL {kl:.3f} nats, calibration error "
            f"{result['calibration'][who]['error']:.1f} points; repeats {mistakes['repeated']:,} of the teacher's "
            f"{mistakes['mistakes']:,} mistakes.",
            soft_wrap=True,
        )


def transfer(summary: dict[str, Any]) -> None:
    """Print what a transfer measured of the probe and of the fine-tuned network, and which was kept."""
    console = PlainConsole()
    table = Table(title=summary["data"]["source"], title_justify="left")
    for heading, side in (("model", "left"), ("test accuracy %", "right"), ("95 % interval", "right")):
        table.add_column(heading, justify=side, no_wrap=True)
    for name, figures in summary["models"].items():
        low, high = figures["interval"]
        kept = " (kept)" if name == summary["kept"] else ""
        table.add_row(f"{name}{kept}", f"{figures['accuracy']:.2f}", f"{low:.2f} to {high:.2f}")
    console.print(table)
    console.print(f"Model: {summary['folder']}\nReport: {summary['report']}", soft_wrap=True)
