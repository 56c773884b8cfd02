"""What using a model returns: predictions, measurements, explanations, lists."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from potstill import words
from potstill.api.results import BESIDE, Result
from potstill.api.tables import Part, Table
from potstill.evaluation.measured import BALANCED

BAR_WIDTH = 20  # characters
MOST_CLASSES = 12


@dataclass(frozen=True, repr=False, eq=False)
class Prediction(Result):
    """The class of one image."""

    @property
    def image(self) -> str:
        """The image's path, or which one it was of several."""
        return self.summary["image"]

    @property
    def class_name(self) -> str:
        """The class with the highest probability; "unsure" where the model guarantees its answers and has none."""
        return self.summary["class"]

    @property
    def unsure(self) -> bool:
        """Whether the probability is below the threshold from which the model guarantees its answers."""
        return self.summary.get("unsure", False)

    @property
    def probability(self) -> float:
        """The highest probability, 0..1."""
        return self.summary["probability"]

    @property
    def top(self) -> dict[str, float]:
        """The five most probable classes and their probabilities 0..1, the highest first."""
        return {one["class"]: one["probability"] for one in self.summary["top"]}

    def parts(self) -> Iterator[Part]:
        first, *others = (f"{name} {100 * probability:.1f} %" for name, probability in self.top.items())
        then = f"  (then {', '.join(others[:2])})" if others else ""
        answer = f"unsure, perhaps {first}" if self.unsure else first
        yield f"{self.image}: {answer}{then}"


@dataclass(frozen=True, repr=False, eq=False)
class Evaluation(Result):
    """Accuracy of a model on a split."""

    @property
    def accuracy(self) -> float:
        """Percent of the images classified correctly."""
        return self.summary["accuracy"]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the accuracy, percent."""
        low, high = self.summary["interval"]
        return low, high

    @property
    def images(self) -> int:
        """How many images were classified."""
        return self.summary["images"]

    @property
    def recall(self) -> dict[str, float]:
        """Percent of each class's images classified correctly."""
        return self.summary["recall"]

    def parts(self) -> Iterator[Part]:
        result, (low, high) = self.summary, self.interval
        images = words.plural(self.images, f"{result['split']} image")
        yield f"{result['model']} on {images} of {result['data']}:"
        yield (
            f"accuracy {self.accuracy:.2f} %  (95 % interval {low:.2f} to {high:.2f}), "
            f"loss {result['loss']:.4f}, calibration error {result['calibration_error']:.2f} %"
        )
        if "balanced_accuracy" in result:
            yield f"balanced accuracy {result['balanced_accuracy']:.2f} %, lowest recall {result['worst_recall']:.2f} %"
        lowest = sorted(self.recall.items(), key=lambda pair: pair[1])[:5]
        yield "Lowest recall: " + ", ".join(f"{name} ({value:.1f} %)" for name, value in lowest)


@dataclass(frozen=True, repr=False, eq=False)
class Explanation(Result):
    """The probabilities of an image's classes at several temperatures, of a model, its teacher and its control."""

    def parts(self) -> Iterator[Part]:
        result = self.summary
        roles = [role for role in ("teacher", "student", "control") if role in result["models"]]
        for place, temperature in enumerate(result["temperatures"]):
            columns = [_bars(result["probabilities"][role][place]) for role in roles]
            classes = list(result["classes"][:MOST_CLASSES])
            left = len(result["classes"]) - len(classes)
            rows = zip(
                [*classes, *([words.plural(left, "other class", "other classes")] if left else [])],
                *columns,
                strict=True,
            )
            headings = roles if len(roles) > 1 else ["probability"]
            yield Table(("class", *headings), tuple(rows), f"{result['image']}, T = {temperature:g}")


def _bars(probability: list[float]) -> list[str]:
    shown, rest = probability[:MOST_CLASSES], probability[MOST_CLASSES:]
    return [_bar(one) for one in (*shown, *([sum(rest)] if rest else []))]


def _bar(probability: float) -> str:
    eighths = round(8 * BAR_WIDTH * probability)
    drawn = "█" * (eighths // 8) + ("", *"▏▎▍▌▋▊▉")[eighths % 8]
    return f"{drawn:<{BAR_WIDTH}} {100 * probability:5.1f} %"


@dataclass(frozen=True, repr=False, eq=False)
class Likeness(Result):
    """How a student compares with its teacher over a data set."""

    def parts(self) -> Iterator[Part]:
        result = self.summary
        for role, agreement in result["agreement"].items():
            mistakes, kl = result["inherited"][role], result["divergence"][role]["1"]
            yield (
                f"{role} ({result['models'][role]}): accuracy {result['accuracy'][role]:.2f} %, same class as the "
                f"teacher on {agreement:.2f} % of {words.plural(result['images'], 'image')}, KL {kl:.3f} nats, "
                f"calibration error {result['calibration'][role]['error']:.1f} points; repeats "
                f"{mistakes['repeated']:,} of the teacher's {words.plural(mistakes['mistakes'], 'mistake')}."
            )
        if "html" in result:
            yield f"Page: {result['html']}"


@dataclass(frozen=True, repr=False, eq=False)
class CheckResult(Result):
    """Findings about a data set, the worst first."""

    @property
    def findings(self) -> list[dict[str, Any]]:
        """Each with `code`, `severity` (error, warning, info), `count`, `text`, `advice` and `examples`."""
        return self.summary["findings"]

    @property
    def worst(self) -> str:
        """The severity of the worst finding: error, warning, info or none."""
        return self.summary["worst"]

    @property
    def exit_status(self) -> int:
        """1 if there are errors and the check was strict, else 0."""
        return int(self.summary["strict"] and self.summary["errors"] > 0)

    def _counted(self) -> str:
        found, splits = self.summary, self.summary["splits"]
        filled = {name: split["images"] for name, split in splits.items() if split["images"]}
        each = ", ".join(f"{words.count(images)} {name}" for name, images in filled.items())
        labelled = sum(split["labelled"] for split in splits.values())
        unlabelled = found["images"] - labelled
        parts = [
            f"{words.plural(found['images'], 'image')} ({each})",
            *([f"{words.count(unlabelled)} unlabelled"] if unlabelled else []),
            words.plural(len(found["classes"]), "class"),
            words.plural(found["errors"], "error"),
            words.plural(found["warnings"], "warning"),
        ]
        return ", ".join(parts) + "."

    def parts(self) -> Iterator[Part]:
        for finding in self.findings:
            yield f"{finding['severity']} {finding['text']}"
            yield from (f"    {'  =  '.join(example)}" for example in finding["examples"][:3])
            if finding["advice"]:
                yield f"    -> {finding['advice']}"
        if not self.findings:
            yield "Nothing was found that would harm a model."
        yield self._counted()
        yield from (f"{key}: {self.summary[key]}" for key in ("html", "fixed", "sheet") if key in self.summary)
        if effects := self.summary.get("probe"):
            yield Table(tuple(effects[0]), tuple(tuple(_cell(value) for value in one.values()) for one in effects))


def _cell(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, repr=False, eq=False)
class Catalogue(Result):
    """Models by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """The spelling of each listed model, as `model=`, `teacher=` and `student=` take it."""
        return tuple(row["name"] for row in self.summary["models"])

    def parts(self) -> Iterator[Part]:
        rows = self.summary["models"]
        headings = ("model", "parameters", "8 bits, about", "MACs", "pixels", "ImageNet top-1, %")
        known = len(headings) if any(row["accuracy"] is not None for row in rows) else -1
        yield Table(headings[:known], tuple(_catalogue_row(row)[:known] for row in rows))
        left = self.summary["count"] - len(rows)
        if left:
            yield f"... and {left:,} more; --most {self.summary['count']} lists them."


@dataclass(frozen=True, repr=False, eq=False)
class NetworkCost(Result):
    """What one network costs on a device, for one image; `summary` has the figures, sizes in bytes."""

    def parts(self) -> Iterator[Part]:
        one = self.summary
        bits = "float" if one["bits"] == 32 else f"{one['bits']} bits"
        shown = {
            "file": words.file_size(one["bytes"]),
            "flash": words.file_size(one["flash"]),
            "RAM, int8": words.file_size(one["ram_int8"]),
            "RAM, float": words.file_size(one["ram_float"]),
            "MACs": f"{one['macs'] / 1e6:,.2f} M",
            "parameters": words.count(one["parameters"]),
        }
        if "latency_ms" in one:
            shown["latency here"] = f"{one['latency_ms']:.3g} ms"
        if "device_ms" in one:
            shown[f"on {one['device']}"] = f"{one['device_ms']:.3g} ms"
        size, classes = "x".join(map(str, one["size"])), words.plural(one["classes"], "class")
        yield Table(("one image", bits), tuple(shown.items()), f"{one['model']}, {size} pixels, {classes}")
        if "device_ms" in one:
            yield f"Scaled from the profile of {one['device']}: expect an error of {100 * one['device_error']:.0f} %."


def _catalogue_row(row: dict[str, Any]) -> tuple[str, ...]:
    accuracy = "" if row["accuracy"] is None else f"{row['accuracy']:.1f}"
    macs = "" if row["macs"] is None else f"{row['macs'] / 1e6:,.2f} M"
    size = "x".join(map(str, row["size"]))
    return row["name"], f"{row['parameters']:,}", words.file_size(row["bytes"]), macs, size, accuracy


@dataclass(frozen=True, repr=False, eq=False)
class Layers(Result):
    """The layers of a model in the order of execution; `paths` are the names that taps take."""

    @property
    def paths(self) -> tuple[str, ...]:
        """The path of each layer."""
        return tuple(row["path"] for row in self.summary["layers"])

    def parts(self) -> Iterator[Part]:
        rows = tuple(
            (row["path"], row["kind"], "x".join(map(str, row["shape"] or ())), f"{row['parameters']:,}", row["stage"])
            for row in self.summary["layers"]
        )
        yield Table(("layer", "kind", "output", "parameters", "stage"), rows)


@dataclass(frozen=True, repr=False, eq=False)
class CleanResult(Result):
    """What can be removed, or was."""

    @property
    def bytes(self) -> int:
        """Bytes of everything that was found."""
        return self.summary["bytes"]

    def parts(self) -> Iterator[Part]:
        found, size = self.summary["found"], words.file_size(self.bytes)
        if not found:
            yield "Nothing to remove."
            return
        rows = tuple((one["path"], words.file_size(one["bytes"]), one["reason"]) for one in found)
        yield Table(("path", "size", "why"), rows)
        yield f"Removed {size}." if self.summary["removed"] else f"{size} can be removed: add --yes."


@dataclass(frozen=True, repr=False, eq=False)
class DebugResult(Result):
    """The step at which a training diverged, repeated."""

    def parts(self) -> Iterator[Part]:
        result = self.summary
        same = "the same values as before" if result["same"] else "other values than before"
        yield Table(
            ("loss term", "value"), tuple((name, str(value)) for name, value in result["terms"].items()),
            f"Step {result['step'] + 1}, seed {result['seed']}, learning rate {result['learning_rate']:g}: {same}",
        )  # fmt: skip
        for kind in ("layers", "gradients", "weights"):
            names = result[kind]
            more = f" and {len(names) - MOST_CLASSES} more" if len(names) > MOST_CLASSES else ""
            yield f"Not finite among the {kind}: {', '.join(names[:MOST_CLASSES]) or 'none'}{more}"
        yield f"Images of the batch: {', '.join(result['images'][:MOST_CLASSES])}"


@dataclass(frozen=True, repr=False, eq=False)
class BenchResult(Result):
    """Latency of files on this machine, and their accuracy where images were given."""

    def parts(self) -> Iterator[Part]:
        result = self.summary
        if result.get("device_profile"):
            yield _profile(result["device_profile"])
        for timing in result["timings"]:
            batch, threads = words.plural(timing["batch"], "image"), timing["threads"]
            cores = "all threads" if threads == 0 else words.plural(threads, "thread")
            rows = tuple(
                (
                    one["file"],
                    f"{one['median_ms']:.3f}",
                    f"{one['low_ms']:.3f} to {one['high_ms']:.3f}",
                    f"{one['images_per_second']:,.0f}",
                    f"{one['ratio']:.2f}",
                )
                for one in timing["files"]
            )
            headings = ("file", "median, ms", "quartiles, ms", "images/s", "speed vs first")
            yield Table(headings, rows, f"Batch of {batch}, {cores}")
        if result["accuracy"]:
            yield Table(
                ("file", "size", "accuracy, %", "95 % interval", *BESIDE),
                tuple(_accuracy_row(one) for one in result["accuracy"]),
                f"Accuracy on {words.plural(result['accuracy'][0]['images'], 'image')} of {result['data']}",
            )


def _profile(one: dict[str, Any]) -> str:
    floating, integer = (f"{100 * one['error'][kind]:.0f} %" for kind in ("float", "int8"))
    return (
        f"Wrote {one['file']}, the profile of {one['name']} ({one['processor']}). Latencies scaled from it have an "
        f"error of about {floating} (float) and {integer} (int8). Use it elsewhere: potstill models NAME --device "
        f"{words.argument(one['file'])}"
    )


def _accuracy_row(one: dict[str, Any]) -> tuple[str, ...]:
    low, high = one["interval"]
    balanced = (f"{one[name]:.2f}" for name in BALANCED)
    return one["file"], words.file_size(one["bytes"]), f"{one['accuracy']:.2f}", f"{low:.2f} to {high:.2f}", *balanced
