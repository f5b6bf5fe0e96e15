"""FullGrad against the paper's formula, restated here with module hooks, and against its own identity."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from onnx import parser

from analyzer import Target, differentiate, full_grad
from analyzer.errors import AnalysisError, ShapeError
from converters import convert
from tests.analyzer.methods.published import decompose, saliency
from tests.zoo.pytorch_networks import NETWORKS

RELU_NETWORKS = ["resnet18", "vgg_bn", "vgg", "squeezenet"]


def relative_l2(a, b) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@functools.cache
def network(name: str, fold: bool = True):
    net, shape = NETWORKS[name]()
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(5))
    return net.eval(), x.numpy(), convert(net, x, fold_batch_norm=fold)


@pytest.mark.parametrize("name", RELU_NETWORKS)
@pytest.mark.parametrize("backend", ["onnxruntime", "source"])
def test_explicit_terms_and_map_equal_the_published_algorithm(name, backend):
    net, x, model = network(name, fold=False)
    logits, terms, _ = decompose(net, x, target=2)
    fg = full_grad(differentiate(model, backend), x, target=2, terms="explicit")
    assert relative_l2(fg.map, saliency(terms)) <= 1e-4
    assert relative_l2(fg.input_term, terms[0].numpy()) <= 1e-4
    sums = sorted(float(term.double().sum()) for term in terms[1:] if term.abs().max() > 0)
    ours = sorted(float(term.sum(dtype=np.float64)) for term in fg.bias_terms.values())
    np.testing.assert_allclose(ours, sums, rtol=1e-3, atol=1e-4 * np.abs(sums).max())
    total = sum(term.double().flatten(1).sum(1) for term in terms).numpy()
    np.testing.assert_allclose(fg.completeness.total, total, rtol=1e-4, atol=1e-4 * np.abs(logits).max())


@pytest.mark.parametrize("name", RELU_NETWORKS)
def test_a_relu_network_is_complete_with_explicit_terms_alone(name):
    _, x, model = network(name)
    fg = full_grad(model, x, target=1, terms="explicit")
    assert fg.completeness.error.max() <= 1e-4
    np.testing.assert_allclose(fg.completeness.total, fg.completeness.output, rtol=1e-3, atol=1e-5)


# All networks are complete in both precisions: tests/analyzer/checks/test_agreement.py.
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3", "densenet"])
def test_all_terms_are_complete_in_float64(name):
    _, x, model = network(name)
    fg = full_grad(differentiate(model, "torch", precision="float64"), x[:1].astype(np.float64), target=0)
    assert fg.completeness.error.max() <= 1e-10
    assert fg.map.dtype == np.float64
    assert all(term.dtype == np.float64 for term in fg.bias_terms.values())


def test_folding_does_not_change_the_sum():
    _, x, folded = network("vgg_bn")
    _, _, apart = network("vgg_bn", fold=False)
    a, b = full_grad(folded, x, target=0), full_grad(apart, x, target=0)
    np.testing.assert_allclose(a.completeness.total, b.completeness.total, rtol=1e-4, atol=1e-5)
    assert len(a.bias_terms) < len(b.bias_terms)


def test_the_shortfall_of_explicit_terms_is_stated():
    _, x, model = network("mobilenet_v2")
    explicit, complete = full_grad(model, x, target=0, terms="explicit"), full_grad(model, x, target=0)
    missing = sum(c.total for c in complete.contributions if c.kind == "implicit")
    np.testing.assert_allclose(
        explicit.completeness.output - explicit.completeness.total, missing, rtol=1e-2, atol=1e-4
    )
    assert {c.kind for c in explicit.contributions} == {"explicit"}


def test_bias_terms_of_a_hand_solved_network():
    # y = relu(2x + 1) · 3 + 5 at x = 2: ∂y/∂x = 6, the biases 1 and 5 come with gradients 3 and 1.
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,1] x) => (float[n,1] y)'
        " <float[1,1] w = {2}, float[1] b = {1}, float[1,1] v = {3}, float[1] c = {5}>"
        " { h = Gemm(x, w, b) r = Relu(h) y = Gemm(r, v, c) }"
    )
    fg = full_grad(proto, np.array([[2.0], [-2.0]], np.float32), target=0)
    np.testing.assert_allclose(fg.input_term, [[12], [0]])
    np.testing.assert_allclose(fg.bias_terms["h"], [[3], [0]])
    np.testing.assert_allclose(fg.bias_terms["y"], [[5], [5]])
    np.testing.assert_allclose(fg.completeness.output, [20, 5])
    np.testing.assert_allclose(fg.completeness.total, [20, 5])
    assert [c.kind for c in fg.contributions] == ["explicit", "explicit"]


def test_implicit_terms_of_hand_solved_functions():
    # exp: r = y − y·x. A product of two active operands: r = −y. A quotient of them: r = y.
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n] x) => (float[n] y)'
        " { e = Exp(x) p = Mul(e, x) y = Div(p, e) }"
    )
    x = np.array([0.5, -1.25], np.float32)
    fg = full_grad(proto, x, Target(weights=np.array(1.0)))
    # y = x whatever e is, so ∂y/∂p = 1/e and ∂y/∂e (total) = x/e − p/e² = 0.
    np.testing.assert_allclose(fg.bias_terms["p"], -x, rtol=1e-5)
    np.testing.assert_allclose(fg.bias_terms["y"], x, rtol=1e-5)
    np.testing.assert_allclose(fg.input_term, x, rtol=1e-5)
    np.testing.assert_allclose(fg.completeness.total, x, rtol=1e-5)


@pytest.mark.parametrize("masking", ["m = Where(hidden, infinity, x)", "m = Add(x, mask)"])
def test_the_infinity_of_a_mask_adds_nothing(masking):
    # The softmax over two of three: p = σ(x₁ − x₀), and y = −1·(1 − p) + 2·p. Nothing comes from x₂.
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,1] y)'
        " <bool[1,3] hidden = {0,0,1}, float infinity = {-inf}, float[1,3] mask = {0,0,-inf},"
        " float[3,1] w = {-1,2,7}> { " + masking + " p = Softmax(m) y = MatMul(p, w) }"
    )
    x = np.array([[0.3, 0.8, 5.0], [-1.0, 0.5, -2.0]], np.float32)
    p = 1 / (1 + np.exp(x[:, 0] - x[:, 1]))
    slope = 3 * p * (1 - p)
    fg = full_grad(proto, x, target=0)
    np.testing.assert_allclose(fg.input_term, x * np.stack([-slope, slope, 0 * p], 1), rtol=1e-5)
    np.testing.assert_allclose(fg.completeness.output, 3 * p - 1, rtol=1e-5)
    np.testing.assert_allclose(fg.completeness.total, 3 * p - 1, rtol=1e-5)
    assert all(np.isfinite(term).all() for term in fg.bias_terms.values())


def test_every_term_has_the_shape_of_its_tensor():
    _, x, model = network("efficientnet_b0")
    fn = differentiate(model)
    fg = full_grad(fn, x, target=0)
    values = fn.forward(x, list(fg.bias_terms))
    assert {name: term.shape for name, term in fg.bias_terms.items()} == {
        n: v.shape for n, v in values.items()
    }
    assert fg.map.shape == (x.shape[0], *x.shape[2:])
    assert [c.tensor for c in fg.contributions] == list(fg.bias_terms)


def test_inputs_given_by_name_come_back_by_name():
    _, x, model = network("squeezenet")
    (name,) = differentiate(model).graph.inputs
    fg = full_grad(model, {name: x}, target=0)
    assert set(fg.input_term) == {name}


def test_unknown_terms_and_wrong_shapes_are_refused():
    _, x, model = network("squeezenet")
    with pytest.raises(AnalysisError, match='"all" or "explicit"'):
        full_grad(model, x, terms="some")
    with pytest.raises(ShapeError, match="add a batch axis"):
        full_grad(model, x[0])
