"""Conductance against closed forms, against Captum, against Integrated Gradients, and against its own completeness."""

from __future__ import annotations

import functools
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from onnx import parser
from torch import nn

from analyzer import Target, conductance, differentiate, integrated_gradients
from analyzer.backends.inner_tensors import cut
from analyzer.errors import AnalysisError, UnknownTensor
from converters import convert

BACKENDS = ["onnxruntime", "torch", "tensorflow", "source"]


def graph(signature: str, body: str):
    return parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 23]> g {signature} => (float[n,1] y) {body}'
    )


# y = a² · b³ by way of s = a², c = b³. On the line from 0, s = α² a² and c = α³ b³, so ∫ c ds = ⅖ y and ∫ s dc = ⅗ y.
POWERS = graph(
    "(float[n,1] a, float[n,1] b)",
    "<float two = {2}, float three = {3}> { s = Pow(a, two) c = Pow(b, three) y = Mul(s, c) }",
)
# y = relu(a − 1) · b, through r and d = b + 0: the unit r is asleep on the first 1/a of the path.
KINK = graph(
    "(float[n,1] a, float[n,1] b)",
    "<float one = {-1}> { l = Add(a, one) r = Relu(l) d = Neg(b) m = Mul(r, d) y = Neg(m) }",
)
# y = (x + s)², s = x²: x reaches y through s and past it.
SKIP = graph("(float[n,1] x)", "{ s = Mul(x, x) h = Add(x, s) y = Mul(h, h) }")


class Residual(nn.Module):
    """A small network with a skip connection past its middle."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.Tanh())
        self.last = nn.Sequential(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x + self.middle(x))


class Text(nn.Module):
    """Tokens, attention, a class."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(9, 6)
        self.block = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True, activation="gelu")
        self.head = nn.Linear(6, 3)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.block(self.words(tokens)).mean(1))


@functools.cache
def residual() -> Any:
    torch.manual_seed(3)
    net, x = Residual().eval(), 2 * torch.randn(3, 2, 6, 6)
    return net, x, 0.3 * torch.randn(3, 2, 6, 6), convert(net, x)


@functools.cache
def on(backend: str) -> Any:
    return differentiate(residual()[3], backend)


def captums(layer: nn.Module, x: torch.Tensor, baseline: torch.Tensor, **options: Any) -> np.ndarray:
    """Captum's sum: the gradient at the beginning of each step, times the change of the layer in it."""
    peer = captum.attr.LayerConductance(residual()[0], layer)
    return peer.attribute(x, baseline, target=2, **options).detach().numpy()


def relative(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layer", ["first", "middle", "last.0"])
def test_equals_captum_at_equal_steps(backend, layer):
    net, x, baseline, _ = residual()
    # Captum's n steps have n + 1 points; its name says trapezoid, its sum takes the gradient at their left ends.
    expected = captums(net.get_submodule(layer), x, baseline, n_steps=24, method="riemann_trapezoid")
    found = conductance(
        on(backend), x.numpy(), 2, wrt=layer, baseline=baseline.numpy(), steps=25, rule="left"
    )
    assert relative(found.attributions, expected) <= 1e-4


def test_the_trapezoid_is_the_mean_of_captums_sums_there_and_back():
    net, x, baseline, _ = residual()
    options = {"n_steps": 24, "method": "riemann_trapezoid"}
    there = captums(net.middle, x, baseline, **options)
    back = captums(net.middle, baseline, x, **options)
    whole = {"wrt": "middle", "baseline": baseline.numpy(), "steps": 25}
    found = conductance(on("onnxruntime"), x.numpy(), 2, **whole)
    assert relative(found.attributions, (there - back) / 2) <= 1e-4
    right = conductance(on("onnxruntime"), x.numpy(), 2, **whole, rule="right")
    assert relative(right.attributions, -back) <= 1e-4


def test_captums_default_comes_to_the_same_in_the_end():
    net, x, baseline, _ = residual()
    # Its nodes leave out the ends of the path, and its sum is of order one: a thousand steps are within a percent.
    expected = captums(net.middle, x[:1], baseline[:1], n_steps=1000)
    found = conductance(
        on("onnxruntime"), x[:1].numpy(), 2, wrt="middle", baseline=baseline[:1].numpy(), tolerance=0.001
    )
    assert relative(found.attributions, expected) <= 0.01


@pytest.mark.parametrize("settings", [{"steps": 13}, {"tolerance": 0.02}])
@pytest.mark.parametrize("backend", BACKENDS)
def test_at_the_input_it_is_integrated_gradients(backend, settings):
    _, x, baseline, _ = residual()
    fn, rule = on(backend), {} if "tolerance" in settings else {"rule": "trapezoid"}
    given = {"baseline": baseline.numpy(), **settings}
    found = conductance(fn, x.numpy(), 2, wrt=fn.graph.inputs[0], **given)
    expected = integrated_gradients(fn, x.numpy(), 2, **given, **rule)
    assert relative(found.attributions, expected.attributions) <= 1e-5
    np.testing.assert_array_equal(found.spent, expected.spent)
    assert not found.beside


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
def test_a_product_of_powers_has_its_closed_form(backend):
    a, b = np.array([[2.0], [-1.5]]), np.array([[1.5], [0.5]])
    fn = differentiate(POWERS, backend, precision="float64")
    found = conductance(fn, {"a": a, "b": b}, wrt=["s", "c"], tolerance=1e-6, map_tolerance=1e-5)
    y = a**2 * b**3
    # The trapezoids of a product sum up exactly, however far each factor's is off: the map's own change tells.
    np.testing.assert_allclose(found.attributions["s"], 0.4 * y, rtol=2e-5)
    np.testing.assert_allclose(found.attributions["c"], 0.6 * y, rtol=2e-5)
    assert found.converged.all()
    assert found.spent.min() > 100
    # The straight line between the values of s and c, which no input takes, shares y equally.
    values = {"baseline_inputs": {"a": 0 * a, "b": 0 * b}, "at": ["s", "c"]}
    inner = integrated_gradients(fn, {"a": a, "b": b}, steps=3, **values)
    np.testing.assert_allclose(inner.attributions["s"], 0.5 * y, rtol=1e-12)


@pytest.mark.parametrize("settings", [{"tolerance": 1e-7}, {"steps": 4}])
def test_a_unit_is_credited_from_where_it_wakes(settings):
    # a = 3, b = 2: ∫ b dr = ∫ 2α · 3 dα and ∫ r db = ∫ (3α − 1) · 2 dα, from α = ⅓ on, which is one of four points.
    fn = differentiate(KINK, "torch", precision="float64")
    given = {"a": np.array([[3.0]]), "b": np.array([[2.0]])}
    found = conductance(fn, given, wrt=["r", "d"], **settings)
    np.testing.assert_allclose(found.attributions["r"], [[8 / 3]], rtol=1e-6)
    np.testing.assert_allclose(found.attributions["d"], [[4 / 3]], rtol=1e-6)


@pytest.mark.parametrize("x", [1.5, -3.0])
def test_what_passes_beside_is_attributed_to_the_input(x):
    fn = differentiate(SKIP, "torch", precision="float64")
    found = conductance(fn, np.array([[x]]), wrt="s", steps=1001)
    np.testing.assert_allclose(found.attributions, [[4 / 3 * x**3 + x**4]], rtol=1e-5)
    np.testing.assert_allclose(found.beside["x"], [[x**2 + 2 / 3 * x**3]], rtol=1e-5)
    np.testing.assert_allclose(found.completeness.output, (x + x**2) ** 2)
    np.testing.assert_allclose(found.delta, 0, atol=1e-6)


@pytest.mark.parametrize("layer", ["first", "middle", "last.1", "last.2"])
def test_it_is_complete_to_the_tolerance(layer):
    net, x, baseline, _ = residual()
    found = conductance(on("onnxruntime"), x.numpy(), 2, wrt=layer, baseline=baseline.numpy(), tolerance=0.01)
    with torch.no_grad():
        difference = (net(x) - net(baseline))[:, 2].numpy()
    np.testing.assert_allclose(found.completeness.output, difference, atol=1e-5)
    total = found.attributions.reshape(3, -1).sum(axis=1)
    if layer == "middle":
        beside = found.beside["x"].reshape(3, -1).sum(axis=1)
        assert np.abs(beside).max() > np.abs(difference).max()
        total = total + beside
    else:
        assert not found.beside
    assert found.converged.all()
    assert (np.abs(total - difference) <= 0.01 * np.abs(difference) + 1e-5).all()


def test_the_stated_error_of_the_map_is_its_true_error():
    _, x, baseline, _ = residual()
    given = {"at": "first", "baseline": baseline.numpy()}
    truth = conductance(on("onnxruntime"), x.numpy(), 2, **given, steps=1501).attributions
    found = conductance(on("onnxruntime"), x.numpy(), 2, **given, tolerance=0.01)
    true = [relative(a, b) for a, b in zip(found.attributions, truth, strict=True)]
    assert found.spent.max() < 200
    assert 0.4 < np.sqrt(np.mean(found.map_error**2) / np.mean(np.square(true))) < 2.5


@pytest.mark.parametrize("settings", [{"steps": 9}, {"tolerance": 0.02}])
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_highest_classes_share_one_path(backend, settings):
    """As so many calls of one class each, also in what passes beside."""
    net, x, baseline, _ = residual()
    given = {"wrt": "middle", "baseline": [baseline.numpy(), 0.0], **settings}
    found = conductance(on(backend), x.numpy(), Target(top=3), **given)
    np.testing.assert_array_equal(found.target, net(x).detach().topk(3, dim=1).indices)
    assert found.attributions.shape == (3, 3, 4, 6, 6) and found.beside["x"].shape == (3, 3, 2, 6, 6)
    for k in range(3):
        one, alone = found.rank(k), conductance(on(backend), x.numpy(), found.target[:, k], **given)
        np.testing.assert_allclose(one.output, alone.output, rtol=1e-6)
        np.testing.assert_allclose(one.completeness.output, alone.completeness.output, atol=1e-5)
        total = sum(array.reshape(3, -1).sum(1) for array in (one.attributions, one.beside["x"]))
        np.testing.assert_allclose(one.delta, total - one.completeness.output, atol=1e-5)
        # Refined together, every class is met: each has the points that the others needed, too.
        near = 1e-5 if "steps" in settings else 0.1
        assert relative(one.attributions, alone.attributions) < near
        assert relative(one.beside["x"], alone.beside["x"]) < near
        # A fixed rule measures the error of the sum alone, and claims nothing.
        assert one.converged.all() == ("tolerance" in settings)
    with pytest.raises(AnalysisError, match="no ranks"):
        found.rank(0).rank(0)


@functools.cache
def text() -> Any:
    torch.manual_seed(1)
    net, words = Text().eval(), torch.tensor([[1, 4, 2, 8], [3, 3, 0, 5]])
    return net, words, convert(net, words)


@pytest.mark.parametrize("backend", BACKENDS)
def test_paths_of_tokens_run_along_their_vectors(backend):
    net, words, model = text()
    fn = differentiate(model, backend)
    found = conductance(fn, words.numpy(), 1, wrt="block", along="embedding", steps=9, rule="left")
    with torch.no_grad():
        vectors = net.words(words)
    rest = nn.Sequential(net.block, Mean(), net.head)
    # The encoder's fast path in evaluation has no hooks.
    with torch.enable_grad():
        peer = captum.attr.LayerConductance(rest, rest[0])
        expected = peer.attribute(vectors, target=1, n_steps=8, method="riemann_trapezoid")
    assert relative(found.attributions, expected.detach().numpy()) <= 1e-4


class Mean(nn.Module):
    """Over the tokens."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.mean(1)


def test_padding_tokens_are_a_baseline():
    _, words, model = text()
    fn = differentiate(model)
    padding = np.zeros_like(words.numpy())
    found = conductance(fn, words.numpy(), 1, wrt="block", along="embedding", baseline_inputs=padding)
    (vectors,) = fn.roots("embedding")
    part = cut(fn, [vectors])
    ends = [fn.forward(tokens, [vectors])[vectors] for tokens in (words.numpy(), padding)]
    expected = conductance(part, ends[0], 1, wrt="block", baseline=ends[1])
    np.testing.assert_allclose(found.attributions, expected.attributions, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("settings", [{"steps": 20}, {"tolerance": 0.01}])
def test_several_baselines_are_averaged(settings):
    _, x, baseline, _ = residual()
    fn, starts = on("onnxruntime"), [0.0, baseline.numpy(), 0.5]
    found = conductance(fn, x.numpy(), 2, wrt="middle", baseline=starts, **settings)
    each = [conductance(fn, x.numpy(), 2, wrt="middle", baseline=start, **settings) for start in starts]
    maps = np.stack([one.attributions for one in each])
    np.testing.assert_allclose(found.attributions, maps.mean(axis=0), atol=1e-5)
    np.testing.assert_allclose(found.standard_error, maps.std(axis=0, ddof=1) / np.sqrt(3), atol=1e-5)
    np.testing.assert_allclose(
        found.beside["x"], np.mean([one.beside["x"] for one in each], axis=0), atol=1e-5
    )


def test_results_do_not_depend_on_the_batch_or_on_memory():
    _, x, _, model = residual()
    whole = conductance(on("onnxruntime"), x.numpy(), 2, wrt="middle", steps=11)
    tight = differentiate(model, max_memory="1 MiB")
    small = conductance(tight, x.numpy(), 2, wrt="middle", steps=11, batch_size=2)
    np.testing.assert_allclose(small.attributions, whole.attributions, atol=1e-5)
    np.testing.assert_allclose(small.delta, whole.delta, atol=1e-5)


@pytest.mark.parametrize("settings", [{"steps": 60}, {"tolerance": 1e-6}])
def test_an_interrupt_leaves_what_is_known_with_its_error(settings):
    _, x, baseline, _ = residual()

    def interrupt(done: int, planned: int) -> None:
        if done >= 3 * 20:
            raise KeyboardInterrupt

    given = {"wrt": "middle", "baseline": baseline.numpy()}
    found = conductance(
        on("onnxruntime"), x.numpy(), 2, **given, **settings, progress=interrupt, batch_size=3
    )
    truth = conductance(on("onnxruntime"), x.numpy(), 2, **given, steps=200)
    assert found.interrupted
    assert not found.converged.any()
    np.testing.assert_allclose(found.completeness.output, truth.completeness.output, atol=1e-5)
    assert relative(found.attributions, truth.attributions) < 0.1


def test_a_unit_in_the_network_is_a_target():
    net, x, _, _ = residual()
    found = conductance(on("torch"), x.numpy(), Target("max_pool2d", index=(1, 2, 0)), wrt="first", steps=100)
    with torch.no_grad():
        inner = [net.last[0](h + net.middle(h)) for h in (net.first(x), net.first(0 * x))]
    expected = (inner[0] - inner[1])[:, 1, 2, 0].numpy()
    np.testing.assert_allclose(found.completeness.output, expected, atol=1e-5)
    np.testing.assert_allclose(found.completeness.total, expected, atol=0.02)
    with pytest.raises(AnalysisError, match="'relu', which is explained, is not computed from linear"):
        conductance(on("torch"), x.numpy(), Target("relu", index=(1, 2, 0)), wrt="last.2")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"rule": "gauss-legendre"}, AnalysisError, "choose from trapezoid, left, right"),
        ({"steps": 1}, AnalysisError, "at least 2 steps"),
        ({"wrt": "nowhere"}, UnknownTensor, "'nowhere'"),
        ({"wrt": ["first", "middle"]}, AnalysisError, "is computed from"),
        ({"tolerance": -1.0}, AnalysisError, "above 0"),
        ({"map_tolerance": 0.1}, AnalysisError, "map_tolerance without tolerance"),
        ({"batch_size": 0}, AnalysisError, "at least 1"),
    ],
)
def test_what_is_refused(options, error, message):
    _, x, _, _ = residual()
    with pytest.raises(error, match=message):
        conductance(on("onnxruntime"), x.numpy(), 0, **{"wrt": "middle", **options})


def test_the_old_name_of_an_option_works_and_warns():
    _, x, _, _ = residual()
    fn = on("onnxruntime")
    expected = conductance(fn, x.numpy(), 0, wrt="middle", steps=4).attributions
    with pytest.warns(DeprecationWarning, match=r"conductance\(at=…\) is now conductance\(wrt=…\)"):
        found = conductance(fn, x.numpy(), 0, at="middle", steps=4).attributions
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(AnalysisError, match="Fix: give wrt= alone"):
        conductance(fn, x.numpy(), 0, at="middle", wrt="middle")
