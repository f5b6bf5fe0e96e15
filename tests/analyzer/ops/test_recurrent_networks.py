"""Recurrent networks of PyTorch and Keras: one gradient on four backends, FullGrad complete, any number of samples."""

from __future__ import annotations

import functools
from typing import Any

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from analyzer import differentiate, full_grad
from converters import convert
from tests.converters.helpers import ops

BACKENDS = ("onnxruntime", "torch", "tensorflow", "source")
STEPS, FEATURES, HIDDEN, TARGET = 6, 5, 4, 1


class Classifier(nn.Module):
    """A linear layer on what a recurrent one says: at the last step, on average, or its last states."""

    def __init__(self, kind: str, reads: str, **given: Any) -> None:
        super().__init__()
        self.reads = reads
        self.recurrent = getattr(nn, kind)(FEATURES, HIDDEN, **{"batch_first": True, **given})
        states = 1 if reads in ("hidden", "cell") or not given.get("bidirectional") else 2
        self.head = nn.Linear(HIDDEN * states, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.recurrent.batch_first
        y, states = self.recurrent(x if first else x.transpose(0, 1))
        y = y if first else y.transpose(0, 1)
        hidden, cell = states if isinstance(states, tuple) else (states, states)
        read = {"step": lambda: y[:, -1], "mean": lambda: y.mean(1)}
        return self.head({**read, "hidden": lambda: hidden[-1], "cell": lambda: cell[-1]}[self.reads]())


PYTORCH: dict[str, tuple[str, str, dict[str, Any]]] = {
    "LSTM": ("LSTM", "step", {}),
    "LSTM, hidden state": ("LSTM", "hidden", {}),
    "LSTM, cell state": ("LSTM", "cell", {"bias": False}),
    "two bidirectional LSTMs": ("LSTM", "mean", {"num_layers": 2, "bidirectional": True}),
    "LSTM, sequence first": ("LSTM", "step", {"batch_first": False}),
    "GRU": ("GRU", "step", {"bidirectional": True}),
    "two GRUs, hidden state": ("GRU", "hidden", {"num_layers": 2}),
    "RNN": ("RNN", "mean", {"bidirectional": True}),
}
KERAS = {
    "LSTM": lambda: [layers.LSTM(HIDDEN)],
    "LSTM of every step": lambda: [
        layers.LSTM(HIDDEN, return_sequences=True),
        layers.GlobalAveragePooling1D(),
    ],
    "bidirectional": lambda: [
        layers.Bidirectional(layers.LSTM(HIDDEN, return_sequences=True)),
        layers.Bidirectional(layers.LSTM(HIDDEN)),
    ],
}


@functools.cache
def pytorch(name: str) -> tuple[nn.Module, np.ndarray, Any]:
    kind, reads, given = PYTORCH[name]
    torch.manual_seed(2)
    net = Classifier(kind, reads, **given).eval()
    x = torch.randn(3, STEPS, FEATURES)
    return net, x.numpy(), convert(net, x[:2])


def assert_close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert np.linalg.norm(found - expected) <= tolerance * np.linalg.norm(expected)


@pytest.mark.parametrize("name", PYTORCH)
def test_gradient_of_every_backend_is_that_of_autograd(name):
    net, x, model = pytorch(name)
    given = torch.tensor(x, requires_grad=True)
    net(given)[:, TARGET].sum().backward()
    kind = PYTORCH[name][0]
    # The exporter writes nn.RNN out step by step.
    assert kind == "RNN" or kind in ops(model.proto)
    for backend in BACKENDS:
        found = differentiate(model, backend=backend).gradients(x, TARGET)
        assert_close(found.gradients["x"], given.grad.numpy())


@pytest.mark.parametrize("name", PYTORCH)
def test_full_grad_is_complete(name):
    _, x, model = pytorch(name)
    for backend in ("onnxruntime", "source"):
        assert full_grad(differentiate(model, backend=backend), x, TARGET).completeness.error.max() <= 1e-4
    double = differentiate(model, backend="torch", precision="float64")
    assert full_grad(double, x, TARGET).completeness.error.max() <= 1e-10


def test_bias_term_of_a_recurrent_layer_is_found():
    """Without it the input term and the linear layer's bias leave most of the output unexplained."""
    _, x, model = pytorch("LSTM")
    found = full_grad(model, x, TARGET)
    (term,) = [one for one in found.contributions if one.op_type == "LSTM"]
    missing = np.abs(found.completeness.total - term.total - found.completeness.output)
    np.testing.assert_allclose(missing, np.abs(term.total), rtol=1e-3)
    assert (np.abs(term.total) > 1e-3).all()


@pytest.mark.parametrize("name", ["LSTM", "LSTM, sequence first"])
def test_map_of_a_sequence_has_a_value_for_every_step(name):
    _, x, model = pytorch(name)
    assert full_grad(model, x, TARGET).map.shape == (len(x), STEPS)


@pytest.mark.parametrize("name", KERAS)
def test_keras_lstm_agrees_on_every_backend(name):
    net = keras.Sequential([keras.Input((None, FEATURES)), *KERAS[name](), layers.Dense(3)])
    rng = np.random.default_rng(4)
    for weight in net.weights:
        weight.assign(rng.normal(0, 0.5, weight.shape))
    x = rng.standard_normal((3, STEPS, FEATURES)).astype(np.float32)
    model = convert(net, x)
    assert "LSTM" in ops(model.proto)
    # The length is open too: the sequence may be another than that of the example.
    longer = np.concatenate([x, x[:, ::-1]], axis=1)
    expected = None
    for backend in BACKENDS:
        fn = differentiate(model, backend=backend)
        (gradient,) = fn.gradients(longer, TARGET).gradients.values()
        expected = gradient if expected is None else expected
        assert_close(gradient, expected)
        assert full_grad(fn, longer, TARGET).completeness.error.max() <= 1e-4
    double = differentiate(model, backend="torch", precision="float64")
    assert full_grad(double, longer, TARGET).completeness.error.max() <= 1e-10
