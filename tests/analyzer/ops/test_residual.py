"""The residual rules against their definition: r = y − Σ J u over the active inputs."""

from __future__ import annotations

import pytest

from tests.analyzer.ops.agreement import assert_residual
from tests.analyzer.ops.cases import CASES


@pytest.mark.parametrize("case", CASES, ids=str)
def test_residual_is_what_the_active_inputs_do_not_carry(case):
    assert_residual(case)
