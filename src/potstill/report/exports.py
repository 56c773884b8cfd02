"""A comparison as CSV, Markdown and LaTeX, made from summary.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from potstill import words
from potstill.artifacts import read_object, write_text
from potstill.data.csv_files import table_text
from potstill.evaluation.statistics import FINE
from potstill.words import MINUS

HEADINGS = (
    "Method",
    "Test %",
    "95 % interval",
    "vs control",
    "p (Holm)",
    "Verdict",
    "Last / best on validation %",
    "Agreement with teacher %",
    "ECE",
    "Seconds per seed",
    "Extra parameters",
)


TABLES = ("comparison.csv", "cells.csv", "comparison.md", "comparison.tex")


def write_tables(folder: Path) -> None:
    """Write the tables of a comparison into its folder, from its summary."""
    summary = read_object(folder / "summary.json")
    for name, made in zip(TABLES, (comparison_csv, cells_csv, markdown, latex), strict=True):
        write_text(folder / name, made(summary))


def cells_csv(summary: Mapping[str, Any]) -> str:
    """Return one row per cell: a student trained with one method and one seed."""
    rows = []
    for student, method in methods(summary):
        columns = {
            "seed": method["seeds"],
            "test_accuracy": method["test_accuracy"],
            "validation_last": method["validation_accuracy"]["last"],
            "validation_best": method["validation_accuracy"]["best"],
            "kept_epoch": method["kept_epoch"],
            "seconds": method["seconds"],
        }
        for values in zip(*columns.values(), strict=True):
            rows.append({"student": student, "method": method["method"], **dict(zip(columns, values, strict=True))})
    return table_text(list(rows[0]), (list(row.values()) for row in rows))


def comparison_csv(summary: Mapping[str, Any]) -> str:
    """Return one row per student and method, over all seeds."""
    rows = []
    for student, method in methods(summary):
        verdict = method.get("verdict")
        low, high = method["interval"] or ("", "")
        rows.append(
            {
                "student": student,
                "method": method["method"],
                "seeds": len(method["seeds"]),
                "test_accuracy": method["accuracy"],
                "low": low,
                "high": high,
                "difference": verdict["difference"] if verdict else "",
                "difference_low": verdict["interval"][0] if verdict else "",
                "difference_high": verdict["interval"][1] if verdict else "",
                "p": method.get("p", ""),
                "p_holm": method.get("p_holm", ""),
                "verdict": method.get("corrected", ""),
                "validation_last": mean(method["validation_accuracy"]["last"]),
                "validation_best": mean(method["validation_accuracy"]["best"]),
                "agreement": method["agreement"],
                "calibration_error": method["calibration_error"],
                "seconds": mean(method["seconds"]),
                "extra_parameters_deployed": method["extra_parameters"]["deployed"],
                "extra_parameters_training": method["extra_parameters"]["training"],
            }
        )
    return table_text(list(rows[0]), (list(row.values()) for row in rows))


def markdown(summary: Mapping[str, Any]) -> str:
    """Return the comparison as a Markdown page: tables, method, notes, environment."""
    parts = [f"# {summary['recipe'].get('title') or summary['name']}", setting(summary)]
    for name, student in summary["students"].items():
        parts.append(f"## {name}: {student['model']}, {student['parameters']:,} parameters")
        parts.append(_markdown_table(HEADINGS, list(table(summary, student))))
    parts.append(how(summary))
    if summary["notes"]:
        parts.append("## Notes\n\n" + "\n".join(f"- {note}" for note in summary["notes"]))
    parts.append("## Environment\n\n" + "\n".join(f"- {line}" for line in facts(summary)))
    return "\n\n".join(parts) + "\n"


def latex(summary: Mapping[str, Any]) -> str:
    """Return the comparison as LaTeX tables in the style of the booktabs package."""
    parts = []
    for name, student in summary["students"].items():
        rows = [(cells[0], *cells[1:6]) for cells in table(summary, student)]
        body = "\n".join("  " + " & ".join(_tex(cell) for cell in cells) + r" \\" for cells in rows)
        caption = _tex(f"{name} ({student['model']}), {words.plural(summary['budget']['seeds'], 'seed')}")
        head = "  " + " & ".join(_tex(heading) for heading in HEADINGS[:6]) + r" \\"
        parts.append(
            "\\begin{table}\n\\centering\n\\begin{tabular}{lrlllr}\n  \\toprule\n"
            f"{head}\n  \\midrule\n{body}\n  \\bottomrule\n\\end{{tabular}}\n\\caption{{{caption}}}\n\\end{{table}}\n"
        )
    return "\n".join(parts)


def table(summary: Mapping[str, Any], student: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the cells of `HEADINGS` as text, one row per method, the control first."""
    digits = 2 if summary["data"]["splits"]["test"] >= FINE else 1
    for method in student["methods"]:
        last, best = (mean(method["validation_accuracy"][which]) for which in ("last", "best"))
        extra = method["extra_parameters"]
        yield (
            method["method"],
            f"{method['accuracy']:.{digits}f}",
            _clipped(method["interval"], digits),
            _difference(method.get("verdict"), digits),
            f"{method['p_holm']:.3f}" if "p_holm" in method else "",
            method.get("corrected", ""),
            f"{last:.{digits}f} / {best:.{digits}f}",
            "" if method["agreement"] is None else f"{method['agreement']:.{digits}f}",
            f"{method['calibration_error']:.1f}",
            f"{mean(method['seconds']):.0f}" if mean(method["seconds"]) >= 10 else f"{mean(method['seconds']):.1f}",
            f"{extra['deployed']:,}" + (f" (and {extra['training']:,} while training)" if extra["training"] else ""),
        )


def _clipped(interval: Sequence[float] | None, digits: int) -> str:
    return f"{max(interval[0], 0):.{digits}f} to {min(interval[1], 100):.{digits}f}" if interval else ""


def _difference(verdict: dict[str, Any] | None, digits: int) -> str:
    if verdict is None:
        return ""
    low, high = (words.signed(bound, digits) for bound in verdict["interval"])
    return f"{words.signed(verdict['difference'], digits)} ({low} to {high})"


def setting(summary: Mapping[str, Any]) -> str:
    """Return in words what was compared, and at which budget."""
    teacher, budget, splits = summary["models"]["teacher"], summary["budget"], summary["data"]["splits"]
    size = f", {teacher['parameters']:,} parameters" if "parameters" in teacher else ""
    accuracy = f", test accuracy {teacher['accuracy']:.2f} %" if "accuracy" in teacher else ""
    trials = budget["trials"]
    tuned = (
        f"{trials} settings of each method and of the control were tried on validation first"
        if trials > 1
        else "no setting of any method was tuned on these images"
    )
    return (
        f"Teacher: {teacher['name']}{size}{accuracy}. All students had the same budget: "
        f"{words.plural(budget['epochs'], 'epoch')} of {words.plural(splits['train'], 'image')} at batch size "
        f"{budget['batch_size']} ({words.plural(budget['steps'], 'step')}), {words.plural(budget['views'], 'view')} "
        f"per image, {words.plural(budget['seeds'], 'seed')}; {tuned}. Control and students of one seed start from "
        f"the same weights and see the same batches. The {words.plural(splits['test'], 'test image')} were evaluated "
        "once, at the end."
    )


def how(summary: Mapping[str, Any]) -> str:
    """Return how to read the table."""
    kept = "of the last epoch" if summary["budget"]["select"] == "last" else "of the best epoch on validation"
    return (
        f"The weights kept are those {kept}; both validation figures are shown. The 95 % interval of a mean is "
        "Student's t over seeds. *vs control* is the difference in points with its 95 % interval, from a paired "
        "bootstrap over images and seeds. *p (Holm)* belongs to that interval and is corrected for the number of "
        "methods in the table; *Verdict* is BEATS or LOSES where it is below 0.05. With few seeds only large "
        f"differences are significant (seeds trained here: {summary['budget']['seeds']}). *ECE* is the expected "
        "calibration error in points. *Extra parameters* are those that the deployed student has beyond the "
        "control's, and those of layers used only in training."
    )


def facts(summary: Mapping[str, Any]) -> list[str]:
    """Return the environment of the comparison: data, machine, versions, date, command."""
    data, machine = summary["data"], summary["machine"]
    splits = ", ".join(f"{count:,} {name}" for name, count in data["splits"].items())
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    threads = words.plural(machine["threads"], "thread")
    return [
        f"Data: {data['source']} ({splits}), fingerprint {data['fingerprint'][:16]}",
        f"Machine: {machine['cpu']}, {words.plural(machine['cores'], 'core')}, {machine['device']}, {threads}",
        f"Versions: potstill {summary['potstill']}, Python {machine['python']}, {versions}",
        f"Date: {words.date(summary['date'])}; total time {words.duration(summary['seconds'])}",
        f"Command: `{summary['command']}`",
    ]


def methods(summary: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (student, method) for every row of the comparison."""
    for name, student in summary["students"].items():
        for method in student["methods"]:
            yield name, method


def mean(values: Sequence[float]) -> float:
    """Return the mean over seeds, rounded to three decimals."""
    return round(sum(values) / len(values), 3)


def _markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    used = [n for n in range(len(headings)) if any(row[n] for row in rows)]
    lines = [[headings[n] for n in used], ["---" if n in (0, 5) else "---:" for n in used]]
    lines += [[row[n].replace("|", r"\|") for n in used] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _tex(text: str) -> str:
    for plain, escaped in (("\\", r"\textbackslash{}"), ("%", r"\%"), ("_", r"\_"), ("&", r"\&"), ("#", r"\#")):
        text = text.replace(plain, escaped)
    return text.replace(MINUS, "$-$")
