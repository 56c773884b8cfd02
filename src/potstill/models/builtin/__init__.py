"""Built-in students and classic networks: `BUILTIN[name](num_classes, channels, size, **options)`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import nn

from potstill.models.builtin.cnn import cnn
from potstill.models.builtin.googlenet import googlenet, googlenet_cifar
from potstill.models.builtin.mlp import mlp
from potstill.models.builtin.mobilenet import mobilenet_v1
from potstill.models.builtin.resnet_cifar import cifar_net
from potstill.models.builtin.small_cnn import small_cnn
from potstill.models.builtin.tiny_cnn import tiny_cnn
from potstill.models.builtin.vgg import vgg

BUILTIN: dict[str, Callable[..., nn.Module]] = {
    "mlp": mlp,
    "cnn": cnn,
    "small-cnn": small_cnn,
    "tiny-cnn": tiny_cnn,
    "resnet8-cifar": partial(cifar_net, depth=8, residual=True),
    "resnet14-cifar": partial(cifar_net, depth=14, residual=True),
    "resnet20-cifar": partial(cifar_net, depth=20, residual=True),
    "resnet32-cifar": partial(cifar_net, depth=32, residual=True),
    "resnet44-cifar": partial(cifar_net, depth=44, residual=True),
    "resnet56-cifar": partial(cifar_net, depth=56, residual=True),
    "resnet110-cifar": partial(cifar_net, depth=110, residual=True),
    "plain20-cifar": partial(cifar_net, depth=20, residual=False),
    "plain32-cifar": partial(cifar_net, depth=32, residual=False),
    "plain44-cifar": partial(cifar_net, depth=44, residual=False),
    "plain56-cifar": partial(cifar_net, depth=56, residual=False),
    "plain110-cifar": partial(cifar_net, depth=110, residual=False),
    "vgg8-cifar": partial(vgg, depth=8),
    "vgg11-cifar": partial(vgg, depth=11),
    "vgg13-cifar": partial(vgg, depth=13),
    "vgg16-cifar": partial(vgg, depth=16),
    "vgg19-cifar": partial(vgg, depth=19),
    "mobilenet-v1": mobilenet_v1,
    "googlenet": googlenet,
    "googlenet-cifar": googlenet_cifar,
}

OWN_SIZE: dict[str, tuple[int, int]] = {"googlenet": (224, 224), "mobilenet-v1": (128, 128)}
"""Default input sizes (height, width) that differ from 32x32."""
