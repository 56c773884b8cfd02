"""Classes by name: permuted, more, fewer, spelled otherwise, grouped; and the error where they do not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from potstill.errors import ConfigError
from potstill.exporters import export_onnx
from potstill.model_files.onnx import OnnxModel
from potstill.models import zoo
from potstill.models.class_map import ClassMap, described, match_classes, speaking

OURS = ("cat", "dog", "bird")
LOGITS = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))


def match(theirs: tuple[str, ...], explicit: dict | None = None, ours: tuple[str, ...] = OURS) -> ClassMap:
    return match_classes(theirs, ours, explicit, who="The teacher T")


def test_the_same_classes_in_another_order() -> None:
    found = match(("bird", "cat", "dog"))
    assert found.columns == ((1,), (2,), (0,)) and found.known is None and not found.is_identity
    assert torch.equal(found(LOGITS[:, :3]), LOGITS[:, [1, 2, 0]])
    assert match(OURS).is_identity and match(OURS)(LOGITS) is LOGITS


def test_more_classes_are_renormalised() -> None:
    found = match(("fish", "bird", "dog", "cat"))
    p = LOGITS.softmax(1)[:, [3, 2, 1]]
    assert torch.allclose(found(LOGITS).softmax(1), p / p.sum(1, keepdim=True))
    assert "has 1 class that the data does not have" in described(found, "fbdc", OURS, who="T")


def test_fewer_classes_leave_the_others_at_nothing() -> None:
    found = match(("dog", "cat"))
    assert found.known == (0, 1)
    p = found(LOGITS[:, :2]).softmax(1)
    assert torch.allclose(p[:, [1, 0]], LOGITS[:, :2].softmax(1)) and p[:, 2].max() == 0
    assert found(LOGITS[:, :2]).half().isfinite().all()
    assert "does not have the classes bird" in described(found, ("dog", "cat"), OURS, who="T")


def test_spelling_and_groups() -> None:
    theirs = ("Poodle", "terrier", "CAT", "Bird")
    found = match(theirs, {"dog": ["Poodle", "terrier"]})
    p = LOGITS.softmax(1)
    assert torch.allclose(found(LOGITS).softmax(1), torch.stack([p[:, 2], p[:, 0] + p[:, 1], p[:, 3]], 1), atol=1e-6)
    few = match(theirs, {"dog": ["Poodle", "terrier"], "bird": None})
    assert few.known == (0, 1) and few(LOGITS)[:, 2].max() == -1e4


@pytest.mark.parametrize(
    ("theirs", "explicit", "told"),
    [
        (("0", "1", "2"), None, "0 of 3 data classes match one of its 3"),
        (("cat", "dog", "brid"), None, "Unmatched classes of the data: bird; of the teacher: brid"),
        (("cat", "fish"), None, "teacher.class_map: {dog: fish}"),
        (("cat",), None, "1 of 3 data classes"),
        (OURS, {"brid": "bird"}, "the data has no class 'brid'. Did you mean 'bird'?"),
        (OURS, {"bird": "brid"}, "teacher.class_map.bird: the teacher T has no class 'brid'. Did you mean 'bird'?"),
    ],
)
def test_what_does_not_fit_is_an_error(theirs: tuple[str, ...], explicit: dict | None, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        match(theirs, explicit)
    assert told in str(caught.value)


@pytest.mark.slow
def test_models_of_every_kind_speak_of_our_classes(tmp_path: Path) -> None:
    theirs = ("bird", "fish", "cat", "dog")
    plain = zoo.create("builtin:mlp", classes=theirs, size=(4, 4), channels=1).eval()
    export_onnx(plain, tmp_path / "t.onnx")
    found, image = match(theirs), torch.rand(2, 1, 4, 4)
    for model in (plain, OnnxModel(tmp_path / "t.onnx")):
        mapped = speaking(model, found, OURS)
        assert mapped.card.classes == OURS
        assert torch.allclose(mapped(image).logits, plain(image).logits[:, [2, 3, 0]], atol=1e-5)
    tapped = speaking(plain, found, OURS).replace(taps=())
    assert tapped.card.classes == OURS and tapped(image).logits.shape == (2, 3) and not tapped.training
    export_onnx(speaking(plain, found, OURS), tmp_path / "mapped.onnx")
    read = OnnxModel(tmp_path / "mapped.onnx")
    assert torch.allclose(read(image).logits, plain(image).logits[:, [2, 3, 0]], atol=1e-5)
