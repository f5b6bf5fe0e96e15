"""Write ONNX nodes as if calling functions: `op.Mul(g, op.Sigmoid(x))`.

A NodeBuilder collects the nodes of a new part of a graph. Every op of the ONNX standard is a method that returns one
output; `emit` returns several. Arguments are tensors, None for an omitted optional input, Python numbers, NumPy arrays,
or lists of ints (int64). A subclass represents a tensor by its name, or by a record with its type.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import onnx
from onnx import helper

T = TypeVar("T")


class NodeBuilder(ABC, Generic[T]):
    """Collects nodes. T: the representation of a tensor."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []

    def __getattr__(self, op_type: str) -> Callable[..., T]:
        if op_type.startswith("_") or not onnx.defs.has(op_type):
            raise AttributeError(f"ONNX has no operator {op_type!r}")

        def emit(*arguments: Any, **attributes: Any) -> T:
            result: T = self.emit(op_type, arguments, **attributes)
            return result

        return emit

    def emit(self, op_type: str, arguments: Sequence[Any], outputs: int = 1, **attributes: Any) -> Any:
        """Append one node. Return its output, or a tuple of them where `outputs` > 1.

        Attributes that are None are left out, as are omitted inputs at the end.
        """
        like = self.like(arguments)
        inputs = [None if argument is None else self.tensor(argument, like) for argument in arguments]
        names = [self.fresh(op_type) for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        read = ["" if t is None else self.name_of(t) for t in inputs]
        while read and not read[-1]:
            read.pop()
        self.write(op_type, read, names, name=names[0], **given)
        results = self.results(op_type, inputs, names, given)
        return results[0] if outputs == 1 else tuple(results)

    def write(
        self,
        op_type: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        name: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> onnx.NodeProto:
        """Append one node between tensors of these names, and return it."""
        node = helper.make_node(op_type, inputs, outputs, name=name, domain=domain, **attributes)
        self.nodes.append(node)
        return node

    def tensor(self, value: Any, like: Any = None) -> T:
        """Return the tensor of an argument: itself, or a constant. `like` gives numbers their type."""
        if self.is_tensor(value):
            return value  # type: ignore[no-any-return]
        if isinstance(value, (bool, float, int)):
            return self.number(value, like)
        return self.constant(value if isinstance(value, np.ndarray) else np.asarray(value, np.int64))

    @abstractmethod
    def is_tensor(self, value: Any) -> bool:
        """Return whether an argument is a tensor already."""

    @abstractmethod
    def like(self, arguments: Sequence[Any]) -> Any:
        """Return what gives the Python numbers among the arguments of a node their type."""

    @abstractmethod
    def number(self, value: float, like: Any) -> T:
        """Return a Python number as a tensor."""

    @abstractmethod
    def constant(self, array: np.ndarray) -> T:
        """Return a constant of the graph."""

    @abstractmethod
    def fresh(self, stem: str) -> str:
        """Return a name that no tensor has yet."""

    @abstractmethod
    def name_of(self, tensor: T) -> str:
        """Return the name of a tensor."""

    @abstractmethod
    def results(
        self, op_type: str, inputs: Sequence[T | None], names: Sequence[str], attributes: dict[str, Any]
    ) -> Sequence[T]:
        """Return the outputs of a node that was appended."""
