"""Tensors of equal values are matched across layouts, and the way there and back is one of the same numbers."""

from __future__ import annotations

import numpy as np
import pytest

from analyzer.backends.source.matching import regrouped_values, same_values

RNG = np.random.default_rng(0)
MAPS = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)  # (N, C, H, W)
HEADS = RNG.standard_normal((2, 3, 4, 5)).astype(np.float32)  # (N, heads, T, D)

# The source's array, ONNX's, and the shapes in which either side has them apart.
REGROUPED = {
    "flattened channels last": (
        MAPS.transpose(0, 2, 3, 1).reshape(2, 60), MAPS.reshape(2, 60), (2, 4, 5, 3), (2, 3, 4, 5),
    ),
    "heads merged with the samples": (HEADS.reshape(6, 4, 5), HEADS, (2, 3, 4, 5), (2, 3, 4, 5)),
    "heads taken from the samples": (HEADS, HEADS.reshape(6, 4, 5), (2, 3, 4, 5), (2, 3, 4, 5)),
    "heads beside their features": (
        HEADS.transpose(0, 2, 1, 3).reshape(2, 4, 15), HEADS, (2, 4, 3, 5), (2, 3, 4, 5),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REGROUPED)
def test_merged_axes_are_taken_apart(name):
    theirs, ours, split, apart = REGROUPED[name]
    assert same_values("x", theirs, ours) is None
    found = regrouped_values("x", theirs, ours, [split], [apart])
    assert found is not None
    np.testing.assert_array_equal(found.to_onnx(theirs), ours)
    np.testing.assert_array_equal(found.from_onnx(ours, theirs.shape), theirs)
    # Found on two samples, it holds for any number: the first one alone.
    samples, mine = len(theirs) // 2, len(ours) // 2
    np.testing.assert_array_equal(found.to_onnx(theirs[:samples]), ours[:mine])


def test_other_values_are_no_match():
    theirs, ours, split, apart = REGROUPED["flattened channels last"]
    assert regrouped_values("x", theirs[:, ::-1], ours, [split], [apart]) is None
    assert regrouped_values("x", theirs, ours, [(2, 5, 4, 3)], [apart]) is None


def test_the_batch_stays_first_unless_it_may_move():
    steps_first = RNG.standard_normal((4, 2, 3)).astype(np.float32)
    batch_first = steps_first.transpose(1, 0, 2)
    assert same_values("x", steps_first, batch_first) is None
    found = same_values("x", steps_first, batch_first, batch_first=False)
    assert found is not None and found.order == (1, 0, 2)
