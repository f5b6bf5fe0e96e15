"""The sums of a term by cell, and its ψ: the same numbers as the term multiplied out, in every layout."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.methods.full_gradient.maps import PUBLISHED, PYTORCH_GRAD_CAM
from analyzer.methods.full_gradient.stacks import term_sums
from analyzer.methods.full_gradient.term_sums import Laid, channel_weights
from analyzer.placement import whole
from analyzer.placement.terms import Placement, Spot

SAMPLES, CELLS = 2, 6


def emitted(laid, psi):
    """Signed, absolute and salient sums (N, cells) on ONNX Runtime; `laid` is given as arrays."""
    op = Builder(23)
    # A last axis of one element is left out.
    cells = laid.cells if laid.after > 1 else laid.cells[..., 0]
    factor = Tensor("factor", cells.dtype, cells.shape)
    sums = term_sums(op, Laid(factor, laid.before, CELLS, laid.after, laid.weights), psi)
    graph = helper.make_graph(
        op.nodes,
        "sums",
        [helper.make_tensor_value_info("factor", onnx.TensorProto.FLOAT, factor.shape)],
        [helper.make_tensor_value_info(t.name, onnx.TensorProto.FLOAT, None) for t in sums],
        [numpy_helper.from_array(array, name) for name, array in op.initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"factor": cells})


def expected(term, psi):
    """The same from the term itself, (N, before, cells, after), in float64."""
    magnitude = np.abs(term)
    over = 2 if psi.per_channel else (1, 2, 3)
    low, high = (reduce(magnitude, axis=over, keepdims=True) for reduce in (np.min, np.max))
    salient = (magnitude - low) / (high - low + psi.epsilon)
    return [part.sum(axis=(1, 3)) for part in (term, magnitude, salient)]


@pytest.mark.parametrize("psi", [PUBLISHED, PYTORCH_GRAD_CAM], ids=["paper", "pytorch-grad-cam"])
@pytest.mark.parametrize(
    ("before", "after", "weighted"),
    [(1, 1, False), (5, 1, False), (1, 5, False), (3, 4, False), (1, 1, True), (5, 1, True)],
)
def test_sums_are_those_of_the_term_multiplied_out(before, after, weighted, psi):
    rng = np.random.default_rng(before * 10 + after)
    factor = rng.normal(size=(SAMPLES, before, CELLS, after)).astype(np.float32)
    weights = rng.normal(size=(1, before, 1, 1)).astype(np.float32) if weighted else None
    term = factor.astype(np.float64) * (1 if weights is None else weights)
    found = emitted(Laid(factor, before, CELLS, after, weights), psi)
    for one, other in zip(found, expected(term, psi), strict=True):
        assert one.shape == (SAMPLES, CELLS)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_a_channel_that_is_alike_everywhere_leaves_nothing_in_its_own_scale():
    factor = np.full((1, 3, CELLS, 1), 1e3, np.float32)
    _, _, salient = emitted(Laid(factor, 3, CELLS, 1), PYTORCH_GRAD_CAM)
    np.testing.assert_array_equal(salient, np.zeros((1, CELLS)))


def constant(*shape):
    array = np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)
    return Tensor("r", array.dtype, array.shape, array)


@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1, 1, 1), (1,)])
def test_a_number_for_each_channel_is_a_weight(shape):
    place, spot = Placement(1, 24), Spot("x", (whole((2, 3)),), before=4)
    of = Tensor("y", np.dtype(np.float32), ("N", 4, 2, 3))
    weights = channel_weights(place, spot, constant(*shape), of)
    np.testing.assert_array_equal(
        np.broadcast_to(constant(*shape).constant, (1, 4, 2, 3)),
        np.broadcast_to(weights.reshape(1, 4, 1, 1), (1, 4, 2, 3)),
    )


@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 4), (1, 1, 4, 1), (2, 1, 1, 1)])
def test_what_differs_from_cell_to_cell_or_sample_to_sample_is_no_weight(shape):
    place, spot = Placement(1, 64), Spot("x", (whole((4, 4)),), before=4)
    of = Tensor("y", np.dtype(np.float32), ("N", 4, 4, 4))
    assert channel_weights(place, spot, constant(*shape), of) is None
