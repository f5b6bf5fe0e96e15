"""The residual rules against their definition: r = y − Σ J u over the active inputs."""

from __future__ import annotations

import numpy as np
import pytest

from tests.analyzer.ops.cases import CASES
from tests.analyzer.ops.harness import Case, forward, residual_value

_STEP = 1e-5


def jacobian_times_input(case: Case, index: int) -> np.ndarray:
    """J u of one input: the change of the output where the input is scaled by 1 ± h."""
    name = f"x{index}"
    ahead = forward(case, {**case.feeds, name: case.feeds[name] * (1 + _STEP)})
    behind = forward(case, {**case.feeds, name: case.feeds[name] * (1 - _STEP)})
    return (ahead - behind) / (2 * _STEP)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_residual_is_what_the_active_inputs_do_not_carry(case):
    y = forward(case, case.feeds)
    products = [jacobian_times_input(case, index) for index in case.active]
    scale = max(np.max(np.abs(part), initial=1e-3) for part in (y, *products))
    expected = y - sum(products)
    np.testing.assert_allclose(residual_value(case), expected, rtol=0, atol=1e-7 * scale)
