"""A body that does not fit its If, Loop or Scan is refused in one line, as ONNX Runtime refuses it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from converters import InvalidModel, load

FEEDS = {"x": np.arange(5, dtype=np.float32), "i": np.asarray(2, np.float32)}


def model_of(node: onnx.NodeProto) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, a.shape) for name, a in FEEDS.items()]
    outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in node.output]
    held = [
        numpy_helper.from_array(np.asarray(True), "true"),
        numpy_helper.from_array(np.asarray(3), "three"),
    ]
    graph = helper.make_graph([node], "g", infos, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def body(inputs: str, outputs: str) -> onnx.GraphProto:
    """A graph whose outputs are the exponential of its last number, or of x."""
    types = {"step": TensorProto.INT64, "go": TensorProto.BOOL, "on": TensorProto.BOOL}
    numbers = ["x", *(name for name in inputs.split() if name not in types)]
    nodes = [helper.make_node("Exp", [numbers[-1]], ["power"])]
    for name in outputs.split():
        nodes.append(helper.make_node("Identity", ["go" if name == "on" else "power"], [name]))
    infos = [
        [
            helper.make_tensor_value_info(
                name, types.get(name, TensorProto.FLOAT), [] if name in types else None
            )
            for name in names.split()
        ]
        for names in (inputs, outputs)
    ]
    return helper.make_graph(nodes, "body", *infos)


def scan(
    inputs: str = "s n", outputs: str = "t u", results: str = "y z", **attributes: Any
) -> onnx.NodeProto:
    attributes = {"num_scan_inputs": 1, **attributes}
    return helper.make_node("Scan", ["i", "x"], results.split(), body=body(inputs, outputs), **attributes)


def loop(inputs: str = "step go s", outputs: str = "on t u", results: str = "y z") -> onnx.NodeProto:
    return helper.make_node("Loop", ["three", "true", "i"], results.split(), body=body(inputs, outputs))


def branch(then: str, other: str, results: str = "y") -> onnx.NodeProto:
    bodies = {"then_branch": body("", then), "else_branch": body("", other)}
    return helper.make_node("If", ["true"], results.split(), **bodies)


def runs(model: onnx.ModelProto) -> list[np.ndarray] | None:
    """The results of ONNX Runtime; None where it refuses the model, or its run."""
    onnxruntime.set_default_logger_severity(4)
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        names = {info.name for info in session.get_inputs()}
        found: list[np.ndarray] = session.run(None, {k: v for k, v in FEEDS.items() if k in names})
    except Exception:
        return None
    return found


@pytest.mark.parametrize(
    "node",
    [
        scan("s", "t u"),
        scan("s n m"),
        scan(outputs="t"),
        scan(results="y z w"),
        scan(num_scan_inputs=3),
        scan(scan_input_axes=[1]),
        scan(scan_input_axes=[-2]),
        scan(scan_output_axes=[1]),
        scan(scan_input_axes=[0, 0]),
        scan(scan_output_axes=[0, 0]),
        scan(scan_input_directions=[1, 1]),
        scan(scan_output_directions=[1, 1]),
        loop("step go"),
        loop("step go s m"),
        loop(outputs=""),
        loop(outputs="on t"),
        loop(results="y z w"),
        branch("a", "a b"),
        branch("a b", "a"),
        branch("a", "a", "y z"),
    ],
)
def test_a_body_that_does_not_fit_is_refused(node: onnx.NodeProto) -> None:
    assert runs(model_of(node)) is None
    with pytest.raises(InvalidModel, match=r"expected .*got .*Fix: "):
        load(model_of(node))


@pytest.mark.parametrize(
    "node",
    [
        scan(scan_input_axes=[-1], scan_output_directions=[1]),
        scan(scan_output_axes=[0]),
        loop(),
        branch("a", "b"),
    ],
)
def test_a_body_that_fits_is_read(node: onnx.NodeProto) -> None:
    expected = runs(model_of(node))
    found = runs(load(model_of(node)).proto)
    assert expected is not None and found is not None
    for value, truth in zip(found, expected, strict=True):
        np.testing.assert_allclose(value, truth, rtol=1e-6)
