"""The plain forms of ops that a runtime may lack: nodes of simpler ops with the same values.

`FORMS[op]` is a rule for a MutableModel. Values are equal, NaN included. Those of Mean, and of ops with a body in
the standard, are equal to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from analyzer.explainer.runtimes.bodies import standard_body
from analyzer.explainer.runtimes.mutable import Writer
from converters.graph.nodes import is_standard

PlainForm = Callable[[Writer], "str | Sequence[str] | None"]

_FLOATS = frozenset((TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16))
_FOLDED = frozenset(
    (
        *(
            "Add",
            "Cast",
            "Concat",
            "ConstantOfShape",
            "Div",
            "Expand",
            "Gather",
            "Identity",
            "Max",
            "Min",
            "Mul",
        ),
        *("Neg", "Range", "ReduceProd", "Reshape", "Shape", "Size", "Slice", "Squeeze", "Sub", "Unsqueeze"),
    )
)
# Larger constants would outweigh the nodes that compute them.
_LARGEST = 1024


def _inputs(op: Writer) -> list[str]:
    return [name for name in op.node.input if name]


def _sum(op: Writer) -> str:
    first, *others = _inputs(op)
    return reduce(lambda total, one: str(op.Add(total, one)), others, first)


def _mean(op: Writer) -> str:
    names = _inputs(op)
    return str(op.Div(_sum(op), len(names))) if len(names) > 1 else names[0]


def _largest(op: Writer) -> str:
    return _extreme(op, op.Greater)


def _least(op: Writer) -> str:
    return _extreme(op, op.Less)


def _extreme(op: Writer, beats: Callable[..., str]) -> str:
    """The first of two values where it beats the second one; where neither does and they differ, one is NaN."""
    first, *others = _inputs(op)
    number = op.element(first) in _FLOATS
    for other in others:
        last = op.Where(op.Equal(first, other), other, op.Add(first, other)) if number else other
        last = op.Where(beats(other, first), other, last) if number else last
        first = str(op.Where(beats(first, other), first, last))
    return first


def _sign(op: Writer) -> str:
    """Zeros and NaN are their own signs."""
    (x,) = _inputs(op)
    dtype = op.dtype(x)
    one = op.constant(np.asarray(1, dtype))
    minus, zero = op.constant(np.asarray(-1, dtype)), op.constant(np.asarray(0, dtype))
    return str(op.Where(op.Greater(x, zero), one, op.Where(op.Less(x, zero), minus, x)))


def _counted(op: Writer, name: str) -> str:
    return str(op.Cast(name, to=TensorProto.INT32))


def _both(op: Writer) -> str:
    a, b = _inputs(op)
    return str(op.Cast(op.Mul(_counted(op, a), _counted(op, b)), to=TensorProto.BOOL))


def _either(op: Writer) -> str:
    a, b = _inputs(op)
    return str(op.Cast(op.Add(_counted(op, a), _counted(op, b)), to=TensorProto.BOOL))


def _one_of(op: Writer) -> str:
    a, b = _inputs(op)
    difference = op.Sub(_counted(op, a), _counted(op, b))
    return str(op.Cast(op.Mul(difference, difference), to=TensorProto.BOOL))


def _opposite(op: Writer) -> str:
    (x,) = _inputs(op)
    return str(op.Equal(_counted(op, x), op.constant(np.asarray(0, np.int32))))


def _scatter(op: Writer) -> str | None:
    """ScatterND takes all coordinates of an element, ScatterElements that along its axis."""
    data, indices, updates = _inputs(op)
    shape = op.shape(data)
    if shape is None or not shape:
        return None
    rank = len(shape)
    axis, reduction = op.attribute("axis") % rank, op.attribute("reduction")
    dtype = op.dtype(indices)
    extents = op.Shape(indices)
    sizes = op.Shape(data, start=axis, end=axis + 1)
    wide = indices if dtype == np.int64 else op.Cast(indices, to=TensorProto.INT64)
    zero = op.constant(np.asarray(0, np.int64))
    along = op.Where(op.Less(wide, zero), op.Add(wide, sizes), wide)
    places = []
    for other in range(rank):
        if other == axis:
            places.append(op.Unsqueeze(along, [-1]))
            continue
        count = op.Squeeze(op.Shape(indices, start=other, end=other + 1), [0])
        numbers = op.Range(zero, count, op.constant(np.asarray(1, np.int64)))
        numbers = op.Reshape(numbers, [1] * other + [-1] + [1] * (rank - other - 1))
        places.append(op.Unsqueeze(op.Expand(numbers, extents), [-1]))
    stated = {} if reduction in (None, "none") else {"reduction": reduction}
    return str(op.ScatterND(data, op.Concat(*places, axis=-1), updates, **stated))


FORMS: dict[str, PlainForm] = {
    "Sum": _sum,
    "Mean": _mean,
    "Max": _largest,
    "Min": _least,
    "Sign": _sign,
    "And": _both,
    "Or": _either,
    "Xor": _one_of,
    "Not": _opposite,
    "ScatterElements": _scatter,
    **dict.fromkeys(("Celu", "Mish", "Selu", "Softplus", "Softsign", "Swish"), standard_body),
}
"""The plain form of each op that has one."""


def folded(op: Writer) -> str | Sequence[str] | None:
    """Return the constant that a node of sizes and indices (int64) gives; None where it is not known or is large."""
    node = op.node
    if (
        not is_standard(node)
        or node.op_type not in _FOLDED
        or op.element(node.output[0]) != TensorProto.INT64
    ):
        return None
    if node.op_type in ("Shape", "Size"):
        shape = op.shape(node.input[0])
        if shape is None or not all(isinstance(size, int) for size in shape):
            return None
        if node.op_type == "Size":
            return _constant(op, np.asarray(math.prod(map(int, shape)), np.int64))  # type: ignore[arg-type]
        return _constant(op, np.asarray(shape[op.attribute("start") : op.attribute("end")], np.int64))
    values = {name: op.value(name) for name in node.input if name}
    if not values or any(value is None or value.size > _LARGEST for value in values.values()):
        return None
    result = _evaluated(
        node, {name: value for name, value in values.items() if value is not None}, op.model.opset
    )
    return _constant(op, result) if result.size <= _LARGEST else None


def _constant(op: Writer, value: np.ndarray) -> str:
    """A node, so that the tensor keeps its name."""
    return str(op.Constant(value=numpy_helper.from_array(value)))


def _evaluated(node: onnx.NodeProto, values: dict[str, np.ndarray], opset: int) -> Any:
    infos = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in values.items()
    ]
    result = helper.make_tensor_value_info(node.output[0], TensorProto.INT64, None)
    graph = helper.make_graph([node], "one", infos, [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    (found,) = ReferenceEvaluator(model).run(None, values)
    return np.asarray(found, np.int64)
