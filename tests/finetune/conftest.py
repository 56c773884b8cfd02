"""The tree and the weights, written once for all tests of transfer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.finetune.world import write_tree, write_weights


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tree(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "resnet18.safetensors")
