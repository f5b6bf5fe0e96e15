"""The ONNX standard's node tests as records: a model of one node, its inputs and its expected outputs by name.

Reads `onnx.backend.test.loader.load_model_tests(kind="node")`, which computes them in memory. Tests of several
nodes (expanded function bodies, sequences built on the way) are left out: their ops are tested one by one.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

Arrays = dict[str, Any]


@dataclass(frozen=True)
class NodeTest:
    """One case of the standard. A value is an array, or a list or None where it is a sequence or an optional."""

    name: str
    model: onnx.ModelProto
    data: tuple[Sequence[Any], Sequence[Any]]
    rtol: float
    atol: float

    @property
    def op(self) -> str:
        """The op's name, with its domain where that is not the standard's own."""
        node = self.model.graph.node[0]
        return f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type

    @property
    def is_float32(self) -> bool:
        """Whether float32 goes in and float32 comes out: what can be attributed in the usual precision."""
        graph = self.model.graph
        return all(any(_is_float32(info) for info in side) for side in (graph.input, graph.output))

    @cached_property
    def inputs(self) -> Arrays:
        """The inputs by name."""
        return _by_name(self.model.graph.input, self.data[0])

    @cached_property
    def outputs(self) -> Arrays:
        """The expected outputs by name."""
        return _by_name(self.model.graph.output, self.data[1])

    def as_in_a_file(self) -> NodeTest | None:
        """The case with its inputs of integers and truth values as constants; None where it has none.

        The standard's tests feed everything. In a file axes, sizes and repeats are constants.
        """
        fixed = {
            name: value
            for name, value in self.inputs.items()
            if isinstance(value, np.ndarray) and value.dtype.kind in "iub"
        }
        if not fixed:
            return None
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        kept = [
            (info, value)
            for info, value in zip(model.graph.input, self.data[0], strict=True)
            if info.name not in fixed
        ]
        del model.graph.input[:]
        model.graph.input.extend(info for info, _ in kept)
        model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in fixed.items())
        return replace(self, model=model, data=([value for _, value in kept], self.data[1]))


@lru_cache(maxsize=1)
def node_tests() -> tuple[NodeTest, ...]:
    """Every test of a single node, in the standard's order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return tuple(
        NodeTest(case.name.removeprefix("test_"), case.model, data, case.rtol, case.atol)
        for case in cases
        if len(case.model.graph.node) == 1
        for data in case.data_sets
    )


def _is_float32(info: onnx.ValueInfoProto) -> bool:
    return bool(info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _by_name(infos: Sequence[onnx.ValueInfoProto], values: Sequence[Any]) -> Arrays:
    return {info.name: _plain(value) for info, value in zip(infos, values, strict=True)}


def _plain(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return value if value is None or isinstance(value, list) else np.asarray(value)
