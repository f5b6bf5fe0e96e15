"""A batch as runs side by side: how it is divided, that it gives what one run gives, and what is left whole."""

from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import Target, differentiate, full_grad, integrated_gradients
from analyzer.backends.batching import micro_batches
from analyzer.backends.batching import parallel as module
from analyzer.backends.batching.parallel import _run_size
from analyzer.backends.onnxruntime import OnnxRuntime
from analyzer.errors import AnalysisError, BackendError
from converters import convert
from tests.zoo.pytorch_networks import NETWORKS


@pytest.fixture
def eager(monkeypatch):
    """Batches of any size are divided, among two threads; the engines that computed something are returned."""
    monkeypatch.setattr(module, "_LEAST_TENSORS", 0)
    monkeypatch.setattr("analyzer.backends.onnxruntime.available_cores", lambda: 2)
    seen = []
    evaluate = OnnxRuntime._run_session

    def recorded(self, *arguments):
        seen.append((self._threads, threading.get_ident()))
        return evaluate(self, *arguments)

    monkeypatch.setattr(OnnxRuntime, "_run_session", recorded)
    return seen


@pytest.fixture(scope="module")
def network():
    net, shape = NETWORKS["resnet18"]()
    x = torch.randn(7, *shape, generator=torch.Generator().manual_seed(6))
    return convert(net.eval(), x), x.numpy()


@pytest.mark.parametrize(
    "samples, threads, size",
    [
        (1, 2, None),
        (2, 2, 1),
        (3, 2, None),
        (4, 2, 2),
        (5, 2, 3),
        (7, 2, 4),
        (8, 2, 4),
        (16, 2, 4),
        (50, 2, 4),
        (9, 2, None),
        (8, 16, None),
        (13, 16, 1),
        (16, 16, 1),
        (17, 16, None),
        (64, 16, 4),
        (16, 1, None),
    ],
)
def test_a_batch_is_divided_so_that_all_threads_are_busy(samples, threads, size):
    assert _run_size(samples, threads) == size


OPTIONS = [
    None,
    3,
    np.array([0, 1, 2, 3, 4, 5, 6]),
    Target(top=2),
    Target(weights=np.arange(70.0).reshape(7, 10)),
    Target(index=np.array([[1, 2]] * 7)),
]


def both(monkeypatch, call):
    """What is found side by side, and at once."""
    apart = call()
    with monkeypatch.context() as patched:
        patched.setattr(micro_batches, "in_parallel", lambda *_: None)
        return apart, call()


@pytest.mark.parametrize("target", OPTIONS, ids=str)
def test_gradients_side_by_side_are_those_of_the_batch(network, target, eager, monkeypatch):
    model, x = network
    fn = differentiate(model)
    wrt = [fn.graph.inputs[0], fn.tensors[4]]
    apart, whole = both(monkeypatch, lambda: fn.gradients(x, target, wrt=wrt))
    assert {threads for threads, _ in eager} == {1, None}
    assert np.allclose(apart.output, whole.output, rtol=1e-5)
    assert np.array_equal(apart.target, whole.target) if whole.target is not None else apart.target is None
    for name in wrt:
        assert apart.gradients[name].shape == whole.gradients[name].shape
        difference = np.linalg.norm(apart.gradients[name] - whole.gradients[name])
        assert difference <= 1e-5 * np.linalg.norm(whole.gradients[name])


def test_methods_give_the_same_side_by_side(network, eager, monkeypatch):
    model, x = network
    fn = differentiate(model)
    apart, whole = both(monkeypatch, lambda: full_grad(fn, x, 1))
    assert np.allclose(apart.map, whole.map, atol=1e-4 * np.abs(whole.map).max())
    assert np.allclose(apart.completeness.total, whole.completeness.total, rtol=1e-4)
    apart, whole = both(monkeypatch, lambda: integrated_gradients(fn, x, 1, steps=3))
    assert np.allclose(apart.attributions, whole.attributions, atol=1e-5 * np.abs(whole.attributions).max())


class Mixed(nn.Module):
    """Each sample is seen from the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3)

    def forward(self, x):
        return torch.tanh(self.linear(x - x.mean(0, keepdim=True)))


def test_samples_that_depend_on_each_other_are_computed_at_once(eager):
    torch.manual_seed(0)
    x = torch.randn(6, 4)
    net = Mixed().eval()
    fn = differentiate(convert(net, x))
    leaf = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)
    column = Target(weights=np.eye(3, dtype=np.float32)[1] * np.ones((6, 1), np.float32))
    assert np.allclose(
        fn.gradients(x.numpy(), column).gradients[fn.graph.inputs[0]], expected.numpy(), atol=1e-6
    )


def test_double_precision_and_frameworks_are_computed_at_once(network, eager):
    model, _ = network
    torch.manual_seed(0)
    double = convert(nn.Sequential(nn.Linear(4, 3), nn.Tanh()).double(), torch.zeros(2, 4).double())
    assert differentiate(double).engine.single is None
    assert differentiate(model, "torch").engine.single is None
    assert differentiate(model, threads=1).engine.single is None


def test_errors_of_a_run_are_raised(network, eager, monkeypatch):
    model, x = network

    def broken(self, *arguments):
        raise BackendError("ONNX Runtime could not run the graph: no")

    fn = differentiate(model)
    fn.gradients(x, 1)
    monkeypatch.setattr(OnnxRuntime, "_run_session", broken)
    with pytest.raises(AnalysisError, match="could not run"):
        fn.gradients(x, 1)
