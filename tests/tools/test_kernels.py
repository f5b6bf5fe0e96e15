"""The tool that makes the kernel tables reads published pages and the kernels of the installed runtime."""

from __future__ import annotations

import json

from analyzer.explainer.runtimes.kernels import table
from tools.kernels.__main__ import _text, cpu, jsep

PAGE = """## Operators Support Table
| Operator | Opset | Comments |
|:--------:|:-------------:|-----|
| Abs | ai.onnx(6-12,13+) |  |
| Split | ai.onnx(1,2-10,11-12,13-17,18+) |  |
| Attention | com.microsoft(1+) | need implementing mask |
| Conv | ai.onnx(1-10,11+); com.ms.internal.nhwc(1-10,11+) | conv3d is not supported |
"""


def test_a_page_becomes_ranges_of_opsets_that_explainers_use() -> None:
    found = jsep(PAGE, "1.2.3")
    assert found["version"] == "1.2.3"
    assert found["kernels"] == {
        "Abs": [[13, None, {}]],
        "Split": [[13, 17, {}], [18, None, {}]],
        "Conv": [[11, None, {}]],
    }
    assert json.loads(_text(found)) == found


def test_the_installed_runtime_has_the_kernels_of_the_table() -> None:
    """A later version may have more; the ops of networks do not go away."""
    installed, stored = cpu()["kernels"], table("cpu")["kernels"]
    assert len(stored) > 150
    for op_type in ("Conv", "ConvTranspose", "MatMul", "ReduceSum", "Softmax", "Scan", "ScatterElements"):
        assert {first for first, *_ in stored[op_type]} & {first for first, *_ in installed[op_type]}
