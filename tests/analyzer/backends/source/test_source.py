"""The source backend: the original network under the names of its ONNX graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import Target, differentiate, full_grad
from analyzer.backends.source.matching import match
from analyzer.errors import AnalysisError, BackendError
from converters import Model, convert


class Gated(nn.Module):
    """A SiLU, whose sigmoid PyTorch never names, and a branch that is read twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, padding=1)
        self.last = nn.Linear(4, 5)

    def forward(self, x):
        h = nn.functional.silu(self.first(x))
        return self.last((h + torch.tanh(h)).mean((2, 3)))


@pytest.fixture(scope="module")
def gated():
    torch.manual_seed(0)
    net = Gated().eval()
    x = torch.randn(2, 3, 6, 5)
    return net, x, convert(net, x)


def test_gradients_are_those_of_the_network_itself(gated):
    net, x, model = gated
    x = x.clone().requires_grad_()
    activations = {}
    net.first.register_forward_hook(lambda module, _, output: activations.update(first=output))
    expected = torch.autograd.grad(net(x)[:, 2].sum(), [x, activations["first"]])
    fn = differentiate(model, "source")
    conv = next(node for node in fn.graph.nodes if node.op_type == "Conv").outputs[0]
    (name,) = fn.graph.inputs
    found = fn.gradients(x.detach().numpy(), 2, [name, conv])
    np.testing.assert_allclose(found.gradients[name], expected[0], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.gradients[conv], expected[1], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.values[conv], activations["first"].detach(), rtol=1e-5, atol=1e-7)


def test_a_tensor_that_the_source_never_names_is_derived_from_those_it_has(gated):
    _, x, model = gated
    fn, reference = differentiate(model, "source"), differentiate(model, "torch")
    sigmoid = next(node for node in fn.graph.nodes if node.op_type == "Sigmoid").outputs[0]
    found, expected = (f.gradients(x.numpy(), 1, [sigmoid]) for f in (fn, reference))
    assert sigmoid not in fn.engine.found
    np.testing.assert_allclose(found.gradients[sigmoid], expected.gradients[sigmoid], rtol=1e-5, atol=1e-7)
    assert full_grad(fn, x.numpy(), 1).completeness.error.max() <= 1e-5


def test_a_network_that_does_not_take_the_inputs_is_refused_in_one_line(gated):
    _, x, model = gated
    other = convert(nn.Sequential(nn.Flatten(), nn.Linear(7, 5)), torch.randn(2, 7))
    mixed = Model(model.proto, source=other.source)
    with pytest.raises(BackendError, match="does not run on these inputs") as caught:
        differentiate(mixed, "source").gradients(x.numpy(), 0)
    assert "\n" not in str(caught.value)


def test_values_that_the_source_does_not_have_are_named(gated):
    _, x, model = gated
    fn = differentiate(model, "source")
    sigmoid = next(node for node in fn.graph.nodes if node.op_type == "Sigmoid").outputs[0]
    with pytest.raises(AnalysisError, match="the source has no tensor"):
        fn.forward(x.numpy(), [sigmoid])


def test_weights_over_the_output(gated):
    _, x, model = gated
    weights = np.arange(10, dtype=np.float32).reshape(2, 5)
    a, b = (
        differentiate(model, backend).gradients(x.numpy(), Target(weights=weights))
        for backend in ("source", "onnxruntime")
    )
    np.testing.assert_allclose(a.output, b.output, rtol=1e-5)
    for name in a.gradients:
        np.testing.assert_allclose(a.gradients[name], b.gradients[name], rtol=1e-4, atol=1e-6)


class Specialised(nn.Module):
    """A network that asks for the number of samples, which tracing then fixes."""

    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(1, 1, 4) / 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        return self.head(torch.cat([self.token.expand(len(x), -1, -1), torch.tanh(x)], 1).mean(1))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("samples", [1, 2, 5])
@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "source"])
def test_a_traced_batch_size_is_looped_over(samples, backend):
    torch.manual_seed(1)
    net = Specialised().eval()
    model = convert(net, torch.randn(2, 6, 4))
    x = torch.randn(samples, 6, 4, requires_grad=True)
    (expected,) = torch.autograd.grad(net(x)[:, 1].sum(), x)
    found = differentiate(model, backend).gradients(x.detach().numpy(), 1)
    assert found.output.shape == (samples,)
    (gradient,) = found.gradients.values()
    assert gradient.shape == x.shape
    np.testing.assert_allclose(gradient, expected, rtol=1e-5, atol=1e-7)
    fg = full_grad(differentiate(model, backend), x.detach().numpy(), 1)
    assert fg.completeness.error.shape == (samples,)
    assert fg.completeness.error.max() <= 1e-5


RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(2, 3, 4, 5)).astype(np.float32)


def test_matching_by_name_finds_the_order_of_the_axes():
    channels_last = IMAGE.transpose(0, 2, 3, 1)
    found = match({"a": IMAGE}, {"a:0": channels_last}, {"a": ["a:0"]}, frozenset(), frozenset())
    np.testing.assert_array_equal(found["a"].to_onnx(channels_last), IMAGE)
    np.testing.assert_array_equal(found["a"].to_onnx(channels_last[:1]), IMAGE[:1])


def test_a_name_that_holds_another_value_is_not_trusted():
    other = RNG.normal(size=IMAGE.shape).astype(np.float32)
    assert match({"a": IMAGE}, {"a": other}, {"a": ["a"]}, frozenset({"a"}), frozenset({"a"})) == {}
    trusted = match({"a": IMAGE}, {"a": other}, {"a": ["a"]}, frozenset(), frozenset(), trusted={"a"})
    np.testing.assert_array_equal(trusted["a"].to_onnx(other), other)


def test_matching_by_value_pairs_equal_tensors_in_order_and_leaves_the_doubtful_ones():
    names = frozenset({"a", "b"})
    sources = frozenset({"p", "q"})
    twice = {"p": IMAGE, "q": IMAGE}
    paired = match({"a": IMAGE, "b": IMAGE}, twice, {}, names, sources)
    assert {name: matched.name for name, matched in paired.items()} == {"a": "p", "b": "q"}
    assert match({"a": IMAGE}, twice, {}, names, sources) == {}
    squeezed = {"p": IMAGE[:, :, :1, :1].reshape(2, 3)}
    found = match({"a": IMAGE[:, :, :1, :1]}, squeezed, {}, names, sources)
    np.testing.assert_array_equal(found["a"].to_onnx(squeezed["p"]), IMAGE[:, :, :1, :1])


def test_the_mask_of_an_attention_does_not_hide_that_values_differ():
    scores = np.random.default_rng(0).normal(size=(1, 4, 4)).astype(np.float32)
    hidden = np.triu(np.ones((4, 4), bool), 1)
    for far in (-1e9, -3.4e38, -np.inf):
        masked, mask = np.where(hidden, far, scores), np.where(hidden, far, 0 * scores)
        names = {"a": ["s"], "b": ["s"]}
        found = match({"a": masked, "b": mask}, {"s": masked.copy()}, names, frozenset(), frozenset())
        assert set(found) == {"a"}
