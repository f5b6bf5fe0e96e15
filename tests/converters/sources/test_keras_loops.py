"""Keras layers that tf2onnx exports as loops: written out, verified, and differentiated alike by every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from analyzer import check, full_grad
from converters import convert
from tests.converters.helpers import ops

RECURRENT: dict[str, Callable[[], Any]] = {
    "GRU": lambda: layers.GRU(7),
    "GRU that resets before its product": lambda: layers.GRU(7, reset_after=False),
    "SimpleRNN": lambda: layers.SimpleRNN(7),
    "Bidirectional GRU": lambda: layers.Bidirectional(layers.GRU(5, return_sequences=True)),
    "TimeDistributed Dense": lambda: layers.TimeDistributed(layers.Dense(3, activation="tanh")),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_a_keras_loop_is_written_out_and_explained_alike_by_all_backends(name: str) -> None:
    inputs = keras.Input((4, 3))
    hidden = RECURRENT[name]()(inputs)
    net = keras.Model(inputs, layers.Dense(4)(layers.Flatten()(hidden)))
    rng = np.random.default_rng(0)
    for weight in net.weights:
        weight.assign(rng.normal(0, 0.4, weight.shape))
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    model = convert(net)
    assert model.verification is not None and model.verification.relative_l2 < 1e-5
    assert not ops(model.proto).keys() & {"Loop", "Scan", "If"}
    check(model, x, target=1).raise_for_disagreement()
    assert full_grad(model, x, target=1, terms="all").completeness.error.max() < 1e-4
