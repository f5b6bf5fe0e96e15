"""Ops of every family with drawn shapes and attributes: all engines agree, and gradients are derivatives."""

from __future__ import annotations

from hypothesis import given

from tests.analyzer.ops import product_strategies, strategies, window_strategies
from tests.analyzer.ops.agreement import assert_everywhere


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
    assert_everywhere(case)
