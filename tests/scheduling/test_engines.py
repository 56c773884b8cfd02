"""One comparison on three engines: this process, local processes, and a Ray cluster that loses a machine."""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import potstill
from tests.test_road import write_tree

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 2, "batch_size": 16, "lr": 0.01}
MEASURED = ("seconds", "stages", "notes", "date")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return {
        "data": {"path": str(write_tree(tmp_path_factory.mktemp("tree"), count=60))},
        "teacher": {"model": "builtin:mlp", "options": {"hidden": 16}, "train": TRAIN},
        "students": {"mlp": {"model": "builtin:mlp", "options": {"hidden": 8}}},
        "methods": {"kd": {"temperature": 2}},
        "train": TRAIN,
        "seeds": 2,
    }


@pytest.fixture(scope="module")
def serial(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serial") / "run"
    potstill.compare(recipe, out=folder)
    return folder


@pytest.fixture
def cluster() -> Iterator[Any]:
    pytest.importorskip("ray", reason="the extra potstill[ray] is not installed")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    made.lost = made.add_node(num_cpus=1)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield made
    finally:
        import ray

        ray.shutdown()
        made.shutdown()


def plain(value: Any) -> Any:
    """Return a summary without what a clock measures."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items() if key not in MEASURED}
    return [plain(inner) for inner in value] if isinstance(value, list) else value


def assert_same(one: Path, other: Path) -> None:
    summaries = [plain(json.loads((folder / "summary.json").read_text())) for folder in (one, other)]
    assert summaries[0] == summaries[1]
    names = sorted(file.relative_to(one) for file in one.rglob("*.safetensors"))
    assert len(names) == 1 + 4 + 2 + 1  # teacher, cells, views of the store, test logits
    assert all((one / name).read_bytes() == (other / name).read_bytes() for name in names)


def test_processes_train_what_is_missing_as_one_process_does(
    recipe: dict[str, Any], serial: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(serial, folder)
    kept = folder / "cells" / "mlp" / "control" / "seed-0" / "model.safetensors"
    stamp = kept.stat().st_mtime_ns
    for place in (
        folder,
        *(folder / "cells" / "mlp" / "kd").iterdir(),
        folder / "cells" / "mlp" / "control" / "seed-1",
    ):
        for name in ("manifest.json", "model.safetensors", "summary.json"):
            (place / name).unlink(missing_ok=True)
    shutil.rmtree(folder / "evaluation")
    potstill.compare(recipe, workers=2, out=folder)
    assert_same(serial, folder)
    assert kept.stat().st_mtime_ns == stamp


def test_a_ray_cluster_that_loses_a_machine_trains_the_same(
    recipe: dict[str, Any], serial: Path, cluster: Any, tmp_path: Path
) -> None:
    folder = tmp_path / "run"

    def lose() -> None:
        while not list((folder / "cells").rglob("metrics.jsonl")):
            time.sleep(0.02)
        cluster.remove_node(cluster.lost, allow_graceful=False)

    losing = threading.Thread(target=lose, daemon=True)
    losing.start()
    potstill.compare(recipe, ray=cluster.address, out=folder)
    losing.join(timeout=10)
    assert not losing.is_alive() and len(cluster.list_all_nodes()) == 1
    assert_same(serial, folder)
