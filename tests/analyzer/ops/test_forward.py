"""Every op's torch and TensorFlow form against ONNX Runtime; tools/coverage holds them to the standard's node tests."""

from __future__ import annotations

import re

import numpy as np
import pytest

from tests.analyzer.ops.cases import CASES
from tests.analyzer.ops.harness import FRAMEWORKS, forward, onnxruntime_forward

# What ONNX allows and ONNX Runtime does not run.
REFUSED_BY_ONNXRUNTIME = {
    r"^Conv\[.*auto_pad=SAME.*dilations": "dilations with SAME pads",
    r"^ConvTranspose.*dilations=.*output_padding=": "output padding of a stride or more",
    r"^LRN.*size=4": "an even number of neighbours",
    r"^GridSample\[2x2x(6,2x4x1|3x4x2,).*.*mode=cubic": "cubic interpolation but of planes",
    r"^DeformConv\[(1x2x3x4x3|2x2x7)": "deformable convolutions but of planes",
}


@pytest.mark.parametrize("case", CASES, ids=str)
def test_forms_agree_with_onnxruntime(case):
    if any(re.search(pattern, str(case)) for pattern in REFUSED_BY_ONNXRUNTIME):
        with pytest.raises(Exception, match="ONNXRuntimeError"):
            onnxruntime_forward(case)
        return
    expected = onnxruntime_forward(case)
    for framework in FRAMEWORKS:
        np.testing.assert_allclose(forward(case, case.feeds, framework), expected, rtol=1e-4, atol=1e-5)
