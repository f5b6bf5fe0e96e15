"""Cases of the exponential, trigonometric and hyperbolic functions."""

from __future__ import annotations

from tests.analyzer.ops.values import case, normal, positive

CASES = [
    *[case(name, normal(3, 4)) for name in ["Exp", "Sin", "Cos", "Atan", "Sinh", "Cosh", "Asinh"]],
    *[case(name, positive(3, 4) * 0.5) for name in ["Log", "Tan"]],
    *[case(name, positive(3, 4) * 0.4) for name in ["Asin", "Acos", "Atanh"]],
    case("Acosh", positive(3, 4) + 1),
]
