"""Features: computed once, those of the network, and never on both sides of a fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from potstill.data import decode
from potstill.data.views import CLEAN
from potstill.models.hooks import as_vector
from potstill.models.inspect.taps import resolve
from potstill.stages import examples
from potstill.stages.finetune import finetune
from potstill.stages.finetune.backbone import backbone, side_of
from potstill.stages.finetune.features import extract, layers_of
from potstill.stages.finetune.lazy_data import Images
from potstill.stages.finetune.probe import _parts, probe
from tests.finetune.world import settings
from tests.worlds import shapes


@pytest.fixture
def world(tree: Path, weights: Path):
    config = settings(tree, weights)
    images = Images(config.data, side_of(config))
    return images, backbone(config, images)


def test_stored_features_are_those_of_the_network(world) -> None:
    images, network = world
    stored = extract(network, images, ["pooled", "stage:2"], views=2, augment="auto", seed=0, precision="fp32")
    rows = images.manifest.rows("train")[:5]
    loader = images.loader(images.view("auto", 0))
    for layer in ("pooled", "stage:2"):
        tapped = network.replace(taps=resolve(network, [layer])).eval()
        for position, view in enumerate((CLEAN, 0, 1)):
            with torch.no_grad():
                said = tapped(loader.batch(rows, np.full(5, view)).image).features[layer]
            np.testing.assert_allclose(stored.views_of(rows, layer)[:, position], as_vector(said), atol=2e-3, rtol=2e-3)


@pytest.mark.slow
def test_a_second_probe_decodes_no_image(
    tree: Path, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded = []
    pixels_of = decode.pixels_of
    monkeypatch.setattr(decode, "pixels_of", lambda *a, **k: decoded.append(1) or pixels_of(*a, **k))
    monkeypatch.setenv("POTSTILL_CACHE", str(tmp_path / "cache"))
    first = finetune(settings(tree, weights, unfreeze="none"), tmp_path / "first")
    assert len(decoded) >= 90
    decoded.clear()
    monkeypatch.setattr(examples, "thumbnail_of", lambda manifest, row: "")  # pictures of the page
    second = finetune(settings(tree, weights, unfreeze="none", penalty=1.0), tmp_path / "second")
    assert decoded == []
    assert second["probe"]["penalty"] == 1.0
    assert first["data"] == second["data"]


@pytest.mark.slow
def test_auto_looks_at_several_depths_once(world) -> None:
    images, network = world
    layers = layers_of(network, "auto")
    assert layers[-1] == "pooled" and len(layers) == 4
    stored = extract(network, images, layers, views=0, augment="none", seed=0)
    rows = images.manifest.rows("train")
    assert [stored.of(rows, layer).shape[1] for layer in layers] == [8, 16, 24, 32]
    found = probe(stored, images.manifest, penalty=None, folds=3, seed=0)
    best = min(found.trials, key=lambda trial: trial.loss)
    assert (found.layer, found.penalty) == (best.layer, best.penalty)
    assert {row["layer"] for row in found.to_json()["layers"]} == set(layers)


def test_folds_cover_the_train_split_once_and_keep_groups_together() -> None:
    import dataclasses

    manifest = shapes(90)
    manifest = dataclasses.replace(manifest, group=np.arange(90) // 6)
    parts = _parts(manifest, 5, seed=0)
    train = manifest.rows("train")
    assert len(parts) == 5 and sorted(np.concatenate(parts)) == sorted(train)
    groups = [set(manifest.group[part]) for part in parts]
    assert sum(len(group) for group in groups) == len(set(manifest.group[train]))


def test_too_few_images_for_folds_are_told(world) -> None:
    from potstill import progress

    manifest = shapes(90).select(np.arange(3))
    manifest = manifest.with_split(np.zeros(3, np.uint8))
    assert len(_parts(manifest, 5, seed=0)) == 1
    assert "too few for cross-validation" in progress.display().notes[-1]
