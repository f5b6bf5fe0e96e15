"""Rewrite a quantized graph in floats, so that it can be differentiated straight through the rounding.

Reads a canonical model, returns another with the same outputs: codes are floats that hold the integers, a
quantizer is Div, Round, Add, Clip, products of codes are Conv and MatMul in floats (exact up to 2²⁴). Its Round and
Clip are marked, and a marked node is differentiated by the straight-through rule: Round as the identity, Clip as
the identity on its closed range and zero outside (Bengio, Léonard & Courville 2013; Jacob et al. 2018). The decision
is made on the rounded code, as PyTorch's fake quantization makes it.

A scale that is measured at run time (DynamicQuantizeLinear) is held fixed. A model's own Round, as fake quantizers
written in primitives use it, is passed through as well; Floor and Ceil keep their derivative of zero. Refuses, by
name, codes of float8 and float4, and nodes that compute with codes in a way that floats do not (bits, remainders).
"""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from converters.canonical import canonicalise
from converters.draft import Draft, attribute, is_standard
from converters.errors import UnsupportedModel
from converters.fused.builder import Builder, Expansion, Undetermined, describe, expand
from converters.model import Model

STRAIGHT_THROUGH = "onnxplain.straight_through"
"""The metadata key of a node that is differentiated by the straight-through rule."""

# These move, compare or add codes and mean the same in floats.
_CARRIERS = (
    *("Add", "Clip", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND"),
    *(
        "Identity",
        "Max",
        "MaxPool",
        "Min",
        "Mul",
        "Neg",
        "Pad",
        "ReduceMax",
        "ReduceMin",
        "ReduceSum",
        "Relu",
    ),
    *(
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Sub",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Where",
    ),
)
# These read the shape of codes alone.
_BLIND = ("Shape", "Size")
_INTEGERS = frozenset((onnx.TensorProto.INT32, onnx.TensorProto.INT64))
_FLOATS = frozenset((onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16))

# Products of integers come without a scale, whose type others take.
_F32 = np.zeros((), np.float32)


def straight_through(model: Model) -> Model:
    """The model in floats, with its roundings marked; one without any, or marked already, is returned as it is.

    The source is left behind: the original network does not know the rule. Raises UnsupportedModel.
    """
    nodes = model.proto.graph.node
    marked = any(entry.key == STRAIGHT_THROUGH for node in nodes for entry in node.metadata_props)
    if marked or not any(is_standard(node, "Round", *_RULES) for node in nodes):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.proto)
    draft = Draft(proto)
    _rewrite(draft)
    # Folding a quantizer's scale into the layer before it would move what is rounded.
    return Model(canonicalise(draft.to_proto(), fold_batch_norm=False, dynamic_batch=False))


def _rewrite(draft: Draft) -> None:
    codes: set[str] = set()
    used, nodes = draft.uses(), list[onnx.NodeProto]()
    for node in draft.nodes:
        rule = _RULES.get(node.op_type) if is_standard(node) else None
        if rule is not None:
            nodes += _ruled(draft, node, rule, codes, used)
        elif is_standard(node, "Round"):
            node.metadata_props.add(key=STRAIGHT_THROUGH, value="true")
            nodes.append(node)
        elif codes.isdisjoint(node.input) or is_standard(node, *_BLIND):
            nodes.append(node)
        else:
            nodes += _carried(draft, node, codes)
    draft.nodes = nodes
    for name in codes:
        draft.types.pop(name, None)
    for info in draft.outputs:
        if info.name in codes:
            info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT


def _ruled(
    draft: Draft, node: onnx.NodeProto, rule: Expansion, codes: set[str], used: Any
) -> list[onnx.NodeProto]:
    try:
        found = expand(draft, node, rule, used)
    except Undetermined as error:
        raise UnsupportedModel(f"{describe(node)} cannot be written in floats: {error}") from error
    if node.op_type != "DequantizeLinear":
        codes.add(node.output[0])
    return found


def _carried(draft: Draft, node: onnx.NodeProto, codes: set[str]) -> list[onnx.NodeProto]:
    """A node that carries codes, on floats: what it reads beside them becomes float too."""
    if is_standard(node, "Cast") and attribute(node, "to") in _INTEGERS | _FLOATS:
        if attribute(node, "to") in _INTEGERS:
            node.op_type = "Identity"
            del node.attribute[:]
            codes.add(node.output[0])
        return [node]
    # Between pixels, Resize would give floats that are no codes.
    nearest = is_standard(node, "Resize") and attribute(node, "mode", b"nearest") == b"nearest"
    if not nearest and not is_standard(node, *_CARRIERS):
        raise UnsupportedModel(
            f"{describe(node)} computes with quantized codes, which has no form straight through the rounding"
        )
    schema = onnx.defs.get_schema(node.op_type, draft.opsets[""])
    first = next(index for index, name in enumerate(node.input) if name in codes)
    kind = _formal(schema.inputs, first).type_str
    casts = []
    for index, name in enumerate(node.input):
        if name and name not in codes and _formal(schema.inputs, index).type_str == kind:
            node.input[index] = draft.fresh(f"{name}.float")
            casts.append(helper.make_node("Cast", [name], [node.input[index]], to=onnx.TensorProto.FLOAT))
    codes.update(
        name for i, name in enumerate(node.output) if name and _formal(schema.outputs, i).type_str == kind
    )
    return [*casts, node]


def _formal(formals: Any, index: int) -> Any:
    """The formal parameter at an index; the last one of a variadic op repeats."""
    return formals[min(index, len(formals) - 1)]


def _marked(op: Builder) -> None:
    op.nodes[-1].metadata_props.add(key=STRAIGHT_THROUGH, value="true")


def _rounded(op: Builder, y: str, zero: str | None, kind: np.dtype[Any]) -> str:
    """The codes of y = x / scale: rounded half to even, moved by the zero point, within the range of `kind`."""
    limits = ml_dtypes.iinfo(kind)
    y = op.Round(y)
    _marked(op)
    if zero is not None:
        y = op.Add(y, zero)
    codes = op.Clip(y, float(limits.min), float(limits.max))
    _marked(op)
    return str(codes)


def _code_type(op: Builder, zero: str | None, output_dtype: int = 0) -> np.dtype[Any]:
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(output_dtype)) if output_dtype else np.dtype(np.uint8)
    kind = op.dtype(zero) if zero else kind
    if kind.kind not in "iu" and kind.name not in ("int4", "uint4", "int2", "uint2"):
        raise op.refuse(f"rounds to {kind.name}, which has no form straight through the rounding")
    return kind


def _float(op: Builder, x: str, like: str | np.ndarray) -> str:
    """Codes or integers as floats of the type of `like`."""
    return str(op.CastLike(x, like))


def _is_zero(op: Builder, zero: str | None) -> bool:
    value = op.value(zero) if zero else None
    return not zero or (value is not None and not value.astype(np.float32).any())


def _spread(op: Builder, v: str, x: str, axis: int, block_size: int) -> str:
    """A scale or zero point, shaped to broadcast to x: of the tensor, along an axis, or of blocks along it."""
    if block_size:
        repeats = [1] * (op.rank(x) + 1)
        axis %= op.rank(x)
        repeats[axis + 1] = block_size
        tiled = op.Tile(op.Unsqueeze(v, [axis + 1]), repeats)
        shape = [0] * op.rank(x)
        shape[axis] = -1
        # The block axis is the one to merge: sizes before it are copied, those behind it stated.
        shape[axis + 1 :] = [op.size(v, behind) for behind in range(axis + 1, op.rank(x))]
        return str(op.Slice(op.Reshape(tiled, shape), [0], [op.size(x, axis)], [axis]))
    shape_of_v = op.draft.shape(v)
    if shape_of_v is None:
        raise Undetermined(f"the shape of {v!r} is unknown")
    if len(shape_of_v) != 1 or shape_of_v == (1,):
        return v
    rank = op.rank(x)
    return str(op.Reshape(v, [-1 if place == axis % rank else 1 for place in range(rank)]))


def _quantize(
    op: Builder,
    x: str,
    scale: str,
    zero: str | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    saturate: int = 1,
    precision: int = 0,
) -> str:
    kind = _code_type(op, zero, output_dtype)
    moved = None if zero is None or _is_zero(op, zero) else _spread(op, zero, x, axis, block_size)
    y = op.Div(_float(op, x, scale), _spread(op, scale, x, axis, block_size))
    return _rounded(op, y, None if moved is None else _float(op, moved, scale), kind)


def _dequantize(
    op: Builder,
    x: str,
    scale: str,
    zero: str | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> str:
    y = _centred(op, x, zero, scale, axis, block_size)
    y = op.Mul(y, _spread(op, scale, x, axis, block_size))
    return str(op.Cast(y, to=output_dtype) if output_dtype else y)


def _centred(
    op: Builder, x: str, zero: str | None, like: str | np.ndarray, axis: int, block_size: int = 0
) -> str:
    """Codes less their zero point, as floats of the type of `like`."""
    y = _float(op, x, like)
    if zero is None or _is_zero(op, zero):
        return y
    return str(op.Sub(y, _float(op, _spread(op, zero, x, axis, block_size), like)))


def _dynamic_quantize(op: Builder, x: str) -> tuple[str, str, str]:
    _, scale, zero = op.DynamicQuantizeLinear(x, outputs=3)
    return _rounded(op, op.Div(x, scale), op.Cast(zero, to=1), np.dtype(np.uint8)), scale, zero


def _conv_integer(
    op: Builder, x: str, w: str, x_zero: str | None = None, w_zero: str | None = None, **attributes: Any
) -> str:
    return str(op.Conv(_centred(op, x, x_zero, _F32, 1), _centred(op, w, w_zero, _F32, 0), **attributes))


def _mat_mul_integer(
    op: Builder, a: str, b: str, a_zero: str | None = None, b_zero: str | None = None
) -> str:
    return str(op.MatMul(_centred(op, a, a_zero, _F32, -2), _centred(op, b, b_zero, _F32, -1)))


def _q_linear_conv(
    op: Builder,
    x: str,
    x_scale: str,
    x_zero: str,
    w: str,
    w_scale: str,
    w_zero: str,
    y_scale: str,
    y_zero: str,
    bias: str | None = None,
    **attributes: Any,
) -> str:
    codes = [_centred(op, x, x_zero, x_scale, 1), _centred(op, w, w_zero, w_scale, 0)]
    sums = op.Conv(*codes, *([_float(op, bias, x_scale)] if bias else []), **attributes)
    factor = op.Div(op.Mul(x_scale, w_scale), y_scale)
    return _requantized(op, sums, _channels(op, factor, w_scale, op.rank(w)), y_zero)


def _channels(op: Builder, factor: str, scale: str, rank: int) -> str:
    shape = op.draft.shape(scale)
    if shape is None:
        raise Undetermined(f"the shape of {scale!r} is unknown")
    return factor if shape in ((), (1,)) else str(op.Reshape(factor, [-1, *[1] * (rank - 2)]))


def _q_linear_mat_mul(
    op: Builder,
    a: str,
    a_scale: str,
    a_zero: str,
    b: str,
    b_scale: str,
    b_zero: str,
    y_scale: str,
    y_zero: str,
) -> str:
    rows = _spread(op, a_scale, a, -2, 0)
    sums = op.MatMul(_centred(op, a, a_zero, a_scale, -2), _centred(op, b, b_zero, b_scale, -1))
    return _requantized(op, sums, op.Div(op.Mul(rows, b_scale), y_scale), y_zero)


def _requantized(op: Builder, sums: str, factor: str, zero: str) -> str:
    kind = _code_type(op, zero)
    return _rounded(op, op.Mul(sums, factor), None if _is_zero(op, zero) else _float(op, zero, sums), kind)


_RULES: dict[str, Expansion] = {
    "ConvInteger": _conv_integer,
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "MatMulInteger": _mat_mul_integer,
    "QLinearConv": _q_linear_conv,
    "QLinearMatMul": _q_linear_mat_mul,
    "QuantizeLinear": _quantize,
}
