"""Every fused op's expansion computes what ONNX Runtime's own kernel computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from converters import UnsupportedModel, load
from converters.graph.runtime import Session
from converters.passes.fused import EXPANSIONS
from tests.converters.helpers import make_model
from tests.converters.passes.fused.cases import BIAS, CASES, FULL, GROUPS, HEADS, LONG, Case, W, X, normal


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_expansion_computes_what_the_runtime_computes(case: Case) -> None:
    proto = case.proto()
    expanded = load(proto).proto
    assert {node.domain for node in expanded.graph.node} <= {""}
    assert [info.name for info in expanded.graph.output] == [info.name for info in proto.graph.output]
    expected = Session(proto).run(case.feeds)
    found = Session(expanded).run(case.feeds)
    for y, truth in zip(found, expected, strict=True):
        assert y.dtype == truth.dtype and y.shape == truth.shape
        if case.quantum:
            apart = np.abs(y.astype(np.int64) - truth.astype(np.int64))
            assert apart.max() <= 1 and apart.mean() < 0.03
        else:
            np.testing.assert_allclose(y, truth, rtol=2e-5, atol=2e-5 * max(1.0, float(np.abs(truth).max())))


def test_every_expansion_has_a_case() -> None:
    # The ops of ai.onnx.ml have their cases in test_classical.py.
    own = {op for domain, op in EXPANSIONS if domain != "ai.onnx.ml"}
    assert own == {case.op for case in CASES}


def test_packed_projections_attend_as_separate_ones() -> None:
    # ONNX Runtime's CPU kernel takes the separate form alone.
    q, k, v = normal(2, 3, 2, 4), normal(2, 3, 2, 4), normal(2, 3, 2, 4)
    flat = Case("MultiHeadAttention", tuple(t.reshape(2, 3, 8) for t in (q, k, v)), HEADS, fed=3)
    expected = Session(flat.proto()).run(flat.feeds)[0]
    all_packed = Case("MultiHeadAttention", (np.stack([q, k, v], axis=3),), HEADS)
    values_packed = Case("MultiHeadAttention", (q.reshape(2, 3, 8), np.stack([k, v], axis=3)), HEADS, fed=2)
    for case in (all_packed, values_packed):
        found = Session(load(case.proto()).proto).run(case.feeds)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def refusal(proto: onnx.ModelProto) -> str:
    with pytest.raises(UnsupportedModel) as caught:
        load(proto)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_has_no_expansion_is_refused_by_name() -> None:
    assert "com.microsoft.Inverse" in refusal(Case("Inverse", (normal(3, 3),)).proto())
    past = Case("Attention", (X, W, BIAS, None, normal(2, 2, 2, 1, 4)), HEADS, keep=(0, 1))
    assert "node 'node' (com.microsoft.Attention) continues an earlier run" in refusal(past.proto())
    pasts = (normal(2, 2, 4, 8),) * 2
    decoding = Case("GroupQueryAttention", (*LONG, *pasts, *FULL), GROUPS, 3, (0, 1, 2)).proto()
    assert "(com.microsoft.GroupQueryAttention) continues an earlier run" in refusal(decoding)
    softmax = Case("FusedConv", (normal(1, 2, 4, 4), normal(2, 2, 1, 1)), {"activation": "Relu"}).proto()
    softmax.graph.node[0].attribute[0].s = b"Softmax"
    assert "the activation 'Softmax'" in refusal(softmax)
    headless = Case("Attention", (X, W, BIAS), HEADS).proto()
    del headless.graph.node[0].attribute[:]
    assert "is incomplete: missing a required" in refusal(headless) and "num_heads" in refusal(headless)
    mean = Case("SkipLayerNormalization", (X, X, normal(8)), fed=2, keep=(0, 1))
    assert "output 1 ('y1'), which has no standard form" in refusal(mean.proto())


@pytest.mark.parametrize("op", ["Gelu", "Irfft"])
def test_fused_ops_in_a_branch_are_treated_alike(op: str) -> None:
    info = helper.make_tensor_value_info
    inner = helper.make_node(op, ["x"], ["b"], "inner", domain="com.microsoft")
    branch = helper.make_graph([inner], "branch", [], [info("b", TensorProto.FLOAT, None)])
    chosen = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    model = make_model([chosen], {"x": (2, 3)}, ["y"], {"yes": np.asarray(True)}, opset=17)
    model.opset_import.add(domain="com.microsoft", version=1)
    if op == "Gelu":
        assert [node.op_type for node in load(model).proto.graph.node] == ["Gelu"]
    else:
        assert "com.microsoft.Irfft" in refusal(model)


def test_a_layout_of_one_machine_is_refused_with_the_way_out(tmp_path: Path) -> None:
    conv = Case("Conv", (normal(1, 16, 8, 8), normal(32, 16, 3, 3)), domain="")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(tmp_path / "all.onnx")
    onnxruntime.InferenceSession(conv.proto().SerializeToString(), options)
    with pytest.raises(UnsupportedModel, match=r'com\.microsoft\.nchwc.*level "extended" at most'):
        load(tmp_path / "all.onnx")
