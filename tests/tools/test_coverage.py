"""The ONNX standard's node tests through the public path, and that the measuring itself can fail."""

from __future__ import annotations

import re
from functools import cache

import numpy as np
import pytest

from analyzer import differentiate
from analyzer.ops.activation import Sigmoid
from converters import load
from tools.coverage.derivatives import Disagreement, smooth_point
from tools.coverage.exclusions import EXCLUSIONS, VJP
from tools.coverage.forward import BACKENDS, assert_equal
from tools.coverage.node_tests import NodeTest, node_tests
from tools.coverage.report import Report, measure

TESTS = {test.name: test for test in node_tests()}


@cache
def measured(name):
    """What a node test gives, measured once for all tests of this module."""
    return measure(TESTS[name])


@pytest.mark.parametrize("name", TESTS)
def test_every_backend_passes_what_onnxruntime_passes_and_derivatives_agree(name):
    assert Report((measured(name),)).problems == []


@pytest.mark.parametrize("pattern", EXCLUSIONS)
def test_every_exclusion_explains_a_failure(pattern):
    candidates = [test for test in TESTS.values() if any(re.search(pattern, at) for at in places(test))]
    assert any(pattern in measured(test.name).patterns() for test in candidates)


def places(test: NodeTest) -> list[str]:
    """Whatever of a case an exclusion may be about."""
    pairs = [(y.name, x.name) for y in test.model.graph.output for x in test.model.graph.input]
    derivatives = [f"{VJP}/{test.name}[{output}, {name}]" for output, name in pairs]
    return [*(f"{backend}/{test.name}" for backend in BACKENDS), *derivatives]


def test_a_wrong_rule_is_found(monkeypatch):
    monkeypatch.setattr(Sigmoid, "vjp", lambda op, g, y, x: (op.Mul(g, y),))
    problems = Report((measure(TESTS["sigmoid"]),)).problems
    assert len(problems) == 1 and "onnxruntime, x: relative error" in problems[0]


def test_a_wrong_form_is_found(monkeypatch):
    monkeypatch.setattr(Sigmoid, "tensorflow", lambda tf, x: tf.math.sigmoid(x) + 1e-3)
    places = {problem.partition(":")[0] for problem in Report((measure(TESTS["sigmoid"]),)).problems}
    assert "tensorflow/sigmoid" in places and "torch/sigmoid" not in places


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (np.zeros((2, 1), np.float32), "shape"),
        (np.zeros(2, np.float64), "dtype"),
        (np.full(2, 1e-3, np.float32), "Not equal to tolerance"),
        (np.array([0, np.nan], np.float32), "Not equal to tolerance"),
    ],
)
def test_outputs_that_are_not_the_expected_ones(found, problem):
    with pytest.raises(AssertionError, match=problem):
        assert_equal(found, np.zeros(2, np.float32), 1e-3, 1e-7)


@pytest.mark.parametrize(
    ("name", "at"),
    [
        ("relu", np.zeros((3, 4, 5), np.float32)),
        # One of its vectors is 0, where x/‖x‖ jumps between opposite directions.
        ("l2normalization_axis_0", TESTS["l2normalization_axis_0"].inputs["x"]),
    ],
)
def test_a_point_on_a_kink_or_a_jump_is_moved(name, at):
    """Central differences exist at both and mean nothing."""
    fn = differentiate(load(TESTS[name].model), "torch", precision="float64")
    point, _ = smooth_point(fn, {"x": at}, ["x"], "y", np.random.default_rng(0))
    assert np.all(point["x"] != 0)


def test_a_function_without_a_smooth_point_is_refused():
    fn = differentiate(load(TESTS["log"].model), "torch", precision="float64")
    with pytest.raises(Disagreement, match="no smooth point"):
        smooth_point(fn, {"x": np.full((3, 4, 5), -1, np.float32)}, ["x"], "y", np.random.default_rng(0))
