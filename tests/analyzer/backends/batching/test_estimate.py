"""Estimates against the bytes that frameworks hold, counted tensor by tensor, and how they grow."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import nn

from analyzer import differentiate
from analyzer.autodiff.request import observe
from analyzer.backends.batching.planning import Call, plan
from converters import Model, convert
from tests.analyzer.backends.held import held
from tests.zoo.pytorch_sequences import Recurrent

WIDTH, STEPS, SAMPLES = 32, 16, 64
KINDS = {"LSTM": nn.LSTM, "GRU": nn.GRU, "RNN": nn.RNN}
STATES = STEPS * SAMPLES * WIDTH * 4
"""The bytes of the hidden states of all steps."""


@functools.cache
def network(kind: str, steps: int) -> Model:
    """A converted recurrent classifier; PyTorch's exporter writes LSTM and GRU as ops, and unrolls RNN."""
    return convert(Recurrent(KINDS[kind], width=WIDTH).eval(), torch.zeros(2, steps, 4))


def need(fn, x):
    """Return the estimate for the gradient at the input."""
    names = fn.differentiable_inputs
    call = Call(observe(names, names), (), fn.bind(x, 0).seed)
    return plan(fn, call, {names[0]: x}).estimate.bytes(len(x))


def grown(kind, backend, steps):
    """The bytes by which need and the most that is held grow with `SAMPLES` more samples: no fixed part counts."""
    fn = differentiate(network(kind, steps), backend)
    needs, most = [], []
    for samples in (SAMPLES, 2 * SAMPLES):
        x = np.zeros((samples, steps, 4), np.float32)
        # The first call makes the framework's copies of the weights.
        fn.gradients(x, 0)
        with held(backend) as found:
            fn.gradients(x, 0)
        needs.append(need(fn, x))
        most.append(found.most)
    return needs[1] - needs[0], most[1] - most[0]


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_need_covers_what_is_held(kind, backend):
    needed, most = grown(kind, backend, STEPS)
    assert most <= needed <= 4 * most


def test_the_count_sees_what_autograd_saves():
    # The input's share of four gates; of each step the gates i, f, o and the candidate, c and tanh(c); and h.
    _, most = grown("LSTM", "torch", STEPS)
    assert most >= (4 + 6 + 1) * STATES


@pytest.mark.parametrize("backend", ["torch", "tensorflow"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_memory_grows_in_proportion_to_the_steps(kind, backend):
    # The gradient at an element that was taken by its index would be as large as the whole sequence, for every step.
    (needed, most), (twice_needed, twice) = (grown(kind, backend, steps) for steps in (STEPS, 2 * STEPS))
    assert twice == pytest.approx(2 * most, rel=0.1)
    assert twice_needed == pytest.approx(2 * needed, rel=0.1)


def test_onnxruntime_is_counted_with_what_the_scan_on_the_way_back_reads_and_writes():
    # Four gates, the states h and c before each step, and the gradients of four gates.
    fn = differentiate(network("LSTM", STEPS))
    few, more = (need(fn, np.zeros((samples, STEPS, 4), np.float32)) for samples in (SAMPLES, 2 * SAMPLES))
    assert more - few >= (4 + 2 + 4) * STATES


@pytest.mark.parametrize("backend", ["onnxruntime", "torch", "tensorflow"])
def test_an_unrolled_sequence_needs_in_proportion_to_its_steps(backend):
    # Every step contributes a gradient of the whole sequence: they are added as they come.
    few, more = (
        need(fn, np.zeros((2 * SAMPLES, steps, 4), np.float32))
        - need(fn, np.zeros((SAMPLES, steps, 4), np.float32))
        for steps in (STEPS, 2 * STEPS)
        for fn in [differentiate(network("RNN", steps), backend)]
    )
    assert more == pytest.approx(2 * few, rel=0.2)
