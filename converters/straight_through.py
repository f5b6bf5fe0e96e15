"""Rewrite a quantized graph in floats, so that it can be differentiated straight through the rounding.

Reads a canonical model, returns another with the same outputs: codes are floats that hold the integers less their
zero point, a quantizer is Div, Round and Clip, products of codes are Conv and MatMul in floats (exact up to 2²⁴). Its
Round and Clip are marked, and a marked node is differentiated by the straight-through rule: Round as the identity,
Clip as the identity on its closed range and zero outside (Bengio, Léonard & Courville 2013; Jacob et al. 2018). The
decision is made on the rounded code, as PyTorch's fake quantization makes it.

A scale that is measured at run time (DynamicQuantizeLinear) is held fixed. A model's own Round, as fake quantizers
written in primitives use it, is passed through as well; Floor and Ceil keep their derivative of zero. Refuses, by
name, codes of float8 and float4, and nodes that compute with codes in a way that floats do not (bits, remainders).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper

from converters.canonical import canonicalise
from converters.errors import UnsupportedModel
from converters.graph.expansion import Expander, Expansion, Undetermined, describe, expand
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard
from converters.model import Model

STRAIGHT_THROUGH = "onnxplain.straight_through"
"""The metadata key of a node that is differentiated by the straight-through rule."""

_QUANTIZED = (
    *("ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"),
    *("QLinearConv", "QLinearMatMul", "QuantizeLinear"),
)
# These only move or choose among codes: a zero point that all of them share may stay subtracted.
_MOVERS = (
    *("Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND", "Identity"),
    *("Max", "MaxPool", "Min", "ReduceMax", "ReduceMin", "Reshape", "Slice", "SpaceToDepth", "Split"),
    *("Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
)
# These compute with codes, and mean the same in floats.
_CARRIERS = (*_MOVERS, "Add", "Cast", "Clip", "Mul", "Neg", "Pad", "ReduceSum", "Relu", "Sub")
# These read the shape of codes alone.
_BLIND = ("Shape", "Size")
_INTEGERS = (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16)
# Products of integers come without a scale, whose type others take.
_F32 = np.zeros((), np.float32)
_OMIT = (
    "Fix: omit straight_through (--straight-through), or give the float model as it was before quantization"
)


def straight_through(model: Model) -> Model:
    """The model in floats, with its roundings marked; one without any, or marked already, is returned as it is.

    The source is left behind: the original network does not know the rule. Raises UnsupportedModel.
    """
    nodes = model.light.graph.node
    marked = any(entry.key == STRAIGHT_THROUGH for node in nodes for entry in node.metadata_props)
    if marked or not any(is_standard(node, "Round", *_QUANTIZED) for node in nodes):
        return model
    proto = onnx.ModelProto()
    proto.CopyFrom(model.light)
    draft = MutableGraph(proto)
    _Floats(draft).rewrite()
    # Folding a quantizer's scale into the layer before it would move what is rounded.
    marked_proto = canonicalise(draft.to_proto(), fold_batch_norm=False, dynamic_batch=False)
    return Model(marked_proto, original=model.light_original)


class _Floats:
    """A draft that is rewritten. `codes` are the tensors that became floats, each with the name of the zero
    point that is subtracted from it already ("" for none)."""

    def __init__(self, draft: MutableGraph) -> None:
        self.draft = draft
        self.codes: dict[str, str] = {}
        self.rules: Mapping[str, Expansion] = {
            "ConvInteger": self.conv_integer,
            "DequantizeLinear": self.dequantize,
            "DynamicQuantizeLinear": self.dynamic_quantize,
            "MatMulInteger": self.mat_mul_integer,
            "QLinearConv": self.q_linear_conv,
            "QLinearMatMul": self.q_linear_mat_mul,
            "QuantizeLinear": self.quantize,
        }

    def rewrite(self) -> None:
        """Rewrite the draft in place."""
        draft, nodes = self.draft, list[onnx.NodeProto]()
        for node in draft.nodes:
            if is_standard(node, *_QUANTIZED):
                nodes += self._ruled(node)
            elif is_standard(node, "Round"):
                _mark(node)
                nodes.append(node)
            elif self.codes.keys().isdisjoint(node.input) or is_standard(node, *_BLIND):
                nodes.append(node)
            else:
                nodes += self._carried(node)
        draft.nodes = nodes
        for info in draft.outputs:
            if info.name in self.codes:
                info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
        for name in self.codes:
            draft.types.pop(name, None)

    def _ruled(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        try:
            return expand(self.draft, node, self.rules[node.op_type])
        except Undetermined as error:
            raise UnsupportedModel(
                f"{describe(node)} cannot be written in floats: {error}. Fix: state the shapes of the file's inputs"
            ) from error

    def _carried(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """A node that carries codes, on floats: what it reads beside them becomes float too."""
        # Between pixels, Resize would give floats that are no codes.
        nearest = is_standard(node, "Resize") and attribute(node, "mode") in (None, b"nearest")
        wanted = attribute(node, "to", onnx.TensorProto.FLOAT)
        if wanted not in (*_INTEGERS, *_FLOATS) or not (nearest or is_standard(node, *_CARRIERS)):
            raise UnsupportedModel(
                f"{describe(node)} computes with quantized codes, which has no form straight "
                f"through the rounding. {_OMIT}"
            )
        schema = onnx.defs.get_schema(node.op_type, self.draft.opsets[""])
        kind = _kind(schema.inputs, next(i for i, name in enumerate(node.input) if name in self.codes))
        alike = [i for i, name in enumerate(node.input) if name and _kind(schema.inputs, i) == kind]
        zeros = {self.codes.get(node.input[index], "") for index in alike}
        moves = nearest or is_standard(node, *_MOVERS)
        stays = moves and len(zeros) == 1 and self.draft.output_names.isdisjoint(node.output)
        shared = zeros.pop() if stays else ""
        before = []
        for index in alike:
            before += self._replace_input(node, index, keep_centred=bool(shared))
        if is_standard(node, "Cast"):
            if wanted in _INTEGERS:
                node.op_type = "Identity"
                del node.attribute[:]
                self.codes[node.output[0]] = ""
            return [*before, node]
        for index, name in enumerate(node.output):
            if name and _kind(schema.outputs, index) == kind:
                self.codes[name] = shared
        return [*before, node]

    def _replace_input(self, node: onnx.NodeProto, index: int, keep_centred: bool) -> list[onnx.NodeProto]:
        """Let a node read floats at an input: codes with their zero point, unless it may stay subtracted."""
        name = node.input[index]
        zero = self.codes.get(name)
        if zero == "" or (zero and keep_centred):
            return []
        made = node.input[index] = self.draft.fresh(f"{name}.float")
        if zero is None:
            return [helper.make_node("Cast", [name], [made], to=onnx.TensorProto.FLOAT)]
        moved = self.draft.fresh(f"{zero}.float")
        return [
            helper.make_node("CastLike", [zero, name], [moved]),
            helper.make_node("Add", [name, moved], [made]),
        ]

    def centred(
        self, op: Expander, x: str, zero: str | None, like: str | np.ndarray, axis: int, block_size: int = 0
    ) -> str:
        """Codes less `zero`, as floats of the type of `like`."""
        y, subtracted = str(op.CastLike(x, like)), self.codes.get(x, "")
        if _equal(op, subtracted, zero):
            return y
        if subtracted:
            y = str(op.Add(y, op.CastLike(subtracted, like)))
        if _is_zero(op, zero):
            return y
        assert zero is not None
        return str(op.Sub(y, op.CastLike(_spread(op, zero, x, axis, block_size), like)))

    def rounded(self, op: Expander, y: str, zero: str | None, spread: str | None, kind: np.dtype[Any]) -> str:
        """The codes of y = x / scale: rounded half to even, within the range of `kind`.

        A zero point of the whole tensor stays subtracted; one along an axis (`spread`), or of an output of the
        graph, is added.
        """
        limits = ml_dtypes.iinfo(kind)  # type: ignore[no-untyped-call]
        name = op.node.output[0]
        low, high = float(limits.min), float(limits.max)
        y = op.Round(y)
        _mark(op.nodes[-1])
        self.codes[name] = ""
        if zero is not None and not _is_zero(op, zero):
            value = op.value(zero)
            if value is not None and value.size == 1 and name not in self.draft.output_names:
                self.codes[name] = zero
                low, high = low - float(value.item()), high - float(value.item())
            else:
                y = op.Add(y, op.CastLike(spread, y))
        codes = op.Clip(y, low, high)
        _mark(op.nodes[-1])
        return str(codes)

    def quantize(
        self,
        op: Expander,
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
        y = op.Div(self.centred(op, x, None, scale, axis), _spread(op, scale, x, axis, block_size))
        spread = None if zero is None else _spread(op, zero, x, axis, block_size)
        return self.rounded(op, y, zero, spread, kind)

    def dequantize(
        self,
        op: Expander,
        x: str,
        scale: str,
        zero: str | None = None,
        *,
        axis: int = 1,
        block_size: int = 0,
        output_dtype: int = 0,
    ) -> str:
        y = self.centred(op, x, zero, scale, axis, block_size)
        y = op.Mul(y, _spread(op, scale, x, axis, block_size))
        return str(op.Cast(y, to=output_dtype) if output_dtype else y)

    def dynamic_quantize(self, op: Expander, x: str) -> tuple[str, str, str]:
        # The node itself stays for the range that it measures.
        _, scale, zero = op.emit("DynamicQuantizeLinear", [x], outputs=3)
        moved, y = op.Cast(zero, to=onnx.TensorProto.FLOAT), op.Round(op.Div(x, scale))
        _mark(op.nodes[-1])
        codes = op.Clip(y, op.Neg(moved), op.Sub(op.Constant(value_float=255.0), moved))
        _mark(op.nodes[-1])
        codes_name, _, zero_name = (*op.node.output, "", "")[:3]
        self.codes[codes_name] = zero_name
        return codes if zero_name else op.Add(codes, moved), scale, zero

    def conv_integer(
        self,
        op: Expander,
        x: str,
        w: str,
        x_zero: str | None = None,
        w_zero: str | None = None,
        **attributes: Any,
    ) -> str:
        self.codes[op.node.output[0]] = ""
        factors = self.centred(op, x, x_zero, _F32, 1), self.centred(op, w, w_zero, _F32, 0)
        return str(op.Conv(*factors, **attributes))

    def mat_mul_integer(
        self, op: Expander, a: str, b: str, a_zero: str | None = None, b_zero: str | None = None
    ) -> str:
        self.codes[op.node.output[0]] = ""
        return str(op.MatMul(self.centred(op, a, a_zero, _F32, -2), self.centred(op, b, b_zero, _F32, -1)))

    def q_linear_conv(
        self,
        op: Expander,
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
        inputs = [self.centred(op, x, x_zero, x_scale, 1), self.centred(op, w, w_zero, w_scale, 0)]
        inputs += [self.centred(op, bias, None, x_scale, 0)] if bias else []
        sums = op.Conv(*inputs, **attributes)
        factor = op.Div(op.Mul(x_scale, w_scale), y_scale)
        if op.draft.shape(w_scale) not in ((), (1,)):
            factor = op.Reshape(factor, [-1, *[1] * (op.rank(w) - 2)])
        return self.rounded(op, op.Mul(sums, factor), y_zero, y_zero, _code_type(op, y_zero))

    def q_linear_mat_mul(
        self,
        op: Expander,
        a: str,
        a_scale: str,
        a_zero: str,
        b: str,
        b_scale: str,
        b_zero: str,
        y_scale: str,
        y_zero: str,
    ) -> str:
        sums = op.MatMul(self.centred(op, a, a_zero, a_scale, -2), self.centred(op, b, b_zero, b_scale, -1))
        factor = op.Div(op.Mul(_spread(op, a_scale, a, -2, 0), b_scale), y_scale)
        return self.rounded(op, op.Mul(sums, factor), y_zero, y_zero, _code_type(op, y_zero))


def _mark(node: onnx.NodeProto) -> None:
    node.metadata_props.add(key=STRAIGHT_THROUGH, value="true")


def _kind(formals: Any, index: int) -> str:
    """The type parameter of an input or output; the last one of a variadic op repeats."""
    return str(formals[min(index, len(formals) - 1)].type_str)


def _code_type(op: Expander, zero: str | None, output_dtype: int = 0) -> np.dtype[Any]:
    kind = np.dtype(helper.tensor_dtype_to_np_dtype(output_dtype)) if output_dtype else np.dtype(np.uint8)
    kind = op.dtype(zero) if zero else kind
    if kind.kind not in "iu" and kind.name not in ("int4", "uint4", "int2", "uint2"):
        raise op.refuse(f"rounds to {kind.name}, which has no form straight through the rounding. {_OMIT}")
    return kind


def _is_zero(op: Expander, zero: str | None) -> bool:
    value = op.value(zero) if zero else None
    return not zero or (value is not None and not value.astype(np.float32).any())


def _equal(op: Expander, subtracted: str, zero: str | None) -> bool:
    """Whether two zero points are the same."""
    if subtracted == zero or (_is_zero(op, subtracted) and _is_zero(op, zero)):
        return True
    a, b = op.value(subtracted) if subtracted else None, op.value(zero) if zero else None
    return a is not None and b is not None and a.size == b.size == 1 and int(a.item()) == int(b.item())


def _spread(op: Expander, v: str, x: str, axis: int, block_size: int) -> str:
    """A scale or zero point, shaped to broadcast to x: of the tensor, along an axis, or of blocks along it."""
    shape = op.draft.shape(v)
    if shape is None:
        raise Undetermined(f"the shape of {v!r} is unknown")
    if not block_size and (len(shape) != 1 or shape == (1,)):
        return v
    rank = op.rank(x)
    axis %= rank
    if not block_size:
        return str(op.Reshape(v, [-1 if place == axis else 1 for place in range(rank)]))
    tiled = op.Tile(
        op.Unsqueeze(v, [axis + 1]), [block_size if i == axis + 1 else 1 for i in range(rank + 1)]
    )
    # Sizes before the blocks are copied, those behind them stated.
    merged = [0] * axis + [-1] + [op.size(v, behind) for behind in range(axis + 1, rank)]
    return str(op.Slice(op.Reshape(tiled, merged), [0], [op.size(x, axis)], [axis]))
