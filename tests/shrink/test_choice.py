"""The choice among candidates, the plan of the time, and the forecast: plain functions of figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from torch import nn

from potstill.data.formats import from_arrays
from potstill.errors import ConfigError
from potstill.exporters.footprint import Footprint
from potstill.models import zoo
from potstill.stages import dataset
from potstill.stages.recipe import DataConfig
from potstill.stages.shrink import choice, forecast, plan, ship, teacher
from potstill.stages.shrink.candidates import Candidate, from_scratch, places
from potstill.stages.shrink.costs import Costed, Sketch, front
from potstill.stages.shrink.jobs import Outcome
from potstill.stages.shrink.look import Look
from potstill.stages.shrink.proposals import native_input, ordered, parameters_below
from potstill.stages.shrink.search import Entry, Found, short_of
from potstill.stages.shrink.settings import Budgets, ShrinkConfig
from potstill.stages.shrink.speed import tier
from potstill.stages.shrink.trials import Trials


def costed(name: str, size: int, *, bits: int = 8, latency: float = 1.0) -> Costed:
    cost = Footprint(bits, size, 10 * size, size, size, size, size // 10, size // 2, latency, latency)
    return Costed(Candidate(name, bits=bits), cost)


@pytest.mark.parametrize(
    ("goal", "limited", "expected"),
    [
        (None, True, 2),  # within limits: the most accurate
        (None, False, 1),  # without: the smallest within a point of the best
        (90.0, False, 0),  # with a goal: the smallest that reaches it
        (99.0, True, 2),  # a goal that none reaches: the most accurate
    ],
)
def test_the_smallest_that_does_the_job(goal: float | None, limited: bool, expected: int) -> None:
    accuracy, size = np.array([91.0, 94.2, 95.0, 95.0]), np.array([10.0, 20.0, 40.0, 80.0])
    assert choice.pick(accuracy, size, goal, limited) == expected


def test_choosing_flatters_the_chosen() -> None:
    """Of 20 equal candidates the best on 100 images looks better than it is, by about what order statistics say."""
    correct = np.random.default_rng(0).random((20, 100)) < 0.8
    measured = choice.optimism(correct, np.arange(20.0), None, True)
    expected = 100 * np.sqrt(0.8 * 0.2 / 100) * 1.87  # mean of the maximum of 20 normal variables, in deviations
    assert 0.4 * expected < measured < 1.2 * expected
    assert choice.optimism(correct[:1], np.zeros(1), None, True) < 0.5


def outcome(share: float, images: int = 200) -> Outcome:
    right = np.arange(images) < round(share * images)
    return Outcome(1.0, 4, dict.fromkeys((4, 8, 32), 100 * share), dict.fromkeys((4, 8, 32), right))


def test_finalists_with_limits_are_the_best_and_without_also_smaller_ones() -> None:
    entries = [Entry(costed(name, size), 8) for name, size in (("a", 100), ("b", 90), ("c", 20), ("d", 95))]
    shares = {"a": 0.9, "b": 0.89, "c": 0.8, "d": 0.7}
    gain = forecast.teacher_gain(np.ones((1, 4), bool), np.ones((1, 4), bool))
    found = Found({name: outcome(share) for name, share in shares.items()}, {}, gain, "student")

    def names(budgets: Budgets, count: int) -> set[str]:
        return {one.candidate.name for one in choice.finalists(entries, found, count, budgets)}

    assert names(Budgets(max_bytes="1kB"), 2) == {"a", "b"}
    assert names(Budgets(), 3) == {"a", "b", "c"}
    assert [one.candidate.name for one in choice.costed_front(entries, found)] == ["c", "b", "a"]


def test_the_front_has_no_candidate_that_another_one_beats() -> None:
    each = [costed("small", 10), costed("worse", 20), costed("large", 30)]
    shown = front(each, {"small": 80.0, "worse": 79.0, "large": 90.0})
    assert [one.candidate.name for one in shown] == ["small", "large"]


def test_what_breaks_a_budget_is_told_by_how_much() -> None:
    one = costed("net", 600_000, latency=3.0)
    assert one.excess(Budgets(max_bytes="300kB", max_latency="6ms", max_macs="6M")) == {"max_bytes": 2.0}
    assert not Sketch(Candidate("net", bits=4), 728_000, 1).fits(Budgets(max_bytes="300kB"))  # 3.3 bits on average
    assert Sketch(Candidate("net", bits=4), 726_000, 1).fits(Budgets(max_bytes="300kB"))


def test_few_bits_use_the_budget_unless_an_accuracy_is_wanted() -> None:
    one = costed("net", 320_000, bits=4)  # 4 bits everywhere take 320 kB, 3.3 on average 292 kB
    tight, loose = Budgets(max_bytes="300kB"), Budgets(max_bytes="400kB")
    assert not one.excess(tight) and one.excess(Budgets(max_bytes="290kB"))
    assert [one.within(each).cost.bytes for each in (tight, loose)] == [300_000, 400_000]
    assert one.within(Budgets(max_bytes="400kB", min_accuracy=90)).cost.bytes == 320_000
    eight = costed("net", 100_000)
    assert eight.within(tight) == eight


class Speed:
    """Seconds of one image, by name."""

    def __init__(self, **speeds: float) -> None:
        self.speeds = speeds

    def of(self, one: Candidate) -> float:
        return self.speeds[one.model]


class Known:
    """Costs that are known."""

    def of(self, one: Candidate) -> Costed:
        return costed(one.model, {"slow": 300, "quick": 100, "big": 10_000}[one.model])


def test_the_plan_fits_into_the_time_and_leaves_out_what_breaks_a_budget() -> None:
    limit = plan.Time(seconds=1000, images=1000, workers=2, seeds=3)
    speeds = Speed(slow=0.02, quick=0.001, big=0.001)
    each = [Candidate("slow"), Candidate("big"), Candidate("quick")]
    made = plan.made(each, Known(), speeds, limit, Budgets(max_bytes="1kB"), photo=True)  # pyright: ignore
    assert made.short == ("slow", "quick")
    # 70 s for rounding the weights; half of 930 s on two workers for three students and three controls: 155 s each.
    assert made.seconds == 930 and made.epochs == {"slow": 6, "quick": 64}
    proof = 2 * 3 * limit.training(made.epochs["slow"], 0.02) / 2
    assert proof <= (plan.PROOF + plan.SEARCH) * limit.seconds
    assert plan.Plan.from_json(made.to_json()) == made


def test_too_little_time_names_the_shortest_that_works() -> None:
    limit = plan.Time(seconds=20, images=1000, workers=1, seeds=3)
    with pytest.raises(ConfigError, match=r"needs about --minutes \d+\."):
        plan.made([Candidate("slow")], Known(), Speed(slow=0.02), limit, Budgets(), photo=True)  # pyright: ignore


@pytest.mark.parametrize(("workers", "seeds", "photo"), [(4, 3, False), (4, 1, False), (2, 3, True), (1, 3, True)])
def test_the_minutes_that_are_named_are_enough_and_no_more_than_needed(workers: int, seeds: int, photo: bool) -> None:
    def tried(minutes: int) -> plan.Plan:
        left = 60 * minutes * (1 - teacher.SHARE)
        limit = plan.Time(left, images=3000, workers=workers, seeds=seeds, answer=0.01, allowed=minutes)
        return plan.made([Candidate("slow")], Known(), Speed(slow=0.02), limit, Budgets(), photo=photo)  # pyright: ignore

    with pytest.raises(ConfigError) as error:
        tried(1)
    named = int(str(error.value).partition("--minutes ")[2].partition("about --minutes ")[2].partition(".")[0])
    assert tried(named).epochs["slow"] >= plan.FEWEST_EPOCHS
    with pytest.raises(ConfigError):
        tried(named - 2)


def test_epochs_come_in_coarse_tiers() -> None:
    assert [tier(value) for value in (0.9, 1, 5.9, 7.9, 8, 1000)] == [0, 1, 4, 6, 8, 128]
    assert [short_of(epochs) for epochs in (1, 8, 16, 64)] == [1, 2, 4, 16]


def test_the_learning_curve_follows_its_power_law() -> None:
    """Errors of 40, 20 and 10 %: each doubling halves them, so the next one gives 5 %."""
    correct = np.stack([np.arange(1000) >= errors for errors in (400, 200, 100)])
    curve = forecast.learning_curve([250, 500, 1000], correct, 1000, "test")
    assert curve.doubled == pytest.approx(95.0, abs=0.1)
    assert curve.interval[0] < 95 < curve.interval[1]
    flat = forecast.learning_curve([250, 500, 1000], correct[[2, 2, 2]], 1000, "test")
    assert flat.doubled == pytest.approx(90.0) and flat.interval == pytest.approx((90.0, 90.0))


def test_the_forecast_lies_between_pilot_and_teacher() -> None:
    one = forecast.expected(80.0, 90.0, validation=100, test=400)
    assert one.accuracy == 85.0 and one.interval[0] < 80 and one.interval[1] > 90
    assert one.holds(84.0) and not one.holds(60.0)
    sure = forecast.expected(80.0, 90.0, validation=10_000, test=10_000)
    assert sure.interval[0] > one.interval[0] and sure.interval[1] < one.interval[1]


def test_candidates_by_kind_of_image() -> None:
    small = list(from_scratch(28, 784))
    assert {"builtin:mlp", "builtin:small-cnn", "builtin:resnet8-cifar"} <= {one.model for one in small}
    assert all(one.size is None for one in small)
    photos = list(from_scratch(300, 300 * 300 * 3))
    assert photos and all(one.size for one in photos) and not any("mlp" in one.model for one in photos)
    assert len({one.name for one in [*small, *photos]}) == len(small) + len(photos)


def test_a_network_is_truncated_at_its_blocks() -> None:
    network = zoo.create("mobilenetv2_035", classes=("a", "b"), size=(32, 32))
    layers = places(network)
    counts = [parameters_below(network.network, layer) for layer in layers]
    assert layers[:2] == ["blocks.0", "blocks.1.0"] and layers[-1] == "blocks.6"
    assert counts == sorted(counts)
    first = nn.Sequential(*(getattr(network.network, name) for name in ("conv_stem", "bn1")), network.network.blocks[0])
    assert counts[0] == sum(p.numel() for p in first.parameters())


def test_candidates_are_tried_in_the_order_of_their_promise() -> None:
    def known(name: str, prior: float, parameters: int, bits: int = 8) -> Sketch:
        return Sketch(Candidate(name, bits=bits, prior=prior), parameters, parameters)

    each = [known("a", 80, 10), known("b", 95, 50), known("c", 95.5, 100), known("d", 85, 60), known("e", 96, 90, 4)]
    assert [one.model for one in ordered(each, limited=True)] == ["c", "b", "e", "d", "a"]
    assert [one.model for one in ordered(each, limited=False)] == ["c", "b", "e", "a", "d"]
    scratch = [Sketch(Candidate(name, options={"width": width}), width, width) for name in "xy" for width in (1, 2, 3)]
    tried = [(one.model, one.options["width"]) for one in ordered(scratch, limited=True)]
    assert tried[:4] == [("x", 3), ("y", 3), ("x", 2), ("y", 2)]


def test_trials_are_recorded_once_and_reopened(tmp_path: Path) -> None:
    import optuna
    from optuna.storages.journal import JournalFileBackend

    one, other = costed("one", 10), costed("other", 20)
    for _ in range(2):  # a command that is started again
        trials = Trials(tmp_path)
        trials.report(one, 0, 80.0)
        trials.report(other, 0, 70.0)
        trials.report(one, 1, 90.0)
        trials.finish({"one": 90.0, "other": 70.0}, {"one"})
    storage = optuna.storages.JournalStorage(JournalFileBackend(str(tmp_path / "trials.journal")))
    study = optuna.load_study(study_name="shrink", storage=storage)
    assert [(t.user_attrs["name"], t.state.name, t.intermediate_values) for t in study.trials] == [
        ("one", "COMPLETE", {0: 80.0, 1: 90.0}),
        ("other", "PRUNED", {0: 70.0}),
    ]


def test_a_probe_without_measurable_errors_is_not_fine_tuned() -> None:
    assert not teacher.worth_tuning(99.5, validation=200) and not teacher.worth_tuning(100.0, validation=200)
    assert teacher.worth_tuning(95.0, validation=200) and teacher.worth_tuning(99.5, validation=20_000)


def test_the_cheapest_of_equally_good_teachers_is_taken() -> None:
    assert teacher.best([95.0, 98.9, 99.2], 600) == 1
    assert teacher.best([95.0, 98.9, 99.2], 60_000) == 2


def test_a_file_beyond_its_limits_is_said_to_be() -> None:
    shipped = {"file": "model_int8.onnx", "bytes": 10_500, "latency_ms": 1.0}
    assert ship.exceeded(shipped, {"max_bytes": 11_000, "max_latency": 1.0, "max_macs": 5}) == []
    (sentence,) = ship.exceeded(shipped, {"max_bytes": 10_000, "max_latency": 1.0})
    assert sentence.startswith("model_int8.onnx exceeds --max-bytes 10")


def test_more_labels_are_counted_from_all_there_are() -> None:
    """The sample has 1,000 of 4,000 labels, and errors halve with each doubling: 2.5 % with all, 1.25 % with 8,000."""
    correct = np.stack([np.arange(1000) >= errors for errors in (400, 200, 100)])
    curve = forecast.learning_curve([250, 500, 1000], correct, 4000, "test")
    assert (curve.now, curve.doubled) == (pytest.approx(97.5, abs=0.1), pytest.approx(98.75, abs=0.1))
    assert "Twice the labels (8,000) would bring about +1.2" in curve.sentence


@pytest.mark.parametrize(
    ("per_class", "left", "folds"),
    [((2500, 2000, 4), 2, 5), ((7,) * 100, 100, 5), ((4,) * 50, 50, 4), ((20, 20, 1), 2, 5)],
)
def test_probes_leave_rare_classes_out(per_class: tuple[int, ...], left: int, folds: int) -> None:
    label = np.repeat(np.arange(len(per_class)), per_class)
    images = np.random.default_rng(0).integers(0, 256, (len(label), 3, 3), dtype=np.uint8)
    manifest = from_arrays(images, label, classes=[f"c{k}" for k in range(len(per_class))])
    found = forecast.sample(manifest)
    assert len(np.unique(found.label)) == left and len(found) <= forecast.SAMPLED
    assert len(forecast.parts(found)) == folds


def test_small_images_are_costed_at_the_size_of_training() -> None:
    random = np.random.default_rng(0)
    same = from_arrays(random.integers(0, 256, (40, 16, 16), dtype=np.uint8), np.arange(40) % 2, classes=["a", "b"])
    config = ShrinkConfig(data=DataConfig(path="x", size=32))
    size, channels = native_input(Look(same, 16, 256, None), config)
    assert size == dataset.prepare(config.data, manifest=same).crop and channels == 1
