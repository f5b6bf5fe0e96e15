"""Vision networks in PyTorch beyond classic CNNs, structured as published, a few channels wide.

`NETWORKS[name]()` gives a network in evaluation mode and its example arguments, batch of 2. Sources: Liu et al. 2022
(ConvNeXt); Tolstikhin et al. 2021 (MLP-Mixer); Ronneberger et al. 2015 (U-Net); Hu et al. 2018 (squeeze-excite).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.zoo.draw import Network, draw, normal

CLASSES = 10


class ConvNeXtBlock(nn.Module):
    """Depthwise 7×7, LayerNorm over the last axis, two linear layers with GELU, a scale for each channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.gain * self.feed(y)).permute(0, 3, 1, 2)


class ChannelNorm(nn.Module):
    """LayerNorm over axis 1, written out as ConvNeXt's authors do."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class ConvNeXt(nn.Module):
    """A patch stem, a block, a strided convolution, another block."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 4, 4), ChannelNorm(width))
        self.body = nn.Sequential(
            ConvNeXtBlock(width), ChannelNorm(width), nn.Conv2d(width, 12, 2, 2), ConvNeXtBlock(12)
        )
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(12, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.body(self.stem(x)).mean((-2, -1))))


class Mixer(nn.Module):
    """MLPs over tokens and over channels in turn."""

    def __init__(self, size: int = 16, patch: int = 4, width: int = 12) -> None:
        super().__init__()
        tokens = (size // patch) ** 2
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(4))
        self.tokens = nn.ModuleList(self._feed(tokens, 8) for _ in range(2))
        self.channels = nn.ModuleList(self._feed(width, 24) for _ in range(2))
        self.head = nn.Linear(width, CLASSES)

    @staticmethod
    def _feed(width: int, hidden: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        for index, (tokens, channels) in enumerate(zip(self.tokens, self.channels, strict=True)):
            x = x + tokens(self.norms[2 * index](x).mT).mT
            x = x + channels(self.norms[2 * index + 1](x))
        return self.head(x.mean(1))


class UNet(nn.Module):
    """Two levels down by pooling and up by transposed convolutions, with skips; a mask of logits comes out."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.down1, self.down2 = self._pair(3, width), self._pair(width, 2 * width)
        self.bottom = self._pair(2 * width, 4 * width)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2)
        self.join2 = self._pair(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1)
        self.join1 = self._pair(2 * width, width)
        self.head = nn.Conv2d(width, 2, 1)

    @staticmethod
    def _pair(given: int, width: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(given, width, 3, padding=1), nn.BatchNorm2d(width), nn.LeakyReLU(0.1),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(functional.max_pool2d(first, 2))
        x = self.bottom(functional.max_pool2d(second, 2))
        x = self.join2(torch.cat([self.up2(x), second], 1))
        x = self.join1(torch.cat([self.up1(x), first], 1))
        return self.head(x)


class SqueezeExcite(nn.Module):
    """Channels weighed by a gate of their own means."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Sequential(
            nn.Conv2d(width, hidden, 1), nn.SiLU(), nn.Conv2d(hidden, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.pool(x))


class Volume(nn.Module):
    """3-D convolutions, strided, grouped and dilated, 3-D pooling, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(2, 6, 3, padding=1), nn.BatchNorm3d(6), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(6, 6, 3, stride=(1, 2, 1), padding=1, groups=3), nn.ELU(),
            nn.ConvTranspose3d(6, 4, 2, stride=2), nn.AvgPool3d((1, 2, 2)),
            nn.Conv3d(4, 4, (1, 3, 3), padding=(0, 2, 2), dilation=(1, 2, 2)), nn.Softplus(), nn.AdaptiveAvgPool3d(1),
        )  # fmt: skip
        self.head = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


class Interpolating(nn.Module):
    """A decoder: upsampling by nearest, bilinear and bicubic interpolation and by pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(given, 8, 3, padding=1) for given in (3, 8, 8, 2))
        self.shuffle, self.unshuffle = nn.PixelShuffle(2), nn.PixelUnshuffle(2)
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.convs[0](x))
        x = functional.interpolate(x, scale_factor=2, mode="nearest")
        x = functional.interpolate(self.convs[1](x), scale_factor=0.75, mode="bilinear", align_corners=False)
        x = functional.interpolate(self.convs[2](x).tanh(), size=(10, 14), mode="bicubic", align_corners=True)
        x = self.convs[3](self.shuffle(x))
        x = functional.interpolate(x, size=(8, 8), mode="bilinear", antialias=True)
        return self.head(self.unshuffle(x).mean((2, 3)))


class DepthwiseSeparable(nn.Module):
    """Depthwise and pointwise convolutions with ReLU6, and an average over a grid of 3 × 2."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU6(),
            nn.Conv2d(6, 12, 3, padding=2, dilation=2, groups=6, padding_mode="reflect"), nn.ReLU6(),
            nn.Conv2d(12, 8, 1), nn.AdaptiveAvgPool2d((4, 2)), nn.AdaptiveMaxPool2d((2, 2)),
        )  # fmt: skip
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).flatten(1))


def _stack(*layers: nn.Module) -> nn.Module:
    """Convolutions of 3 to 8 channels around the layers; each of them sees 8 channels."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), *layers, nn.Conv2d(8, 8, 3, 1, 1), nn.Flatten(2), nn.AdaptiveAvgPool1d(1),
        nn.Flatten(), nn.Linear(8, CLASSES),
    )  # fmt: skip


_SMOOTH = (nn.SiLU, nn.Mish, nn.Softplus, nn.GELU, nn.Softsign, nn.Tanh, nn.LogSigmoid)
_KINKED = (
    (nn.Hardswish,), (nn.ELU, 0.7), (nn.Hardtanh, -0.5, 2), (nn.CELU, 0.5), (nn.SELU,), (nn.Hardsigmoid,),
    (nn.Softshrink, 0.1), (nn.Hardshrink, 0.1), (nn.Threshold, 0.05, 0.02),
)  # fmt: skip


def _entry(build: Callable[[], nn.Module], *shape: int) -> Network:
    return lambda: (draw(build()), (normal(2, *shape),))


NETWORKS: dict[str, Network] = {
    "convnext": _entry(ConvNeXt, 3, 32, 32),
    "mixer": _entry(Mixer, 3, 16, 16),
    "unet": _entry(UNet, 3, 16, 16),
    "squeeze_excite": _entry(lambda: _stack(SqueezeExcite(8, 3)), 3, 12, 12),
    "volume": _entry(Volume, 2, 4, 8, 8),
    "interpolating": _entry(Interpolating, 3, 8, 8),
    "depthwise_separable": _entry(DepthwiseSeparable, 3, 16, 16),
    "group_norm": _entry(lambda: _stack(nn.GroupNorm(4, 8), nn.ReLU(), nn.GroupNorm(1, 8)), 3, 12, 12),
    "instance_norm": _entry(
        lambda: _stack(nn.InstanceNorm2d(8, affine=True), nn.ReLU(), nn.InstanceNorm2d(8)), 3, 12, 12
    ),
    "prelu": _entry(lambda: _stack(nn.PReLU(8), nn.Conv2d(8, 8, 3), nn.PReLU()), 3, 12, 12),
    "local_response": _entry(
        lambda: _stack(nn.LocalResponseNorm(3), nn.LocalResponseNorm(4, 0.5)), 3, 12, 12
    ),
    "smooth_activations": _entry(lambda: _stack(*(layer() for layer in _SMOOTH)), 3, 12, 12),
    "kinked_activations": _entry(
        lambda: _stack(*(layer(*options) for layer, *options in _KINKED)), 3, 12, 12
    ),
}
