"""Sums of targets over one or several outputs: what every method and check makes of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx import parser
from torch import Tensor, nn

from analyzer import Target, check, compare, differentiate, full_grad, gradient, integrated_gradients
from analyzer.checks.explain.kinks import Side, explain
from analyzer.checks.explain.localize import backward_origin
from analyzer.checks.read.passes import Passes
from analyzer.errors import TargetError
from analyzer.graph.graph import Graph
from analyzer.methods import grad_cam, layer_cam, simple_full_grad, smooth_full_grad
from converters import Model, convert
from tests.zoo.draw import draw, normal

BACKENDS = ["onnxruntime", "torch", "tensorflow", "source"]


class Heads(nn.Module):
    """Logits, a box, and the probabilities of the logits: one output computed from another."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 3), nn.ReLU())
        self.classes, self.box = nn.Linear(16, 5), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.body(x).flatten(1)
        logits = self.classes(h)
        return logits, self.box(h), logits.softmax(1)


@pytest.fixture(scope="module")
def heads() -> tuple[nn.Module, Tensor, Model]:
    net, x = draw(Heads()), normal(3, 3, 4, 4)
    return net, x, convert(net, x)


def scalar(net: nn.Module, x: Tensor) -> Tensor:
    """The score of class 3, less twice that of class 1's probability, and half the box's first number."""
    logits, box, odds = net(x)
    return logits[:, 3] - 2 * odds[:, 1] + 0.5 * box[:, 0]


def target_of(model: Model) -> Target:
    logits, box, odds = differentiate(model).graph.outputs
    return Target(logits, index=3) - 2 * Target(odds, index=1) + 0.5 * Target(box, position=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_full_grad_of_a_sum_over_outputs_is_complete_and_linear(heads, backend):
    net, x, model = heads
    fn, target = differentiate(model, backend), target_of(model)
    found = full_grad(fn, x.numpy(), target)
    np.testing.assert_allclose(found.completeness.output, scalar(net, x).detach(), rtol=1e-5, atol=1e-6)
    assert found.completeness.within(1e-5).all()
    assert target.parts is not None
    each = [(factor, full_grad(fn, x.numpy(), part)) for factor, part in target.parts]
    for tensor in found.bias_terms:
        expected = sum(factor * one.bias_terms[tensor] for factor, one in each if tensor in one.bias_terms)
        np.testing.assert_allclose(found.bias_terms[tensor], expected, rtol=1e-4, atol=1e-6)
    expected = sum(factor * one.input_term for factor, one in each)
    np.testing.assert_allclose(found.input_term, expected, rtol=1e-4, atol=1e-6)


class Summed(nn.Module):
    """The network whose one output is the sum."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return scalar(self.net, x)[:, None]


@pytest.fixture(scope="module")
def summed(heads) -> Model:
    net, x, _ = heads
    return convert(Summed(net), x)


@pytest.mark.parametrize("method", [full_grad, simple_full_grad, smooth_full_grad])
def test_the_map_of_a_sum_is_that_of_the_network_that_adds_up(heads, summed, method):
    _, x, model = heads
    options = {"samples": 3} if method is smooth_full_grad else {}
    found = method(model, x.numpy(), target_of(model), **options)
    expected = method(summed, x.numpy(), 0, **options)
    np.testing.assert_allclose(found.map, expected.map, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_activation_maps_of_a_sum_are_weighed_by_its_gradient(heads, backend):
    net, x, model = heads
    fn, target = differentiate(model, backend), target_of(model)
    features = net.body(x).detach().requires_grad_()
    tail = lambda image: (net.classes(image.flatten(1)), net.box(image.flatten(1)))  # noqa: E731
    logits, box = tail(features)
    value = logits[:, 3] - 2 * logits.softmax(1)[:, 1] + 0.5 * box[:, 0]
    (slopes,) = torch.autograd.grad(value.sum(), features)
    by_channel = (slopes.mean((2, 3), keepdim=True) * features).sum(1).relu().detach()
    by_place = (slopes.relu() * features).sum(1).relu().detach()
    for method, expected in ((grad_cam, by_channel), (layer_cam, by_place)):
        found = method(fn, x.numpy(), target)
        np.testing.assert_allclose(found.layer_map, expected, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found.output, value.detach(), rtol=1e-5, atol=1e-6)


def test_the_default_layer_is_read_by_every_output():
    """Two towers from one stem: a layer of one tower is no place through which all that is explained passes."""
    towers = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,2,4,4] x) => (float[n,2] left, float[n,2] right)'
        " <float[2,2,1,1] w = {1, -1, 2, 1}, int64[2] axes = {2, 3}>"
        " { stem = Conv(x, w) a = Relu(stem) c = Conv(a, w) d = Relu(c) left = ReduceMean<keepdims = 0>(d, axes)"
        " e = Conv(stem, w) f = Relu(e) right = ReduceMean<keepdims = 0>(f, axes) }"
    )
    x = normal(2, 2, 4, 4).numpy()
    fn = differentiate(towers)
    assert grad_cam(fn, x, Target("left", index=0)).layer == "d"
    assert grad_cam(fn, x, Target("right", index=0)).layer == "f"
    assert grad_cam(fn, x, Target("left", index=0) + Target("right", index=1)).layer == "stem"


def test_what_terms_a_sum_has(heads):
    _, x, model = heads
    fn = differentiate(model)
    logits, box, _ = fn.graph.outputs
    highest = fn.gradients(x.numpy()).target
    rest = Target(weights={box: np.array([0, 1])})
    margin = Target(logits) - 3 * (Target(logits, index=np.array([0, 1, 2])) + rest)
    y, z = (fn.forward(x.numpy())[name] for name in (logits, box))
    rows = np.arange(3)
    expected = y[rows, highest] - 3 * (y[rows, rows] + z[:, 1])
    np.testing.assert_allclose(fn.gradients(x.numpy(), margin).output, expected, rtol=1e-5)
    attributions = integrated_gradients(fn, x.numpy(), margin, steps=4)
    np.testing.assert_allclose(attributions.output, expected, rtol=1e-5)
    np.testing.assert_allclose(
        gradient(fn, x.numpy(), -margin).attributions, -gradient(fn, x.numpy(), margin).attributions
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Target(index=1) + Target(top=2), "one scalar of each sample"),
        (lambda: float("nan") * Target(index=1), "NaN or infinity"),
        (lambda: Target("y", parts=((1.0, Target()),)), "omit `output`"),
        (lambda: Target(index=1, parts=((1.0, Target()),)), "index or parts, not both"),
    ],
)
def test_a_sum_that_is_refused(make, message):
    with pytest.raises(TargetError, match=message):
        make()
    with pytest.raises(TypeError):
        Target(index=1) + 2


def test_backends_agree_on_a_sum_over_outputs(heads):
    _, x, model = heads
    report = check(model, x.numpy(), target_of(model), backends=["onnxruntime", "torch", "source"])
    report.raise_for_disagreement()
    assert {row["method"] for row in report.completeness} == {"full grad"}


def test_twins_are_compared_on_a_sum_over_outputs(heads):
    net, x, model = heads
    target = target_of(model)
    again = convert(net, x, fold_batch_norm=False)
    compare(model, again, x.numpy(), target).raise_for_disagreement()
    other = draw(Heads())
    other.load_state_dict(net.state_dict())
    with torch.no_grad():
        other.box.weight[0] += 0.5
    report = compare(model, convert(other, x), x.numpy(), target)
    assert not report.passed
    # Class 3 alone does not read the box.
    logits = differentiate(model).graph.outputs[0]
    rows = compare(model, convert(other, x), x.numpy(), Target(logits, index=3)).rows
    assert all(row["passed"] for row in rows if row["quantity"] == "input gradient")


# y = c · relu(x) and z = y²: of y + ½ z the gradient at y is 1 + y, the first term the target's own.
CHAINED = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,2] x) => (float[n,2] y, float[n,2] z)'
    " <float[2] c = {3, 4}> { h = Identity(x) r = Relu(h) y = Mul(r, c) z = Mul(y, y) }"
)


def side_of(shift: float, at_x: list[float], at_y: list[float] | None = None) -> tuple[Graph, Side]:
    """A reading of the sum where x = (1, shift), its gradients as given."""
    graph = differentiate(CHAINED).graph
    x = np.array([[1, shift]], np.float32)
    r = np.maximum(x, 0)
    y = r * np.array([3, 4], np.float32)
    known = {"x": x, "h": x, "r": r, "y": y, "z": y * y}
    names = {name for node in graph.nodes for name in (*node.inputs, *node.outputs)}
    gradients = {"x": np.array([at_x], np.float32)}
    if at_y is not None:
        gradients |= {"y": np.array([at_y], np.float32), "z": np.full((1, 2), 0.5, np.float32)}
    seeds = {"y": np.ones((1, 2), np.float32), "z": np.full((1, 2), 0.5, np.float32)}
    return graph, Side({k: v for k, v in known.items() if k in names}, gradients, seeds=seeds)


def test_a_decision_explains_a_sum_whose_parts_are_computed_from_one_another():
    graph, a = side_of(1e-7, [12, 4])
    _, b = side_of(-1e-7, [12, 0])
    reason = explain(Passes(graph), a, b, ["x"], 1e-4)
    assert reason is not None and "1 decision of Relu" in reason.text
    # The gradient without what y itself adds, 3 y at the first element, is nobody's decision.
    _, wrong = side_of(-1e-7, [9, 0])
    assert explain(Passes(graph), a, wrong, ["x"], 1e-4) is None


def test_a_wrong_gradient_is_found_at_the_output_that_adds_to_it():
    graph, a = side_of(0.5, [12, 12], [4, 3])
    _, b = side_of(0.5, [9, 9], [3, 2.25])
    apart = {"x": 0.25, "y": 0.25}
    origin = backward_origin(graph, {"a": a, "b": b}, apart, 1e-4)
    assert origin is not None and (origin.tensor, origin.side) == ("y", "b")
    np.testing.assert_allclose(origin.error, 0.25, rtol=1e-3)
