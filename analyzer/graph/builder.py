"""Write ONNX nodes as if calling functions: `op.Mul(g, op.Sigmoid(x))`.

An Emitter collects nodes and initializers for one graph. Arguments are Tensors, None for an omitted
optional input, Python numbers (which take the dtype of the first floating tensor argument, else of the
first number) or lists of ints (int64). It knows nothing of differentiation and checks only that the op exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from analyzer.graph.graph import Node, Shape, Tensor, is_float

Argument = Tensor | np.ndarray | float | int | bool | Sequence[int] | None
ScanStep = Callable[["Emitter", list[Tensor], list[Tensor]], tuple[Sequence[Tensor], Sequence[Tensor]]]
"""What a Scan does with the states and one element of each sequence: the next states, an element of each output."""

_BOOLEAN = frozenset(
    {"Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "And", "Or", "Xor", "Not", "IsNaN", "IsInf"}
)
# Ops that do the same to every step of a stack of them; Gemm becomes a MatMul.
_PER_ELEMENT = _BOOLEAN | frozenset(
    [
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Div",
        "Elu",
        "Exp",
        "Gemm",
        "HardSigmoid",
        "Identity",
        "LeakyRelu",
        "Mul",
        "Neg",
        "Relu",
        "Sigmoid",
        "Softplus",
        "Softsign",
        "Sub",
        "Sum",
        "Tanh",
        "ThresholdedRelu",
        "Where",
    ]
)
_INT64 = frozenset({"Shape", "Size", "ArgMax", "ArgMin", "NonZero"})


@dataclass(frozen=True)
class EmittedNode:
    """One emitted node, as it was called."""

    op_type: str
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    attributes: Mapping[str, Any]


class Emitter:
    """Collects the nodes of a new part of a graph. Every ONNX op of the opset is a method.

    masked: whether a cotangent of 0 stays 0 past infinite derivatives (analyzer/autodiff/masking.py).
    """

    def __init__(self, opset: int, prefix: str = "") -> None:
        self.opset = opset
        self.prefix = prefix
        self.nodes: list[onnx.NodeProto] = []
        self.calls: list[EmittedNode] = []
        self.stated: dict[str, Tensor] = {}
        self.notes: dict[str, Any] = {}
        self.initializers: dict[str, np.ndarray] = {}
        self.masked = False
        self._constants: dict[tuple[Any, ...], Tensor] = {}
        self._count = 0
        self._current: Node | None = None
        self._extra: dict[str, tuple[Node, dict[int, Tensor]]] = {}

    def __getattr__(self, op_type: str) -> Callable[..., Tensor]:
        if op_type.startswith("_") or not onnx.defs.has(op_type):
            raise AttributeError(f"ONNX has no operator {op_type!r}")

        def emit(
            *arguments: Argument, outputs: int = 1, name: str | None = None, **attributes: Any
        ) -> Tensor:
            # With outputs > 1 it is a tuple of them, which `emit` itself types.
            result: Tensor = self.emit(op_type, arguments, outputs=outputs, name=name, **attributes)
            return result

        return emit

    def emit(
        self,
        op_type: str,
        arguments: Sequence[Argument],
        outputs: int = 1,
        name: str | None = None,
        **attributes: Any,
    ) -> Any:
        """Append one node; return its output Tensor, or a tuple where `outputs` > 1.

        `name` names the (first) output. Attributes that are None are left out.
        """
        like = dtype_of_numbers(arguments)
        inputs = [None if a is None else self.tensor(a, like) for a in arguments]
        unique = self._unique(op_type)
        names = [name or unique] + [f"{unique}.{index}" for index in range(1, outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(
            helper.make_node(
                op_type, ["" if t is None else t.name for t in inputs], names, name=unique, **given
            )
        )
        dtype = _output_dtype(op_type, inputs, given)
        results = tuple(Tensor(output, dtype) for output in names)
        self.calls.append(EmittedNode(op_type, tuple(inputs), results, given))
        return results[0] if outputs == 1 else results

    def tensor(self, value: Argument, like: np.dtype[Any] | None = None) -> Tensor:
        """A Tensor for an argument: itself, or a constant. Equal constants are stored once."""
        if isinstance(value, Tensor):
            return value
        if isinstance(value, (bool, float, int)):
            dtype = like if like is not None and not isinstance(value, bool) else None
            array = np.asarray(value, dtype or (bool if isinstance(value, bool) else np.float32))
        else:
            array = value if isinstance(value, np.ndarray) else np.asarray(value, np.int64)
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._unique("constant")
            self.initializers[name] = array
            self._constants[key] = Tensor(name, array.dtype, array.shape, array)
        return self._constants[key]

    def shaped(self, tensor: Tensor, shape: Shape | None) -> Tensor:
        """The same tensor, stated to have this shape: a runtime that knows shapes arranges memory better."""
        if shape is None:
            return tensor
        return self.stated.setdefault(tensor.name, replace(tensor, shape=shape))

    def note(self, tensor: Tensor, what: Any) -> Tensor:
        """The same tensor, with what its rule knows of it for the rules that follow: `notes` has it by name."""
        self.notes[tensor.name] = what
        return tensor

    def scan(
        self, step: ScanStep, states: Sequence[Tensor], sequences: Sequence[Tensor], reverse: bool = False
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Emit a Scan along axis 0 of the sequences: the last states, and the outputs' elements stacked.

        The step is written by an Emitter of its own, and may read any tensor of this one. `reverse` goes from the
        last element to the first; the outputs stand in the order of the sequences. All states and outputs have
        one floating dtype, that of the first state. What does not depend on the states is computed outside.
        """
        inner = Emitter(self.opset, prefix=f"{self._unique('Scan')}/")
        # A name means one tensor in a graph and its subgraphs, and a constant is stored once for all of them.
        inner.initializers, inner._constants = self.initializers, self._constants
        begin = [Tensor(inner._unique("state"), t.dtype) for t in states]
        elements = [Tensor(inner._unique("element"), t.dtype) for t in sequences]
        following, outputs = step(inner, begin, elements)
        whole = dict(zip((t.name for t in elements), sequences, strict=True))
        self._lift(inner, whole, {t.name for t in begin})
        last = [inner.Identity(t) for t in following]
        rows = [None if t.name in whole else inner.Identity(t) for t in outputs]
        results = [*last, *(row for row in rows if row is not None)]
        live, needed = _live(inner.nodes, results)
        # A Scan without a sequence would not know its length.
        read = [name for name in whole if name in needed] or [elements[0].name]
        inputs = [*begin, *(Tensor(name, whole[name].dtype) for name in read)]
        found = self.emit(
            "Scan",
            (*states, *(whole[name] for name in read)),
            outputs=len(results),
            body=helper.make_graph(
                live, inner.prefix.rstrip("/"), [_info(t) for t in inputs], [_info(t) for t in results]
            ),
            num_scan_inputs=len(read),
            scan_input_directions=[int(reverse)] * len(read),
            scan_output_directions=[int(reverse)] * (len(results) - len(last)),
        )
        tensors = iter([found] if len(results) == 1 else found)
        ends = [next(tensors) for _ in last]
        return ends, [
            whole[t.name] if row is None else next(tensors) for t, row in zip(outputs, rows, strict=True)
        ]

    def _lift(self, inner: Emitter, whole: dict[str, Tensor], states: set[str]) -> None:
        """Compute outside of a Scan, for all steps at once, what does not depend on its states.

        `whole` has the sequence of each of the body's tensors that is known outside, and grows.
        """
        inside = states | whole.keys() | {t.name for call in inner.calls for t in call.outputs}
        kept = []
        for node, call in zip(inner.nodes, inner.calls, strict=True):
            names = {t.name for t in call.inputs if t is not None}
            if call.op_type not in _PER_ELEMENT or not names & whole.keys() or names & inside - whole.keys():
                kept.append(node)
                continue
            inputs = [None if t is None else whole.get(t.name, t) for t in call.inputs]
            if call.op_type == "Gemm":
                result = self._stacked_product(inputs, call.attributes)
            else:
                result = self.emit(call.op_type, inputs, **call.attributes)
            whole[call.outputs[0].name] = result
        inner.nodes[:] = kept

    def _stacked_product(self, inputs: Sequence[Tensor | None], attributes: Mapping[str, Any]) -> Tensor:
        """A Gemm of two matrices, the first of which is now a stack of them."""
        a, b = inputs
        return self.MatMul(a, self.Transpose(b, perm=[1, 0]) if attributes.get("transB") else b)

    @staticmethod
    def dtype_of(tensor: Tensor) -> int:
        """The ONNX number of a tensor's dtype, for `Cast(…, to=…)`."""
        return int(helper.np_dtype_to_tensor_dtype(tensor.dtype))

    def _unique(self, stem: str) -> str:
        self._count += 1
        return f"{self.prefix}{stem}_{self._count}"

    @contextmanager
    def differentiating(self, node: Node) -> Iterator[None]:
        """While a rule runs, the node it differentiates: `forward_output` speaks of that node."""
        previous, self._current = self._current, node
        try:
            yield
        finally:
            self._current = previous

    def forward_output(self, index: int, dtype: type = np.int64) -> Tensor:
        """An optional output of the node being differentiated that the model itself may have left out."""
        node = self._current
        assert node is not None, "forward_output is for rules"
        if index < len(node.outputs) and node.outputs[index]:
            return Tensor(node.outputs[index], np.dtype(dtype))
        _, outputs = self._extra.setdefault(node.name, (node, {}))
        return outputs.setdefault(index, Tensor(f"{self.prefix}{node.name}.{index}", np.dtype(dtype)))

    @property
    def extra_outputs(self) -> Mapping[str, Node]:
        """The nodes of the model that must grow an output, by the name of that output."""
        return {tensor.name: node for node, outputs in self._extra.values() for tensor in outputs.values()}

    def copy(self, node: Node, renamed: Mapping[str, str], grown: Emitter | None = None) -> None:
        """Append a node of a model's graph under its own names, but for outputs in `renamed`.

        `grown` is the Emitter whose rules asked for optional outputs of the model's nodes.
        """
        outputs = [renamed.get(name, name) for name in node.outputs]
        if grown is not None and node.name in grown._extra:
            for index, tensor in sorted(grown._extra[node.name][1].items()):
                outputs += [""] * (index + 1 - len(outputs))
                outputs[index] = tensor.name
        given = {key: value for key, value in node.attributes.items() if value is not None}
        given = {k: numpy_helper.from_array(v) if isinstance(v, np.ndarray) else v for k, v in given.items()}
        self.nodes.append(
            helper.make_node(
                node.op_type, list(node.inputs), outputs, name=node.name, domain=node.domain, **given
            )
        )


def _live(
    nodes: Sequence[onnx.NodeProto], outputs: Sequence[Tensor]
) -> tuple[list[onnx.NodeProto], set[str]]:
    """The nodes that the outputs need, and every tensor that these read."""
    needed = {tensor.name for tensor in outputs}
    live = []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            live.append(node)
            needed.update(node.input)
    return live[::-1], needed


def _info(tensor: Tensor) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, Emitter.dtype_of(tensor), None)


def dtype_of_numbers(arguments: Sequence[Argument]) -> np.dtype[Any] | None:
    """What Python numbers among the arguments of a node become: as the first floating tensor, else the first number."""
    dtypes = [a.dtype for a in arguments if isinstance(a, Tensor) and a.dtype.kind != "b"]
    return next((dtype for dtype in dtypes if is_float(dtype)), dtypes[0] if dtypes else None)


def _output_dtype(op_type: str, inputs: Sequence[Tensor | None], attributes: dict[str, Any]) -> np.dtype[Any]:
    if op_type in _BOOLEAN:
        return np.dtype(bool)
    if op_type in _INT64:
        return np.dtype(np.int64)
    if op_type == "Cast":
        return np.dtype(helper.tensor_dtype_to_np_dtype(attributes["to"]))
    if op_type == "ConstantOfShape":
        value = attributes.get("value")
        return numpy_helper.to_array(value).dtype if value is not None else np.dtype(np.float32)
    if op_type == "OneHot":
        assert inputs[2] is not None
        return inputs[2].dtype
    position = 1 if op_type in ("Where", "CastLike") else 0
    first = inputs[position]
    assert first is not None, f"{op_type} needs its input {position}"
    return first.dtype
