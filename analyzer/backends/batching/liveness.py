"""What a program holds in memory while it runs: the size of every tensor, and between which nodes it is needed.

Reads a Program and the shapes of what it is fed with two samples and with three; gives sizes of a fixed part and a part
per sample, and their sums at every node. A size that only running shows is left out, and named in `unknown`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnx import helper

from analyzer.graph.program import Program
from converters.graph.nodes import reads
from converters.graph.tensors import shape_of
from converters.passes.sizes import types_at

COUNTS = (2, 3)
"""The numbers of samples at which sizes are read. With one, an axis of samples could pass for one to be broadcast."""

# Larger constants are weights: no shape depends on their values.
_LIGHT = 1024
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})
"""Ops whose output lies where their first input does."""

Shapes = Mapping[str, tuple[int, ...]]
Types = Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]]
"""The shape of a tensor and its elements, by name, as far as they are known."""


@dataclass(frozen=True)
class Flow:
    """A program with the size of every tensor: {name: (fixed bytes, bytes per sample)}.

    results: the shape of each named result with two samples and with three, None where it is unknown. types: of its
    tensors at these `COUNTS`.
    """

    program: Program
    sizes: Mapping[str, np.ndarray]
    results: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]] | None]
    unknown: tuple[str, ...]
    types: tuple[Types, Types]

    @cached_property
    def constant(self) -> frozenset[str]:
        """The tensors that depend on constants alone: the runtime computes them once, and keeps them."""
        found = set(self.program.constants)
        for node in self.program.nodes:
            if found.issuperset(reads(node)):
                found.update(name for name in node.output if name)
        return frozenset(found)

    @cached_property
    def weights(self) -> int:
        """The bytes of the constants."""
        return sum(array.nbytes for array in self.program.constants.values())

    @cached_property
    def folded(self) -> int:
        """The bytes of what is computed from constants alone."""
        computed = (self.constant - self.program.constants.keys()) & self.sizes.keys()
        return sum(int(self.sizes[name].sum()) for name in computed)

    def total(self, names: Collection[str]) -> np.ndarray:
        """What all of these tensors take together that are computed, views of others aside."""
        views = self._storage()
        computed = {name for node in self.program.nodes for name in node.output if name and name not in views}
        return sum((self.size(name) for name in names if name in computed), np.zeros(2))

    def with_measured(self, sizes: Mapping[str, int]) -> Flow:
        """The flow with the bytes of tensors that were measured with one sample; they are taken to grow with it."""
        return replace(self, sizes={**self.sizes, **{n: np.array([0.0, size]) for n, size in sizes.items()}})

    def live(self, copied: Callable[[onnx.NodeProto], Collection[str]] = lambda node: ()) -> np.ndarray:
        """What is held at every node, (nodes, 2): a tensor from its node to the last that reads it, views as one.

        copied: the tensors of which a node holds another copy while it runs.
        """
        storage = self._storage()
        last: dict[str, int] = {}
        for index, node in enumerate(self.program.nodes):
            last.update({storage.get(name, name): index for name in reads(node)})
        for tensor in self.program.results.values():
            last[storage.get(tensor.name, tensor.name)] = len(self.program.nodes)
        held = sum((self.size(name) for name in self.program.inputs), np.zeros(2))
        moments = []
        for index, node in enumerate(self.program.nodes):
            made = {storage.get(name, name) for name in node.output if name} & set(node.output)
            held = held + sum((self.size(name) for name in made), np.zeros(2))
            moments.append(held + sum((self.size(name) for name in copied(node)), np.zeros(2)))
            ended = {storage.get(name, name) for name in (*reads(node), *made)} - set(self.program.inputs)
            held = held - sum((self.size(n) for n in ended if last.get(n, index) == index), np.zeros(2))
        return np.array(moments).reshape(-1, 2)

    def size(self, name: str) -> np.ndarray:
        """A tensor's size; none of its own has what is a constant."""
        if name in self.constant:
            return np.zeros(2)
        return self.sizes.get(name, np.zeros(2))

    def _storage(self) -> dict[str, str]:
        """The tensor whose memory another one is a view of."""
        found: dict[str, str] = {}
        for node in self.program.nodes:
            if node.op_type in VIEWS and not node.domain:
                found[node.output[0]] = found.get(node.input[0], node.input[0])
        return found


def flow(program: Program, at: tuple[Shapes, Shapes]) -> Flow:
    """The sizes of a program's tensors. at: the shapes of what it is fed with `COUNTS` samples.

    Raises InvalidModel where it does not take them.
    """
    light = {name: array for name, array in program.constants.items() if array.size <= _LIGHT}
    proto = program.with_constants(light)
    few, more = (types_of(proto, shapes) for shapes in at)
    sizes: dict[str, np.ndarray] = {}
    unknown = []
    for name in dict.fromkeys(name for node in program.nodes for name in node.output if name):
        if few.get(name) is None or more.get(name) is None:
            unknown.append(name)
    for name in few.keys() & more.keys():
        sizes[name] = affine(*(math.prod(shape) * dtype.itemsize for shape, dtype in (few[name], more[name])))
    results = {
        key: (few[tensor.name][0], more[tensor.name][0]) if tensor.name in sizes else None
        for key, tensor in program.results.items()
    }
    return Flow(program, sizes, results, tuple(unknown), (few, more))


def types_of(proto: onnx.ModelProto, shapes: Shapes) -> Types:
    """The types of a model's tensors for inputs of these shapes. Raises InvalidModel where it does not take them."""
    found = {}
    for name, known in types_at(proto, shapes).items():
        shape, kind = shape_of(known), known.tensor_type.elem_type
        if shape is not None and kind and all(isinstance(size, int) for size in shape):
            dtype = np.dtype(helper.tensor_dtype_to_np_dtype(kind))
            found[name] = tuple(int(size or 0) for size in shape), dtype
    return found


def affine(few: float, more: float) -> np.ndarray:
    """(fixed, per sample) of a number that is known at `COUNTS` samples."""
    each = (more - few) / (COUNTS[1] - COUNTS[0])
    return np.array([few - COUNTS[0] * each, each])
