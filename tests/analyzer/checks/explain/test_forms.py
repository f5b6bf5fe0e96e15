"""Maps that differ for their terms alone, other nodes or rescaled rounding, are named; a defect in these is not."""

from __future__ import annotations

import functools

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
from torch import nn

from analyzer import check, compare
from analyzer.ops import activation, elementwise, reduction
from analyzer.ops.windowed import convolution
from converters import convert

IMAGES = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)


def classifier(layer: str, behind: str) -> onnx.ModelProto:
    """An image classifier with some nodes from h to s between its convolutions, the second of which gives `behind`."""
    model = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 22]> g (float[n,3,8,8] x) => (float[n,4] y)'
        " <float three = {3}>"
        f" {{ h = Conv<pads = [1,1,1,1]>(x, v, b) {layer} {behind} = Conv(s, w, c)"
        f" m = GlobalAveragePool({behind}) y = Flatten(m) }}"
    )
    drawn = np.random.default_rng(1)
    for name, shape in {"v": (6, 3, 3, 3), "b": (6,), "w": (4, 6, 3, 3), "c": (4,)}.items():
        array = drawn.normal(size=shape).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    return model


WHOLE = classifier("s = Pow(h, three)", "z")
WRITTEN_OUT = classifier("q = Mul(h, h) s = Mul(q, h)", "z_written_out")


def compared():
    report = compare(WHOLE, WRITTEN_OUT, IMAGES, target=1, steps=1, referee=False)
    (row,) = (row for row in report.rows if row["quantity"] == "full grad")
    assert all(other["passed"] for other in report.rows if other is not row)
    return report, row


def test_a_layer_in_other_nodes_is_named():
    report, row = compared()
    report.raise_for_disagreement()
    assert row["relative_l2"] > 1e-2
    assert "Pow" in row["explanation"] and "written in other nodes in b" in row["explanation"]


def right(op, y):
    """The residual of h³, of which h · 3h² is carried by h."""
    return op.Mul(y, -2.0)


def doubled(op, active, y, *u):
    return op.Mul(right(op, y), 2.0)


def of_the_other_sample(op, active, y, *u):
    return op.Gather(right(op, y), [1, 0], axis=0)


def dropped(op, active, y, *u):
    return None


def test_the_stated_residual_is_the_right_one(monkeypatch):
    monkeypatch.setattr(elementwise.Pow, "residual", lambda op, active, y, *u: right(op, y))
    report, row = compared()
    report.raise_for_disagreement()
    assert "written in other nodes" in row["explanation"]


@pytest.mark.parametrize("wrong", [doubled, of_the_other_sample, dropped])
def test_a_defect_in_that_layer_is_not_excused(wrong, monkeypatch):
    monkeypatch.setattr(elementwise.Pow, "residual", wrong)
    report, row = compared()
    assert not row["passed"] and row["explanation"] == ""
    assert not report.passed


def test_a_defect_in_the_other_form_is_not_excused(monkeypatch):
    monkeypatch.setattr(elementwise.Mul, "residual", lambda op, active, y, *u: op.Mul(y, -1.01))
    _, row = compared()
    assert not row["passed"] and row["explanation"] == ""


def test_a_defect_in_the_layer_behind_it_is_not_excused(monkeypatch):
    # One more term has no counterpart then, and the sums are not the same.
    bias = convolution.Conv.residual

    def wrong(op, active, y, *inputs, **attributes):
        found = bias(op, active, y, *inputs, **attributes)
        return op.Mul(found, 1.01) if y.name == "z_written_out" else found

    monkeypatch.setattr(convolution.Conv, "residual", wrong)
    _, row = compared()
    assert not row["passed"] and row["explanation"] == ""


def test_a_map_that_is_drawn_wrongly_besides_is_not_excused(monkeypatch):
    from analyzer.checks.read.twin import Twin

    drawn = Twin.map_of
    monkeypatch.setattr(Twin, "map_of", lambda self, root, found: drawn(self, root, found)[:, ::-1])
    _, row = compared()
    assert not row["passed"] and row["explanation"] == ""


class Gated(nn.Module):
    """Every pixel is scaled by a gate, and the scale is then taken away: in exact arithmetic no gradient passes it."""

    def __init__(self):
        super().__init__()
        self.body, self.gate, self.head = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 1, 1), nn.Conv2d(8, 4, 3)

    def forward(self, x):
        x = torch.relu(self.body(x)) + 0.1
        x = nn.functional.normalize(x * torch.sigmoid(self.gate(x)), dim=1)
        return 1e3 * self.head(x).mean((2, 3))


@functools.cache
def gated():
    torch.manual_seed(0)
    return convert(Gated().eval(), torch.from_numpy(IMAGES))


def checked():
    report = check(gated(), IMAGES, target=0, backends=["onnxruntime", "torch"], steps=1, referee=False)
    (row,) = (row for row in report.rows if row["quantity"] == "full grad")
    return report, row


def test_a_map_that_rescales_rounding_is_named():
    report, row = checked()
    report.raise_for_disagreement()
    assert row["relative_l2"] > 1e-3
    assert row["explanation"].startswith("'gate', ")
    assert "the map rescales a term that is zero but for rounding" in row["explanation"]


def test_a_gradient_that_should_be_zero_and_is_not_is_a_defect(monkeypatch):
    rule = activation.Sigmoid.torch
    monkeypatch.setattr(activation.Sigmoid, "torch", lambda torch, x: leaking(torch, rule(torch, x)))
    report, row = checked()
    assert not report.passed
    assert not row["passed"] and row["explanation"] == ""


def leaking(torch, y):
    """y, whose gradient is a thousandth too large for a reason of its own."""
    return y.detach() + Leak.apply(y) - Leak.apply(y).detach()


class Leak(torch.autograd.Function):
    @staticmethod
    def forward(context, y):
        return y.clone()

    @staticmethod
    def backward(context, g):
        return g + 1e-3


def test_wrong_arithmetic_of_the_map_is_not_excused_by_rounding(monkeypatch):
    rule = reduction.ReduceMax.torch
    monkeypatch.setattr(
        reduction.ReduceMax, "torch", lambda torch, *x, **axes: 1.01 * rule(torch, *x, **axes)
    )
    report, row = checked()
    assert not report.passed
    assert not row["passed"] and row["explanation"] == ""
