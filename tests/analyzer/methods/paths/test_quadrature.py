"""Every rule's weights and order, on functions whose integrals are known."""

from __future__ import annotations

import captum.attr._utils.approximation_methods as captum_rules
import numpy as np
import pytest

from analyzer.errors import AnalysisError
from analyzer.methods.paths.quadrature import RULES, quadrature

ORDERS = {"left": 1, "right": 1, "midpoint": 2, "trapezoid": 2, "simpson": 4}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("steps", [3, 4, 17, 50])
def test_weights_sum_to_one_and_nodes_lie_in_the_unit_interval(rule, steps):
    nodes, weights = quadrature(rule, steps)
    assert len(nodes) == len(weights) == steps
    assert abs(weights.sum() - 1) < 1e-12
    assert (weights > 0).all()
    assert (np.diff(nodes) > 0).all()
    assert nodes[0] >= 0
    assert nodes[-1] <= 1


def test_captums_trapezoid_does_not_sum_to_one_and_ours_does():
    step_sizes, _ = captum_rules.approximation_parameters("riemann_trapezoid")
    assert abs(sum(step_sizes(50)) - 1) > 0.01
    assert abs(quadrature("trapezoid", 50)[1].sum() - 1) < 1e-12


@pytest.mark.parametrize("rule", ORDERS)
def test_the_error_falls_with_the_order_of_the_rule(rule):
    # ∫ eᵅ dα = e − 1. Rules with both ends have one interval fewer than nodes.
    extra = rule in ("trapezoid", "simpson")
    errors = []
    for intervals in (16, 32, 64):
        nodes, weights = quadrature(rule, intervals + extra)
        errors.append(abs(weights @ np.exp(nodes) - (np.e - 1)))
    np.testing.assert_allclose(np.array(errors[:-1]) / errors[1:], 2 ** ORDERS[rule], rtol=0.05)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_gauss_legendre_is_exact_up_to_its_degree(steps):
    nodes, weights = quadrature("gauss-legendre", steps)
    for degree in range(2 * steps):
        assert abs(weights @ nodes**degree - 1 / (degree + 1)) < 1e-13
    assert abs(weights @ nodes ** (2 * steps) - 1 / (2 * steps + 1)) > 1e-8


@pytest.mark.parametrize("steps", [3, 4, 5, 6, 10])
def test_simpson_is_exact_for_cubics(steps):
    nodes, weights = quadrature("simpson", steps)
    for degree in range(4):
        np.testing.assert_allclose(weights @ nodes**degree, 1 / (degree + 1), atol=1e-15)
    assert abs(weights @ nodes**4 - 1 / 5) > 1e-6


def test_simpson_of_an_even_number_is_of_order_four_as_well():
    scaled = []
    for steps in (16, 32, 64):
        nodes, weights = quadrature("simpson", steps)
        scaled.append(abs(weights @ np.exp(nodes) - (np.e - 1)) * (steps - 1) ** 4)
    np.testing.assert_allclose(np.array(scaled) / scaled[0], 1, rtol=0.2)


@pytest.mark.parametrize(
    "rule, steps, said",
    [
        ("euler", 5, "unknown rule 'euler'. Fix: choose from gauss-legendre"),
        ("trapezoid", 1, "at least 2 steps"),
        ("simpson", 2, "at least 3 steps"),
        ("midpoint", 0, "at least 1 step,"),
        ("left", 2.5, "got 2.5"),
    ],
)
def test_what_is_refused(rule, steps, said):
    with pytest.raises(AnalysisError, match=said):
        quadrature(rule, steps)
