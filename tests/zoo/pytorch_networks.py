"""The PyTorch networks that the tests convert and attribute, small, and two of them in full size.

`NETWORKS[name]()` gives an initialised network in evaluation mode and the shape of one input sample
(without the batch axis); the output is (N, 10) logits of order one.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from tests.zoo.initialize import initialize
from tests.zoo.pytorch_branching import GoogLeNet, InceptionV3, SqueezeNet
from tests.zoo.pytorch_mobile import (
    EfficientNet,
    EfficientNetLite,
    MobileNetV2,
    MobileNetV3,
    ShuffleNetV1,
    ShuffleNetV2,
)
from tests.zoo.pytorch_residual import VGG, BasicBlock, Bottleneck, DenseNet, ResNet

Shape = tuple[int, int, int]
Network = Callable[[], tuple[nn.Module, Shape]]

CLASSES = 10

# Expansion, kernel, stride of the first, output channels, repeats.
_SMALL_EFFICIENT = ((1, 3, 1, 8, 1), (4, 3, 2, 8, 2), (4, 5, 2, 12, 2), (4, 3, 1, 16, 1))
# Kernel, hidden and output channels, excite, Hardswish, stride.
_SMALL_V3 = (
    (3, 8, 8, True, False, 2),
    (3, 20, 8, False, False, 1),
    (5, 24, 12, True, True, 2),
    (5, 48, 12, True, True, 1),
)


def _resnet18() -> nn.Module:
    return ResNet(BasicBlock, (2, 2, 2, 2), width=8, classes=CLASSES)


def _resnet50() -> nn.Module:
    return ResNet(Bottleneck, (2, 2, 2, 1), width=8, classes=CLASSES)


def _vgg() -> nn.Module:
    return VGG((1, 1, 2, 2), (8, 12, 16, 16), pooled=1, hidden=32, classes=CLASSES)


def _vgg_bn() -> nn.Module:
    return VGG((1, 1, 2), (8, 12, 16), batch_norm=True, pooled=2, hidden=32, classes=CLASSES)


def _mobilenet_v2() -> nn.Module:
    stages = ((1, 8, 1, 1), (6, 8, 2, 2), (6, 12, 2, 2), (6, 16, 2, 1))
    return MobileNetV2(stages, stem=8, head=64, classes=CLASSES)


def _mobilenet_v3() -> nn.Module:
    return MobileNetV3(_SMALL_V3, stem=8, head=48, classes=CLASSES)


def _efficientnet_b0() -> nn.Module:
    return EfficientNet(_SMALL_EFFICIENT, stem=8, head=64, classes=CLASSES)


def _efficientnet_lite() -> nn.Module:
    return EfficientNetLite(_SMALL_EFFICIENT, stem=8, head=64, classes=CLASSES)


def _densenet() -> nn.Module:
    return DenseNet((2, 3, 2), growth=6, width=8, classes=CLASSES)


def _squeezenet() -> nn.Module:
    return SqueezeNet(width=16, classes=CLASSES)


def _inception_v3() -> nn.Module:
    return InceptionV3(width=4, classes=CLASSES)


def _googlenet() -> nn.Module:
    return GoogLeNet(width=4, classes=CLASSES)


def _shufflenet_v1() -> nn.Module:
    return ShuffleNetV1(((48, 2), (96, 2)), groups=3, stem=12, classes=CLASSES)


def _shufflenet_v2() -> nn.Module:
    return ShuffleNetV2(((16, 2), (32, 3)), stem=8, head=48, classes=CLASSES)


def _entry(build: Callable[[], nn.Module], shape: Shape) -> Network:
    return lambda: (initialize(build(), shape), shape)


NETWORKS: dict[str, Network] = {
    "resnet18": _entry(_resnet18, (3, 64, 64)),
    "resnet50": _entry(_resnet50, (3, 64, 64)),
    "vgg": _entry(_vgg, (3, 32, 32)),
    "vgg_bn": _entry(_vgg_bn, (3, 32, 32)),
    "mobilenet_v2": _entry(_mobilenet_v2, (3, 32, 32)),
    "mobilenet_v3": _entry(_mobilenet_v3, (3, 32, 32)),
    "efficientnet_b0": _entry(_efficientnet_b0, (3, 32, 32)),
    "efficientnet_lite": _entry(_efficientnet_lite, (3, 32, 32)),
    "densenet": _entry(_densenet, (3, 64, 64)),
    "squeezenet": _entry(_squeezenet, (3, 48, 48)),
    "inception_v3": _entry(_inception_v3, (3, 48, 48)),
    "googlenet": _entry(_googlenet, (3, 48, 48)),
    "shufflenet_v1": _entry(_shufflenet_v1, (3, 48, 48)),
    "shufflenet_v2": _entry(_shufflenet_v2, (3, 48, 48)),
}


def example_input(shape: Shape, batch: int = 2, seed: int = 1) -> torch.Tensor:
    """A seeded batch of standard normal inputs of one sample's `shape`."""
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed))


def resnet50(classes: int = 1000, size: int = 224) -> tuple[nn.Module, Shape]:
    """ResNet-50 in full size, initialised, with the shape of one sample."""
    shape = (3, size, size)
    return initialize(ResNet(Bottleneck, (3, 4, 6, 3), classes=classes), shape, batch=2), shape


def vgg16(classes: int = 1000, size: int = 224) -> tuple[nn.Module, Shape]:
    """VGG-16 in full size, initialised, with the shape of one sample."""
    shape = (3, size, size)
    return initialize(VGG((2, 2, 3, 3, 3), classes=classes), shape, batch=2), shape
