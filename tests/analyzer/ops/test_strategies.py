"""Ops of every family with drawn shapes and attributes: all engines agree, and gradients are derivatives."""

from __future__ import annotations

import numpy as np
from hypothesis import given

from tests.analyzer.ops import product_strategies, strategies, window_strategies
from tests.analyzer.ops.agreement import assert_everywhere, assert_in_frameworks
from tests.analyzer.ops.harness import forward
from tests.analyzer.ops.values import case as case_of


@given(strategies.unary())
def test_elementwise_ops_of_one_input(case):
    assert_everywhere(case)


@given(strategies.broadcasting())
def test_elementwise_ops_that_broadcast(case):
    assert_everywhere(case)


@given(strategies.reductions())
def test_reductions(case):
    assert_everywhere(case)


@given(strategies.resizes())
def test_resizes(case):
    assert_everywhere(case)


@given(strategies.pads())
def test_pads(case):
    assert_everywhere(case)


@given(strategies.slices())
def test_slices(case):
    assert_everywhere(case)


@given(strategies.gathers())
def test_gathers(case):
    assert_everywhere(case)


@given(strategies.scatters())
def test_scatters(case):
    assert_everywhere(case)


@given(product_strategies.matmuls())
def test_matrix_products(case):
    assert_everywhere(case)


@given(product_strategies.gemms())
def test_gemms(case):
    assert_everywhere(case)


@given(product_strategies.einsums())
def test_einsums(case):
    assert_everywhere(case)


@given(product_strategies.normalizations())
def test_normalizations(case):
    assert_everywhere(case)


@given(product_strategies.layouts())
def test_layouts(case):
    assert_everywhere(case)


@given(product_strategies.joints())
def test_joints(case):
    assert_everywhere(case)


@given(window_strategies.convolutions())
def test_convolutions(case):
    assert_everywhere(case)


@given(window_strategies.transposed_convolutions())
def test_transposed_convolutions(case):
    assert_everywhere(case)


@given(window_strategies.pools())
def test_pools(case):
    if window_strategies.runs_by_the_standard(case):
        assert_everywhere(case)
    else:
        assert_in_frameworks(case)


def test_a_pool_of_windows_that_do_not_reach_each_other_takes_no_pads():
    """The standard's own sizes: the windows of a kernel of one start at 0, s, 2s, …"""
    x = np.arange(1.0, 13).reshape(1, 1, 3, 4)
    pool = case_of("MaxPool", x, kernel_shape=[1, 1], strides=[1, 2], auto_pad="SAME_UPPER", ceil_mode=0)
    assert not window_strategies.runs_by_the_standard(pool)
    assert np.array_equal(forward(pool, pool.feeds), x[..., ::2])
    assert_in_frameworks(pool)
