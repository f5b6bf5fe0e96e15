"""Ops of every family with drawn shapes and attributes: all engines agree, and gradients are derivatives."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from tests.analyzer.ops.agreement import assert_everywhere, assert_in_frameworks
from tests.analyzer.ops.cases import (
    activation,
    contraction,
    elementwise,
    indexing,
    layout,
    linear,
    normalization,
    reduction,
    resampling,
    scatter,
    shape,
    windowed,
)
from tests.analyzer.ops.harness import forward
from tests.analyzer.ops.values import case as case_of


@given(activation.unary())
def test_elementwise_ops_of_one_input(case):
    assert_everywhere(case)


@given(elementwise.broadcasting())
def test_elementwise_ops_that_broadcast(case):
    assert_everywhere(case)


@given(reduction.reductions())
def test_reductions(case):
    assert_everywhere(case)


@given(resampling.resizes())
def test_resizes(case):
    assert_everywhere(case)


@given(layout.pads())
def test_pads(case):
    assert_everywhere(case)


@given(layout.slices())
def test_slices(case):
    assert_everywhere(case)


@given(indexing.gathers())
def test_gathers(case):
    assert_everywhere(case)


@given(scatter.scatters())
def test_scatters(case):
    assert_everywhere(case)


@given(linear.matmuls())
def test_matrix_products(case):
    assert_everywhere(case)


@given(linear.gemms())
def test_gemms(case):
    assert_everywhere(case)


@given(contraction.einsums())
def test_einsums(case):
    assert_everywhere(case)


@given(normalization.normalizations())
def test_normalizations(case):
    assert_everywhere(case)


@given(shape.layouts())
def test_layouts(case):
    assert_everywhere(case)


@given(shape.joints())
def test_joints(case):
    assert_everywhere(case)


@given(windowed.convolutions())
def test_convolutions(case):
    assert_everywhere(case)


@given(windowed.transposed_convolutions())
def test_transposed_convolutions(case):
    assert_everywhere(case)


@given(windowed.pools())
def test_pools(case):
    if windowed.runs_by_the_standard(case):
        assert_everywhere(case)
    else:
        assert_in_frameworks(case)


def test_a_pool_of_windows_that_do_not_reach_each_other_takes_no_pads():
    """The standard's own sizes: the windows of a kernel of one start at 0, s, 2s, …"""
    x = np.arange(1.0, 13).reshape(1, 1, 3, 4)
    pool = case_of("MaxPool", x, kernel_shape=[1, 1], strides=[1, 2], auto_pad="SAME_UPPER", ceil_mode=0)
    assert not windowed.runs_by_the_standard(pool)
    assert np.array_equal(forward(pool, pool.feeds), x[..., ::2])
    assert_in_frameworks(pool)
