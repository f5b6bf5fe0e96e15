"""A gradient that is zero in exact arithmetic is no disagreement; one that is merely small is."""

from __future__ import annotations

import numpy as np
from onnx import parser

from analyzer import check
from analyzer.checks.explain.kinks import Side
from analyzer.checks.explain.rounding import ROUNDING, excuse_rounding

# What stands in front of a normalization may be scaled at will: the scale has no gradient.
NETWORK = parser.parse_model(
    """<ir_version: 10, opset_import: ["": 23]> g (float[n,6] x) => (float[n,2] y)
    <int64[1] last = {1}, float[6,2] w = {1, 2, -1, 0.5, 0.3, 1, 2, -0.4, 1, 1, -2, 0.1}>
    { e = Exp(x) m = ReduceMean(e, last) s = Sqrt(m) k = Div(x, s) h = LpNormalization(k) y = MatMul(h, w) }"""
)


def test_a_scale_that_is_taken_away_again_is_excused():
    x = np.random.default_rng(0).normal(size=(2, 6)).astype(np.float32)
    report = check(NETWORK, x, target=0)
    report.raise_for_disagreement()
    excused = {row["tensor"] for row in report.rows if row["explanation"] == ROUNDING}
    assert excused and excused <= {"e", "m", "s"}
    # The published map rescales every layer by its own largest term, rounding errors too.
    reasons = {row["explanation"] for row in report.rows if row["quantity"] == "full grad"}
    assert any("the map rescales a term that is zero but for rounding" in reason for reason in reasons)


def test_a_difference_that_moves_the_output_is_not():
    value = {"x": np.float32([3, 4]), "h": np.float32([1, 0])}
    a = Side(value, {"x": np.float32([1, 1]), "h": np.float32([1e-8, 0])})
    b = Side(value, {"x": np.float32([1, 1]), "h": np.float32([1e-5, 0])})
    rows = [{"tensor": "h", "passed": False, "explanation": ""}]
    excuse_rounding(rows, a, b)
    assert not rows[0]["passed"]
    excuse_rounding(rows, a, Side(value, {**b.gradients, "h": np.float32([-1e-8, 0])}))
    assert rows[0]["explanation"] == ROUNDING
