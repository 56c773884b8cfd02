"""Every packaged experiment runs at toy size, and what it collects is what its steps measured."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import yaml
from safetensors.torch import save_file

import potstill
from potstill.api.experiments import packaged, text_of
from potstill.errors import ConfigError
from potstill.models import zoo
from potstill.report.experiment import Language, _number, _over_epochs, rows
from potstill.report.experiment_plots import apart
from potstill.stages.experiment import run
from potstill.stages.experiment.expand import chosen, independent, parts_of
from potstill.stages.experiment.settings import ExperimentConfig
from potstill.stages.experiment.verdicts import judged
from potstill.stages.experiment.work import handed_out_whole, settings_of
from tests.browser import Browser
from tests.report import looks
from tests.worlds import shapes

ROOT = Path(__file__).parents[2]
GIVEN = {"data": "photos", "weights": "w.pt", "teacher_weights": "t.pt"}
"""A value for every knob that a recipe may need."""


def experiment(name: str, *overrides: str, budget: Any = None) -> ExperimentConfig:
    settings = yaml.safe_load(text_of(name))
    needs = [f"{knob}={GIVEN[knob]}" for knob in settings.get("needs", {})]
    return chosen(settings, [*needs, *overrides], budget)


@pytest.mark.parametrize("name", packaged())
def test_every_setting_of_every_step_is_valid(name: str, tmp_path: Path) -> None:
    for budget in ("quick", "full"):
        made = experiment(name, budget=budget)
        parts = parts_of(made, tmp_path)
        assert len({part.folder for part in parts}) == len(parts)
        for part in parts:
            settings_of(part)
    results = [one.of for one in made.goals] + [name for one in made.claims for name in (one.more, one.than)]
    assert [name for name in results if not any(name.startswith(f"{part.key}/") for part in parts)] == []
    assert made.name == name and set(made.minutes) == {"quick", "full"}
    assert made.minutes["quick"] <= 15
    texts = [*made.rows, *made.plots, *made.goals, *made.claims, *made.published]
    assert all(one.korean for one in texts) and made.korean.shows and made.korean.title


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return paths of images in colour, 48 to train on and 24 to test, and of weights of two small networks."""
    folder = tmp_path_factory.mktemp("world")
    manifest = shapes(90, size=16, channels=3)
    arrays: dict[str, np.ndarray] = {}
    for name, split in (("train", "train"), ("test", "test")):
        rows = manifest.rows(split)
        arrays |= {f"x_{name}": np.stack([manifest.image(row) for row in rows]), f"y_{name}": manifest.label[rows]}
    np.savez(folder / "photos.npz", **arrays)  # pyright: ignore[reportArgumentType]
    for name in ("tiny-cnn", "resnet8-cifar"):
        network = zoo.create(f"builtin:{name}", classes=("0", "1", "2"), size=(16, 16)).network
        save_file(network.state_dict(), folder / f"{name}.safetensors")
    return {name: str(next(folder.glob(f"{name.lower()}*"))) for name in ("PHOTOS", "TINY", "RESNET")}


QUICK = "epochs=1 views=1 seeds=1 "
TOY = {
    "number-formats": (
        "limit=120 epochs=1 qat_epochs=1 seeds=1 fixed=[q1.7] floating=[e4m3] both=[] bits=[3] gradients=[q1.7] "
        "network=builtin:tiny-cnn options={} steps.after-training.each.bit=[]",
        ("with-training/3/packed", "rounded-gradients/q1.7/network", "fixed-weights/q1.7/simulated"),
    ),
    "mnist-distillation": (
        "limit=120 sweep_limit=64 epochs=1 teacher_epochs=1 sweep_epochs=1 views=1 seeds=1 teacher=builtin:mlp",
        ("distilled/conv/network", "labels-only-tiny/network", "sweep/dense/T4-alpha0.1"),
    ),
    "mnist-100-labels": (
        "data=PHOTOS labels=24 draws=1 steps=4 teacher_steps=3 batch_size=16 teacher=builtin:mlp options.width=4",
        ("conv/distilled with the pool",),
    ),
    "noisy-student": (
        "data=PHOTOS labels=24 rounds=1 seeds=1 steps=4 teacher_steps=3",
        ("rounds-of/noise/round 1", "rounds-of/quiet/labels only"),
    ),
    "dogs-vs-cats": (
        QUICK
        + "data=PHOTOS far=PHOTOS model=builtin:resnet8-cifar weights=RESNET size=16 far_size=16 scratch_epochs=1 "
        "steps.far-frozen.each.depth={2:stage:2/4,auto:auto}",
        ("top/tuned", "far-frozen/2/probe", "far-frozen/auto/probe", "scratch/tuned"),
    ),
    "resnet-vs-plain": (
        "data=PHOTOS epochs=1 seeds=1 networks={plain20:{model:builtin:plain20-cifar,options:{width:4}},"
        "resnet20:{model:builtin:resnet20-cifar,options:{width:4}}}",
        ("networks-of/plain20/network",),
    ),
    "googlenet-aux": (
        "data=PHOTOS epochs=1 seeds=1 network.size=8 batch_size=24 steps.heads.each.weight={with:0.3}",
        ("heads/with/network",),
    ),
    "distil-vs-transfer": (
        QUICK + "data=PHOTOS network=builtin:tiny-cnn weights=TINY teacher=builtin:tiny-cnn teacher_weights=TINY "
        "size=16 teacher_size=16",
        ("from-pretrained/student", "big/probe"),
    ),
    "prune-then-distil": (
        "limit=120 network={model:builtin:tiny-cnn,options:{separated:false}} epochs=1 "
        "prune_epochs=1 qat_epochs=1 kept=[0.5] bits=[4] seeds=1 steps.pruned-alone.each.share=[]",
        ("pruned/0.5/pruned", "quantized/4/packed", "both/0.5/packed"),
    ),
    "mlperf-tiny": (
        QUICK + "data=PHOTOS teacher=builtin:resnet8-cifar teacher_weights=RESNET limit=null calibration=16 "
        "network=builtin:resnet8-cifar max_bytes=60000 "
        "steps.file.settings.mode=ptq steps.file.settings.rounding=nearest",
        ("file/onnx",),
    ),
}
"""Knobs with which each experiment takes seconds, and results that it must have."""


def test_every_experiment_has_a_toy_size() -> None:
    assert sorted(TOY) == packaged()


def spaced(text: str, world: dict[str, str]) -> list[str]:
    """Return assignments with the paths of the world, and the spaces that YAML wants in mappings."""
    for word, path in world.items():
        text = text.replace(word, path)
    return [re.sub(r"(?<=[{,])(\w+):(?=[^,}])", r"\1: ", word) for word in text.split()]


Made = Callable[[str], potstill.ExperimentResult]


@pytest.fixture(scope="module")
def made(world: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return the outcome of an experiment at toy size, which is run once."""

    @functools.cache
    def run(name: str) -> potstill.ExperimentResult:
        done = potstill.run(name, spaced(TOY[name][0], world), out=tmp_path_factory.mktemp(name) / "run")
        assert isinstance(done, potstill.ExperimentResult)
        return done

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", TOY)
def test_it_runs_at_toy_size(name: str, made: Made) -> None:
    done, expected = made(name), TOY[name][1]
    folder = done.folder or Path()
    assert set(expected) <= set(done.results)
    shown = [result for _, result in rows(done.summary, Language())]
    english = (folder / "experiment.md").read_text(encoding="utf-8")
    korean = (folder / "experiment.ko.md").read_text(encoding="utf-8")
    for result in (done.results[name] for name in expected):
        figure = f"{result['mean']:.2f}"
        assert result in shown and (figure in english or f"{100 - result['mean']:.2f}" in english)
    assert english.count("\n| ") == korean.count("\n| ") and str(folder.parents[1]) not in english + korean
    assert {one["result"] for one in done.summary["claims"]} <= {"undecided", "not measured"}  # there is one seed
    assert len(list(folder.glob("plot-*.svg"))) == english.count("\n![") == korean.count("\n![")
    assert ("\n![" in english) == bool(done.summary["recipe"]["plots"])
    json.dumps(done.to_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more", "steps", "result"),
    [
        ("mnist-distillation", "seeds=2 steps.sweep.each.none=[] clones={}", "5 steps", "distilled/conv/network"),
        ("mnist-100-labels", "draws=2", "conv", "conv/distilled with the pool"),
        ("dogs-vs-cats", "seeds=2 steps.far-frozen.each.depth={auto:auto}", "9 steps", "scratch/tuned"),
    ],
)
def test_trainings_side_by_side_give_the_same_figures(
    name: str, more: str, steps: str, result: str, world: dict[str, str], tmp_path: Path
) -> None:
    def at_two(workers: int | None) -> tuple[dict[str, list[float]], list[str]]:
        given = spaced(TOY[name][0], world) + spaced(more, world)
        done = potstill.run(name, given, workers=workers, out=tmp_path / f"{workers}")
        titles = [one["title"] for one in done.summary["stages"] if one["title"].endswith("side by side")]
        return {name: one["accuracy"] for name, one in done.summary["results"].items()}, titles

    (alone, together), (same, titles) = at_two(None), at_two(2)
    assert alone == same and len(alone[result]) == 2
    assert together == [] and titles[0] == f"Training {steps} side by side"


@pytest.mark.slow
def test_the_page_in_a_browser(made: Made, chromium: Browser) -> None:
    looks.check(chromium, (made("noisy-student").folder or Path()) / "report.html")


def test_steps_that_need_each_other_are_in_different_groups() -> None:
    groups = {name: independent(experiment(name)) for name in ("prune-then-distil", "dogs-vs-cats", "mlperf-tiny")}
    assert groups["prune-then-distil"] == [["original"], ["pruned", "pruned-alone", "quantized"], ["both"]]
    assert len(groups["dogs-vs-cats"]) == 1 and groups["mlperf-tiny"] == [["trained"], ["file"]]


def test_self_trainings_are_handed_out_whole_if_every_worker_has_one(tmp_path: Path) -> None:
    draws = parts_of(experiment("mnist-100-labels", "draws=3"), tmp_path)
    assert all(handed_out_whole(part, draws, 3) for part in draws)
    assert not any(handed_out_whole(part, draws, 4) for part in draws)
    stages = {part.stage: handed_out_whole(part, [part], 9) for part in parts_of(experiment("mlperf-tiny"), tmp_path)}
    assert stages == {"train": False, "quantize": True}


def test_a_knob_a_budget_and_a_dotted_key_change_the_settings() -> None:
    settings = {
        "name": "x", "title": "t", "shows": "s", "data": "d",
        "knobs": {"data": None, "epochs": 2, "sizes": [4, 8], "seeds": 2},
        "budgets": {"full": {"epochs": 9}}, "needs": {"data": "photos"},
        "steps": {
            "small": {"stage": "train", "settings": {"data": {"path": "$data"}, "train": {"epochs": "$epochs"}}},
            "cut": {
                "stage": "quantize", "each": {"size": "$sizes", "seed": "$seeds"},
                "settings": {"model": "$small/seed-$seed", "weight_bits": "$size"},
            },
        },
    }  # fmt: skip
    with pytest.raises(ConfigError, match="x needs data: data is photos. Type: potstill run x data=PATH"):
        chosen(settings, [], None)
    with pytest.raises(ConfigError, match="epoch: x has no such knob. Did you mean 'epochs'?"):
        chosen(settings, ["data=p", "epoch=3"], None)
    with pytest.raises(ConfigError, match="quick or full, not 'half'"):
        chosen(settings, ["data=p"], "half")  # pyright: ignore[reportArgumentType]
    made = chosen(settings, ["data=p", "steps.cut.settings.mode=qat"], "full")
    first, *cut = parts_of(made, Path("run"))
    assert first.settings == {"data": {"path": "p"}, "train": {"epochs": 9}}
    assert [str(part.folder) for part in cut] == [f"steps/cut/{size}-{seed}" for size in (4, 8) for seed in (0, 1)]
    assert cut[3].settings == {"model": "run/steps/small/seed-1", "weight_bits": 8, "mode": "qat"}
    assert cut[2].key == cut[3].key == "cut/8"  # seeds are averaged
    settings["steps"]["small"]["settings"]["data"]["path"] = "$dta"
    with pytest.raises(ConfigError, match=r"steps.small: \$dta is no knob.*Did you mean 'data'"):
        parts_of(chosen(settings, ["data=p"], None), Path("run"))


def test_claims_and_goals_are_judged_by_the_seeds() -> None:
    def result(*accuracy: float) -> dict[str, Any]:
        return {"accuracy": list(accuracy), "mean": float(np.mean(accuracy)), "interval": None, "measures": {}}

    results = {"a": result(90, 91, 92), "b": result(80, 81.5, 82), "noise": result(70, 99, 80), "one": result(50)}
    results["two"] = result(92, 93.5)
    claims = [("a", "b"), ("b", "a"), ("a", "noise"), ("a", "one"), ("a", "two")]
    settings = yaml.safe_load(text_of("number-formats")) | {
        "claims": [{"text": "t", "more": more, "than": than} for more, than in claims],
        "goals": [{"text": "g", "of": "a", "at_least": 90.5},
                  {"text": "g", "of": "a", "measure": "error", "at_most": 5},
                  {"text": "g", "of": "tie", "at_least": 93.9}],
    }  # fmt: skip
    results["tie"] = result(94.25, 93.95, 93.5)
    verdicts = judged(chosen(settings, [], None), results)
    assert [one["result"] for one in verdicts["claims"]] == [
        "holds", "contradicted", "undecided", "undecided", "undecided"
    ]  # fmt: skip
    assert verdicts["claims"][4]["difference"] == -2.25  # of the seeds that both have
    first = verdicts["claims"][0]
    half = 4.303 * np.std([10, 9.5, 10], ddof=1) / np.sqrt(3)  # Student's t with two degrees of freedom
    assert first["interval"] == pytest.approx([9.833 - half, 9.833 + half], abs=0.002)
    assert [(one["result"], one["distance"]) for one in verdicts["goals"]] == [
        ("met", 0.0), ("missed", 4.0), ("met", 0.0)
    ]  # fmt: skip
    del results["a"], results["tie"]
    assert {one["result"] for one in judged(chosen(settings, [], None), results)["goals"]} == {"not measured"}


def test_labels_of_a_logarithmic_axis_do_not_touch() -> None:
    assert apart([8256, 12920, 23128, 25000, 34216, 41800, 43435, 80312]) == [8256, 12920, 23128, 34216, 43435, 80312]
    assert apart([1, 2, 4, 8, 20]) == [1, 2, 4, 8, 20] and apart([3]) == [3]


def test_seeds_that_stopped_earlier_and_numbers_in_labels() -> None:
    curves = [{"epoch": [1, 2], "loss": [0.5, 0.4]}, {"epoch": [1, 2, 3], "loss": [0.7, 0.6, 0.5]}]
    curve = _over_epochs("net", {"curves": curves}, "loss")
    assert (curve.x, curve.y) == ([1, 2, 3], [[0.5, 0.7], [0.4, 0.6], [0.5]])
    labels = {"T4": 4, "1e-05": 1e-5, "width-4": 4, "-3": -3, "0.25": 0.25, "e4m3": 4, "none": None}
    assert {label: _number(label) for label in labels} == labels


def test_the_machine_is_that_of_the_trainings_and_not_of_a_later_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "collected", lambda done: {})
    monkeypatch.setattr(run, "judged", lambda experiment, results: {})
    first = {"date": "1", "machine": {"cpu": "one"}, "versions": {"torch": "2"}, "data": {}}
    last = {**first, "date": "2", "machine": {"cpu": "other"}}
    found = run._summary(cast(Any, None), [(cast(Any, None), first), (cast(Any, None), last)])
    assert (found["machine"], found["versions"], found["date"]) == (first["machine"], first["versions"], "2")


def test_recipes_are_listed_shown_and_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [one["name"] for one in potstill.recipes().summary["recipes"]] == packaged()
    assert "steps:" in repr(potstill.recipes("show", "number-formats"))
    potstill.recipes("copy", "number-formats")
    assert Path("number-formats.yaml").read_text(encoding="utf-8") == text_of("number-formats")
    with pytest.raises(ConfigError, match="number-formats.yaml exists"):
        potstill.recipes("copy", "number-formats")
    assert repr(potstill.recipes("copy", "mlperf-tiny", "my copy.yaml")).endswith(
        "Next: potstill run 'my copy.yaml' data=PATH teacher_weights=PATH"
    )
    again = r"potstill run 'my copy\.yaml' 'data=my photos' teacher_weights=PATH --budget full$"
    with pytest.raises(ConfigError, match=again):
        potstill.run("my copy.yaml", ["data=my photos"], budget="full")
    with pytest.raises(ConfigError, match="no recipe 'number-format'. Did you mean 'number-formats'"):
        potstill.run("number-format")
    with pytest.raises(ConfigError, match="settings of the experiments"):
        potstill.run({"data": {"path": "digits"}}, budget="quick")


def test_recorded_pages_hold_the_figures_of_their_recipes() -> None:
    """A page under docs/experiments is of a packaged recipe, in both languages, and names no path."""
    recorded = sorted(set((ROOT / "docs" / "experiments").glob("*.md")) - {ROOT / "docs" / "experiments" / "README.md"})
    for file in recorded:
        twin = ROOT / "docs" / "ko" / "experiments" / file.name
        assert file.stem in packaged() and twin.is_file()
        for text in (file.read_text(encoding="utf-8"), twin.read_text(encoding="utf-8")):
            assert "commit " in text and f"potstill run {file.stem}" in text
            pictures = re.findall(r"^!\[.*?\]\((.*?)\)$", text, re.M)
            assert all((ROOT / "docs" / "experiments" / Path(name).name).is_file() for name in pictures)


def test_both_languages_map_the_same_statements() -> None:
    english, korean = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("lectures.md", "ko/lectures.md"))
    assert re.findall(r"`potstill [^`]+`", english) == re.findall(r"`potstill [^`]+`", korean)
    assert english.count("\n| ") == korean.count("\n| ")
    assert set(re.findall(r"potstill run ([\w-]+)", english)) == set(packaged())
