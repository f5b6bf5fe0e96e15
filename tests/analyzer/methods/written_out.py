"""Networks on which FullGrad by module hooks fails, each with its decomposition written out by hand.

A network's `written_out(x, terms)` computes its logits a second time, layer by layer, and tells `terms` what each layer
adds: its bias, or the residual y − J·u of a non-linear function. PyTorch's autograd gives the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

CLASSES = 5


class Term(NamedTuple):
    """What a layer adds at every position, and the logit's gradient there."""

    added: Tensor
    gradient: Tensor

    @property
    def value(self) -> Tensor:
        """gradient ⊙ added, what FullGrad calls a bias term."""
        return self.gradient * self.added


class Terms:
    """What layers add, by name, each beside a leaf of zeros whose gradient is the logit's at every position."""

    def __init__(self) -> None:
        self.explicit: set[str] = set()
        self._added: dict[str, tuple[Tensor, Tensor]] = {}

    def bias(self, name: str, y: Tensor, bias: Tensor) -> Tensor:
        """y + bias, which is a layer's, by channel (axis 1 of four) or by feature (the last axis)."""
        self.explicit.add(name)
        shaped = bias[:, None, None] if y.ndim == 4 else bias
        return self._record(name, y + shaped, shaped.expand_as(y))

    def residual(self, name: str, function: Callable[..., Tensor], *u: Tensor) -> Tensor:
        """y = function(*u), which adds the y − J·u that the gradients of its inputs do not account for."""
        y, linear = torch.func.jvp(function, u, u)
        return self._record(name, y, y - linear)

    def _record(self, name: str, y: Tensor, added: Tensor) -> Tensor:
        assert name not in self._added
        leaf = torch.zeros_like(y, requires_grad=True)
        self._added[name] = (added.detach(), leaf)
        return y + leaf

    def of(self, logits: Tensor) -> dict[str, Term]:
        """Every layer's term of logits (N,)."""
        leaves = [leaf for _, leaf in self._added.values()]
        gradients = torch.autograd.grad(logits.sum(), leaves, retain_graph=True)
        return {
            name: Term(added, gradient)
            for (name, (added, _)), gradient in zip(self._added.items(), gradients, strict=True)
        }


def conv(terms: Terms, name: str, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3×3 convolution of an image's own size, its bias told apart."""
    y = functional.conv2d(x, weight, padding=1)
    return y if bias is None else terms.bias(name, y, bias)


class Pooled(nn.Module):
    """Features (N, 6, H, W), averaged over the image, and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, CLASSES)

    def features(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))

    def written_out(self, x: Tensor, terms: Terms) -> Tensor:
        pooled = self.features_written_out(x, terms).mean((2, 3))
        return terms.bias("head", pooled @ self.head.weight.mT, self.head.bias)


class Reused(Pooled):
    """One convolution used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.shared = nn.Conv2d(6, 6, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.shared(x))
        return torch.relu(self.shared(x))

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        x = torch.relu(conv(terms, "stem", x, self.stem.weight, self.stem.bias))
        x = torch.relu(conv(terms, "first use", x, self.shared.weight, self.shared.bias))
        return torch.relu(conv(terms, "second use", x, self.shared.weight, self.shared.bias))


class Reordered(Pooled):
    """The second layer is defined before the first. With `width` 6 both have the same number of channels."""

    def __init__(self, width: int = 6) -> None:
        super().__init__()
        self.second = nn.Conv2d(width, 6, 3, padding=1)
        self.first = nn.Conv2d(3, width, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(torch.relu(self.first(x))))

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        x = torch.relu(conv(terms, "first", x, self.first.weight, self.first.bias))
        return torch.relu(conv(terms, "second", x, self.second.weight, self.second.bias))


class Functional(Pooled):
    """Parameters without layers: a convolution and a normalization by functions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.weight = nn.Parameter(torch.zeros(6, 6, 3, 3))
        self.bias = nn.Parameter(torch.zeros(6))
        self.scale = nn.Parameter(torch.zeros(6))
        self.shift = nn.Parameter(torch.zeros(6))
        self.register_buffer("running_mean", torch.zeros(6))
        self.register_buffer("running_var", torch.ones(6))

    def features(self, x: Tensor) -> Tensor:
        x = functional.conv2d(functional.relu(self.stem(x)), self.weight, self.bias, padding=1)
        x = functional.batch_norm(x, self.running_mean, self.running_var, self.scale, self.shift)
        return functional.relu(x)

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        x = torch.relu(conv(terms, "stem", x, self.stem.weight, self.stem.bias))
        x = conv(terms, "conv2d", x, self.weight, self.bias)
        scale = self.scale / torch.sqrt(self.running_var + 1e-5)
        y = x * scale[:, None, None]
        return torch.relu(terms.bias("batch_norm", y, self.shift - self.running_mean * scale))


class Unused(Pooled):
    """A layer that is defined and never called."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.auxiliary = nn.Conv2d(6, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 6, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.last(torch.relu(self.stem(x))))

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        x = torch.relu(conv(terms, "stem", x, self.stem.weight, self.stem.bias))
        return torch.relu(conv(terms, "last", x, self.last.weight, self.last.bias))


class WithoutAffine(Pooled):
    """A BatchNorm without parameters still adds −μ/σ."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6, affine=False)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.norm(self.stem(x)))

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        scale = 1 / torch.sqrt(self.norm.running_var + self.norm.eps)
        y = conv(terms, "stem", x, self.stem.weight, None) * scale[:, None, None]
        return torch.relu(terms.bias("norm", y, -self.norm.running_mean * scale))


class InPlace(Pooled):
    """ReLUs that overwrite the output of the layer before them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.last = nn.Conv2d(6, 6, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def features(self, x: Tensor) -> Tensor:
        return self.relu(self.last(self.relu(self.norm(self.relu(self.stem(x))))))

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        x = torch.relu(conv(terms, "stem", x, self.stem.weight, self.stem.bias))
        scale = self.norm.weight / torch.sqrt(self.norm.running_var + self.norm.eps)
        y = x * scale[:, None, None]
        x = torch.relu(terms.bias("norm", y, self.norm.bias - self.norm.running_mean * scale))
        return torch.relu(conv(terms, "last", x, self.last.weight, self.last.bias))


class Padded(nn.Conv2d):
    """A convolution of one's own class, which pads by itself."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (1, 1, 1, 1)))


class Subclassed(Pooled):
    """Layers whose class is derived from a framework's."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.last = Padded(6, 6, 3)

    def features(self, x: Tensor) -> Tensor:
        return torch.relu(self.last(torch.relu(self.stem(x))))

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        x = torch.relu(conv(terms, "stem", x, self.stem.weight, self.stem.bias))
        return torch.relu(conv(terms, "last", x, self.last.weight, self.last.bias))


class Gelu(Pooled):
    """A smooth activation: what it adds is no layer's bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.last = nn.Conv2d(6, 6, 3, padding=1)

    def features(self, x: Tensor) -> Tensor:
        return functional.gelu(self.last(functional.gelu(self.stem(x))))

    def features_written_out(self, x: Tensor, terms: Terms) -> Tensor:
        x = conv(terms, "stem", x, self.stem.weight, self.stem.bias)
        x = conv(
            terms, "last", terms.residual("first gelu", functional.gelu, x), self.last.weight, self.last.bias
        )
        return terms.residual("second gelu", functional.gelu, x)


class Encoder(nn.Module):
    """Patches, LayerNorm and attention: biases of layers that are no images, and products of two activations."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.norm = nn.LayerNorm(8)
        self.qkv = nn.Linear(8, 24)
        self.proj = nn.Linear(8, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).mT
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.proj(torch.softmax(q @ k.mT / 2, -1) @ v)
        return self.head(x.mean(1))

    def written_out(self, x: Tensor, terms: Terms) -> Tensor:
        y = functional.conv2d(x, self.patch.weight, stride=4)
        x = terms.bias("patch", y, self.patch.bias).flatten(2).mT
        # The layer as a whole, its bias included: its residual is that of one node.
        normed = terms.residual("norm", self.norm, x)
        q, k, v = terms.bias("qkv", normed @ self.qkv.weight.mT, self.qkv.bias).chunk(3, -1)
        scores = terms.residual("scores", torch.matmul, q, k.mT) / 2
        weights = terms.residual("softmax", lambda u: torch.softmax(u, -1), scores)
        attended = terms.residual("attended", torch.matmul, weights, v)
        x = x + terms.bias("proj", attended @ self.proj.weight.mT, self.proj.bias)
        return terms.bias("head", x.mean(1) @ self.head.weight.mT, self.head.bias)
