"""Fix inputs of a model to values, so that branches and loops on them fold.

From a ModelProto and {input: value} to a copy in which these inputs are constants, and the arrays. The values are
checked against the type and shape that the model states, and are kept in its metadata. They hold for every call, unlike
the switches of converters/specialise.py, which are read from the inputs of each call.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import helper, numpy_helper

from converters.errors import ConversionError
from converters.graph.tensors import shape_of
from converters.metadata import CONSTANTS_KEY, constants_text, parse_constants
from converters.types import NamedArrays, Shape

_MOST_ELEMENTS = 2**26
_WIDTH = 60


class Literal(str):
    """The text of a value on the command line: its meaning depends on the type of the input."""

    @property
    def value(self) -> Any:
        """The value that the text states: JSON, a number, True or False, else the text itself."""
        words = {"True": True, "False": False}
        if self.strip() in words:
            return words[self.strip()]
        for read in (json.loads, float):
            try:
                return read(self)
            except (ValueError, RecursionError):
                continue
        return str(self)


def fix_inputs(
    proto: onnx.ModelProto, constants: Mapping[str, Any] | None
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a copy of the model in which inputs are constants, and their arrays; the model itself without any.

    constants: {input: value}; a number fills an input of stated sizes. Raises ConversionError for a name that is not an
    input, and for a value of another type, range or shape.
    """
    inputs = {info.name: info for info in proto.graph.input}
    constants = _not_yet_fixed(proto, inputs, constants or {})
    if not constants:
        return proto, {}
    _refuse_names(proto, inputs, constants)
    values = {name: _array(inputs[name], value) for name, value in constants.items()}
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    graph = copy.graph
    for field in (graph.input, graph.initializer):
        for index in reversed(range(len(field))):
            if field[index].name in values:
                del field[index]
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in values.items())
    _bind_symbols(graph, inputs, values)
    state_constants(copy, values)
    return copy, values


def state_constants(proto: onnx.ModelProto, values: NamedArrays) -> None:
    """Add fixed inputs to the metadata of a model, in place."""
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    entries[CONSTANTS_KEY] = constants_text({**_stated(proto), **values})
    helper.set_model_props(proto, entries)


def mapping_of(constants: Any) -> Mapping[str, Any]:
    """Return constants as a mapping, empty for None. Raises ConversionError for anything else."""
    if constants is None:
        return {}
    if not isinstance(constants, Mapping) or not all(isinstance(name, str) for name in constants):
        raise ConversionError(
            f"expected constants as {{input name: value}}, got {_shown(constants)}. Fix: give constants="
            "{'name': value}"
        )
    return constants


def plain(value: Any) -> Any:
    """Return a value as Python has it: that of a Literal, of a NumPy number, or the value itself."""
    if isinstance(value, Literal):
        return value.value
    return value.item() if isinstance(value, (np.generic, np.ndarray)) and value.ndim == 0 else value


def _stated(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    """The inputs that a model states as fixed; none where its metadata are damaged."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == CONSTANTS_KEY), "{}")
    try:
        return parse_constants(text)
    except ValueError:
        return {}


def _not_yet_fixed(
    proto: onnx.ModelProto, inputs: Mapping[str, Any], constants: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the constants without those that the model has already, with the same value."""
    fixed, found = _stated(proto), {}
    for name, value in constants.items():
        if name in inputs or name not in fixed:
            found[name] = value
        elif not _same(fixed[name], plain(value)):
            raise ConversionError(
                f"the input {name!r} is already fixed to {_shown(fixed[name].tolist())}, got {_shown(plain(value))}. "
                "Fix: convert the original model with the other value"
            )
    return found


def _same(fixed: np.ndarray, value: Any) -> bool:
    """Whether a value is that of a fixed input, one number for all of its elements included."""
    try:
        given = np.broadcast_to(np.asarray(value), fixed.shape)
    except (ValueError, TypeError):
        return False
    return bool(np.array_equal(given, fixed)) or str(value) == fixed.tolist()


def _refuse_names(proto: onnx.ModelProto, inputs: Mapping[str, Any], constants: Mapping[str, Any]) -> None:
    stored = {tensor.name for tensor in proto.graph.initializer}
    own = [name for name in inputs if name not in stored]
    for name in constants:
        if name not in inputs:
            raise ConversionError(
                f"expected the name of an input to fix, got {name!r}. Fix: give one of {', '.join(own) or 'none'}"
            )
    if own and not set(own) - constants.keys():
        raise ConversionError(
            f"constants fix every input, {', '.join(own)}, and leave none to explain. Fix: leave at least one input"
        )


def _array(info: onnx.ValueInfoProto, value: Any) -> np.ndarray:
    """Return the value of an input in its type and shape. Raises ConversionError where it is of another."""
    if not info.type.HasField("tensor_type") or not info.type.tensor_type.elem_type:
        raise ConversionError(
            f"the input {info.name!r} is not a tensor, and cannot be fixed. Fix: leave it an input"
        )
    wanted = np.dtype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
    text = wanted.kind == "O"
    if isinstance(value, Literal):
        listed = isinstance(value.value, list) or str(value).startswith('"')
        value = str(value) if text and not listed else value.value
    try:
        given = np.asarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ConversionError(
            f"expected a value of type {_named(wanted)} for {info.name!r}, got {_shown(value)}. Fix: give a number, or "
            "nested lists of one length"
        ) from error
    if text:
        return _shaped(info, _texts(info.name, given))
    return _shaped(info, _numbers(info.name, given, wanted))


def _texts(name: str, given: np.ndarray) -> np.ndarray:
    if given.dtype.kind != "U" and not all(isinstance(one, str) for one in given.reshape(-1)):
        raise _refused(name, np.dtype(object), given, "another type")
    return given.astype(object)


def _numbers(name: str, given: np.ndarray, wanted: np.dtype[Any]) -> np.ndarray:
    """Return numbers in a type that holds them."""
    kind, floats = given.dtype.kind, wanted.kind == "f" or wanted.name == "bfloat16"
    whole = kind in "iu" or (kind == "O" and all(type(one) is int for one in given.reshape(-1)))
    floating = kind == "f" or given.dtype == ml_dtypes.bfloat16
    if not given.size:
        return given.astype(wanted)
    if wanted.kind == "b":
        if kind == "b" or (whole and set(given.reshape(-1).tolist()) <= {0, 1}):
            return given.astype(bool)
    elif wanted.kind in "iu" and whole:
        limits, reach = np.iinfo(wanted), [int(one) for one in (given.min(), given.max())]
        if limits.min <= reach[0] and reach[1] <= limits.max:
            return given.astype(wanted)
        raise _refused(name, wanted, given, f"a value out of range, {limits.min} to {limits.max}")
    elif floats and (whole or floating):
        with np.errstate(over="ignore"):
            found = given.astype(np.float64).astype(wanted)
        if (np.isfinite(found.astype(np.float64)) == np.isfinite(given.astype(np.float64))).all():
            return found
        raise _refused(name, wanted, given, f"a value out of range, at most {ml_dtypes.finfo(wanted).max:g}")  # type: ignore[no-untyped-call]
    raise _refused(name, wanted, given, "another type")


def _refused(name: str, wanted: np.dtype[Any], given: np.ndarray, what: str) -> ConversionError:
    fixes = {"b": "true or false", "i": "a whole number", "u": "a whole number", "O": "a text"}
    return ConversionError(
        f"expected a value of type {_named(wanted)} for {name!r}, got {what}: {_shown(given.tolist())}. Fix: give "
        f"{fixes.get(wanted.kind, 'a number')}{' in this range' if 'range' in what else ''}, or a list of them"
    )


def _shaped(info: onnx.ValueInfoProto, given: np.ndarray) -> np.ndarray:
    """Return an array of the stated shape; a number fills stated sizes."""
    stated = shape_of(info.type)
    if stated is None or _fits(given.shape, stated):
        return given
    sizes = [axis for axis in stated if isinstance(axis, int)]
    if given.ndim == 0 and len(sizes) == len(stated) and math.prod(sizes) <= _MOST_ELEMENTS:
        return np.full(sizes, given, given.dtype)
    shown = f"({', '.join('?' if axis is None else str(axis) for axis in stated)}{',' * (len(stated) == 1)})"
    free = len(sizes) < len(stated)
    if not stated:
        raise ConversionError(
            f"expected one value for {info.name!r}, got an array of shape {given.shape}. Fix: give one value, without "
            "a list"
        )
    raise ConversionError(
        f"expected a value of shape {shown} for {info.name!r}, got {'a number' if not given.ndim else given.shape}. "
        f"Fix: give an array of this shape{', with a size for each free axis' if free else ', or one number'}"
    )


def _fits(shape: Sequence[int], stated: Shape) -> bool:
    found: dict[str, int] = {}
    return len(shape) == len(stated) and all(
        size == (found.setdefault(axis, size) if isinstance(axis, str) else axis)
        for size, axis in zip(shape, stated, strict=True)
        if axis is not None
    )


def _bind_symbols(graph: onnx.GraphProto, inputs: Mapping[str, Any], values: NamedArrays) -> None:
    """State the free sizes of the other inputs that the shapes of the values settle."""
    known: dict[str, int] = {}
    for name, array in values.items():
        stated = shape_of(inputs[name].type) or ()
        for size, axis in zip(array.shape, stated, strict=False):
            if isinstance(axis, str) and known.setdefault(axis, size) != size:
                raise ConversionError(
                    f"the values give two sizes to the axis {axis!r}: {known[axis]} and {size}. Fix: give arrays of "
                    "one size along it"
                )
    for info in (*graph.input, *graph.output, *graph.value_info):
        for dim in info.type.tensor_type.shape.dim if info.type.HasField("tensor_type") else ():
            if dim.dim_param in known:
                dim.dim_value = known[dim.dim_param]


def _named(dtype: np.dtype[Any]) -> str:
    return "text" if dtype.kind == "O" else dtype.name


def _shown(value: Any) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= _WIDTH else f"{text[: _WIDTH - 1]}…"


__all__ = ["Literal", "fix_inputs", "mapping_of", "plain", "state_constants"]
