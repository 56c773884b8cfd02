"""The built-in networks: published sizes, shapes at tiny images, and their relatives elsewhere."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from potstill.errors import ModelError
from potstill.models import zoo
from potstill.models.builtin import BUILTIN
from potstill.models.outputs import Outputs, bare

TEN = tuple("0123456789")
HEAVY = ("googlenet", "resnet110-cifar", "plain110-cifar", "vgg11-cifar", "vgg13-cifar", "vgg16-cifar", "vgg19-cifar")
"""Networks that differ from smaller ones in depth alone."""


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


# He et al. give 0.27, 0.46, 0.66, 0.85 and 1.7 M (arXiv:1512.03385, table 6); the exact numbers are those of the
# public weights.
@pytest.mark.parametrize(
    ("depth", "count"), [(20, 269_722), (32, 464_154), (44, 658_586), (56, 853_018), (110, 1_727_962)]
)
def test_cifar_resnets_have_the_published_size(depth: int, count: int) -> None:
    assert parameters(BUILTIN[f"resnet{depth}-cifar"](10, 3, (32, 32))) == count


def test_projections_add_their_weights_and_keep_the_names() -> None:
    """Option B is a 1x1 convolution with BatchNorm at the two changes of width: 272,474 parameters at depth 20."""
    padded, projected = (BUILTIN["resnet20-cifar"](10, 3, (32, 32), shortcut=option) for option in "AB")
    assert parameters(projected) == 272_474 == parameters(padded) + 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert padded.state_dict().keys() < projected.state_dict().keys()
    # ResNet-8 of MLPerf Tiny has 78,666 in Keras, which counts 480 running statistics, 240 biases before BatchNorm and
    # has biases where these projections have BatchNorm.
    assert parameters(BUILTIN["resnet8-cifar"](10, 3, (32, 32), shortcut="B")) == 78_666 - 480 - 240 - 96 + 2 * 96
    with pytest.raises(ModelError, match="does not accept these options.*A or B"):
        zoo.create("builtin:resnet8-cifar", classes=TEN, options={"shortcut": "C"})


# github.com/kuangliu/pytorch-cifar has these networks with one dense layer.
@pytest.mark.parametrize(("depth", "count"), [(11, 9_231_114), (13, 9_416_010), (16, 14_728_266), (19, 20_040_522)])
def test_vgg_has_the_size_of_torchvisions_convolutions(depth: int, count: int) -> None:
    from torchvision.models import get_model

    with torch.device("meta"):
        network, theirs = BUILTIN[f"vgg{depth}-cifar"](10, 3, (32, 32)), get_model(f"vgg{depth}_bn", weights=None)
    assert parameters(network) == count == parameters(theirs.features) + 512 * 10 + 10
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.features.state_dict().items()}
    assert {name: tuple(tensor.shape) for name, tensor in network.features.state_dict().items()} == shapes


def test_tiny_students_have_a_width_for_each_layer() -> None:
    assert parameters(BUILTIN["tiny-cnn"](10, 1, (28, 28))) == 970
    plain = BUILTIN["tiny-cnn"](10, 1, (28, 28), widths=[4, 7, 8], separated=False)
    assert parameters(plain) == 9 * (4 + 4 * 7 + 7 * 8) + 2 * (4 + 7 + 8) + 8 * 10 + 10
    weighted = {"widths": [6, 13, 13], "pool": [2, 3], "pooling": "weighted", "stem": 5, "stride": 2}
    assert parameters(BUILTIN["tiny-cnn"](10, 1, (28, 28), **weighted)) == 953
    assert parameters(BUILTIN["mlp"](10, 1, (14, 14), hidden=[80, 40])) == 196 * 80 + 80 + 80 * 40 + 40 + 40 * 10 + 10


@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_a_plain_net_has_the_layers_of_its_residual_twin(depth: int) -> None:
    plain = BUILTIN[f"plain{depth}-cifar"](10, 3, (32, 32))
    residual = BUILTIN[f"resnet{depth}-cifar"](10, 3, (32, 32))
    assert plain.state_dict().keys() == residual.state_dict().keys()
    layers = [m for m in plain.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth


def test_residual_blocks_begin_as_shortcuts() -> None:
    """With the last BatchNorm at zero a block is its shortcut: every second pixel, new channels zero."""
    network = BUILTIN["resnet20-cifar"](10, 3, (32, 32)).eval()
    block = network.layer2[0]
    nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    y = block(x)
    assert torch.equal(y[:, 8:24], x[:, :, ::2, ::2])
    assert not y[:, :8].any() and not y[:, 24:].any()


def test_the_lecture_mlp_and_its_teacher() -> None:
    assert parameters(BUILTIN["mlp"](10, 1, (28, 28))) == 784 * 25 + 25 + 25 * 10 + 10 == 19_885
    assert 1_300_000 <= parameters(BUILTIN["cnn"](10, 1, (28, 28))) <= 1_500_000
    assert parameters(BUILTIN["small-cnn"](10, 3, (32, 32))) < 100_000


def test_googlenet_has_the_published_size_without_its_heads() -> None:
    with torch.device("meta"):
        network = BUILTIN["googlenet"](1000, 3, (224, 224))
    assert parameters(bare(network)) == 6_624_904
    assert parameters(network) > 10_000_000


def test_googlenet_computes_what_torchvisions_does() -> None:
    from torchvision.models import GoogLeNet

    torch.manual_seed(0)
    ours = bare(BUILTIN["googlenet"](5, 3, (64, 64))).eval()
    theirs = GoogLeNet(5, aux_logits=False, init_weights=False).eval()
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(ours(x), theirs(x))


@pytest.mark.parametrize("name", ["googlenet", "googlenet-cifar"])
def test_googlenet_has_two_side_heads_in_training_only(name: str) -> None:
    classifier = zoo.create(f"builtin:{name}", classes=TEN, size=(32, 32))
    image = torch.rand(2, 3, 32, 32)
    trained = classifier.train()(image)
    assert [tuple(a.shape) for a in trained.aux] == [(2, 10), (2, 10)]
    assert classifier.eval()(image).aux == ()


@pytest.mark.parametrize("name", [n for n in BUILTIN if n not in HEAVY])
@pytest.mark.parametrize(("channels", "size"), [(1, (8, 8)), (1, (28, 28)), (3, (32, 48))])
def test_every_network_takes_small_images(name: str, channels: int, size: tuple[int, int]) -> None:
    classifier = zoo.create(f"builtin:{name}", classes=("a", "b", "c"), size=size, channels=channels).eval()
    with torch.no_grad():
        said = classifier(torch.rand(2, channels, *size))
    assert isinstance(said, Outputs)
    assert said.logits.shape == (2, 3)
    assert said.logits.isfinite().all()


def test_signals_keep_their_scale_at_initialisation() -> None:
    """He's point: the second moment before a rectifier does not fade with depth (here without BatchNorm's help)."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = BUILTIN["plain20-cifar"](10, 3, (32, 32)).eval()
        x = torch.randn(4, 3, 32, 32)
    first = network.relu(network.conv1(x)).square().mean()
    last = network.layer1(network.relu(network.conv1(x))).square().mean()
    assert 0.2 < (last / first).item() < 5


def test_big_images_cost_the_cnn_no_parameters() -> None:
    small, large = (parameters(BUILTIN["cnn"](10, 1, (side, side))) for side in (28, 224))
    assert small == pytest.approx(large, rel=0.01)


def test_mobilenet_has_timms_names_and_pads_as_tensorflow_does() -> None:
    timms = zoo.create("mobilenetv1_100", classes=TEN, options={"pad_type": "same"}).eval()
    ours = zoo.create("builtin:mobilenet-v1", classes=TEN, options={"width": 1.0}).eval()
    ours.network.load_state_dict(timms.network.state_dict())
    for side in (32, 33):
        x = torch.randn(1, 3, side, side)
        torch.testing.assert_close(ours.network(x), timms.network(x))
    assert zoo.count_parameters(zoo.create("builtin:mobilenet-v1", classes=[str(n) for n in range(1000)])) == 470_072
