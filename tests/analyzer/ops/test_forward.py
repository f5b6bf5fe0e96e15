"""Every op's torch and TensorFlow form against the expected outputs of the standard's own node tests."""

from __future__ import annotations

import re

import numpy as np
import pytest

from analyzer.graph import Graph
from analyzer.ops import registered
from analyzer.ops.registry import Kind
from tests.analyzer.ops.cases import CASES
from tests.analyzer.ops.harness import FRAMEWORKS, forward, onnxruntime_forward, run
from tests.analyzer.ops.official import EXCLUDED, arrays, excluded, node_tests

ADMITTED = [(n, f) for n in sorted(node_tests()) for f in ("torch", "tensorflow") if excluded(n, f) is None]


@pytest.mark.parametrize(("name", "framework"), ADMITTED)
def test_form_gives_what_the_standard_expects(name, framework):
    case = node_tests()[name]
    graph = Graph.from_proto(case.model)
    for inputs, outputs in case.data_sets:
        feeds = arrays(inputs, case.model.graph.input)
        expected = arrays(outputs, case.model.graph.output)
        wanted = list(expected)
        results = run(graph, feeds, wanted, framework)
        for key, result in zip(wanted, results, strict=True):
            assert result.shape == expected[key].shape
            assert result.dtype == expected[key].dtype or expected[key].dtype.name == "bfloat16"
            np.testing.assert_allclose(
                result.astype(np.float64),
                expected[key].astype(np.float64),
                rtol=max(case.rtol, 1e-5),
                atol=1e-5,
            )


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


def test_every_exclusion_excludes_something():
    for pattern in EXCLUDED:
        assert any(re.search(pattern, f"{f}/{name}") for name in node_tests() for f in FRAMEWORKS), pattern


def test_most_ops_have_official_tests():
    covered = {node_tests()[name].model.graph.node[0].op_type for name, _ in ADMITTED}
    missing = {name for (_, name), rules in registered().items() if rules.kind is not Kind.CONSTANT} - covered
    print(f"{len(ADMITTED)} of {2 * len(node_tests())} runs of official tests, {len(covered)} ops")
    assert missing <= {"GlobalLpPool", "MaxRoiPool", "ReduceLogSum"}, missing
