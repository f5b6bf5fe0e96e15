"""Check that the integers of attributes and of constant inputs are in range, before ONNX's shape inference or a kernel
relies on them.

Reads NodeProtos of the standard's ops; raises InvalidModel, which names the attribute or the constant. Extremes have
crashed shape inference (an axis of 2**63 - 1) and kernels (a batch_dims of -2**63), or kept them busy for hours (a
window of 2**40).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from converters.errors import InvalidModel

_FIX = "Fix: export the model again until onnx.checker.check_model takes it"
_Range = tuple[int, int]

MOST_AXES = 64
"""More axes than any runtime allows a tensor to have."""
_MOST = 2**31 - 1
"""Kernels keep sizes of windows and steps in 32 bits."""
LARGEST_WINDOW = 2**24
"""The most elements that the window of a pooling or a convolution may span."""

_AXIS: _Range = (-MOST_AXES, MOST_AXES - 1)
_PLACE: _Range = (0, MOST_AXES - 1)
_COUNT: _Range = (1, _MOST)
_SIZE: _Range = (0, _MOST)
_FLAG: _Range = (0, 1)
# {attribute: the range of its value, or of each of its values}, for all ops that have no entry in _OF_OP
_RANGES: dict[str, _Range] = {
    **dict.fromkeys(("axis", "axes", "scan_input_axes", "scan_output_axes"), _AXIS),
    **dict.fromkeys(("perm", "batch_dims"), _PLACE),
    **dict.fromkeys(("batch_axis", "time_axis", "layout", "storage_order", "ceil_mode", "keepdims"), _FLAG),
    **dict.fromkeys(("transA", "transB", "transBatchA", "transBatchB", "noop_with_empty_axes"), _FLAG),
    **dict.fromkeys(("exclusive", "reverse", "largest", "sorted", "allowzero", "select_last_index"), _FLAG),
    **dict.fromkeys(("count_include_pad", "linear_before_reset", "input_forget", "align_corners"), _FLAG),
    **dict.fromkeys(("antialias", "exclude_outside", "is_causal", "onesided", "periodic", "upper"), _FLAG),
    **dict.fromkeys(("center_point_box", "fmod", "inverse", "interleaved", "training_mode"), _FLAG),
    **dict.fromkeys(("detect_positive", "detect_negative", "saturate", "output_sequence"), _FLAG),
    **dict.fromkeys(("kernel_shape", "strides", "dilations", "group", "num_outputs", "blocksize"), _COUNT),
    **dict.fromkeys(("hidden_size", "num_groups", "num_scan_inputs", "sample_size"), _COUNT),
    **dict.fromkeys(("num_heads", "q_num_heads", "kv_num_heads"), _COUNT),
    **dict.fromkeys(("pads", "output_padding", "output_shape", "split", "k", "block_size"), _SIZE),
    **dict.fromkeys(("min_gram_length", "max_gram_length"), (1, 2**16)),
    "max_skip_count": (0, 2**16),
    "rotary_embedding_dim": _SIZE,
    "qk_matmul_output_mode": (0, 3),
    "scan_input_directions": _FLAG,
    "scan_output_directions": _FLAG,
}
_IMAGE: _Range = (1, 2**12)
_OF_OP: dict[str, dict[str, _Range]] = {
    "Pad": {"pads": (-_MOST, _MOST)},
    "LRN": {"size": _COUNT},
    "LpPool": {"p": _COUNT},
    "GlobalLpPool": {"p": _COUNT},
    "LpNormalization": {"p": (1, 2)},
    "MaxRoiPool": {"pooled_shape": _IMAGE},
    "RoiAlign": {"output_height": _IMAGE, "output_width": _IMAGE, "sampling_ratio": (0, 2**6)},
    "EyeLike": {"k": (-_MOST, _MOST)},
}
_SCALE = (2.0**-16, 2.0**16)
_ANY: _Range = (-_MOST, _MOST)
# {op: {place of an input: the range of its numbers, where it is constant}}
_INPUTS: dict[str, dict[int, tuple[float, float]]] = {
    "Resize": {2: _SCALE, 3: _SIZE},
    "Upsample": {1: _SCALE},
    "STFT": {1: _COUNT, 3: _COUNT},
    "DFT": {1: _COUNT, 2: _AXIS},
    "TopK": {1: _SIZE},
    "Pad": {1: _ANY},
    "Tile": {1: _SIZE},
    "OneHot": {1: _SIZE},
    "CumSum": {1: _AXIS},
    "CumProd": {1: _AXIS},
    "Trilu": {1: _ANY},
    "Split": {1: _SIZE},
    "Slice": {3: _AXIS},
    "Expand": {1: (-1, _MOST)},
    "ConstantOfShape": {0: _SIZE},
    "Reshape": {1: (-1, _MOST)},
    "MaxUnpool": {2: _SIZE},
    "Col2Im": {1: _COUNT, 2: _COUNT},
    "CenterCropPad": {1: _SIZE},
    "AffineGrid": {1: _SIZE},
    "MelWeightMatrix": {0: _COUNT, 1: _COUNT, 2: _COUNT},
    **{name: {0: _SIZE} for name in ("HannWindow", "HammingWindow", "BlackmanWindow")},
}
# {op: the places of inputs that are vectors}, and of those that hold one number
_VECTORS = {"Reshape": (1,), "ConstantOfShape": (0,), "Slice": (1, 2, 3, 4), "Pad": (1, 3), "Split": (1,)}
_NUMBERS = {"Loop": (0, 1), "If": (0,), "TopK": (1,), "CumSum": (1,), "CumProd": (1,), "Trilu": (1,)}
_TYPES = frozenset(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}
# Attributes that name a type of elements, with the value that asks for the default.
_OF_TYPE = {"to": None, "dtype": None, "output_dtype": 0, "output_datatype": 0, "stash_type": None}
_POOLS = ("MaxPool", "AveragePool", "LpPool")
_WINDOWED = ("Conv", "ConvTranspose", "ConvInteger", "QLinearConv", *_POOLS)


def validate_integers(node: onnx.NodeProto, place: str) -> None:
    """Raise InvalidModel for the first integer of a standard op's attributes that is out of range."""
    own = _OF_OP.get(node.op_type, {})
    for entry in node.attribute:
        values = _values(entry)
        if entry.name in _OF_TYPE:
            for value in values:
                if value not in _TYPES and value != _OF_TYPE[entry.name]:
                    raise InvalidModel(
                        f"{place}: expected {entry.name!r} to be a type of elements, got {value}. {_FIX}"
                    )
        elif (limits := own.get(entry.name, _RANGES.get(entry.name))) is not None:
            for value in values:
                if not limits[0] <= value <= limits[1]:
                    raise InvalidModel(
                        f"{place}: expected {entry.name!r} from {limits[0]} to {limits[1]}, got {value}. {_FIX}"
                    )
    if node.op_type in _WINDOWED:
        _validate_window(node, place)
    if node.op_type == "Split":
        _validate_pieces(node, place)


def validate_constants(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], place: str) -> None:
    """Raise InvalidModel for the first number of a standard op's constant inputs that is out of range."""
    validate_forms(node, constants, place)
    for index, (low, high) in _INPUTS.get(node.op_type, {}).items():
        array = constants.get(node.input[index]) if index < len(node.input) else None
        if array is None or array.dtype.kind not in "fiu":
            continue
        wrong = ~((array >= low) & (array <= high))
        if wrong.any():
            raise InvalidModel(
                f"{place}: expected numbers from {low:g} to {high:g} in {node.input[index]!r}, "
                f"got {array[wrong].flat[0]}. {_FIX}"
            )


def validate_forms(node: onnx.NodeProto, constants: Mapping[str, np.ndarray], place: str) -> None:
    """Raise InvalidModel for a constant input that is not the vector, or the one number, that the op expects."""
    for table, expected in ((_VECTORS, "a vector"), (_NUMBERS, "one number")):
        for name in (node.input[index] for index in table.get(node.op_type, ()) if index < len(node.input)):
            array = constants.get(name)
            if array is not None and (array.ndim != 1 if table is _VECTORS else array.size != 1):
                raise InvalidModel(
                    f"{place}: expected {expected} in {name!r}, got the shape {array.shape}. {_FIX}"
                )


def _values(entry: onnx.AttributeProto) -> Sequence[int]:
    if entry.ref_attr_name:
        # A call of the function gives the value.
        return []
    if entry.type == onnx.AttributeProto.INT:
        return [entry.i]
    return entry.ints if entry.type == onnx.AttributeProto.INTS else []


def _validate_window(node: onnx.NodeProto, place: str) -> None:
    given = {entry.name: list(_values(entry)) for entry in node.attribute}
    window = given.get("kernel_shape", [])
    if math.prod(window) > LARGEST_WINDOW:
        raise InvalidModel(
            f"{place}: expected a window of at most {LARGEST_WINDOW} elements, got {window}. {_FIX}"
        )
    if node.op_type not in _POOLS or "pads" not in given:
        return
    spread = given.get("dilations") or [1] * len(window)
    extents = [(size - 1) * step + 1 for size, step in zip(window, spread, strict=False)]
    if any(pad >= extent for pad, extent in zip(given["pads"], extents * 2, strict=False)):
        raise InvalidModel(
            f"{place}: expected pads that are smaller than the window {extents}, got {given['pads']}. {_FIX}"
        )


def _validate_pieces(node: onnx.NodeProto, place: str) -> None:
    """Check that a Split states as many pieces as it has outputs. Shape inference writes beyond them."""
    for entry in node.attribute:
        if entry.ref_attr_name or entry.name not in ("num_outputs", "split"):
            continue
        stated = entry.i if entry.name == "num_outputs" else len(entry.ints)
        if stated != len(node.output):
            raise InvalidModel(
                f"{place}: expected {entry.name!r} of {len(node.output)} pieces, one for each output, got {stated}. "
                f"{_FIX}"
            )
