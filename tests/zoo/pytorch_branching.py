"""SqueezeNet, GoogLeNet and Inception-v3 in PyTorch: parallel branches, joined by concatenation.

Sources: Iandola et al. 2016; Szegedy et al. 2015 and 2016. Widths are arguments or fractions of the
published ones; the two Inceptions have one block of each published kind.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Fire(nn.Module):
    def __init__(self, channels: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(channels, squeeze, 1)
        self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
        self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(x))
        return torch.cat([functional.relu(self.expand1x1(x)), functional.relu(self.expand3x3(x))], 1)


class SqueezeNet(nn.Module):
    """Version 1.1. The classifier is a convolution, a ReLU and a global pool: no dense layer."""

    def __init__(self, width: int = 64, classes: int = 1000) -> None:
        super().__init__()
        w = width
        self.features = nn.Sequential(
            nn.Conv2d(3, w, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(w, w // 4, w),
            _Fire(2 * w, w // 4, w),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(2 * w, w // 2, 2 * w),
            _Fire(4 * w, w // 2, 2 * w),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            _Fire(4 * w, 3 * w // 4, 3 * w),
            _Fire(6 * w, 3 * w // 4, 3 * w),
            _Fire(6 * w, w, 4 * w),
            _Fire(8 * w, w, 4 * w),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(),
            nn.Conv2d(8 * w, classes, 1),
            nn.ReLU(inplace=True),
            nn.AdaptiveAvgPool2d((1, 1)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(x)), 1)


def _conv_relu(channels: int, out: int, kernel: int, **options: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, out, kernel, **options), nn.ReLU(inplace=True))


class _GoogLeNetBlock(nn.Module):
    def __init__(self, channels: int, w: int) -> None:
        super().__init__()
        self.branch1 = _conv_relu(channels, 2 * w, 1)
        self.branch2 = nn.Sequential(_conv_relu(channels, 2 * w, 1), _conv_relu(2 * w, 4 * w, 3, padding=1))
        self.branch3 = nn.Sequential(_conv_relu(channels, w, 1), _conv_relu(w, w, 5, padding=2))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), _conv_relu(channels, w, 1))
        self.out = 8 * w

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class GoogLeNet(nn.Module):
    """The original of 2014: biased convolutions without BatchNorm, local response normalisation."""

    def __init__(self, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        w = width
        first, second, third = (
            _GoogLeNetBlock(6 * w, w),
            _GoogLeNetBlock(8 * w, w),
            _GoogLeNetBlock(8 * w, 2 * w),
        )
        self.features = nn.Sequential(
            _conv_relu(3, 2 * w, 7, stride=2, padding=3),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.LocalResponseNorm(5, alpha=0.5, beta=0.75, k=1.0),
            _conv_relu(2 * w, 2 * w, 1),
            _conv_relu(2 * w, 6 * w, 3, padding=1),
            nn.LocalResponseNorm(5, alpha=0.5, beta=0.75, k=1.0),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            first,
            second,
            nn.MaxPool2d(2, 2, ceil_mode=True),
            third,
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(0.4)
        self.fc = nn.Linear(third.out, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.dropout(torch.flatten(self.avgpool(self.features(x)), 1)))


class _ConvNorm(nn.Module):
    def __init__(self, channels: int, out: int, kernel: int | tuple[int, int], **options: object) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out, kernel, bias=False, **options)  # type: ignore[arg-type]
        self.bn = nn.BatchNorm2d(out, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(self.bn(self.conv(x)), inplace=True)


class _InceptionA(nn.Module):
    def __init__(self, channels: int, w: int, count_include_pad: bool) -> None:
        super().__init__()
        self.branch1x1 = _ConvNorm(channels, 2 * w, 1)
        self.branch5x5 = nn.Sequential(_ConvNorm(channels, w, 1), _ConvNorm(w, 2 * w, 5, padding=2))
        self.branch3x3dbl = nn.Sequential(
            _ConvNorm(channels, 2 * w, 1),
            _ConvNorm(2 * w, 3 * w, 3, padding=1),
            _ConvNorm(3 * w, 3 * w, 3, padding=1),
        )
        self.branch_pool = _ConvNorm(channels, w, 1)
        self.count_include_pad = count_include_pad
        self.out = 8 * w

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, 3, 1, 1, count_include_pad=self.count_include_pad)
        branches = [self.branch1x1(x), self.branch5x5(x), self.branch3x3dbl(x), self.branch_pool(pooled)]
        return torch.cat(branches, 1)


class _InceptionB(nn.Module):
    """Halves the resolution without padding."""

    def __init__(self, channels: int, w: int) -> None:
        super().__init__()
        self.branch3x3 = _ConvNorm(channels, 4 * w, 3, stride=2)
        self.branch3x3dbl = nn.Sequential(
            _ConvNorm(channels, 2 * w, 1),
            _ConvNorm(2 * w, 3 * w, 3, padding=1),
            _ConvNorm(3 * w, 3 * w, 3, stride=2),
        )
        self.out = 7 * w + channels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch3x3(x), self.branch3x3dbl(x), functional.max_pool2d(x, 3, 2)], 1)


class _InceptionC(nn.Module):
    """7×7 factorised into 1×7 and 7×1."""

    def __init__(self, channels: int, w: int) -> None:
        super().__init__()
        wide, tall = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
        self.branch1x1 = _ConvNorm(channels, 2 * w, 1)
        self.branch7x7 = nn.Sequential(
            _ConvNorm(channels, w, 1), _ConvNorm(w, w, **wide), _ConvNorm(w, 2 * w, **tall)
        )
        self.branch7x7dbl = nn.Sequential(
            _ConvNorm(channels, w, 1),
            _ConvNorm(w, w, **tall),
            _ConvNorm(w, w, **wide),
            _ConvNorm(w, w, **tall),
            _ConvNorm(w, 2 * w, **wide),
        )
        self.branch_pool = _ConvNorm(channels, 2 * w, 1)
        self.out = 8 * w

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, kernel_size=3, stride=1, padding=1)
        return torch.cat(
            [self.branch1x1(x), self.branch7x7(x), self.branch7x7dbl(x), self.branch_pool(pooled)], 1
        )


class _InceptionE(nn.Module):
    """A 3×3 split into parallel 1×3 and 3×1: a concatenation inside a branch."""

    def __init__(self, channels: int, w: int) -> None:
        super().__init__()
        self.branch1x1 = _ConvNorm(channels, 2 * w, 1)
        self.reduce = _ConvNorm(channels, 2 * w, 1)
        self.wide = _ConvNorm(2 * w, 2 * w, (1, 3), padding=(0, 1))
        self.tall = _ConvNorm(2 * w, 2 * w, (3, 1), padding=(1, 0))
        self.branch_pool = _ConvNorm(channels, 2 * w, 1)
        self.out = 8 * w

    def forward(self, x: Tensor) -> Tensor:
        reduced = self.reduce(x)
        split = torch.cat([self.wide(reduced), self.tall(reduced)], 1)
        pooled = functional.avg_pool2d(x, 3, 1, 1)
        return torch.cat([self.branch1x1(x), split, self.branch_pool(pooled)], 1)


class InceptionV3(nn.Module):
    """Average pools that count the padding and that do not, factorised convolutions, odd sizes."""

    def __init__(self, width: int = 4, classes: int = 10) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(
            _ConvNorm(3, w, 3, stride=2),
            _ConvNorm(w, 2 * w, 3, padding=1),
            nn.MaxPool2d(3, 2),
            _ConvNorm(2 * w, 3 * w, 3),
        )
        first = _InceptionA(3 * w, w, count_include_pad=True)
        second = _InceptionA(first.out, w, count_include_pad=False)
        third = _InceptionB(second.out, w)
        fourth = _InceptionC(third.out, 2 * w)
        fifth = _InceptionE(fourth.out, 2 * w)
        self.blocks = nn.Sequential(first, second, third, fourth, fifth)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(fifth.out, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.blocks(self.stem(x)))
        return self.fc(torch.flatten(self.dropout(x), 1))
