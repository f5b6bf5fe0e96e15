"""Sums with the constants of masks, and sums that cancel, stay as the file has them: what is left of x is rounding."""

from __future__ import annotations

import numpy as np
import pytest

from converters import load
from tests.converters.helpers import ops, run
from tests.converters.passes.joins.cases import network

LEAST = float(np.finfo(np.float32).min)
HALF = LEAST / 2
BODIES = [
    *(
        body
        for mask in (-1e4, -1e9, HALF, LEAST, 1e4)
        for body in (
            f"a = Add(x, {{{mask}}}) b = Add(a, {{{mask}}}) y = Max(b, {{{mask}}})",
            f"a = Add(x, {{{mask}}}) y = Sub(a, {{{mask}}})",
            f"a = Add(x, {{{mask}}}) b = Add(a, {{1}}) y = Sub(b, {{{mask}}})",
            f"a = Div(x, {{8}}) b = Add(a, {{{mask}}}) c = Add(b, {{{mask}}}) y = Div(c, {{16}})",
            f"a = Add(x, {{{mask}}}) b = Add(a, {{{mask}}}) y = Softmax<axis = -1>(b)",
        )
    ),
    "a = Sub(x, {100}) y = Add(a, {100})",
    "a = Mul(x, {2}) b = Sub(a, {1}) y = Add(b, {1})",
    "o = Constant<value_floats = [1.0, 2.0, 3.0]>() z = Constant<value_floats = [0.0, 0.0, 0.0]>()"
    " a = BatchNormalization(x, o, z, z, o) b = Add(a, {1e4}) y = Sub(b, {1e4})",
]


@pytest.mark.parametrize("body", BODIES)
def test_a_sum_with_a_mask_has_the_roundings_of_the_file(body: str) -> None:
    file = network(body)
    converted = load(file).proto
    noise = np.random.default_rng(0).standard_normal((4, 3, 4))
    for scale in (1.0, 1e-4, 1e3):
        x = (scale * noise).astype(np.float32)
        np.testing.assert_allclose(run(converted, {"x": x})[0], run(file, {"x": x})[0], rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "body",
    [
        "a = Div(x, {127.5}) b = Sub(a, {1}) c = Sub(b, {0.5}) y = Div(c, {0.25})",
        "a = Sub(x, {120}) b = Div(a, {60}) c = Mul(b, {1.5}) y = Add(c, {0.3})",
        "a = Div(x, {65535}) b = Sub(a, {0.5}) y = Sub(b, {0.25})",
    ],
)
def test_the_constants_of_a_preprocessing_become_one_product_and_one_sum(body: str) -> None:
    assert ops(load(network(body)).proto) == {"Mul": 1, "Add": 1}
