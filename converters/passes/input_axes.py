"""Read the axes that a file declares: what is unknown is unknown, and what is one size has one symbol.

From a ModelProto to a copy with normalised shapes. Exporters write an unknown size as -1, 0, "?" or "". Some give
every input a batch symbol, or one symbol to two sizes. Which free axes of the inputs share a size is found by running
the model: an axis that may change alone has a size of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import combinations, islice

import numpy as np
import onnx
from onnx import helper

from converters.budget import current
from converters.graph.nodes import reads, subgraphs
from converters.graph.runtime import RuntimeFailure, Session, Stopped
from converters.graph.tensors import is_invented, shape_of

_UNKNOWN = frozenset({"", "?", "*", "-1", "0", "none", "null", "unknown", "dynamic"})
"""What exporters write for a free size, and for every other free size as well."""

_MOST_TRIALS = 32

InputAxis = tuple[str, int]
"""An input and one of its axes."""


def normalise_axes(proto: onnx.ModelProto, *, run: bool = True) -> onnx.ModelProto:
    """Return the model with unknown sizes unstated, and with one symbol for each size of its inputs.

    run: find out by runs of the model which sizes are the same; without it, the symbols stay those of the file.
    """
    normal = onnx.ModelProto()
    normal.CopyFrom(proto)
    empty = [axis for info in normal.graph.input for axis in _dims(info.type) if _is_empty(axis)]
    for info in _infos(normal.graph):
        for axis in _dims(info.type):
            if axis.HasField("dim_value") and axis.dim_value <= 0:
                axis.ClearField("dim_value")
            elif axis.dim_param.strip().lower() in _UNKNOWN or is_invented(axis.dim_param):
                axis.ClearField("dim_param")
    if run:
        # A model that runs for too long keeps the symbols of its file.
        with current().trial(), suppress(Stopped):
            _find_sizes(normal, empty)
    return normal


def _find_sizes(normal: onnx.ModelProto, empty: Sequence[onnx.TensorShapeProto.Dimension]) -> None:
    """Find out by runs which sizes are the same, and which are 0."""
    if empty and not _runs(normal):
        # The model takes no elements there: 0 is the size.
        for axis in empty:
            axis.dim_value = 0
    _share_symbols(normal)


def _is_empty(axis: onnx.TensorShapeProto.Dimension) -> bool:
    return axis.HasField("dim_value") and axis.dim_value == 0


def _runs(proto: onnx.ModelProto) -> bool:
    """Return whether a model runs where its free axes have elements."""
    try:
        return _Trial(proto, _inputs(proto)).runs(())
    except Stopped:
        raise
    except RuntimeFailure:
        return False


def _inputs(proto: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    constants = {tensor.name for tensor in proto.graph.initializer}
    return {info.name: info for info in proto.graph.input if info.name not in constants}


def _infos(graph: onnx.GraphProto) -> Iterator[onnx.ValueInfoProto]:
    yield from (*graph.input, *graph.output, *graph.value_info)
    for node in graph.node:
        for body in subgraphs(node):
            yield from _infos(body)


def _dims(known: onnx.TypeProto) -> Sequence[onnx.TensorShapeProto.Dimension]:
    return known.tensor_type.shape.dim if known.HasField("tensor_type") else ()


def _share_symbols(proto: onnx.ModelProto) -> None:
    """Give free axes of the inputs the same symbol where they have the same size, and only there."""
    inputs = _inputs(proto)
    stated = {
        (name, index): axis.dim_param
        for name, info in inputs.items()
        for index, axis in enumerate(_dims(info.type))
        if not axis.HasField("dim_value") and (axis.dim_param or index == 0)
    }
    firsts = [axis for axis in stated if axis[1] == 0]
    counts = Counter(stated.values())
    repeated = [axis for axis, symbol in stated.items() if counts[symbol] > 1]
    if len(firsts) < 2 and not repeated:
        return
    try:
        trial = _Trial(proto, inputs)
    except RuntimeFailure:  # a graph that ONNX Runtime does not load: its symbols are all there is
        return
    if not trial.runs(()):
        return
    found = _joined(_separated(stated, trial), firsts, trial)
    changed = {stated[axis] for axis in stated if found[axis] != stated[axis]} - {""}
    for (name, index), symbol in found.items():
        _dims(inputs[name].type)[index].dim_param = symbol
    for info in (*proto.graph.value_info, *proto.graph.output):
        for axis in _dims(info.type):
            if axis.dim_param in changed:
                axis.ClearField("dim_param")


class _Trial:
    """A model that is run with chosen sizes of its free axes."""

    def __init__(self, proto: onnx.ModelProto, inputs: Mapping[str, onnx.ValueInfoProto]) -> None:
        self._session = Session(proto, optimise=False)
        self._inputs = inputs
        self._graph = proto.graph
        self._outputs: dict[str, frozenset[str]] = {}
        self._known: dict[tuple[str, tuple[int, ...], int], np.ndarray] = {}

    def may_differ(self, chosen: Sequence[InputAxis], others: Sequence[InputAxis]) -> bool:
        """Return whether axes may change without others, though one output depends on the inputs of both.

        Inputs that meet in no output, as those of two towers, never show whether they share a size.
        """
        reached = {output for name, _ in chosen for output in self._outputs_of(name)}
        meet = any(not reached.isdisjoint(self._outputs_of(name)) for name, _ in others)
        return meet and self.runs(chosen)

    def runs(self, changed: Sequence[InputAxis]) -> bool:
        """Return whether the model runs where these axes alone have another size."""
        read = set(self._session.inputs)
        for whole in (1, 0):
            feeds = {
                name: self._values(name, info, changed, whole)
                for name, info in self._inputs.items()
                if name in read
            }
            try:
                self._session.run(feeds)
            except Stopped:
                raise
            except RuntimeFailure:
                continue
            return True
        return False

    def _values(
        self, name: str, info: onnx.ValueInfoProto, changed: Sequence[InputAxis], whole: int
    ) -> np.ndarray:
        """Return floats at random, and whole numbers that are all one: an index that every table has."""
        shape = shape_of(info.type) or ()
        usual, other = (32, 64) if len(shape) > 3 else (8, 12)
        sizes = []
        for index, size in enumerate(shape):
            free = (2, 3) if index == 0 else (usual, other)
            sizes.append(size if isinstance(size, int) else free[(name, index) in changed])
        key = (name, tuple(sizes), whole)
        if key not in self._known:
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
            known = np.full(sizes, whole) if dtype.kind in "iub" else _noise(sizes)
            self._known[key] = known.astype(dtype)
        return self._known[key]

    def _outputs_of(self, name: str) -> frozenset[str]:
        """Return the outputs that depend on an input."""
        if name not in self._outputs:
            found = {name}
            for node in self._graph.node:
                if not found.isdisjoint(reads(node)):
                    found.update(node.output)
            self._outputs[name] = frozenset(info.name for info in self._graph.output if info.name in found)
        return self._outputs[name]


def _noise(sizes: Sequence[int]) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(sizes)


def _separated(stated: Mapping[InputAxis, str], trial: _Trial) -> dict[InputAxis, str]:
    """Return the symbols of all axes; those that may change without the others of their symbol get a new one."""
    found = dict(stated)
    for symbol in dict.fromkeys(stated.values()):
        group = [axis for axis, own in stated.items() if own == symbol]
        whole = len(group)
        # One axis of two may change alone just where the other may; two of three just where the third may.
        for count in (1, 2):
            for chosen in islice(combinations(group, count), _MOST_TRIALS):
                others = [axis for axis in group if axis not in chosen]
                if len(group) - len(others) == count <= len(others) and trial.may_differ(chosen, others):
                    group = others
                    found.update(dict.fromkeys(chosen, _symbol(chosen[0], found)))
        if not symbol and len(group) < whole:
            found.update(dict.fromkeys(group, _symbol(group[0], found)))
    return found


def _joined(found: dict[InputAxis, str], firsts: Sequence[InputAxis], trial: _Trial) -> dict[InputAxis, str]:
    """Return the symbols with one for all first axes that can only change together."""
    groups: dict[str, list[InputAxis]] = {}
    for axis in firsts:
        groups.setdefault(found[axis], []).append(axis)
    if len(groups) < 2 or not trial.runs(firsts):
        return found
    tied = [group for group in groups.values() if not trial.runs(group)]
    if len(tied) > 1:
        shared = found[tied[0][0]] or _symbol(tied[0][0], found)
        found = found | {axis: shared for group in tied for axis in group}
    return found


def _symbol(axis: InputAxis, taken: Mapping[InputAxis, str]) -> str:
    symbol = f"{axis[0]}_{axis[1]}"
    while symbol in taken.values():
        symbol = f"{symbol}_"
    return symbol


__all__ = ["normalise_axes"]
