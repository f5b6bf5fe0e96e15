"""Samples are told apart wherever the batch lies, and their sums are those of samples explained alone."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import parser

from analyzer import full_grad
from analyzer.errors import AnalysisError
from analyzer.graph.batch_axis import Place, find_places
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph
from analyzer.graph.program import assemble
from analyzer.placement.terms import Placement
from converters import load
from converters.canonical import canonicalise
from tests.analyzer.ops.harness import run

# The batch second, then merged with the axis behind it, then with the one before it.
MOVED = """<ir_version: 10, opset_import: ["": 23]> g (float[n,3,4] x) => (float[n,k] y)
  <float[1,1,4] b = {1,-2,3,-4}, int64[3] merged = {3,-1,2}, int64[2] rows = {-1,2}, int64[3] apart = {3,-1,4},
   float[2] c = {5,-6}, int64[1] last = {2}>
  { t = Transpose<perm = [1,0,2]>(x)  a = Add(t, b)  m = Reshape(a, merged)  s = Sigmoid(m)
    r = Reshape(s, rows)  d = Add(r, c)  e = Exp(d)  u = Reshape(e, apart)  v = Transpose<perm = [1,0,2]>(u)
    y = ReduceSum<keepdims = 0>(v, last) }"""


def test_places_follow_transposes_and_reshapes():
    graph = Graph.from_proto(load(parser.parse_model(MOVED)).proto)
    places = find_places(graph)
    assert places["x"] == Place(0)
    assert places["a"] == Place(1)
    assert places["s"] == Place(1)  # (3, 2n, 2): every sample's two rows lie together
    assert places["e"] == Place(0, factor=3)  # (6n, 2): three blocks of n runs
    assert places["u"] == Place(1)
    assert places["y"] == Place(0)


def test_sums_of_hand_laid_samples():
    # Two blocks of three samples of two elements, on one axis: the first holds elements 0, 1, 6 and 7.
    array = np.arange(12.0)
    for place, shape in ((Place(0, 2), (12,)), (Place(0, 1, ("s",)), (12,)), (Place(1), (2, 3, 2))):
        axes = ",".join(map(str, shape))
        text = f'<ir_version: 10, opset_import: ["": 23]> g (double[{axes}] x) => (double[{axes}] y) {{ y = Neg(x) }}'
        graph, op = Graph.from_proto(parser.parse_model(text)), Builder(23)
        rows = Placement(place.blocks(shape, {"s": 2}), 4).rows(op, graph.tensors["x"])
        laid = Graph.from_proto(assemble(graph, op, {"rows": rows}).proto)
        found = run(laid, {"x": array.reshape(shape)}, laid.outputs, "torch")[0]
        np.testing.assert_array_equal(found, [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]])


def test_terms_of_a_batch_are_those_of_each_sample_alone():
    model = load(parser.parse_model(MOVED))
    x = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32) / 4
    together = full_grad(model, x, target=1)
    assert together.completeness.error.max() <= 1e-5
    for n in range(3):
        alone = full_grad(model, x[n : n + 1], target=1)
        for ours, theirs in zip(together.contributions, alone.contributions, strict=True):
            np.testing.assert_allclose(ours.total[n], theirs.total[0], rtol=1e-4, atol=1e-4)


def test_a_layer_has_its_place_in_the_map_wherever_its_samples_lie():
    fg = full_grad(load(parser.parse_model(MOVED)), np.ones((3, 3, 4), np.float32), target=0)
    # Nothing convolves: (N, steps, features).
    assert fg.map.shape == (3, 3)
    assert {"a", "s", "d", "e"}.isdisjoint(fg.unplaced)


def test_samples_that_cannot_be_told_apart_are_refused_by_name():
    # A product of all samples with all: both axes are the batch.
    proto = parser.parse_model(
        '<ir_version: 10, opset_import: ["": 23]> g (float[n,3] x) => (float[n,1] y) <int64[1] last = {1}>'
        " { t = Transpose<perm = [1,0]>(x) p = MatMul(x, t) e = Exp(p) y = ReduceSum<keepdims = 1>(e, last) }"
    )
    x = np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32)
    with pytest.raises(AnalysisError, match=r"computes 'p' from several.*Target\(index=\(row, class\)\)"):
        full_grad(proto, x, target=0)
    assert full_grad(proto, x[:1], target=0).completeness.error.max() <= 1e-5


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_is_looped_over_wherever_it_lies(batch):
    """A file that keeps its batch: three samples in pieces of one or two, the last of which is padded."""
    fixed = MOVED.replace("[n,3,4]", f"[{batch},3,4]").replace("[n,k]", f"[{batch},3]")
    for target in ("merged = {3,-1,2}", "rows = {-1,2}", "apart = {3,-1,4}"):
        assert target in fixed
    proto = parser.parse_model(
        fixed.replace("merged = {3,-1,2}", f"merged = {{3,{2 * batch},2}}")
        .replace("rows = {-1,2}", f"rows = {{{6 * batch},2}}")
        .replace("apart = {3,-1,4}", f"apart = {{3,{batch},4}}")
    )
    kept = load(canonicalise(proto, dynamic_batch=False))
    x = np.random.default_rng(0).normal(size=(3, 3, 4)).astype(np.float32) / 4
    expected = full_grad(load(parser.parse_model(MOVED)), x, target=1)
    found = full_grad(kept, x, target=1)
    assert found.completeness.error.max() <= 1e-5
    for ours, theirs in zip(found.contributions, expected.contributions, strict=True):
        np.testing.assert_allclose(ours.total, theirs.total, rtol=1e-4, atol=1e-4)
    for name, term in expected.bias_terms.items():
        np.testing.assert_allclose(found.bias_terms[name], term, rtol=1e-4, atol=1e-5)
