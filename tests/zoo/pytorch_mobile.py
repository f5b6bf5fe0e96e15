"""MobileNet V2 and V3, EfficientNet and its Lite form, ShuffleNet V1 and V2 in PyTorch.

Sources: Sandler et al. 2018; Howard et al. 2019; Tan & Le 2019; Zhang et al. 2018; Ma et al. 2018.
Default arguments give the published networks where a class has defaults for its stages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

Activation = Callable[[], nn.Module]


def _conv_norm(
    channels: int,
    out: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Activation | None = None,
    eps: float = 1e-5,
) -> list[nn.Module]:
    conv = nn.Conv2d(channels, out, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out, eps=eps)]
    return layers if activation is None else [*layers, activation()]


class SqueezeExcite(nn.Module):
    """Scale every channel by a gate computed from the pooled channels."""

    def __init__(self, channels: int, squeezed: int, activation: Activation, gate: Activation) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.activation = activation()
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.gate = gate()

    def forward(self, x: Tensor) -> Tensor:
        return self.gate(self.fc2(self.activation(self.fc1(self.avgpool(x))))) * x


class InvertedResidual(nn.Module):
    """Expand 1×1, depthwise, optional squeeze-and-excite, linear projection; a shortcut where it fits."""

    def __init__(
        self,
        channels: int,
        hidden: int,
        out: int,
        kernel: int,
        stride: int,
        activation: Activation,
        excite: SqueezeExcite | None = None,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != channels:
            layers += _conv_norm(channels, hidden, activation=activation)
        layers += _conv_norm(hidden, hidden, kernel, stride, groups=hidden, activation=activation)
        if excite is not None:
            layers.append(excite)
        layers += _conv_norm(hidden, out)
        self.layers = nn.Sequential(*layers)
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


# Expansion, output channels, repeats, stride of the first.
MOBILENET_V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2(nn.Module):
    """Inverted residuals with ReLU6."""

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int, int]] = MOBILENET_V2,
        stem: int = 32,
        head: int = 1280,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        layers = _conv_norm(3, stem, 3, 2, activation=nn.ReLU6)
        channels = stem
        for expansion, out, repeats, stride in stages:
            for index in range(repeats):
                block = InvertedResidual(
                    channels, channels * expansion, out, 3, 1 if index else stride, nn.ReLU6
                )
                layers.append(block)
                channels = out
        self.features = nn.Sequential(*layers, *_conv_norm(channels, head, activation=nn.ReLU6))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(head, classes))

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), (1, 1))
        return self.classifier(torch.flatten(x, 1))


class MobileNetV3(nn.Module):
    """Hardswish, ReLU, and squeeze-and-excite with a Hardsigmoid gate.

    stages: kernel, hidden and output channels, whether to excite, whether Hardswish, stride.
    """

    def __init__(
        self, stages: Sequence[tuple[int, int, int, bool, bool, int]], stem: int, head: int, classes: int
    ) -> None:
        super().__init__()
        layers = _conv_norm(3, stem, 3, 2, activation=nn.Hardswish, eps=0.001)
        channels = stem
        for kernel, hidden, out, excite, swish, stride in stages:
            gate = SqueezeExcite(hidden, max(hidden // 4, 4), nn.ReLU, nn.Hardsigmoid) if excite else None
            activation = nn.Hardswish if swish else nn.ReLU
            layers.append(InvertedResidual(channels, hidden, out, kernel, stride, activation, gate))
            channels = out
        layers += _conv_norm(channels, 6 * channels, activation=nn.Hardswish, eps=0.001)
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(6 * channels, head),
            nn.Hardswish(inplace=True),
            nn.Dropout(0.2),
            nn.Linear(head, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


# Expansion, kernel, stride of the first, output channels, repeats.
EFFICIENTNET_B0 = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


class EfficientNet(nn.Module):
    """B0: SiLU, and squeeze-and-excite with a sigmoid gate."""

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int, int, int]] = EFFICIENTNET_B0,
        stem: int = 32,
        head: int = 1280,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        layers = _conv_norm(3, stem, 3, 2, activation=nn.SiLU)
        channels = stem
        for expansion, kernel, stride, out, repeats in stages:
            for index in range(repeats):
                hidden = channels * expansion
                gate = SqueezeExcite(hidden, max(channels // 4, 1), nn.SiLU, nn.Sigmoid)
                layers.append(
                    InvertedResidual(channels, hidden, out, kernel, 1 if index else stride, nn.SiLU, gate)
                )
                channels = out
        self.features = nn.Sequential(*layers, *_conv_norm(channels, head, activation=nn.SiLU))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(head, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))


class _SamePad(nn.Module):
    """TensorFlow's SAME padding before a strided convolution: the odd pixel goes to the bottom right."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        pads: list[int] = []
        for size in (x.shape[-1], x.shape[-2]):
            total = max((-(-size // self.stride) - 1) * self.stride + self.kernel - size, 0)
            pads += [total // 2, total - total // 2]
        return functional.pad(x, pads)


class _LiteBlock(nn.Module):
    def __init__(self, channels: int, expansion: int, out: int, kernel: int, stride: int) -> None:
        super().__init__()
        hidden = channels * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers += _conv_norm(channels, hidden, activation=nn.ReLU6, eps=0.001)
        depthwise = nn.Conv2d(hidden, hidden, kernel, stride, groups=hidden, bias=False)
        layers += [_SamePad(kernel, stride), depthwise, nn.BatchNorm2d(hidden, eps=0.001), nn.ReLU6()]
        self.layers = nn.Sequential(*layers, *_conv_norm(hidden, out, eps=0.001))
        self.shortcut = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x) + x if self.shortcut else self.layers(x)


class EfficientNetLite(nn.Module):
    """ReLU6 for SiLU, no squeeze-and-excite, asymmetric padding inherited from TensorFlow."""

    def __init__(
        self,
        stages: Sequence[tuple[int, int, int, int, int]] = EFFICIENTNET_B0,
        stem: int = 32,
        head: int = 1280,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        first = nn.Conv2d(3, stem, 3, 2, bias=False)
        layers: list[nn.Module] = [_SamePad(3, 2), first, nn.BatchNorm2d(stem, eps=0.001), nn.ReLU6()]
        channels = stem
        for expansion, kernel, stride, out, repeats in stages:
            for index in range(repeats):
                layers.append(_LiteBlock(channels, expansion, out, kernel, 1 if index else stride))
                channels = out
        self.features = nn.Sequential(*layers, *_conv_norm(channels, head, activation=nn.ReLU6, eps=0.001))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x)).flatten(start_dim=1)
        return self.fc(self.dropout(x))


def channel_shuffle(x: Tensor, groups: int) -> Tensor:
    """Interleave the channels of the groups."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return torch.transpose(x, 1, 2).contiguous().view(batch, channels, height, width)


class _ShuffleV1Unit(nn.Module):
    """Grouped 1×1, shuffle, depthwise, grouped 1×1; strided units concatenate an average pool."""

    def __init__(self, channels: int, out: int, stride: int, groups: int) -> None:
        super().__init__()
        self.stride, self.groups = stride, groups
        hidden, added = out // 4, out - channels if stride == 2 else out
        self.reduce = nn.Sequential(*_conv_norm(channels, hidden, groups=groups, activation=nn.ReLU))
        self.expand = nn.Sequential(
            *_conv_norm(hidden, hidden, 3, stride, groups=hidden), *_conv_norm(hidden, added, groups=groups)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(channel_shuffle(self.reduce(x), self.groups))
        if self.stride == 1:
            return functional.relu(x + y)
        return functional.relu(torch.cat([functional.avg_pool2d(x, 3, 2, 1), y], 1))


class ShuffleNetV1(nn.Module):
    """stages: output channels and number of units; each stage halves the resolution."""

    def __init__(
        self, stages: Sequence[tuple[int, int]], groups: int = 3, stem: int = 24, classes: int = 1000
    ) -> None:
        super().__init__()
        layers = [*_conv_norm(3, stem, 3, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
        channels = stem
        for out, units in stages:
            for index in range(units):
                layers.append(_ShuffleV1Unit(channels, out, 1 if index else 2, groups))
                channels = out
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean([2, 3]))


class _ShuffleV2Unit(nn.Module):
    """Half of the channels pass untouched, or through a strided branch of their own; then a shuffle."""

    def __init__(self, channels: int, out: int, stride: int) -> None:
        super().__init__()
        half = out // 2
        self.stride = stride
        self.branch1 = nn.Sequential()
        if stride == 2:
            depthwise = _conv_norm(channels, channels, 3, 2, groups=channels)
            self.branch1 = nn.Sequential(*depthwise, *_conv_norm(channels, half, activation=nn.ReLU))
        self.branch2 = nn.Sequential(
            *_conv_norm(channels if stride == 2 else half, half, activation=nn.ReLU),
            *_conv_norm(half, half, 3, stride, groups=half),
            *_conv_norm(half, half, activation=nn.ReLU),
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.stride == 1:
            kept, changed = x.chunk(2, dim=1)
            return channel_shuffle(torch.cat((kept, self.branch2(changed)), 1), 2)
        return channel_shuffle(torch.cat((self.branch1(x), self.branch2(x)), 1), 2)


class ShuffleNetV2(nn.Module):
    """stages: output channels and number of units; the published 1.0× is the default."""

    def __init__(
        self,
        stages: Sequence[tuple[int, int]] = ((116, 4), (232, 8), (464, 4)),
        stem: int = 24,
        head: int = 1024,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        layers = [*_conv_norm(3, stem, 3, 2, activation=nn.ReLU), nn.MaxPool2d(3, 2, 1)]
        channels = stem
        for out, units in stages:
            for index in range(units):
                layers.append(_ShuffleV2Unit(channels, out, 1 if index else 2))
                channels = out
        self.features = nn.Sequential(*layers, *_conv_norm(channels, head, activation=nn.ReLU))
        self.fc = nn.Linear(head, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean([2, 3]))  # a pool that is a mean over axes
