"""Apply one pass to a small graph, and compare every tensor that keeps its name with the file's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper, parser
from onnx.reference import ReferenceEvaluator

from converters.canonical import check
from converters.graph.mutable import MutableGraph
from tools.audit.links import assert_linked

Arrays = Mapping[str, np.ndarray]
Pass = Callable[[MutableGraph], Any]


def graph(text: str, constants: Arrays | None = None, opset: int = 23) -> onnx.ModelProto:
    """Return the model of a graph in ONNX's text form, `(double[N,4] x) => (double y) { y = Relu(x) }`.

    An output that is written without sizes may have any.
    """
    proto = parser.parse_model(f'<ir_version: 10, opset_import: ["": {opset}]> g {text}')
    for info in proto.graph.output:
        if not info.type.tensor_type.shape.dim:
            info.type.tensor_type.ClearField("shape")
    for name, array in (constants or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return proto


def rewritten(file: onnx.ModelProto, rewrite: Pass, *, unused: bool = False) -> tuple[onnx.ModelProto, Any]:
    """Return a copy of the file after a pass, and what the pass returns. unused: keep what no output depends on."""
    copy = onnx.ModelProto()
    copy.CopyFrom(file)
    mutable = MutableGraph(copy)
    mutable.infer_types()
    found = rewrite(mutable)
    assert_linked(mutable)
    if not unused:
        mutable.remove_unused()
    return mutable.to_proto(), found


def values(proto: onnx.ModelProto, feeds: Arrays) -> dict[str, Any]:
    """Return the value of every tensor on ONNX's reference evaluator, constants included."""
    found = ReferenceEvaluator(proto).run(None, dict(feeds), intermediate=True)
    found |= {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found.pop("", None)
    return found


def assert_same(file: onnx.ModelProto, made: onnx.ModelProto, feeds: Arrays) -> None:
    """The outputs have the file's names, and each tensor of a name of the file has its very value and type."""
    check(made)
    assert [info.name for info in made.graph.output] == [info.name for info in file.graph.output]
    expected, got = values(file, feeds), values(made, feeds)
    assert {info.name for info in file.graph.output} <= got.keys()
    for name in sorted(got.keys() & expected.keys()):
        a, b = got[name], expected[name]
        if isinstance(b, list):
            continue
        assert np.asarray(a).dtype == np.asarray(b).dtype, name
        np.testing.assert_array_equal(a, b, err_msg=name)


def assert_untouched(file: onnx.ModelProto, rewrite: Pass) -> None:
    """The pass reports nothing, and leaves the nodes and constants as they are."""
    made, found = rewritten(file, rewrite, unused=True)
    assert not found
    assert list(made.graph.node) == list(file.graph.node)
    kept = {tensor.name: numpy_helper.to_array(tensor) for tensor in made.graph.initializer}
    assert kept.keys() == {tensor.name for tensor in file.graph.initializer}
    for tensor in file.graph.initializer:
        np.testing.assert_array_equal(kept[tensor.name], numpy_helper.to_array(tensor))


def whole(*shape: int, seed: int = 0, dtype: Any = np.float64) -> np.ndarray:
    """Return small whole numbers, whose sums and products are exact."""
    return np.random.default_rng(seed).integers(-8, 9, shape).astype(dtype)
