"""Loops and scans with few, one or no iterations, conditions that end them, and bodies that capture and collect."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tools.audit.sketch import Sketch


def draw(sketch: Sketch) -> None:
    """A Loop or a Scan over one or two states."""
    _scan(sketch) if sketch.chance(40) else _loop(sketch)


class _Body:
    """The graph inside a loop."""

    def __init__(self, sketch: Sketch) -> None:
        self.sketch = sketch
        self.kind = helper.np_dtype_to_tensor_dtype(sketch.dtype)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []

    def constant(self, value: Any) -> str:
        """Add a constant, as an initializer or as a node."""
        name = self.sketch.name("k")
        tensor = numpy_helper.from_array(np.asarray(value), name)
        if self.sketch.chance(50):
            self.constants.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def add(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        """Add a node."""
        name = self.sketch.name("b")
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], **attributes))
        return name

    def input(self, kind: int, shape: tuple[int, ...]) -> str:
        """Add an input."""
        self.inputs.append(helper.make_tensor_value_info(self.sketch.name("i"), kind, shape))
        return str(self.inputs[-1].name)

    def output(self, name: str, kind: int, shape: tuple[int, ...]) -> None:
        """Add an output."""
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def graph(self) -> onnx.GraphProto:
        """Return the finished body."""
        return helper.make_graph(self.nodes, "body", self.inputs, self.outputs, self.constants)


def _step(body: _Body, state: str, others: list[str], outer: list[str]) -> str:
    """The next value of a state: computed, handed on, captured or constant."""
    sketch = body.sketch
    kind = sketch.choose("Mul", "Add", "same", "outer", "constant", "invariant", "other")
    if kind == "same":
        return state if sketch.chance(50) else body.add("Identity", state)
    if kind == "outer":
        return outer[0] if sketch.chance(30) else body.add("Sub", state, outer[0])
    if kind == "constant":
        return body.constant(sketch.array((2,), "ordinary"))
    if kind == "invariant":
        return body.add("Add", state, body.add("Abs", body.add("Neg", outer[0])))
    if kind == "other" and others:
        return body.add("Max", state, sketch.choose(*others))
    return body.add(
        kind if kind in ("Mul", "Add") else "Add", state, body.constant(sketch.array((2,), "ordinary"))
    )


def _loop(sketch: Sketch) -> None:
    body = _Body(sketch)
    outer = [sketch.input(2)]
    count = sketch.number(1, 2)
    step, alive = body.input(TensorProto.INT64, ()), body.input(TensorProto.BOOL, ())
    states = [body.input(body.kind, (2,)) for _ in range(count)]
    body.output(_condition(body, step, alive), TensorProto.BOOL, ())
    results = [_step(body, state, states, outer) for state in states]
    if sketch.chance(40):
        moved = body.add("Cast", step, to=body.kind)
        results[0] = body.add("Add", results[0], moved)
    for result in results:
        body.output(result, body.kind, (2,))
    collected = sketch.choose(0, 1, 2)
    for _ in range(collected):
        item = sketch.choose(results[0], states[0])
        body.output(item if sketch.chance(50) else body.add("Neg", item), body.kind, (2,))
    most = sketch.choose(3, 1, 0, 2, -1, None)
    ends = body.outputs[0].name != alive or most is None
    limit = (
        ""
        if most is None and ends
        else sketch.constant(np.asarray(most if most is not None else 2, np.int64))
    )
    begins = sketch.choose("", sketch.constant(np.asarray(True)), sketch.constant(np.asarray(False)))
    if not limit:
        body.nodes.append(
            helper.make_node("Less", [step, body.constant(np.asarray(1, np.int64))], [sketch.name("b")])
        )
        body.outputs[0].name = body.nodes[-1].output[0]
    if sketch.chance(8):
        begins = sketch.input(dtype=bool)
    initial = [outer[0] if sketch.chance(50) else sketch.weight(2) for _ in states]
    made = sketch.add("Loop", limit, begins, *initial, outputs=count + collected, body=body.graph())
    _finish(sketch, made)


def _condition(body: _Body, step: str, alive: str) -> str:
    """Always true, as before, until a step, or computed from the iteration in int64."""
    kind = body.sketch.choose("same", "Identity", "true", "Less", "Not", "And")
    if kind == "same":
        return alive
    if kind == "Identity":
        return body.add("Identity", alive)
    if kind == "true":
        return body.constant(np.asarray(True))
    if kind == "Not":
        return body.add("Not", alive)
    less = body.add("Less", step, body.constant(np.asarray(body.sketch.number(0, 2), np.int64)))
    return body.add("And", less, alive) if kind == "And" else less


def _finish(sketch: Sketch, made: str | tuple[str, ...]) -> None:
    names = [made] if isinstance(made, str) else list(made)
    for name in names:
        if sketch.chance(80) or name == names[-1]:
            sketch.output(name if sketch.chance(60) else str(sketch.add("Neg", name)))


def _scan(sketch: Sketch) -> None:
    body = _Body(sketch)
    outer, count, scanned = [sketch.input(2)], sketch.number(0, 2), sketch.number(1, 2)
    length = sketch.choose(2, 1, 3)
    states = [body.input(body.kind, (2,)) for _ in range(count)]
    items = [body.input(body.kind, (2,)) for _ in range(scanned)]
    for state in states:
        body.output(_step(body, state, [*items, *items], outer), body.kind, (2,))
    collected = sketch.number(0 if count else 1, 2)
    for _ in range(collected):
        body.output(body.add("Add", items[0], sketch.choose(*items, *states, outer[0])), body.kind, (2,))
    axes = [sketch.choose(0, 1, -1) for _ in items]
    tensors = [sketch.input(*((length, 2) if axis == 0 else (2, length))) for axis in axes]
    made = sketch.add(
        "Scan",
        *(sketch.weight(2) if sketch.chance(50) else outer[0] for _ in states),
        *tensors,
        outputs=count + collected,
        num_scan_inputs=scanned,
        scan_input_axes=axes if any(axes) or sketch.chance(50) else None,
        scan_input_directions=[sketch.choose(0, 1) for _ in items] if sketch.chance(50) else None,
        scan_output_axes=[sketch.choose(0, 1, -1) for _ in range(collected)]
        if collected and sketch.chance(50)
        else None,
        scan_output_directions=[sketch.choose(0, 1) for _ in range(collected)]
        if collected and sketch.chance(50)
        else None,
        body=body.graph(),
    )
    _finish(sketch, made)
