"""How far apart two readings of one quantity may be.

Tolerances are of relative L2, but for completeness, whose is the relative error of the sum. A number stands for every
quantity that is compared; completeness, which compares nothing, keeps its bound unless it is named.
"""

from __future__ import annotations

from collections.abc import Mapping

from analyzer.errors import AnalysisError

COMPARED = ("output", "layer", "input gradient", "bias gradient", "full grad", "integrated gradients")
COMPLETENESS = "completeness"
QUANTITIES = (*COMPARED, COMPLETENESS)
DEFAULT = 1e-4

Tolerance = float | Mapping[str, float]


def tolerances(given: Tolerance | None = None, base: Mapping[str, float] | None = None) -> dict[str, float]:
    """The tolerance of every quantity. Names may be written with hyphens: "input-gradient".

    base: what holds where `given` says nothing; DEFAULT where it is left out.
    Raises AnalysisError for a quantity that there is not, and for what is no number above 0.
    """
    found = dict(base or dict.fromkeys(QUANTITIES, DEFAULT))
    if given is None:
        return found
    if not isinstance(given, Mapping):
        return {**found, **dict.fromkeys(COMPARED, _checked(given))}
    for name, value in given.items():
        quantity = name.replace("-", " ").replace("_", " ")
        if quantity not in found:
            raise AnalysisError(f"no quantity {name!r} exists. Fix: choose from {', '.join(QUANTITIES)}")
        found[quantity] = _checked(value)
    return found


def _checked(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise AnalysisError(f"expected a tolerance above 0, got {value!r}. Fix: give a number such as 1e-4")
    return float(value)
