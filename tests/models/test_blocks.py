"""A shallower network starts with blocks of a deeper one: the first, the last and evenly between."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from potstill import progress
from potstill.errors import ModelError
from potstill.models import zoo
from potstill.models.blocks import of_blocks
from potstill.models.outputs import Classifier

SHALLOW, DEEP = "builtin:resnet20-cifar", "builtin:resnet56-cifar"


def network(name: str, classes: str = "abc", **options: int) -> Classifier:
    return zoo.create(name, classes=tuple(classes), size=(32, 32), options=options, seed=1)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("weights") / "deep.safetensors"
    save_file(network(DEEP).network.state_dict(), made)
    return made


def test_the_blocks_are_those_of_the_deeper_network(file: Path) -> None:
    deep = network(DEEP).network.state_dict()
    made = zoo.create(SHALLOW, classes=tuple("abc"), size=(32, 32), weights=f"blocks:{file}", seed=2)
    for name, tensor in made.network.state_dict().items():
        stage, _, rest = name.partition(".")
        block, _, inner = rest.partition(".")
        there = f"{stage}.{ {'0': 0, '1': 4, '2': 8}[block] }.{inner}" if stage.startswith("layer") else name
        assert torch.equal(tensor, deep[there]), name
    assert any("starts with 9 of its 27 blocks" in note for note in progress.display().notes)


def test_another_number_of_classes_has_a_new_head(file: Path) -> None:
    weights = f"blocks:{file}"
    made = zoo.create(SHALLOW, classes=("a", "b"), size=(32, 32), weights=weights, new_head=True).network.state_dict()
    deep = network(DEEP).network.state_dict()
    assert torch.equal(made["layer3.2.conv2.weight"], deep["layer3.8.conv2.weight"])
    assert [tensor.shape[0] for tensor in made.values() if tensor.ndim == 2] == [2]
    with pytest.raises(ModelError, match="were trained for 3 classes"):
        zoo.create(SHALLOW, classes=("a", "b"), size=(32, 32), weights=weights)


def test_a_deeper_file_is_refused_with_how_to_use_its_blocks(file: Path) -> None:
    with pytest.raises(ModelError, match=rf"Or start with some of its blocks, with these weights: blocks:{file}$"):
        zoo.create(SHALLOW, classes=tuple("abc"), size=(32, 32), weights=file)


def test_other_widths_are_refused(file: Path) -> None:
    with pytest.raises(ModelError, match="of another shape") as error:
        zoo.create(SHALLOW, classes=tuple("abc"), size=(32, 32), weights=f"blocks:{file}", options={"width": 8})
    assert "start with some of its blocks" not in str(error.value)
    with pytest.raises(ModelError, match="It fits 'builtin:resnet56-cifar': use that name instead"):
        zoo.create(
            "builtin:resnet20-cifar",
            classes=tuple("abc"),
            size=(32, 32),
            weights=f"blocks:{file}",
            options={"width": 8},
        )


def test_lists_within_lists_and_lists_of_one() -> None:
    deep = {f"blocks.{stage}.{block}.w": torch.tensor(10 * stage + block) for stage in (0, 1) for block in range(4)}
    taken = of_blocks(
        deep | {"head.0.w": torch.tensor(99)}, ["blocks.0.0.w", "blocks.1.0.w", "blocks.1.1.w", "head.0.w"]
    )
    assert {name: int(value) for name, value in taken.items()} == {
        "blocks.0.0.w": 0,
        "blocks.1.0.w": 10,
        "blocks.1.1.w": 13,
        "head.0.w": 99,
    }


def test_numbers_with_gaps_are_positions() -> None:
    deep = {f"features.{number}.w": torch.tensor(number) for number in (0, 3, 6, 9, 12)}
    assert [int(value) for value in of_blocks(deep, ["features.0.w", "features.2.w", "features.4.w"]).values()] == [
        0,
        6,
        12,
    ]


def test_a_network_with_more_blocks_is_refused(tmp_path: Path) -> None:
    save_file(network(SHALLOW).network.state_dict(), tmp_path / "x.safetensors")
    with pytest.raises(ModelError, match="missing"):
        zoo.create(DEEP, classes=tuple("abc"), size=(32, 32), weights=f"blocks:{tmp_path / 'x.safetensors'}")
