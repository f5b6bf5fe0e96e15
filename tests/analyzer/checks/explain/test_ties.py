"""At an exact tie a source may take another subgradient than our rules; what is no subgradient stays a defect."""

from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from torch import nn

from analyzer import check
from analyzer.backends.source import tensorflow as source_tensorflow
from analyzer.ops import activation
from converters import convert

WHOLE = np.random.default_rng(2).integers(-3, 4, (4, 6)).astype(np.float32)


class Torch(nn.Module):
    """An activation before and behind a layer of whole weights, so that its kinks are met exactly twice."""

    def __init__(self, activation):
        super().__init__()
        self.activation, self.hidden, self.head = activation, nn.Linear(6, 6), nn.Linear(6, 3)
        drawn = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.hidden.weight.copy_(torch.randint(-1, 2, (6, 6), generator=drawn))
            self.hidden.bias.copy_(torch.randint(-1, 2, (6,), generator=drawn))
            self.head.weight.copy_(torch.randn(3, 6, generator=drawn))
            self.head.bias.copy_(torch.randn(3, generator=drawn))

    def forward(self, x):
        return self.head(self.activation(self.hidden(self.activation(x))))


def keras_network(activation):
    drawn = np.random.default_rng(0)
    whole = [drawn.integers(-1, 2, shape).astype(np.float32) for shape in ((6, 6), (6,))]
    hidden, head = keras.layers.Dense(6), keras.layers.Dense(3)
    x = keras.Input((6,))
    net = keras.Model(x, head(activation(hidden(activation(x)))))
    hidden.set_weights(whole)
    head.set_weights([drawn.normal(size=shape).astype(np.float32) for shape in ((6, 3), (3,))])
    return net


def flipped(x):
    return 2 - x


TORCH = {
    "clamp": lambda x: x.clamp(-1, 2),
    "clamp from below": lambda x: x.clamp(min=1),
    "clamp to tensors": lambda x: torch.clamp(x, torch.ones(6), 2 * torch.ones(6)),
    "where x ≥ 0": lambda x: torch.where(x >= 0, x, 0.2 * x),
    "max along an axis": lambda x: x + x.max(1, keepdim=True)[0],
    "top k": lambda x: x + x.topk(3, 1)[0].sum(1, keepdim=True),
}  # fmt: skip
# Of these PyTorch and we choose the same.
SAME_IN_TORCH = (
    lambda x: nn.functional.relu6(2 * x),
    lambda x: nn.functional.hardtanh(x, -1, 2),
    lambda x: nn.functional.threshold(x, 1.0, 0.0),
    lambda x: torch.maximum(x, flipped(x)),
    lambda x: torch.where(x > 0, x, 0.2 * x),
    torch.abs,
    lambda x: nn.functional.max_pool1d(x[:, None], 3, 1, 1)[:, 0],
)
KERAS = {
    "ReLU, max_value": lambda: keras.layers.ReLU(max_value=2),
    "ReLU of all": lambda: keras.layers.ReLU(max_value=3, negative_slope=0.1, threshold=1),
    "hard tanh": lambda: keras.layers.Activation("hard_tanh"),
    "maximum": lambda: lambda x: keras.layers.Maximum()([x, keras.layers.Rescaling(-1.0, 2.0)(x)]),
}


def checked(model, backends=("onnxruntime", "source")):
    return check(model, WHOLE, target=0, backends=backends, steps=1, referee=False)


def assert_tied(report):
    report.raise_for_disagreement()
    reasons = {row["explanation"] for row in report.rows if row["quantity"] == "input gradient"}
    assert reasons and all(" at an exact tie; held equal, the gradients agree to " in one for one in reasons)
    # The values agree, and so does everything that reads no tie.
    assert not any(row["explanation"] for row in report.rows if row["quantity"] in ("output", "layer"))


@pytest.mark.parametrize("name", TORCH)
def test_a_tie_that_pytorch_decides_otherwise_is_named(name):
    assert_tied(checked(convert(Torch(TORCH[name]).eval(), torch.from_numpy(WHOLE))))


def test_no_tie_is_named_where_pytorch_decides_as_we_do():
    net = Torch(lambda x: torch.stack([one(x) for one in SAME_IN_TORCH]).sum(0)).eval()
    report = checked(convert(net, torch.from_numpy(WHOLE)))
    report.raise_for_disagreement()
    assert not any(row["explanation"] for row in report.rows)


@pytest.mark.parametrize("name", KERAS)
def test_a_tie_that_tensorflow_decides_otherwise_is_named(name):
    model = convert(keras_network(KERAS[name]()), WHOLE)
    report = checked(model, ("onnxruntime", "torch", "tensorflow", "source"))
    report.raise_for_disagreement()
    explained = [row for row in report.rows if row["explanation"]]
    assert explained and all("source" in (row["a"], row["b"]) for row in explained)
    assert all("at an exact tie" in row["explanation"] for row in explained)


def test_completeness_of_the_source_holds_with_the_tie_decided_as_elsewhere():
    report = checked(convert(Torch(TORCH["clamp"]).eval(), torch.from_numpy(WHOLE)))
    ours, theirs = report.completeness
    assert ours["explanation"] == "" and "Clip 'clamp'" in theirs["explanation"]
    assert ours["passed"] and theirs["passed"] and theirs["error"] < 1e-5


class Sloped(torch.autograd.Function):
    """max(x, 0) with a slope at 0 that is given."""

    @staticmethod
    def forward(context, x, slope):
        context.save_for_backward(x)
        context.slope = slope
        return torch.relu(x)

    @staticmethod
    def backward(context, g):
        (x,) = context.saved_tensors
        return torch.where(x == 0, context.slope * g, g * (x > 0)), None


def with_slope_at_zero(slope):
    """A converted network whose source has a ReLU of this slope at 0."""
    model = convert(Torch(torch.relu).eval(), torch.from_numpy(WHOLE))
    for node in model.source.program.graph.nodes:
        if node.op == "call_function" and "relu" in str(node.target):
            node.target = lambda x: Sloped.apply(x, slope)
            node.target.__name__ = "relu"
    return model


@pytest.mark.parametrize("slope", [0.5, 1.0])
def test_a_slope_between_the_one_sided_ones_is_a_choice(slope):
    assert_tied(checked(with_slope_at_zero(slope)))


@pytest.mark.parametrize("slope", [-0.1, 1.1])
def test_a_slope_beyond_the_one_sided_ones_is_a_defect(slope):
    report = checked(with_slope_at_zero(slope))
    assert not report.passed and not any(row["explanation"] for row in report.rows)
    assert report.pairs[0].origin.startswith("Relu ")


def with_gradient_of_maximum(monkeypatch, name, gradient):
    """Let the TensorFlow source differentiate its Maximum nodes so."""
    right = source_tensorflow._differentiable_definition
    tf.RegisterGradient(name)(gradient)

    def planted(module, graph, stopping):
        definition = right(module, graph, stopping)
        for node in definition.node:
            if node.op == "Maximum":
                node.attr["_gradient_op_type"].s = name.encode()
        return definition

    monkeypatch.setattr(source_tensorflow, "_differentiable_definition", planted)


@pytest.mark.parametrize(
    ("share", "sound"), [((0.0, 1.0), True), ((1.0, 1.0), False), ((0.0, 0.0), False), ((1.5, -0.5), False)]
)
def test_the_operands_of_a_maximum_get_its_gradient_once(share, sound, monkeypatch):
    def gradient(op, g):
        a, b = op.inputs
        # In a graph == asks whether two tensors are one.
        tied = tf.equal(a, b)
        first, second = (share_of * g for share_of in share)
        return tf.where(tied, first, tf.where(a > b, g, 0.0)), tf.where(tied, second, tf.where(a < b, g, 0.0))

    with_gradient_of_maximum(monkeypatch, f"Shared{share[0]}and{share[1]}".replace("-", "minus"), gradient)
    report = checked(convert(keras_network(KERAS["maximum"]()), WHOLE))
    assert report.passed == sound
    assert any(row["explanation"] for row in report.rows) == sound


def test_a_wrong_gradient_beside_a_tie_is_a_defect():
    model = convert(Torch(TORCH["clamp"]).eval(), torch.from_numpy(WHOLE))
    clamps = [node for node in model.source.program.graph.nodes if "clamp" in str(node.target)]
    right = clamps[0].target

    def wrong(x, low, high):
        y = right(x, low, high)
        # Where it saturates, a hundredth passes.
        leak = torch.where((x < low) | (x > high), 0.01 * x, 0.0)
        return y + leak - leak.detach()

    clamps[0].target = wrong
    report = checked(model)
    assert not report.passed
    assert not any(row["explanation"] for row in report.rows if row["quantity"] == "input gradient")


@pytest.mark.parametrize("slope", [0.5, 1.0, -1.0])
def test_another_choice_of_a_backend_of_ours_is_a_defect(slope, monkeypatch):
    model = convert(Torch(torch.relu).eval(), torch.from_numpy(WHOLE))
    monkeypatch.setattr(activation.Relu, "torch", lambda torch, x: Sloped.apply(x, slope))
    report = checked(model, ("onnxruntime", "torch", "source"))
    failing = {(pair.a, pair.b) for pair in report.pairs if not pair.passed}
    assert failing == {("onnxruntime", "torch"), ("torch", "source")}
    assert not any(row["explanation"] for row in report.rows)
