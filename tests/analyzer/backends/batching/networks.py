"""Networks whose rows depend on one another, as ONNX text and as the same function in PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from analyzer import Target

HEAD = '<ir_version: 10, opset_import: ["": 20]> g '
LAYER = "<float[3,4] w = {0.3,-0.2,0.5,0.1,-0.4,0.6,0.2,-0.7,0.8,0.1,-0.3,0.4}>"
W = torch.tensor([[0.3, -0.2, 0.5, 0.1], [-0.4, 0.6, 0.2, -0.7], [0.8, 0.1, -0.3, 0.4]]).double()
EPSILON = float(torch.tensor(0.01))


@dataclass(frozen=True)
class Mixing:
    """element: of the output, as coordinates; target: that element in the joint reading."""

    name: str
    text: str
    function: Callable[[torch.Tensor], torch.Tensor]
    element: tuple[int, ...]
    target: Target | int


def _network(
    name: str,
    body: str,
    function: Callable[[torch.Tensor], torch.Tensor],
    element: tuple[int, ...],
    shape: str = "n,k",
    constants: str = "",
    target: Target | int | None = None,
) -> Mixing:
    weights = LAYER if not constants else LAYER[:-1] + ", " + constants + ">"
    text = f"{HEAD}(float[n,3] x) => (float[{shape}] y) {weights} {{ h = MatMul(x, w) {body} }}"
    return Mixing(
        name, text, lambda x: function(x @ W), element, Target(index=element) if target is None else target
    )


def _sage(h: torch.Tensor) -> torch.Tensor:
    return torch.tanh(h) + torch.zeros_like(h).index_add(
        0, torch.tensor([1, 2, 0, 3]), torch.tanh(h)[[0, 1, 2, 0]]
    )


def _statistics(h: torch.Tensor) -> torch.Tensor:
    centred = h - h.mean(0, keepdim=True)
    return torch.tanh(centred / torch.sqrt((centred**2).mean(0, keepdim=True) + EPSILON))


def _ghost(h: torch.Tensor) -> torch.Tensor:
    apart = h.reshape(-1, 2, 4)
    return torch.exp(apart - apart.mean(1, keepdim=True)).reshape(-1, 4)


MIXING = (
    _network(
        "messages along edges",
        "t = Tanh(h) s = Gather<axis = 0>(t, a) y = ScatterND<reduction = \"add\">(t, b, s)",
        _sage,
        (2, 1),
        constants="int64[4] a = {0,1,2,0}, int64[4,1] b = {1,2,0,3}",
    ),
    _network(
        "statistics of the batch",
        "m = ReduceMean(h, zero) c = Sub(h, m) q = Mul(c, c) v = ReduceMean(q, zero) e = Add(v, eps) d = Sqrt(e) "
        "n = Div(c, d) y = Tanh(n)",
        _statistics,
        (1, 3),
        constants="int64[1] zero = {0}, float eps = {0.01}",
    ),
    _network(
        "similarity of all pairs",
        "t = Transpose<perm = [1,0]>(h) s = MatMul(h, t) y = Sigmoid(s)",
        lambda h: torch.sigmoid(h @ h.T),
        (0, 2),
    ),
    _network(
        "distance of all pairs",
        "a = Unsqueeze(h, zero) b = Unsqueeze(h, one) d = Sub(a, b) q = Mul(d, d) r = ReduceSum<keepdims = 0>(q, two) "
        "y = Exp(r)",
        lambda h: torch.exp(((h[None] - h[:, None]) ** 2).sum(2)),
        (3, 1),
        constants="int64[1] zero = {0}, int64[1] one = {1}, int64[1] two = {2}",
    ),
    _network(
        "attention over the batch",
        "t = Transpose<perm = [1,0]>(h) s = MatMul(h, t) p = Softmax<axis = 1>(s) y = MatMul(p, h)",
        lambda h: torch.softmax(h @ h.T, 1) @ h,
        (1, 0),
    ),
    _network(
        "mean of a bag",
        "t = Tanh(h) y = ReduceMean<keepdims = 1>(t, zero)",
        lambda h: torch.tanh(h).mean(0, keepdim=True),
        (0, 2),
        shape="1,4",
        constants="int64[1] zero = {0}",
        target=2,
    ),
    _network(
        "sorted rows",
        "y, i = TopK<axis = 0>(h, three) ",
        lambda h: h.topk(3, 0).values,
        (1, 1),
        shape="3,4",
        constants="int64[1] three = {3}",
    ),
    _network(
        "running sum",
        "t = Tanh(h) y = CumSum(t, zero)",
        lambda h: torch.tanh(h).cumsum(0),
        (2, 3),
        constants="int64 zero = {0}",
    ),
    _network(
        "ghost batches",
        "r = Reshape(h, apart) m = ReduceMean(r, one) c = Sub(r, m) e = Exp(c) y = Reshape(e, back)",
        _ghost,
        (3, 2),
        constants="int64[3] apart = {-1,2,4}, int64[2] back = {-1,4}, int64[1] one = {1}",
    ),
    _network(
        "neighbours in a slice",
        "a = Slice(h, zero, last) b = Slice(h, one, end) y = Mul(a, b)",
        lambda h: h[:-1] * h[1:],
        (1, 2),
        shape="m,4",
        constants="int64[1] zero = {0}, int64[1] one = {1}, int64[1] last = {-1}, int64[1] end = {99}",
    ),
    _network(
        "one number of all",
        "t = Tanh(h) q = Mul(t, t) y = ReduceSum<keepdims = 0>(q)",
        lambda h: (torch.tanh(h) ** 2).sum(),
        (),
        shape="",
        target=0,
    ),
)  # fmt: skip
