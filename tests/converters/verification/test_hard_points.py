"""Faults that random inputs miss are refused, and good models are not: zeros, tiny, huge and saturated values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from converters import VerificationFailed, conversion, convert, load
from converters.graph.kernels import exact
from converters.verification.hard_points import finite_distance, hard_points, spread
from converters.verification.original import draws, left_out
from tests.converters.helpers import make_model, normal, run

NODE = helper.make_node
WEIGHTS = {
    "w": normal(4, 4, seed=3),
    "epsilon": np.float32([1e-6]),
    "limit": np.float32(1e2),
    "low": np.float32(-1e2),
}


def chain(*nodes: onnx.NodeProto) -> onnx.ModelProto:
    used = {name for node in nodes for name in node.input} | {"w"}
    constants = {name: array for name, array in WEIGHTS.items() if name in used}
    return make_model([NODE("MatMul", ["x", "w"], ["h"]), *nodes], {"x": ("n", 4)}, ["y"], constants)


def rewired(op_type: str, to: str) -> Callable[[onnx.ModelProto], None]:
    """A pass that takes a node out of the graph: its readers read `to`."""

    def change(proto: onnx.ModelProto) -> None:
        gone = next(node for node in proto.graph.node if node.op_type == op_type)
        for node in proto.graph.node:
            node.input[:] = [to if name == gone.output[0] else name for name in node.input]
        proto.graph.node.remove(gone)

    return change


# sqrt(h² + ε) without ε, and h + tanh(h) of h between bounds that ordinary inputs do not reach.
FAULTS = {
    "epsilon": (
        chain(
            NODE("Mul", ["h", "h"], ["q"]), NODE("Add", ["q", "epsilon"], ["s"]), NODE("Sqrt", ["s"], ["y"])
        ),
        rewired("Add", "q"),
    ),
    "bound": (
        chain(
            NODE("Clip", ["h", "low", "limit"], ["c"]),
            NODE("Tanh", ["c"], ["t"]),
            NODE("Add", ["t", "c"], ["y"]),
        ),
        rewired("Clip", "h"),
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_that_ordinary_inputs_miss_is_refused_with_its_node(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    proto, change = FAULTS[name]
    real = conversion.canonicalise

    def wrong(*args: object, **options: object) -> onnx.ModelProto:
        made = real(*args, **options)  # type: ignore[arg-type]
        change(made)
        return made

    assert load(proto).verification is not None
    x = normal(2, 4, seed=5)
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    change(changed)
    assert finite_distance(run(changed, {"x": x})[0], run(proto, {"x": x})[0], 1e-6) < 1e-4
    monkeypatch.setattr(conversion, "canonicalise", wrong)
    for made in (lambda: load(proto), lambda: convert(proto, x)):
        with pytest.raises(VerificationFailed, match=r"for inputs .* the first node that differs is "):
            made()
    assert load(proto, verify=False).verification is None


class Net(torch.nn.Module):
    def __init__(self, end: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Linear(4, 3)
        self.end = end

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.end(self.layer(x))


GOOD = {
    "multi-label, nothing present": lambda h: torch.sigmoid(h - 16),
    "detector, nothing in the image": lambda h: torch.sigmoid(h - 30),
    "log of a sigmoid": lambda h: torch.log(torch.sigmoid(h - 20)),
    "saturated above": lambda h: 1 - torch.sigmoid(h + 20),
    "exp overflows": lambda h: torch.exp(h),
    "quotient of overflows": lambda h: torch.exp(h) / torch.exp(h).sum(-1, keepdim=True),
    "chaotic": lambda h: torch.sin(1e4 * h),
    "no value at zero": lambda h: torch.log(torch.relu(h) - torch.relu(h - 1)),
    "inf - inf": lambda h: torch.exp(40 * h) - torch.exp(39 * h),
    "no variance": lambda h: torch.nn.functional.layer_norm(h, (3,), eps=1e-12),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_good_network_converts(name: str) -> None:
    net = Net(GOOD[name]).eval()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(1))
    model = convert(net, x)
    assert model.verification is not None and model.verification.relative_l2 < 1e-3


def test_an_overflow_of_the_copy_alone_is_refused() -> None:
    """exp(h) / exp(h) sums to inf / inf where the original stays finite: an error, though at a huge input alone."""
    stable = make_model([NODE("Softmax", ["x"], ["y"])], {"x": ("n", 4)}, ["y"])
    one = [NODE("Exp", ["x"], ["e"]), NODE("ReduceSum", ["e", "axis"], ["s"]), NODE("Div", ["e", "s"], ["y"])]
    naive = make_model(one, {"x": ("n", 4)}, ["y"], {"axis": np.array([1])})
    x = {"x": 10 * normal(2, 4)}
    expected = run(stable, x)[0]
    assert finite_distance(run(naive, x)[0], expected, 1e-6) < 1e-5
    huge = {"x": 1e3 * x["x"]}
    assert finite_distance(run(naive, huge)[0], run(stable, huge)[0], 1e-6) == np.inf


def test_hard_points_leave_integers_and_cover_the_ends_of_the_range() -> None:
    example = {"x": np.float32([[1, -2]]), "ids": np.array([[3, 5]])}
    points = dict(hard_points(example, 0))
    assert all((point["ids"] == example["ids"]).all() for point in points.values())
    values = [float(v) for point in points.values() for v in (point["x"].min(), point["x"].max())]
    assert {0.0, 1.0, -2.0, 100.0, -200.0} <= set(values)
    assert hard_points({"ids": example["ids"]}, 0) == []


def test_the_spread_is_what_last_digits_of_the_input_move() -> None:
    x = {"x": np.float32([[1.0, 2.0, 3.0]])}
    for gain, least, most in ((1.0, 0.0, 1e-4), (1e5, 1e-2, np.inf)):

        def run_it(feeds: object, gain: float = gain) -> list[np.ndarray]:
            return [np.sin(gain * feeds["x"].astype(np.float64))]  # type: ignore[index]

        (moved,) = spread(run_it, x, run_it(x), 1e-6)
        assert least <= moved <= most


def test_an_exact_sigmoid_has_a_relative_error_of_rounding() -> None:
    proto = make_model([NODE("Sigmoid", ["x"], ["y"])], {"x": ("n", 2000)}, ["y"])
    x = np.linspace(-87, 87, 2000, dtype=np.float32)[None]
    true = 1 / (1 + np.exp(-x.astype(np.float64)))
    (found,) = run(exact(proto), {"x": x})
    assert np.max(np.abs(found - true) / true) < 1e-6
    assert run(exact(proto), {"x": np.full((1, 2000), -200, np.float32)})[0].max() == 0.0


def test_a_file_that_draws_is_known() -> None:
    drawn = make_model([NODE("RandomNormalLike", ["x"], ["y"])], {"x": ("n", 4)}, ["y"])
    assert draws(drawn) == "RandomNormalLike"
    constants = {"ratio": np.float32(0.5), "training": np.array(True)}
    dropout = make_model(
        [NODE("Dropout", ["x", "ratio", "training"], ["y"])], {"x": ("n", 4)}, ["y"], constants
    )
    assert draws(dropout) == "Dropout in training mode"
    assert draws(chain(NODE("Tanh", ["h"], ["y"]))) == ""
    assert load(drawn).verification is None


def test_what_the_canonical_graph_leaves_out_is_named() -> None:
    proto = chain(NODE("Tanh", ["h"], ["y"]))
    less = onnx.ModelProto()
    less.CopyFrom(proto)
    proto.graph.output.add(name="h")
    proto.graph.input.add(name="unread")
    proto.graph.input.add(name="w")
    assert left_out(proto, less) == ["input 'unread'", "output 'h'"]


def test_a_file_that_is_its_canonical_form_is_not_kept_twice(tmp_path: object) -> None:
    proto = chain(NODE("Tanh", ["h"], ["y"]))
    proto.graph.initializer.append(numpy_helper.from_array(np.float32([1]), "never read"))
    model = load(proto)
    assert model.original is not None
    assert load(model.save(f"{tmp_path}/m.onnx")).original is None
