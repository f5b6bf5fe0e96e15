"""Ops that ONNX's reference evaluator computes otherwise than the standard are computed as ONNX Runtime does."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from converters.graph.runtime import ReferenceSession, RuntimeFailure, Session
from tests.converters.helpers import make_model, normal


def sessions(indices: np.ndarray, axis: int) -> list[Session | ReferenceSession]:
    node = helper.make_node("GatherElements", ["x", "indices"], ["y"], axis=axis)
    model = make_model([node], {"x": (2, 3, 4)}, ["y"], {"indices": indices})
    return [Session(model), ReferenceSession(model)]


@pytest.mark.parametrize("axis", [-3, -1, 0, 1, 2])
@pytest.mark.parametrize("sizes", [(2, 3, 4), (1, 2, 3), (2, 3, 0)])
def test_elements_are_gathered_as_in_the_runtime(axis: int, sizes: tuple[int, ...]) -> None:
    size = (2, 3, 4)[axis]
    indices = np.random.default_rng(0).integers(-size, size, sizes)
    feeds = {"x": normal(2, 3, 4)}
    expected, found = (session.run(feeds)[0] for session in sessions(indices, axis))
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("index", [3, -4, 2**63 - 1, -(2**63)])
def test_elements_beyond_the_axis_are_refused(index: int) -> None:
    for session in sessions(np.full((1, 1, 1), index), 1):
        with pytest.raises(RuntimeFailure):
            session.run({"x": normal(2, 3, 4)})
