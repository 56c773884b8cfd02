"""`potstill shrink` at several budgets: what it ships, how good, in what time, and whether its forecast held.

    python benchmarks/shrink.py dogs-vs-cats --data DOGS-VS-CATS --minutes 20 --budgets 500kB 2.5MB
    python benchmarks/shrink.py dogs-vs-cats --data DOGS-VS-CATS --minutes 20 --budgets 500kB --kill 3
    python benchmarks/shrink.py digits --minutes 2 --budgets 12kB 50kB --typed

Adds to docs/shrink.json and writes docs/shrink-measured.md from it. A search that is recorded in the folder --work is
not made again. Each begins with an empty cache of decoded images and features, as on a machine that is new to the
images. With --kill, a search is stopped by SIGKILL at random times and started again, in a folder of its own; its
minutes are those of all its processes.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import potstill
from potstill import words
from potstill.stages.summary import machine, versions

ROOT = Path(__file__).parent.parent
RECORD = ROOT / "docs" / "shrink.json"
TABLE = ROOT / "docs" / "shrink-measured.md"


SEARCH = "import json, sys, potstill; potstill.shrink(**json.loads(sys.argv[1]))"


def killed(keywords: dict[str, Any], moments: list[float], began: float) -> None:
    """Start a search and stop it by SIGKILL, once at each of these moments, in seconds since `began`."""
    for moment in moments:
        process = subprocess.Popen([sys.executable, "-c", SEARCH, json.dumps(keywords)], start_new_session=True)
        try:
            process.wait(max(began + moment - time.monotonic(), 1.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def searched(options: argparse.Namespace, budget: str, folder: Path) -> dict[str, Any]:
    """Return the outcome of a search at a budget, after `options.kill` interruptions."""
    began, used = time.monotonic(), os.times()
    keywords: dict[str, Any] = {"data": options.images, "out": str(folder), "max_bytes": budget}
    keywords |= {"minutes": options.minutes}
    if options.teacher:
        keywords |= {"teacher": options.teacher, "teacher_weights": options.teacher_weights}
    moments = sorted(np.random.default_rng(options.kill).uniform(0, 60 * options.minutes, options.kill).tolist())
    killed(keywords, moments, began)
    result = potstill.shrink(**keywords)
    now = os.times()
    ship, forecast = result.summary["ship"], result.forecast
    return {
        "network": result.summary["choice"]["candidate"]["name"],
        "accuracy": ship["accuracy"],
        "interval": ship["interval"],
        "images": ship["images"],
        "bytes": ship["bytes"],
        "latency_ms": ship["latency_ms"],
        "kind": ship["kind"],
        "verdict": result.summary["verdict"]["result"],
        "teacher": result.summary["models"].get("teacher", {}).get("accuracy"),
        "forecast": forecast["student"]["interval"],
        "held": forecast["outcome"]["held"],
        "looked_at": result.summary["choice"]["looked_at"],
        "optimism": result.summary["choice"]["optimism"],
        "minutes": round((time.monotonic() - began) / 60, 1),
        "processor_minutes": round(sum(now[:4]) / 60 - sum(used[:4]) / 60, 1),
        "commit": commit(),
        "killed_after": [round(moment / 60, 1) for moment in moments],
        "stages": result.summary["stages"],
    }


def commit() -> str:
    """Return the commit that the searches are made with."""
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return found.stdout.strip()


def random_choice(summary: Path, seed: int = 0) -> dict[str, Any]:
    """Return a candidate drawn at random from those that were within the budget, at its accuracy in the search."""
    candidates = json.loads(summary.read_text())["candidates"]
    drawn = candidates[int(np.random.default_rng(seed).integers(len(candidates)))]
    return {"network": drawn["name"], "validation_accuracy": drawn["validation_accuracy"], "bytes": drawn["bytes"]}


def typed(options: argparse.Namespace) -> dict[str, Any]:
    """Return the 8-bit student of `potstill distill DATA` with its defaults: what one would type by hand."""
    began = os.times()
    result = potstill.distill(options.images, out=options.work / f"typed-{options.name}")
    return _alternative("distill, defaults", result.summary["models"]["student_int8"], began)


def tuned(options: argparse.Namespace) -> dict[str, Any]:
    """Return the 8-bit file of a small pretrained network that is fine-tuned without a teacher."""
    began, place = os.times(), options.work / f"tuned-{options.name}"
    scaling = {"mean": options.small_mean, "std": options.small_std} if options.small_mean else {}
    potstill.finetune(options.images, model=options.small, weights=options.small_weights, out=place, **scaling)
    files = potstill.export(place, out=options.work / f"tuned-{options.name}-files")
    return _alternative(f"{options.small}, fine-tuned", files.summary["models"]["model_int8.onnx"], began)


def _alternative(name: str, model: dict[str, Any], began: os.times_result) -> dict[str, Any]:
    minutes = (sum(os.times()[:4]) - sum(began[:4])) / 60
    kept = {key: model[key] for key in ("accuracy", "interval", "images", "bytes")}
    return {"name": name, **kept, "processor_minutes": round(minutes, 1)}


def beaten(run: dict[str, Any], others: list[dict[str, Any]]) -> list[str]:
    """Return what is not larger and better by more than one standard error of the difference of two test accuracies."""
    result = []
    for one in others:
        shares = [(each["accuracy"] / 100, each["images"]) for each in (run, one)]
        error = 100 * sum(p * (1 - p) / n for p, n in shares) ** 0.5
        if one["bytes"] <= run["bytes"] and one["accuracy"] > run["accuracy"] + error:
            result.append(one["name"])
    return result


def table(record: dict[str, Any]) -> str:
    """Return the Markdown page of the record."""
    lines = [
        "# Shrink, measured",
        "",
        "Written by `benchmarks/shrink.py` from docs/shrink.json. Test accuracy of the file that is shipped, chosen on",
        "validation, the test split evaluated once; 95 % interval over the test images (Wilson). Cache: empty, or warm",
        "with the decoded photos and the features of an earlier search.",
        "",
        "| data | budget | shipped | size | accuracy | interval | teacher | verdict | forecast | minutes | cache | "
        "commit |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for one in record["runs"]:
        low, high = one["interval"]
        teacher = "" if one["teacher"] is None else f"{one['teacher']:.1f} %"
        accuracy = f"{one['accuracy']:.2f} % | {low:.1f} to {high:.1f} (n = {one['images']:,})"
        lines.append(
            f"| {one['data']} | {_budget(one)} | {one['network']} ({one['kind']}) | {words.size(one['bytes'], ' ')} | "
            f"{accuracy} | {teacher} | {one['verdict']} | "
            f"{one['forecast'][0]:.1f} to {one['forecast'][1]:.1f}: {'held' if one['held'] else 'missed'} | "
            f"{one['minutes']:.1f} of {one['allowed']:g} | {one.get('cache', 'warm')} | {one['commit']} |"
        )
    lines += _alternatives(record)
    held = sum(one["held"] for one in record["runs"])
    facts = record["machine"]
    lines += [
        "",
        f"The forecast's interval held the outcome in {held} of {len(record['runs'])} runs. Machine: {facts['cpu']}, "
        f"{words.plural(facts['cores'], 'core')}; {record['date']}; torch {record['versions']['torch']}.",
        "",
    ]
    return "\n".join(lines)


def _budget(run: dict[str, Any]) -> str:
    moments = ", ".join(f"{moment:g}" for moment in run.get("killed_after", []))
    return f"{run['budget']}, killed after {moments} min" if moments else run["budget"]


def _alternatives(record: dict[str, Any]) -> list[str]:
    """Return the lines about what one would do otherwise."""
    lines = []
    for data, others in sorted(record.get("alternatives", {}).items()):
        runs = [one for one in record["runs"] if one["data"] == data]
        for other in others:
            better = [one["budget"] for one in runs if beaten(one, [other])]
            low, high = other["interval"]
            lines.append(
                f"- {data}, {other['name']}: {other['accuracy']:.2f} % ({low:.1f} to {high:.1f}) in "
                f"{words.size(other['bytes'], ' ')}, {other['processor_minutes']:.1f} processor minutes; "
                + (f"better than the search at {', '.join(better)}." if better else "no search is behind it.")
            )
    return ["", *lines] if lines else []


def main() -> None:
    """Run the searches that are asked for and record them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="of the data, in the record")
    parser.add_argument("--data", help="folder (default: the name)")
    parser.add_argument("--budgets", nargs="*", default=[])
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--kill", type=int, default=0, help="times that a search is stopped and started again")
    parser.add_argument("--teacher")
    parser.add_argument("--teacher-weights")
    parser.add_argument("--typed", action="store_true", help="also run `potstill distill` with its defaults")
    parser.add_argument("--small", help="a small pretrained network to fine-tune beside it, with --small-weights")
    parser.add_argument("--small-weights")
    parser.add_argument("--small-mean", type=float, nargs="+")
    parser.add_argument("--small-std", type=float, nargs="+")
    parser.add_argument("--work", type=Path, default=ROOT / "runs")
    options = parser.parse_args()
    data = options.data or options.name
    options.images = data if options.limit is None else {"path": data, "limit": options.limit}
    record: dict[str, Any] = json.loads(RECORD.read_text()) if RECORD.is_file() else {"runs": []}
    for budget in options.budgets:
        folder = options.work / f"shrink-{options.name}-{budget}{'-killed' * bool(options.kill)}"
        os.environ["POTSTILL_CACHE"] = str(folder.with_name(f"{folder.name}-cache"))
        run = searched(options, budget, folder)
        run |= {"data": options.name, "budget": budget, "allowed": options.minutes, "cache": "empty"}
        run["random"] = random_choice(folder / "summary.json")
        others = [one for one in record["runs"] if _key(one) != _key(run)]
        record |= {
            "runs": sorted([*others, run], key=lambda one: (one["data"], one["bytes"])),
            "machine": machine(),
            "versions": versions(),
            "date": time.strftime("%Y-%m-%d"),
        }
        write(record)
    ways = [way for way, wanted in ((typed, options.typed), (tuned, options.small)) if wanted]
    if ways:
        record.setdefault("alternatives", {})[options.name] = [way(options) for way in ways]
        write(record)


def _key(run: dict[str, Any]) -> tuple[str, str, bool]:
    return run["data"], run["budget"], bool(run.get("killed_after"))


def write(record: dict[str, Any]) -> None:
    """Write the record and its table."""
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    TABLE.write_text(table(record))


if __name__ == "__main__":
    main()
