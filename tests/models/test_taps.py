"""Taps, layer tables and projectors on every family, against what the families themselves say."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from potstill.errors import ModelError
from potstill.models import zoo
from potstill.models.card import Card
from potstill.models.freeze import bits
from potstill.models.hooks import Tap, as_map, as_vector
from potstill.models.inspect.forward_trace import trace
from potstill.models.inspect.layer_table import describe_layers
from potstill.models.inspect.taps import resolve, stages, tapped
from potstill.models.outputs import Classifier
from potstill.models.projectors import projector
from tests.models.families import SMALL, small

pytestmark = pytest.mark.slow

STAGES = {
    "vgg": ["features.6", "features.13", "features.20", "features.27"],
    "resnet": ["layer1", "layer2", "layer3", "layer4"],
    "torchvision": ["layer1", "layer2", "layer3", "layer4"],
    "inception": ["Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c"],
    "xception": ["stem", "blocks.0", "blocks.2", "act"],
    "mobilenet": ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "bn2"],
    "vit": ["blocks.0", "blocks.1", "blocks.2", "blocks.3"],
    "swin": ["layers.0", "norm"],
    "builtin": ["layer1", "layer2", "layer3"],
}


def image(classifier: Classifier, count: int = 2) -> Tensor:
    return torch.rand(count, classifier.card.channels, *classifier.card.size)


def features(classifier: Classifier, *names: str) -> dict[str, Tensor]:
    with torch.no_grad():
        return tapped(classifier, names).eval()(image(classifier)).features


@pytest.mark.parametrize("family", SMALL)
def test_stages_end_where_the_family_ends_them(family: str) -> None:
    assert [tap.path for tap in stages(trace(small(family)))] == STAGES[family]


@pytest.mark.parametrize("family", SMALL)
def test_taps_have_the_promised_kinds_and_shapes(family: str) -> None:
    classifier = small(family)
    names = ["stage:1", "stage:-1", "stage:1/2", "pooled", STAGES[family][0]]
    taps = resolve(classifier, names)
    said = features(classifier, *names)
    assert list(said) != [] and set(said) == set(names)
    for tap in taps:
        assert tuple(said[tap.name].shape[1:]) == tap.shape
        assert len(tap.shape) == {"map": 3, "tokens": 2, "vector": 1}[tap.kind]


@pytest.mark.parametrize("family", SMALL)
def test_pooled_is_what_the_head_sees(family: str) -> None:
    """The head applied to `pooled` gives the logits."""
    classifier = small(family)
    head = [m for m in classifier.network.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        outputs = tapped(classifier, ["pooled"])(image(classifier))
        torch.testing.assert_close(head(outputs.features["pooled"]), outputs.logits)


@pytest.mark.parametrize("family", ["mobilenet", "xception", "inception"])
def test_the_last_stage_is_what_timm_calls_forward_features(family: str) -> None:
    classifier = small(family)
    x = image(classifier)
    with torch.no_grad():
        ours = tapped(classifier, ["stage:-1"])(x).features["stage:-1"]
        torch.testing.assert_close(ours, classifier.network.forward_features(classifier.prepare(x)))


def test_tokens_are_what_timm_calls_forward_features() -> None:
    classifier = small("vit")
    x = image(classifier)
    with torch.no_grad():
        ours = tapped(classifier, ["tokens"])(x).features["tokens"]
        torch.testing.assert_close(ours, classifier.network.forward_features(classifier.prepare(x)))
    assert ours.shape == (2, 17, 24)


def test_channels_come_first_whatever_the_network_does() -> None:
    classifier = small("swin")
    x = image(classifier)
    with torch.no_grad():
        ours = tapped(classifier, ["stage:-1"])(x).features["stage:-1"]
        theirs = classifier.network.forward_features(classifier.prepare(x))
    assert ours.shape == (2, 16, 7, 7)
    torch.testing.assert_close(ours, theirs.permute(0, 3, 1, 2))


def test_halfway_is_halfway_through_any_number_of_stages() -> None:
    assert resolve(small("vit"), ["stage:2/4"])[0].path == "blocks.1"
    assert resolve(small("builtin"), ["stage:2/4"])[0].path == "layer2"
    assert resolve(small("builtin"), ["stage:4/4"])[0].path == "layer3"


def test_an_mlp_has_its_hidden_layer() -> None:
    classifier = zoo.create("builtin:mlp", classes=("a", "b"), size=(8, 8), channels=1)
    hidden = features(classifier, "stage:-1", "pooled")
    assert torch.equal(hidden["stage:-1"], hidden["pooled"])
    assert hidden["pooled"].shape == (2, 25)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("stage:7", "has 3 stages"),
        ("stage:0", "has 3 stages"),
        ("stage:3/2", "has 3 stages"),
        ("stage:last", "is not a stage"),
        ("layer33", "Did you mean 'layer3'"),
        ("tokens", "not a transformer"),
    ],
)
def test_a_name_that_is_not_there(name: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        resolve(small("builtin"), [name])


class Overwriting(nn.Module):
    """A network of the user's own, whose second layer writes into the output of the first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.act = nn.ReLU(inplace=True)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.act(self.conv(x)).mean((2, 3)))


def own_network() -> Classifier:
    card = Card("mine", ("a", "b"), 3, (8, 8), (0.5,) * 3, (0.5,) * 3, resize=8, crop=(8, 8))
    with zoo.seeded(0):
        return Classifier(Overwriting(), card).eval()


def test_a_layer_that_is_overwritten_is_copied_in_time() -> None:
    classifier = own_network()
    x = image(classifier)
    with torch.no_grad():
        said = tapped(classifier, ["conv"])(x).features["conv"]
        assert torch.equal(said, classifier.network.conv(classifier.prepare(x)))
    assert (said < 0).any()


def test_looking_changes_nothing() -> None:
    classifier = small("torchvision").train()
    classifier.network.layer2.eval()
    before, modes = bits(classifier), [m.training for m in classifier.modules()]
    tapped(classifier, ["stage:-1", "pooled"])
    describe_layers(classifier)
    assert bits(classifier) == before
    assert [m.training for m in classifier.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in classifier.network.modules())


def test_a_copy_looks_into_itself() -> None:
    classifier = tapped(small("builtin"), ["stage:1"])
    twin = copy.deepcopy(classifier)
    nn.init.zeros_(twin.network.layer1[2].bn2.weight)
    x = image(classifier)
    with torch.no_grad():
        assert not torch.equal(classifier(x).features["stage:1"], twin(x).features["stage:1"])


def test_gradients_flow_through_a_tap() -> None:
    classifier = tapped(small("resnet"), ["layer2"]).train()
    classifier(image(classifier)).features["layer2"].square().mean().backward()
    assert classifier.network.conv1.weight.grad.abs().sum() > 0
    assert classifier.network.layer3[0].conv1.weight.grad is None


# The table of layers


@pytest.mark.parametrize("family", SMALL)
def test_the_table_names_stages_and_counts_parameters(family: str) -> None:
    classifier = small(family)
    rows = describe_layers(classifier, depth=1)
    assert [row.path for row in rows if row.stage] == STAGES[family]
    top = sum(row.parameters for row in rows if "." not in row.path)
    direct = sum(p.numel() for p in classifier.network.parameters(recurse=False))
    assert top + direct == zoo.count_parameters(classifier)


# Layouts and projectors


def test_tokens_lie_in_rows() -> None:
    tokens = torch.arange(2 * 11 * 3.0).view(2, 11, 3)
    grid = as_map(tokens)
    assert grid.shape == (2, 3, 3, 3)
    assert torch.equal(grid[:, :, 1, 2], tokens[:, 2 + 1 * 3 + 2])


def test_vectors_of_maps_and_tokens() -> None:
    maps, tokens = torch.rand(2, 5, 4, 4), torch.rand(2, 16, 5)
    assert torch.equal(as_vector(maps), maps.mean((2, 3)))
    assert torch.equal(as_vector(tokens), tokens.mean(1))
    with_class = torch.cat([torch.ones(2, 1, 5), tokens], 1)
    assert torch.equal(as_vector(with_class), torch.ones(2, 5))
    assert Tap("x", "x", kind="vector", channels_last=True).laid_out(maps).shape == (2, 4)


SHAPES = {"map": (6, 8, 8), "small map": (5, 4, 4), "tokens": (17, 7), "tokens, no class": (9, 4), "vector": (3,)}


@pytest.mark.parametrize("student", SHAPES)
@pytest.mark.parametrize("teacher", SHAPES)
def test_projectors_match_any_two_kinds(student: str, teacher: str) -> None:
    ours, theirs = SHAPES[student], SHAPES[teacher]
    made = projector(ours, theirs)
    projected, target = made(torch.rand(2, *ours), torch.rand(2, *theirs))
    assert projected.shape == target.shape
    assert projected.isfinite().all()


def test_the_larger_map_is_averaged() -> None:
    ours, theirs = torch.rand(2, 6, 8, 8), torch.rand(2, 5, 4, 4)
    made = projector((6, 8, 8), (5, 4, 4)).eval()
    projected, target = made(ours, theirs)
    assert torch.equal(target, theirs)
    expected = made.bn(made.conv(F.avg_pool2d(ours, 2)))
    torch.testing.assert_close(projected, expected)
    _, pooled = projector((5, 4, 4), (6, 8, 8))(theirs, ours)
    torch.testing.assert_close(pooled, F.avg_pool2d(ours, 2))


def test_class_tokens_are_compared_with_each_other_only() -> None:
    ours, theirs = torch.rand(2, 17, 4), torch.rand(2, 17, 4)
    _, both = projector((17, 4), (17, 4))(ours, theirs)
    assert torch.equal(both, theirs)
    _, without = projector((16, 4), (17, 4))(ours[:, 1:], theirs)
    assert torch.equal(without, theirs[:, 1:])


def test_a_projector_learns_a_linear_map() -> None:
    """Features that differ by a linear map alone can be matched: the loss falls to a hundredth."""
    with zoo.seeded(0):
        ours = torch.randn(64, 6, 4, 4)
        theirs = torch.einsum("ck,bkhw->bchw", torch.randn(5, 6), ours)
        made = projector((6, 4, 4), (5, 4, 4))
    optimizer = torch.optim.Adam(made.parameters(), 0.05)
    losses = []
    for _ in range(150):
        loss = F.mse_loss(*made(ours, theirs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.01 * losses[0]
