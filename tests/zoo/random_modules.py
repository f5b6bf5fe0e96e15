"""Random healthy PyTorch modules, each made by a seed: layers and functions chained from an input to logits.

`random_module(seed)` gives a module in evaluation mode with drawn parameters, and its example arguments, a batch of 2.
It is the twin of random_networks.py, for what starts at a PyTorch model: the exporter, the source backend.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.zoo.draw import draw, normal

CLASSES, BATCH = 5, 2
FEWEST, MOST = 3, 7
LIVELY = 0.05

Step = nn.Module | Callable[[Tensor], Tensor]
Build = Callable[[np.random.Generator, tuple[int, ...]], Step]

ACTIVATIONS: tuple[Step, ...] = (
    nn.ReLU(), nn.ReLU6(), nn.GELU(), nn.GELU("tanh"), nn.SiLU(), nn.ELU(), nn.Hardswish(), nn.Mish(), nn.Tanh(),
    nn.LeakyReLU(0.2), nn.Softplus(), nn.Softsign(), nn.SELU(), F.logsigmoid, torch.sigmoid, torch.sin, torch.erf,
)  # fmt: skip


class Chain(nn.Module):
    """Steps in a row, some of them modules with parameters, some functions."""

    def __init__(self, steps: Sequence[Step]) -> None:
        super().__init__()
        self.steps = tuple(steps)
        self.layers = nn.ModuleList(step for step in steps if isinstance(step, nn.Module))

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x)
        return x


class Residual(nn.Module):
    """A shortcut around a chain of steps, added, joined or multiplied."""

    def __init__(self, join: str, *steps: Step) -> None:
        super().__init__()
        self.join, self.branch = join, Chain(steps)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.join == "add":
            return x + y
        return torch.cat((x, y), 1) if self.join == "join" else x * torch.sigmoid(y)


class Attention(nn.Module):
    """Self-attention by matrix products, or by the fused function."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.heads, self.fused = heads, fused
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        if self.fused:
            y = F.scaled_dot_product_attention(query, key, value)
        else:
            y = (query @ key.transpose(-2, -1) / query.shape[-1] ** 0.5).softmax(-1) @ value
        return x + self.out(y.transpose(1, 2).flatten(2))


class Recurrent(nn.Module):
    """An LSTM or GRU that gives every step."""

    def __init__(self, kind: str, width: int, bidirectional: bool) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(width, 4, batch_first=True, bidirectional=bidirectional)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def _pick(rng: np.random.Generator, options: Sequence[Step]) -> Step:
    return options[int(rng.integers(len(options)))]


def _convolution(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    width, dilation = int(rng.choice([4, 6, 8])), int(rng.integers(1, 3))
    groups = 2 if shape[0] % 2 == 0 and rng.random() < 0.3 else 1
    stride = 2 if shape[1] > 5 and rng.random() < 0.4 else 1
    conv = nn.Conv2d(shape[0], width, 3, stride, dilation, dilation, groups, bias=bool(rng.random() < 0.7))
    norm = _pick(
        rng, (nn.BatchNorm2d(width), nn.GroupNorm(2, width), nn.Identity(), nn.InstanceNorm2d(width))
    )
    return Chain((conv, norm, _pick(rng, ACTIVATIONS)))


def _pool(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    pools = (
        nn.MaxPool2d(3, 2, 1),
        nn.AvgPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(3),
        nn.LPPool2d(2, 2),
    )
    return _pick(rng, pools) if shape[1] > 3 else nn.Identity()


def _image_branch(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    channels = shape[0]
    if channels >= 16:
        return nn.Conv2d(channels, 6, 1)
    excite = (lambda x: x.mean((2, 3), keepdim=True), nn.Conv2d(channels, channels, 1))
    plain = (nn.Conv2d(channels, channels, 3, padding=1), _pick(rng, ACTIVATIONS))
    join = str(rng.choice(["add", "join", "gate"]))
    return Residual(join, *(excite if join == "gate" else plain))


def _resized(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    mode, size = str(rng.choice(["nearest", "bilinear"])), int(rng.integers(4, 9))
    return lambda x: F.interpolate(x, size=(size, size), mode=mode)


def _moved(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    return _pick(
        rng,
        (
            lambda x: F.pad(x, (1, 0, 1, 1), mode="replicate") if x.shape[2] < 10 else x,
            lambda x: x.transpose(2, 3),
            lambda x: x.flip(3),
            lambda x: x / (x.square().mean(1, keepdim=True) + 0.1).sqrt(),
            lambda x: torch.maximum(x, x.roll(1, 2)),
        ),
    )


def _perceptron(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    width = shape[-1]
    return Residual(
        "add", nn.LayerNorm(width), nn.Linear(width, 10), _pick(rng, ACTIVATIONS), nn.Linear(10, width)
    )


def _attention(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    return Attention(shape[-1], 2 if shape[-1] % 2 == 0 else 1, bool(rng.random() < 0.5))


def _recurrent(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    return Recurrent(str(rng.choice(["LSTM", "GRU"])), shape[-1], bool(rng.random() < 0.5))


def _gated(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    return Chain((nn.Linear(shape[-1], 12), F.glu))


def _dense(rng: np.random.Generator, shape: tuple[int, ...]) -> Step:
    return Chain((nn.Linear(shape[-1], 8), _pick(rng, ACTIVATIONS)))


BUILDS: dict[str, tuple[Build, ...]] = {
    "image": (_convolution, _convolution, _pool, _image_branch, _resized, _moved),
    "tokens": (_perceptron, _attention, _recurrent, _gated),
    "table": (_dense, _gated, _perceptron),
}
HEADS: dict[str, tuple[Step, ...]] = {
    "image": (
        lambda x: x.mean((2, 3)),
        lambda x: x.amax((2, 3)),
        nn.Flatten(),
        lambda x: x.flatten(2).transpose(1, 2),
    ),
    "tokens": (lambda x: x.mean(1), lambda x: x[:, -1], lambda x: x.amax(1)),
}
SHAPES = {"image": (3, 10, 10), "tokens": (5, 6), "table": (7,)}


@torch.no_grad()
def random_module(seed: int) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The module of a seed, and its example arguments."""
    rng = np.random.default_rng(seed)
    kind = str(rng.choice(["image", "image", "tokens", "table"]))
    example = normal(BATCH, *SHAPES[kind], seed=seed)
    x, steps = example, []
    for _ in range(int(rng.integers(FEWEST, MOST + 1))):
        x = _extended(rng, BUILDS[kind], x, steps)
    while x.ndim > 2:
        # An image may end as tokens, which end as a table.
        x = _appended(_pick(rng, HEADS["image" if x.ndim == 4 else "tokens"]), x, steps)
    _appended(nn.Linear(x.shape[1], CLASSES), x, steps, seed)
    return Chain(steps).eval(), (example,)


def _extended(rng: np.random.Generator, builds: Sequence[Build], x: Tensor, steps: list[Step]) -> Tensor:
    """x behind one of the steps. A step that no longer tells the samples apart is left out."""
    while True:
        step = builds[int(rng.integers(len(builds)))](rng, tuple(x.shape[1:]))
        tried: list[Step] = []
        y = _appended(step, x, tried, int(rng.integers(1 << 30)))
        if (y[0] - y[1]).abs().max() > LIVELY * y.std():
            steps += tried
            return y


def _appended(step: Step, x: Tensor, steps: list[Step], seed: int = 0) -> Tensor:
    """The result of a step, whose parameters are drawn; a constant steadies what has grown or shrunk much."""
    if isinstance(step, nn.Module):
        draw(step, seed)
    y = step(x)
    steps.append(step)
    spread = float(y.std())
    if not 0.3 <= spread <= 3:
        factor = 1 / max(spread, 1e-3)
        steps.append(lambda t: t * factor)
        y = y * factor
    return y
