"""Run node-writing code at once in a framework: `Eager(tf).Mul(a, b)` is Mul's TensorFlow form, applied.

An op that a framework lacks is written once, as ONNX nodes, and serves three times: as its torch form, as its
TensorFlow form, and as what its VJP reads. `Composed` makes the two forms of such a function. Every op
that the function writes must have forms itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx.numpy_helper import to_array

from analyzer.graph.builder import Argument, Builder, ScanStep
from analyzer.graph.graph import Tensor, attribute_defaults
from analyzer.ops.registry import registered
from analyzer.ops.support import ints
from converters.graph.opset import CANONICAL_OPSET


@dataclass(frozen=True)
class _Value(Tensor):
    """A tensor that holds a framework's tensor."""

    held: Any = field(default=None, compare=False, repr=False)


class Eager(Builder):
    """A Builder that computes each node as it is written, by the op's form in `framework`."""

    def __init__(self, framework: Any, device: Any = None) -> None:
        super().__init__(CANONICAL_OPSET)
        self._framework = framework
        self._device = device

    def hold(self, tensor: Any) -> Tensor:
        """A framework's tensor as an argument of the methods."""
        # "torch.float64" in one framework, the name alone in the other.
        dtype = np.dtype(getattr(tensor.dtype, "name", None) or str(tensor.dtype).rpartition(".")[2])
        shape = tuple(int(size) for size in tensor.shape)
        # Shapes, steps and lengths are known, as they are to rules where they are constants.
        known = np.asarray(ints(tensor)).reshape(shape) if dtype.kind == "i" and len(shape) < 2 else None
        return _Value("", dtype, shape, known, held=tensor)

    def release(self, tensor: Tensor) -> Any:
        """The framework's tensor that a result holds."""
        if isinstance(tensor, _Value):
            return tensor.held
        assert tensor.constant is not None
        if self._framework.__name__ == "torch":
            return self._framework.as_tensor(np.array(tensor.constant), device=self._device)
        return self._framework.constant(tensor.constant)

    def emit(self, op_type: str, arguments: Sequence[Argument], outputs: int = 1, **attributes: Any) -> Any:
        """Compute one node; numbers and lists become tensors as in a Builder."""
        like = self.like(arguments)
        inputs = [None if a is None else self.release(self.tensor(a, like)) for a in arguments]
        form: Any = getattr(registered()["", op_type], self._framework.__name__)
        given = {**attribute_defaults(op_type, "", CANONICAL_OPSET), **attributes}
        given = {k: to_array(v) if isinstance(v, onnx.TensorProto) else v for k, v in given.items()}
        results = form(self._framework, *inputs, **given)
        if outputs == 1:
            return self.hold(results[0] if isinstance(results, (tuple, list)) else results)
        return tuple(self.hold(result) for result in results[:outputs])

    def scan(
        self, step: ScanStep, states: Sequence[Tensor], sequences: Sequence[Tensor], reverse: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Run a step along axis 0 of the sequences: the last states, and the outputs' elements stacked."""

        def run(states: list[Any], elements: list[Any]) -> tuple[list[Any], list[Any]]:
            results = step(self, [self.hold(t) for t in states], [self.hold(t) for t in elements])
            following, outputs = ([self.release(t) for t in part] for part in results)
            return following, outputs

        begin, columns = ([self.release(t) for t in part] for part in (states, sequences))
        last, stacked = scan(self._framework, run, begin, columns, reverse)
        return [self.hold(t) for t in last], [self.hold(t) for t in stacked]


def scan(
    framework: Any,
    step: Callable[[list[Any], list[Any]], tuple[list[Any], list[Any]]],
    states: list[Any],
    sequences: list[Any],
    reverse: bool = False,
) -> tuple[list[Any], list[Any]]:
    """A Scan on a framework's own tensors: `step` takes the states and one element of each sequence."""
    # Taken apart in one op, which has one gradient: that of an element taken by its index is as large as the sequence.
    apart = framework.unbind if framework.__name__ == "torch" else framework.unstack
    elements = list(zip(*(apart(sequence) for sequence in sequences), strict=True))
    rows = []
    for row in reversed(elements) if reverse else elements:
        states, outputs = step(states, [*row])
        rows.append(outputs)
    if reverse:
        rows.reverse()
    return states, [framework.stack(column) for column in zip(*rows, strict=True)]


@dataclass(frozen=True)
class Composed:
    """The form, in either framework, of an op that `write(op, *inputs, **attributes)` writes as nodes.

    Inputs in `constant` are kept from the framework's own autodiff.
    """

    write: Callable[..., Any]
    constant: Sequence[int] = ()

    def __call__(self, framework: Any, *inputs: Any, **attributes: Any) -> Any:
        """The op's outputs, computed node by node."""
        stop = getattr(framework, "stop_gradient", None) or framework.Tensor.detach
        given = [stop(x) if i in self.constant and x is not None else x for i, x in enumerate(inputs)]
        device = next((getattr(x, "device", None) for x in given if x is not None), None)
        op = Eager(framework, device)
        held = [None if x is None else op.hold(x) for x in given]
        result = self.write(op, *held, **attributes)
        return tuple(op.release(t) for t in result) if isinstance(result, tuple) else op.release(result)
