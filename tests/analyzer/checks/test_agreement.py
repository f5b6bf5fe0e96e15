"""check: sound networks pass on every backend, planted defects are caught and never excused."""

from __future__ import annotations

import copy
import functools
import json

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import check, compare, differentiate
from analyzer.checks.explain.kinks import Side, explain
from analyzer.checks.explain.reference import accept_two_roundings
from analyzer.checks.read.passes import Passes
from analyzer.errors import AnalysisError, Disagreement
from analyzer.ops import activation, elementwise
from converters import convert
from tests.analyzer.methods.completeness import assert_complete
from tests.analyzer.placement.placements import assert_placed
from tests.zoo.pytorch_networks import NETWORKS


@functools.cache
def network(name: str):
    net, shape = NETWORKS[name]()
    x = torch.randn(2, *shape, generator=torch.Generator().manual_seed(7))
    return net, x.numpy(), convert(net, x)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_all_backends_agree_on(name):
    _, x, model = network(name)
    report = check(model, x, target=1)
    assert report.backends == ("onnxruntime", "torch", "tensorflow", "source")
    report.raise_for_disagreement()
    assert report.passed
    for row in report.rows:
        assert row["relative_l2"] <= 1e-4 or row["explanation"], row


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_only_what_sees_the_whole_image_has_no_place_in(name):
    _, x, model = network(name)
    assert_placed(model, {"x": x})


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_full_grad_is_complete_on(name):
    _, x, model = network(name)
    assert_complete(model, x, target=1)


def test_the_source_is_compared_at_nearly_every_layer():
    _, x, model = network("resnet50")
    rows = [row for row in check(model, x, target=0).rows if {row["a"], row["b"]} == {"torch", "source"}]
    layers = [row for row in rows if row["quantity"] == "layer"]
    nodes = differentiate(model).graph.nodes
    assert len(layers) >= 0.9 * len([node for node in nodes if node.op_type not in ("Shape", "Concat")])
    assert {row["quantity"] for row in rows} == {
        "output", "layer", "input gradient", "bias gradient", "full grad", "integrated gradients",
    }  # fmt: skip


def test_a_wrong_weight_in_the_source_is_pinned_to_its_layer():
    net, shape = NETWORKS["vgg"]()
    x = torch.randn(2, *shape)
    model = convert(net, x)
    weights = model.source.program.state_dict
    layer = [name for name in weights if name.endswith("weight") and weights[name].ndim == 4][2]
    with torch.no_grad():
        weights[layer] *= 1.05
    report = check(model, x.numpy(), target=0, backends=["onnxruntime", "source"])
    assert not report.passed
    with pytest.raises(Disagreement, match="disagree"):
        report.raise_for_disagreement()
    first = next(row for row in report.rows if row["quantity"] == "layer" and not row["passed"])
    producer = differentiate(model).graph.producer[first["tensor"]]
    assert producer.op_type == "Conv"
    assert layer in producer.inputs
    (pair,) = report.pairs
    assert pair.first_divergence == first
    of_layer = f"Conv {producer.name!r} of layer {first['layer']!r}"
    assert pair.origin.startswith(f"{of_layer}: {first['tensor']!r} of source is ")
    assert pair.origin in report.headline


@pytest.mark.parametrize("wrong", ["scaled", "half at the kink", "dropped"])
def test_a_wrong_gradient_rule_is_caught_and_not_excused(wrong, monkeypatch):
    _, x, model = network("vgg")
    right = activation.Relu.vjp

    def planted(op, g, y, x):
        (entry,) = right(op, g, y, x)
        entry = entry() if callable(entry) else entry
        return {"scaled": (op.Mul(entry, 1.01),), "half at the kink": (op.Mul(g, 0.5),), "dropped": (None,)}[
            wrong
        ]

    monkeypatch.setattr(activation.Relu, "vjp", planted)
    report = check(model, x, target=0, backends=["onnxruntime", "torch"])
    assert not report.passed
    failing = {row["quantity"] for row in report.failures if "quantity" in row}
    assert "input gradient" in failing
    assert not any(row["explanation"] for row in report.rows)
    (pair,) = report.pairs
    assert pair.origin.startswith("Relu ") and "the gradient at" in pair.origin
    # The backward pass starts at the last ReLU.
    last = [node for node in differentiate(model).graph.nodes if node.op_type == "Relu"][-1]
    assert repr(last.name) in pair.origin


def test_a_wrong_form_of_an_op_is_pinned_to_its_node(monkeypatch):
    _, x, model = network("resnet18")
    monkeypatch.setattr(elementwise.Add, "torch", lambda torch, a, b: a + 1.001 * b)
    report = check(model, x, target=0, backends=["onnxruntime", "torch"])
    first = next(row for row in report.rows if row["quantity"] == "layer" and not row["passed"])
    assert differentiate(model).graph.producer[first["tensor"]].op_type == "Add"
    assert report.pairs[0].origin.startswith(f"Add {first['node']!r} of layer ")
    assert " of torch is " in report.pairs[0].origin


def test_a_small_defect_is_pinned_though_it_exceeds_the_tolerance_further_on():
    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = torch.nn.Linear(12, 12), torch.nn.Linear(12, 4)
            torch.nn.init.constant_(self.first.bias, 100)

        def forward(self, x):
            # What is small beside the bias is large once the mean is taken away.
            h = self.first(x)
            return self.second(torch.tanh(h - h.mean(1, keepdim=True)))

    torch.manual_seed(3)
    net, x = Net().eval(), torch.randn(3, 12)
    model = convert(net, x)
    with torch.no_grad():
        model.source.program.state_dict["first.weight"] *= 1 + 2e-3
    report = check(model, x.numpy(), target=0, backends=["torch", "source"])
    (pair,) = report.pairs
    layer = next(n for n in differentiate(model).graph.nodes if "first.weight" in n.inputs)
    assert pair.first_divergence["quantity"] == "layer"
    assert pair.first_divergence["node"] != layer.name
    assert repr(layer.name) in pair.origin


def test_a_float64_run_says_which_side_is_nearer():
    net, x, model = network("resnet18")
    report = check(model, x, target=1, backends=["onnxruntime", "torch"], tolerance=1e-12, referee=True)
    assert report.referee == "torch, float64"
    with torch.no_grad():
        truth = copy.deepcopy(net).double()(torch.tensor(x, dtype=torch.float64)).numpy()
    (row,) = (row for row in report.rows if row["quantity"] == "output")
    for side in "ab":
        output = differentiate(model, row[side]).forward(x)[row["tensor"]]
        assert row[f"{side}_error"] == pytest.approx(
            np.linalg.norm(output - truth) / np.linalg.norm(truth), rel=0.1
        )
    assert row["nearer"] == (row["a"] if row["a_error"] < row["b_error"] else row["b"])
    assert check(model, x, target=1, backends=["onnxruntime", "torch"]).referee.startswith("not needed")


@pytest.mark.parametrize(("ours", "theirs", "accepted"), [(0.8, -0.8, True), (1.6, 0.0, False)])
def test_sides_that_are_both_within_the_tolerance_of_float64_agree(ours, theirs, accepted, monkeypatch):
    tolerance, vjp, form = 1e-3, activation.Tanh.vjp, activation.Tanh.tensorflow

    def wrong_vjp(op, g, y, x):
        return (op.Mul(vjp(op, g, y, x)[0](), 1 + ours * tolerance),)

    def wrong_form(tf, x):
        turned = tf.custom_gradient(lambda y: (tf.identity(y), lambda g: (1 + theirs * tolerance) * g))
        return turned(form(tf, x))

    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh(), torch.nn.Linear(4, 3))
    x, backends = torch.randn(3, 5), ["onnxruntime", "tensorflow"]
    model = convert(net, x)
    monkeypatch.setattr(activation.Tanh, "vjp", wrong_vjp)
    monkeypatch.setattr(activation.Tanh, "tensorflow", wrong_form)
    report = check(model, x.numpy(), target=1, backends=backends, tolerance=tolerance, steps=1)
    rows = [row for row in report.rows if row["quantity"] == "input gradient"]
    assert [row["relative_l2"] for row in rows] == [pytest.approx(1.6 * tolerance, rel=0.01)]
    assert [row["passed"] for row in rows] == [accepted]
    assert ["of float64" in row["explanation"] for row in rows] == [accepted]


@pytest.mark.parametrize(
    ("quantity", "errors", "accepted"),
    [
        ("full grad", (6e-5, 9e-5), True),
        ("input gradient", (6e-5, 1.1e-4), False),
        ("input gradient", (0.0, 2e-4), False),
        ("layer", (6e-5, 6e-5), False),
        ("input gradient", (), False),
    ],
)
def test_what_is_beyond_the_tolerance_of_float64_is_not_accepted(quantity, errors, accepted):
    row = {"quantity": quantity, "tolerance": 1e-4, "passed": False, "explanation": ""}
    row |= dict(zip(("a_error", "b_error"), errors, strict=False))
    accept_two_roundings([row])
    assert (row["passed"], bool(row["explanation"])) == (accepted, accepted)


def test_tolerances_are_set_by_quantity():
    _, x, model = network("squeezenet")
    chosen = {"layer": 1e-12, "input-gradient": 1e-3, "completeness": 1e-15}
    report = check(model, x, target=0, backends=["onnxruntime", "torch"], tolerance=chosen, referee=False)
    assert {row["quantity"] for row in report.rows if not row["passed"]} == {"layer"}
    assert {row["tolerance"] for row in report.rows if row["quantity"] == "input gradient"} == {1e-3}
    assert {row["tolerance"] for row in report.rows if row["quantity"] == "output"} == {1e-4}
    assert {row["tolerance"] for row in report.completeness} == {1e-15}
    with pytest.raises(AnalysisError, match="no quantity 'leyer'"):
        check(model, x, tolerance={"leyer": 1e-3})


KINKED = parser.parse_model(
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,2] x) => (float[n,2] y)'
    " <float[2] c = {3, 4}> { h = Identity(x) r = Relu(h) y = Mul(r, c) }"
)


# What is explained: the sum of y.
ONES = {"y": np.ones((1, 2), np.float32)}


def _sides(eps: float):
    graph = differentiate(KINKED).graph
    x = np.array([[1.0, 0.0]], np.float32)

    def side(shift, gradient):
        h = x + np.array([[0, shift]], np.float32)
        r = np.maximum(h, 0)
        values = {"x": h, "h": h, "r": r, "y": r * np.array([3, 4], np.float32)}
        names = [name for node in graph.nodes for name in (*node.inputs, *node.outputs)]
        gradients = {"x": np.array([gradient], np.float32)}
        return Side({k: v for k, v in values.items() if k in names}, gradients, seeds=ONES)

    return graph, side(eps, [3, 4]), side(-eps, [3, 0])


def test_a_decision_within_rounding_of_its_kink_explains_the_difference():
    graph, a, b = _sides(1e-7)
    reason = explain(Passes(graph), a, b, ["x"], 1e-4)
    assert reason is not None
    assert "1 decision of Relu" in reason.text
    assert "held equal, the gradients agree to 0e+00" in reason.text


def test_a_maximum_behind_a_decision_is_held_with_it():
    # Without its output held too, no element of the window would be the other side's maximum.
    graph = differentiate(
        parser.parse_model(
            '<ir_version: 10, opset_import: ["": 23]> g (float[n,1,1,4] x) => (float[n,1,1,2] y)'
            " { h = Identity(x) r = Relu(h) y = MaxPool<kernel_shape = [1,2], strides = [1,2]>(r) }"
        )
    ).graph

    def side(first, gradient):
        h = np.array([first, -5, 2, 1], np.float32).reshape(1, 1, 1, 4)
        r = np.maximum(h, 0)
        values = {"x": h, "h": h, "r": r, "y": r[..., ::2]}
        names = [name for node in graph.nodes for name in (*node.inputs, *node.outputs)]
        gradients = {"x": np.array([gradient, 0, 1, 0], np.float32).reshape(h.shape)}
        seeds = {"y": np.ones((1, 1, 1, 2), np.float32)}
        return Side({name: values[name] for name in names}, gradients, seeds=seeds)

    reason = explain(Passes(graph), side(1e-7, 1), side(-1e-7, 0), ["x"], 1e-4)
    assert reason is not None
    assert "Relu" in reason.text and "agree to 0e+00" in reason.text


def test_values_that_really_differ_explain_nothing():
    graph, a, b = _sides(0.5)
    assert explain(Passes(graph), a, b, ["x"], 1e-4) is None


def test_a_decision_does_not_excuse_a_gradient_that_is_wrong_besides():
    graph, a, b = _sides(1e-7)
    wrong = Side(b.values, {"x": np.array([[3.3, 0]], np.float32)}, seeds=ONES)
    assert explain(Passes(graph), a, wrong, ["x"], 1e-4) is None


def test_report_as_json_and_html(tmp_path):
    _, x, model = network("squeezenet")
    report = check(model, x, target=0, backends=["onnxruntime", "torch"])
    content = json.loads(report.to_json())
    assert content["passed"] is True
    assert content["rows"] == report.rows
    assert set(report.rows[0]) == {
        "quantity", "tensor", "a", "b", "max_abs", "max_relative", "relative_l2", "cosine", "tolerance", "passed",
        "explanation", "node", "op_type", "layer", "depth",
    }  # fmt: skip
    page = tmp_path / "check.html"
    report.to_html(page)
    text = page.read_text()
    assert "onnxruntime" in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert 'src="http' not in text


def test_what_is_refused():
    _, x, model = network("squeezenet")
    with pytest.raises(AnalysisError, match="unknown backend 'jax'"):
        check(model, x, backends=["onnxruntime", "jax"])
    with pytest.raises(AnalysisError, match="backends names none"):
        check(model, x, backends=[])
    with pytest.raises(AnalysisError, match="above 0"):
        check(model, x, tolerance=0.0)
    with pytest.raises(AnalysisError, match="no source"):
        check(model.proto, x, backends=["onnxruntime", "source"])


def test_rounding_that_piles_up_in_a_deep_network_is_not_taken_for_the_defect():
    torch.manual_seed(0)
    layers = [part for _ in range(12) for part in (torch.nn.Linear(24, 24), torch.nn.Tanh())]
    for layer in layers[::2]:
        torch.nn.init.normal_(layer.weight, std=0.6)
    net, x = torch.nn.Sequential(*layers, torch.nn.Linear(24, 3)).eval(), torch.randn(4, 24)
    model = convert(net, x)
    with torch.no_grad():
        model.source.program.state_dict["20.weight"] *= 1.03
    # Rounding is visible from a hundredth of the tolerance on: here in every layer.
    report = check(
        model, x.numpy(), target=0, backends=["onnxruntime", "source"], tolerance=1e-5, referee=False
    )
    (pair,) = report.pairs
    layer = next(node for node in differentiate(model).graph.nodes if "20.weight" in node.inputs)
    assert pair.suspects == (layer.name,)
    forward = [row for row in report.rows if row["quantity"] == "layer" and row["relative_l2"] > 1e-7]
    assert min(row["depth"] for row in forward) < pair.first_divergence["depth"]


@pytest.mark.parametrize(
    "noise", ["RandomNormalLike(x)", "RandomUniformLike(x)", "Bernoulli(chance)", "Dropout(x, chance_, yes)"]
)
def test_a_model_that_draws_at_random_is_not_compared(noise: str) -> None:
    """Two runs differ: a disagreement would blame a backend."""
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (float[n,6] x) => (float[n,6] y)'
        " <float chance_ = {0.5}, bool yes = {1}> { chance = Sigmoid(x)"
        f" r = {noise} s = Mul(x, r) y = Relu(s) }}"
    )
    x = np.ones((2, 6), np.float32)
    for run in (lambda: check(proto, x, 1), lambda: compare(proto, proto, x, 1)):
        with pytest.raises(AnalysisError, match=r"random numbers .*Fix: export"):
            run()
