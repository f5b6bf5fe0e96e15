"""Make computed shapes constant, as far as they are known before running.

Rewrites a MutableGraph whose types are inferred. Integers that are computed from shapes (Shape, then Gather, Slice,
Concat, arithmetic) are followed symbolically, the batch included; what comes out as numbers alone becomes a
constant, and so does the target of a Reshape that leaves at most one axis open.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard
from converters.graph.tensors import is_invented
from converters.types import Shape

# Longer integer vectors are data, not shapes.
_LONGEST = 64

# An array of numbers, symbols and None, as a NumPy array of objects.
_Symbols = np.ndarray


def fix_shapes(graph: MutableGraph) -> bool:
    """Replace every shape that is known. Returns whether anything changed."""
    changed, removed = False, []
    known: dict[str, _Symbols] = {}
    for node in graph.nodes:
        if not is_standard(node):
            continue
        value = _evaluate(graph, known, node)
        if value is not None:
            known[node.output[0]] = value
            if _is_numeric(value) and node.output[0] not in graph.output_names:
                graph.constants[node.output[0]] = _numbers(graph, node, value)
                removed.append(node)
        elif node.op_type == "Reshape":
            changed |= _fix_reshape(graph, known, node)
        elif node.op_type == "Expand":
            changed |= _fix_expand(graph, known, node) or _note_shape(
                graph, _expanded(graph, known, node), node
            )
        elif node.op_type == "MaxUnpool" and len(node.input) > 2:
            changed |= _note_shape(graph, known.get(node.input[2]), node)
    graph.remove(removed)
    return changed or bool(removed)


def _evaluate(graph: MutableGraph, known: dict[str, _Symbols], node: onnx.NodeProto) -> _Symbols | None:
    """What is known of an integer result; None where the node is no arithmetic of shapes."""
    if node.op_type in ("Shape", "Size"):
        return _of_shape(graph, node)
    rule = _RULES.get(node.op_type)
    if rule is None or not any(name in known for name in node.input):
        return None
    operands = [_operand(graph, known, name) for name in node.input if name]
    if any(operand is None for operand in operands):
        return None
    try:
        value = rule(node, *operands)
    except (IndexError, ValueError, TypeError, ArithmeticError):  # no shape computation: leave it to run time
        return None
    if value is None:
        return None
    value = np.asarray(value, object)
    return value if value.size <= _LONGEST and _fits(graph, node, value) else None


def _fits(graph: MutableGraph, node: onnx.NodeProto, value: _Symbols) -> bool:
    """Return whether all numbers are in the range of the node's result; others would wrap at run time."""
    known = graph.type_of(node.output[0])
    narrow = known is not None and known.tensor_type.elem_type == onnx.TensorProto.INT32
    limits = np.iinfo(np.int32 if narrow else np.int64)
    numbers = [int(item) for item in value.ravel() if isinstance(item, (int, np.integer))]
    return all(limits.min <= number <= limits.max for number in numbers)


def _operand(graph: MutableGraph, known: dict[str, _Symbols], name: str) -> _Symbols | None:
    if name in known:
        return known[name]
    constant = graph.constants.get(name)
    if constant is None or constant.size > _LONGEST or constant.dtype.kind != "i":
        return None
    return constant.astype(object)


def _of_shape(graph: MutableGraph, node: onnx.NodeProto) -> _Symbols | None:
    shape = graph.shape(node.input[0])
    if shape is None:
        return None
    if node.op_type == "Size":
        return np.asarray(np.prod(_array(shape)), object) if _is_numeric(_array(shape)) else None
    # An absent end is beyond the last axis; an explicit one is clamped by slicing as ONNX clamps it.
    return _array(shape[slice(attribute(node, "start", 0), attribute(node, "end"))])


def _array(values: Shape) -> _Symbols:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _is_numeric(value: _Symbols) -> bool:
    return all(isinstance(item, (int, np.integer)) for item in np.asarray(value, object).ravel())


def _numbers(graph: MutableGraph, node: onnx.NodeProto, value: _Symbols) -> np.ndarray:
    known = graph.type_of(node.output[0])
    kind = onnx.TensorProto.INT64 if known is None else known.tensor_type.elem_type
    return np.asarray(value).astype(onnx.helper.tensor_dtype_to_np_dtype(kind or onnx.TensorProto.INT64))


def _gather(node: onnx.NodeProto, data: _Symbols, indices: _Symbols) -> _Symbols:
    return np.take(data, indices.astype(np.int64), axis=int(attribute(node, "axis", 0) or 0))


def _slice(
    node: onnx.NodeProto, data: _Symbols, starts: _Symbols, ends: _Symbols, *rest: _Symbols
) -> _Symbols:
    axes = [int(axis) for axis in rest[0]] if rest else list(range(len(starts)))
    steps = [int(step) for step in rest[1]] if len(rest) > 1 else [1] * len(axes)
    selection = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        selection[axis] = slice(int(start), int(end), step)
    return data[tuple(selection)]


def _concat(node: onnx.NodeProto, *parts: _Symbols) -> _Symbols:
    return np.concatenate(parts, int(attribute(node, "axis", 0)))


def _squeeze(node: onnx.NodeProto, data: _Symbols, *axes: _Symbols) -> _Symbols:
    return np.squeeze(data, tuple(int(axis) for axis in axes[0]) if axes else None)


def _unsqueeze(node: onnx.NodeProto, data: _Symbols, axes: _Symbols) -> _Symbols | None:
    return data.reshape(1) if data.ndim == 0 and axes.tolist() in ([0], [-1]) else None


def _reshape(node: onnx.NodeProto, data: _Symbols, target: _Symbols) -> _Symbols:
    return data.reshape(tuple(int(size) for size in target))


def _cast(node: onnx.NodeProto, data: _Symbols) -> _Symbols | None:
    return data if attribute(node, "to") in (onnx.TensorProto.INT64, onnx.TensorProto.INT32) else None


def _product(node: onnx.NodeProto, data: _Symbols, *axes: _Symbols) -> _Symbols | None:
    if data.ndim > 1 or attribute(node, "noop_with_empty_axes", 0):
        return None
    result = np.asarray(1, object)
    for item in data.ravel():
        result = _multiply(node, result, np.asarray(item, object))
    return result.reshape((1,) * data.ndim if attribute(node, "keepdims", 1) else ())


def _arithmetic(function: Callable[[int, int], int], neutral: int | None = None) -> Callable[..., _Symbols]:
    """Numbers are computed; a symbol outlives the neutral element, else the result is unknown."""

    def one(a: int | str | None, b: int | str | None) -> int | str | None:
        if isinstance(a, (int, np.integer)) and isinstance(b, (int, np.integer)):
            return function(int(a), int(b))
        if neutral is not None and b == neutral:
            return a
        return b if neutral is not None and a == neutral else None

    def rule(node: onnx.NodeProto, x: _Symbols, y: _Symbols) -> _Symbols:
        return np.asarray(np.frompyfunc(one, 2, 1)(x, y), object)

    return rule


def _divide(a: int, b: int) -> int:
    # ONNX truncates towards zero; Python floors.
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _equal(node: onnx.NodeProto, x: _Symbols, y: _Symbols) -> _Symbols:
    """A size is no negative number, and equal to itself; whether it is another number is unknown."""

    def one(a: int | str | None, b: int | str | None) -> bool | None:
        numbers = [int(item) for item in (a, b) if isinstance(item, (int, np.integer))]
        if len(numbers) == 2:
            return numbers[0] == numbers[1]
        if numbers:
            return False if numbers[0] < 0 else None
        return True if a is not None and a == b else None

    return np.asarray(np.frompyfunc(one, 2, 1)(x, y), object)


def _where(node: onnx.NodeProto, condition: _Symbols, x: _Symbols, y: _Symbols) -> _Symbols:
    def one(chosen: bool | None, a: int | str | None, b: int | str | None) -> int | str | None:
        if chosen is None:
            return a if a == b else None
        return a if chosen else b

    return np.asarray(np.frompyfunc(one, 3, 1)(condition, x, y), object)


_multiply = _arithmetic(lambda a, b: a * b, neutral=1)

_RULES: dict[str, Callable[..., _Symbols | None]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Cast": _cast,
    "ReduceProd": _product,
    "Add": _arithmetic(lambda a, b: a + b, neutral=0),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _multiply,
    "Div": _arithmetic(_divide),
    "Equal": _equal,
    "Where": _where,
    "Max": _arithmetic(max),
    "Min": _arithmetic(min),
}


def _fix_reshape(graph: MutableGraph, known: dict[str, _Symbols], node: onnx.NodeProto) -> bool:
    """A computed target, and a -1 that stands for the batch, become a constant whose 0 copies the batch."""
    target, given = graph.shape(node.output[0]), graph.shape(node.input[0])
    if node.input[1] in graph.constants:
        stated = graph.constants[node.input[1]]
        if stated.ndim != 1 or not _copies_batch(stated, given):
            return False
        target = (given[0], *stated[1:].tolist()) if given else None
    else:
        target = _merged(target, known.get(node.input[1]))
    if target is None or any(size == 0 for size in target):
        return False
    sizes: list[int] = []
    for axis, size in enumerate(target):
        same = given is not None and axis < len(given) and isinstance(size, str) and given[axis] == size
        sizes.append(size if isinstance(size, int) else (0 if same else -1))
    if sizes.count(-1) > 1:
        return False
    name = graph.fresh(f"{node.output[0]}.shape")
    graph.constants[name] = np.asarray(sizes, np.int64)
    graph.set_input(node, 1, name)
    kept = [entry for entry in node.attribute if entry.name != "allowzero"]
    del node.attribute[:]
    node.attribute.extend(kept)
    return True


def _fix_expand(graph: MutableGraph, known: dict[str, _Symbols], node: onnx.NodeProto) -> bool:
    """A target that the data has already, size by size, asks for nothing: 1 says so without naming the size."""
    given, target = graph.shape(node.input[0]), known.get(node.input[1])
    if given is None or target is None or target.ndim != 1:
        return False
    own = [None] * max(target.size - len(given), 0) + list(given)[-target.size :]
    sizes = [1 if size is not None and size == has else size for size, has in zip(target, own, strict=False)]
    if len(given) > target.size or not _is_numeric(_array(tuple(sizes))):
        return False
    name = graph.fresh(f"{node.output[0]}.shape")
    graph.constants[name] = np.asarray(sizes, np.int64)
    graph.set_input(node, 1, name)
    return True


def _expanded(graph: MutableGraph, known: dict[str, _Symbols], node: onnx.NodeProto) -> _Symbols | None:
    """Return the shape that data takes when it is expanded to a known target, None for each axis that is open."""
    given, target = graph.shape(node.input[0]), known.get(node.input[1])
    if given is None or target is None or target.ndim != 1:
        return None
    rank = max(len(given), target.size)
    own = [1] * (rank - len(given)) + list(given)
    wanted = [1] * (rank - target.size) + list(target)
    return _array(tuple(_broadcast(a, b) for a, b in zip(own, wanted, strict=True)))


def _broadcast(a: int | str | None, b: int | str | None) -> int | str | None:
    """Return the size of two sizes that are broadcast, None where it depends on the run."""
    if a == 1 or a == b:
        return b
    if b == 1:
        return a
    # A symbol meets a number above 1: the symbol is that number, or 1.
    return next((size for size in (a, b) if isinstance(size, (int, np.integer)) and size > 1), None)


def _note_shape(graph: MutableGraph, target: _Symbols | None, node: onnx.NodeProto) -> bool:
    """State the sizes of a result that ONNX's shape inference left open, symbols included.

    Every axis is stated at most once: inference may forget it again, and settling must end.
    """
    name = node.output[0]
    known, shape = graph.type_of(name), graph.shape(name)
    if target is None or known is None or (shape is not None and len(shape) != target.size):
        return False
    found = list(shape or [None] * target.size)
    stated = False
    for axis, size in enumerate(target.tolist()):
        open_ended = is_invented(found[axis]) and not is_invented(size)
        if open_ended and (name, axis) not in graph.stated:
            found[axis] = size
            graph.stated.add((name, axis))
            stated = True
    if stated:
        graph.types[name] = onnx.helper.make_tensor_type_proto(known.tensor_type.elem_type, found)
    return stated


def join_reshapes(graph: MutableGraph) -> bool:
    """A Reshape of a Reshape or Unsqueeze that nobody else reads becomes one of the first one's data."""
    changed = False
    for node in graph.nodes:
        before = graph.producer(node.input[0]) if is_standard(node, "Reshape") else None
        if before is None or graph.use_count(node.input[0]) != 1 or attribute(node, "allowzero", 0):
            continue
        target = graph.constants.get(node.input[1])
        # A 0 copies a size of what lies between: only the batch, copied twice, is the same on both sides.
        if target is None or (target[1:] == 0).any():
            continue
        keeps_batch = _keeps_first_axis(graph, before)
        if keeps_batch is None or ((target[:1] == 0).any() and not keeps_batch):
            continue
        graph.set_input(node, 0, before.input[0])
        changed = True
    return changed


def _keeps_first_axis(graph: MutableGraph, node: onnx.NodeProto) -> bool | None:
    """Whether a Reshape or Unsqueeze hands on its data's first axis; None for what is neither, or unknown."""
    if is_standard(node, "Reshape") and not attribute(node, "allowzero", 0):
        target = graph.constants.get(node.input[1])
        return None if target is None else bool((target[:1] == 0).any())
    if is_standard(node, "Unsqueeze"):
        axes = graph.constants.get(node.input[1])
        # Negative axes count from an end that may be the first axis.
        return None if axes is None else bool((axes > 0).all())
    return None


def _merged(inferred: Shape | None, computed: _Symbols | None) -> Shape | None:
    """An inferred shape, with what the computed target knows besides (0 and -1 there mean other things)."""
    if computed is None or (inferred is not None and len(inferred) != computed.size):
        return inferred
    stated = [None if isinstance(size, int) and size <= 0 else size for size in computed.tolist()]
    if inferred is None:
        return tuple(stated) if stated.count(None) <= 1 else None
    return tuple(a if isinstance(a, int) else (b or a) for a, b in zip(inferred, stated, strict=True))


def _copies_batch(target: np.ndarray, given: Shape | None) -> bool:
    """Whether a leading -1 is the data's first axis: all sizes behind it are known and as many."""
    if not given or isinstance(given[0], int) or given[0] is None or not target.size or target[0] != -1:
        return False
    rest = [size for size in given[1:] if isinstance(size, int)]
    return (
        len(rest) == len(given) - 1 and bool((target[1:] > 0).all()) and np.prod(rest) == np.prod(target[1:])
    )
