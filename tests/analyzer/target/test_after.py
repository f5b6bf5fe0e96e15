"""Targets with `after`: probabilities and their logarithms of outputs that hold logits."""

import numpy as np
import pytest
import torch

import onnxplain as ox

CLASSES = [1, 4, 0]
FORMS = {"softmax": torch.softmax, "log-softmax": torch.log_softmax}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.GELU(), torch.nn.Linear(8, 5)
    ).eval()
    x = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32)
    return net, x, ox.convert(net, x)


def by_autograd(net, x, after):
    """The output and its gradient in float64."""
    double = torch.nn.Sequential(*(type(p)() if not list(p.parameters()) else p for p in net)).double()
    z = torch.tensor(x.astype(np.float64), requires_grad=True)
    y = FORMS[after](double(z), -1)[torch.arange(len(x)), CLASSES]
    (gradient,) = torch.autograd.grad(y.sum(), z)
    net.float()
    return y.detach().numpy(), gradient.numpy()


@pytest.mark.parametrize("after", FORMS)
@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "source"])
def test_gradients_are_those_of_the_probability(network, backend, after):
    net, x, model = network
    output, gradient = by_autograd(net, x, after)
    fn = ox.differentiate(model, backend)
    found = ox.gradient(fn, x, ox.Target(CLASSES, after=after))
    np.testing.assert_allclose(found.output, output, atol=1e-6)
    np.testing.assert_allclose(found.attributions, gradient, atol=1e-6)
    # The classes of a result explain the same again.
    np.testing.assert_allclose(ox.gradient(fn, x, found.target).output, output, atol=1e-6)
    full = ox.full_grad(fn, x, ox.Target(CLASSES, after=after))
    assert full.completeness.error.max() < 1e-5


def test_a_path_and_a_check_take_it(network):
    _, x, model = network
    target = ox.Target(CLASSES, after="log-softmax")
    ig = ox.integrated_gradients(model, x, target, tolerance=1e-3)
    assert ig.completeness.error.max() < 1e-3
    top = ox.integrated_gradients(model, x, ox.Target(top=2, after="log-softmax"))
    logits = next(iter(ox.differentiate(model).forward(x).values()))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    np.testing.assert_allclose(top.output, -np.sort(-logs, axis=1)[:, :2], atol=1e-5)
    ox.check(model, x, target=target, backends=["torch", "source"]).raise_for_disagreement()


def test_differences_of_log_probabilities_are_those_of_logits(network):
    _, x, model = network
    difference = ox.Target(1, after="log-softmax") - ox.Target(2, after="log-softmax")
    found, logits = (
        ox.gradient(model, x, one) for one in (difference, ox.Target(index=1) - ox.Target(index=2))
    )
    np.testing.assert_allclose(found.output, logits.output, atol=1e-6)
    np.testing.assert_allclose(found.attributions, logits.attributions, atol=1e-6)


def test_probabilities_are_explained_at_their_logits_first(network):
    net, x, _ = network
    model = ox.convert(torch.nn.Sequential(net, torch.nn.Softmax(-1)), x)
    with pytest.raises(ox.AnalysisError, match=r'expected logits.*before="softmax"'):
        ox.gradient(model, x, ox.Target(1, after="log-softmax"))
    found = ox.gradient(model, x, ox.Target(CLASSES, before="softmax", after="log-softmax"))
    np.testing.assert_allclose(found.output, by_autograd(net, x, "log-softmax")[0], atol=1e-6)


def test_what_is_not_an_activation_or_has_no_axis_is_refused(network):
    _, x, model = network
    with pytest.raises(ox.AnalysisError, match="unknown after='sigmoid'"):
        ox.Target(1, after="sigmoid")
    with pytest.raises(ox.AnalysisError, match="one output"):
        ox.Target(weights={"a": np.ones(3)}, after="softmax")
    with pytest.raises(ox.AnalysisError, match="compare the logits"):
        ox.compare(model, model, x, target=ox.Target(1, after="softmax"))
    grid = ox.convert(torch.nn.Conv1d(3, 5, 1), x)
    with pytest.raises(ox.AnalysisError, match="axis=-1"):
        ox.gradient(grid, x, ox.Target(position=(0,), after="softmax"))
    along = ox.gradient(grid, x, ox.Target(position=(2, 1), after="softmax", axis=1))
    y = next(iter(ox.differentiate(grid).forward(x).values()))
    np.testing.assert_allclose(along.output, torch.softmax(torch.tensor(y), 1)[:, 2, 1].numpy(), atol=1e-6)
