"""Conversions and analyses that run at the same time give the results of one after the other."""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import keras
import numpy as np
import onnx.parser
import pytest
import torch

from analyzer import differentiate, full_grad
from converters import convert, load

X = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
FILE = onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["": 21]> g (float[n,6] x) => (float[n,3] y)'
    " <float[3] b = {0.5, -0.5, 1}>"
    " { h, t = Split<axis = 1, num_outputs = 2>(x) r = Relu(h) p = Mul(r, t) y = Add(p, b) }"
)


def networks():
    """A network of each kind, with the backend that runs it as its users do."""
    torch.manual_seed(0)
    keras.utils.set_random_seed(0)
    linear = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3)).eval()
    norm = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.LayerNorm(8), torch.nn.Linear(8, 3)).eval()
    layers = [keras.layers.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    return [
        lambda: differentiate(convert(linear, X), backend="torch"),
        lambda: differentiate(convert(norm, X), backend="source"),
        lambda: differentiate(convert(keras.Sequential(layers), X), backend="tensorflow"),
        lambda: differentiate(load(FILE), backend="onnxruntime"),
    ]


def test_eight_threads_convert_and_explain_as_one_does():
    makers = networks()

    def explained(number):
        return full_grad(makers[number % 4](), X, target=1).map

    alone = [explained(number) for number in range(4)]
    before = sys.stdout, sys.stderr, list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(explained, range(24)))
    assert (sys.stdout, sys.stderr, list(warnings.filters)) == before
    for number, found in enumerate(together):
        np.testing.assert_array_equal(found, alone[number % 4])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_forked_process_uses_what_its_parent_made():
    fn = differentiate(load(FILE), backend="onnxruntime")
    expected = full_grad(fn, X, target=1).map
    child = os.fork()
    if not child:
        os._exit(0 if np.array_equal(full_grad(fn, X, target=1).map, expected) else 1)
    for _ in range(600):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the child hangs")
    assert status == 0
