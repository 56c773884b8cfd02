"""Methods x students x seeds: equal budgets, one teacher, one look at the test split, nothing done twice."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from potstill import config
from potstill.errors import ConfigError, RunError
from potstill.evaluation.metrics import accuracy
from potstill.stages.compare import CompareConfig, compare, figures
from potstill.stages.compare.settings import plan
from potstill.training import engine
from tests.test_road import write_tree

TRAIN = {"epochs": 2, "batch_size": 32, "lr": 0.01}
CE = {"loss": "cross_entropy"}


def settings(data: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "data": {"path": str(data)},
        "teacher": {"model": "builtin:cnn", "train": TRAIN},
        "students": {"mlp": {"model": "builtin:mlp", "options": {"hidden": 8}}},
        "methods": {
            "kd": {"temperature": 2},
            "srrl": {"terms": [CE, {"loss": "srrl"}]},
        },
        "train": TRAIN,
        "seeds": 2,
    } | changes


def build(data: Path, **changes: Any) -> CompareConfig:
    return config.build(CompareConfig, settings(data, **changes))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def folder(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs") / "small"
    compare(build(tree), made, command="potstill compare small.yaml")
    return made


def test_every_cell_has_the_same_budget_and_the_same_teacher(folder: Path) -> None:
    found = [json.loads(file.read_text()) for file in sorted((folder / "cells").rglob("manifest.json"))]
    assert len(found) == 3 * 2
    same = {json.dumps([one["steps"], one["inputs"]["train"], one["inputs"]["augment"]]) for one in found}
    assert len(same) == 1
    assert len({one["inputs"]["teacher"] for one in found} - {None}) == 1
    assert len(list((folder / "stores").iterdir())) == 1


def test_cells_of_one_seed_start_alike(folder: Path, tree: Path) -> None:
    first = {
        method: json.loads((folder / "cells" / "mlp" / method / "seed-0" / "metrics.jsonl").read_text().splitlines()[0])
        for method in ("control", "kd", "srrl")
    }
    assert set(first["control"]["train"]) == {"cross_entropy", "loss"}
    assert "agreement" not in first["control"]["validation"]
    for method in ("kd", "srrl"):
        assert first[method]["step"] == first["control"]["step"]
        assert 0 <= first[method]["validation"]["agreement"] <= 100


def test_the_summary_agrees_with_the_answers_on_disk(folder: Path) -> None:
    from safetensors.numpy import load_file

    summary = json.loads((folder / "summary.json").read_text())
    logits = load_file(folder / "evaluation" / "logits.safetensors")
    assert len(logits) == 1 + 3 * 2
    label = np.arange(150) % 3
    label = label[(np.arange(150) // 3) % 5 == 4]
    by_class = np.sort(label)  # the tree is read class by class
    methods = summary["students"]["mlp"]["methods"]
    assert [method["method"] for method in methods] == ["control", "kd", "srrl"]
    for method in methods:
        reached = [accuracy(logits[f"mlp/{method['method']}/seed-{seed}"], by_class) for seed in (0, 1)]
        assert method["test_accuracy"] == pytest.approx(reached, abs=1e-3)
        assert method["accuracy"] == pytest.approx(np.mean(reached), abs=1e-3)
        last, best = (method["validation_accuracy"][which] for which in ("last", "best"))
        assert all(one <= other for one, other in zip(last, best, strict=True))


def test_extra_parameters_are_told(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    extra = {method["method"]: method["extra_parameters"] for method in summary["students"]["mlp"]["methods"]}
    assert extra["control"] == extra["kd"] == {"deployed": 0, "training": 0}
    assert extra["srrl"]["deployed"] == 0 and extra["srrl"]["training"] > 0


def test_holm_corrects_for_the_number_of_methods(folder: Path) -> None:
    control, *methods = json.loads((folder / "summary.json").read_text())["students"]["mlp"]["methods"]
    assert "verdict" not in control
    smallest = min(methods, key=lambda method: method["p"])
    assert smallest["p_holm"] == pytest.approx(min(2 * smallest["p"], 1), abs=1e-4)
    for method in methods:
        assert method["p_holm"] >= method["p"]
        sure = method["p_holm"] < figures.LEVEL and method["verdict"]["result"] != "TIES"
        assert method["corrected"] == (method["verdict"]["result"] if sure else "TIES")


def test_again_changes_nothing_and_another_recipe_is_kept_out(folder: Path, tree: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    compare(build(tree), folder)
    assert before == {file: file.stat().st_mtime_ns for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(RunError, match="potstill compare"):
        compare(build(tree, seeds=3), folder)


def test_interrupted_it_goes_on_without_running_a_cell_twice(
    folder: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []
    fit = engine.fit

    def counting(*given: Any, **named: Any) -> Any:
        if len(fitted) == 4:
            raise KeyboardInterrupt
        fitted.append(str(named["folder"]))
        return fit(*given, **named)

    monkeypatch.setattr(engine, "fit", counting)
    with pytest.raises(KeyboardInterrupt):
        compare(build(tree), tmp_path / "run")
    assert not (tmp_path / "run" / "evaluation").exists()  # the test split is opened when all is done
    again: list[str] = []

    def noting(*given: Any, **named: Any) -> Any:
        again.append(str(named["folder"]))
        return fit(*given, **named)

    monkeypatch.setattr(engine, "fit", noting)
    summary = compare(build(tree), tmp_path / "run")
    assert not set(fitted) & set(again) and len(fitted) + len(again) == 1 + 6
    straight = json.loads((folder / "summary.json").read_text())
    for one, other in zip(summary["students"]["mlp"]["methods"], straight["students"]["mlp"]["methods"], strict=True):
        assert one["test_accuracy"] == other["test_accuracy"] and one.get("p") == other.get("p")


def test_tables_hold_the_figures(folder: Path) -> None:
    summary = json.loads((folder / "summary.json").read_text())
    methods = summary["students"]["mlp"]["methods"]
    cells = list(csv.DictReader(io.StringIO((folder / "cells.csv").read_text())))
    assert [float(row["test_accuracy"]) for row in cells] == [one for m in methods for one in m["test_accuracy"]]
    rows = list(csv.DictReader(io.StringIO((folder / "comparison.csv").read_text())))
    assert [float(row["test_accuracy"]) for row in rows] == [m["accuracy"] for m in methods]
    assert [row["verdict"] for row in rows] == ["", *(m["corrected"] for m in methods[1:])]
    markdown = (folder / "comparison.md").read_text()
    latex = (folder / "comparison.tex").read_text()
    assert markdown.count("| srrl |") == 1 and f"{methods[2]['accuracy']:.1f}" in markdown
    assert r"\toprule" in latex and latex.count(r" \\") == 1 + 3 and "95 \\%" in latex


def test_the_page_stands_alone(folder: Path) -> None:
    page = (folder / "report.html").read_text().replace("http://www.w3.org", "")  # names of SVG, never fetched
    assert "<script src" not in page and "http://" not in page and "https://" not in page
    for words in ("srrl", "p (Holm)", "Extra parameters", "potstill compare small.yaml"):
        assert words in page


def test_tuning_gives_everybody_the_same_number_of_trials(tree: Path, tmp_path: Path) -> None:
    methods = {"kd": {"candidates": [{"objective.temperature": 1.0}, {"objective.temperature": 4.0}]}}
    control = {"candidates": [{"train.lr": 0.01}, {"train.lr": 0.0001}]}
    made = build(tree, methods=methods, control=control, trials=2, seeds=1)
    summary = compare(made, tmp_path / "run")
    told = {method["method"]: method for method in summary["students"]["mlp"]["methods"]}
    for method in told.values():
        reached = [trial["validation_accuracy"] for trial in method["trials"]]
        assert len(reached) == 2
        chosen = method["trials"][reached.index(max(reached))]["settings"]
        for key, value in chosen.items():
            group, name = key.split(".")
            assert method[group][name] == value
    assert list((tmp_path / "run" / "tuning" / "trial-0" / "mlp" / "kd").iterdir())[0].name == "seed-1000"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"methods": {"kd": {"temprature": 2}}}, "methods.kd.temprature: .* Did you mean 'temperature'"),
        ({"methods": {"control": {}}}, "is reserved for the control"),
        ({"methods": {"a/b": {}}}, "is used as the name of a folder"),
        ({"methods": {"kd": {"method": "auto"}}}, "a search has a budget of its own"),
        ({"methods": {"kd": {"candidates": [{}, {}]}}}, "trials is 1"),
        ({"trials": 2, "methods": {"kd": {"candidates": [{}, {}]}}}, "control.candidates has 0 of 2"),
        ({"trials": 1, "train": {**TRAIN, "patience": 3}}, "equal budgets"),
        ({"students": {}}, "students"),
    ],
)
def test_unequal_or_misspelled_comparisons_are_refused(tree: Path, changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        build(tree, **changes)


def test_a_candidate_may_not_change_the_budget(tree: Path) -> None:
    longer = {"candidates": [{"train.epochs": 9}, {}]}
    with pytest.raises(ConfigError, match="changes train.epochs"):
        build(tree, trials=2, methods={"kd": longer}, control={"candidates": [{}, {}]})


def test_wrong_methods_are_told_before_any_work(tree: Path, tmp_path: Path) -> None:
    both = {"temperature": 4, "terms": [CE]}
    with pytest.raises(ConfigError, match="has both `terms` and temperature"):
        plan(build(tree, methods={"kd": both}))


def test_recorded_recipes_are_valid() -> None:
    recipes = sorted((Path(__file__).parents[2] / "benchmarks" / "recipes").glob("compare-*.yaml"))
    assert recipes
    for recipe in recipes:
        plan(config.build(CompareConfig, config.read_yaml(recipe)))


def test_documented_recipes_are_valid() -> None:
    text = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```yaml\n(.*?)^```", text, re.M | re.S)
    assert len(blocks) == 2
    for block in blocks:
        plan(config.build(CompareConfig, yaml.safe_load(block)))
