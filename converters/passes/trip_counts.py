"""Count the iterations of a Loop before running.

Reads a Loop in a MutableGraph. Where the loop's condition depends on the iteration number and on constants alone (a
counter that is compared with a number), that part of the loop is run by itself. Returns the count, or in
words what it depends on.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from converters.budget import current
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, reads
from converters.graph.opset import RANDOM
from converters.graph.runtime import RuntimeFailure, run

_STEP = "onnxplain.step"


def count_trips(graph: MutableGraph, node: onnx.NodeProto, limit: int) -> int | str:
    """The number of iterations, or why it is not known; `limit + 1` where there are more than `limit`."""
    most, begins = (node.input[index] if index < len(node.input) else "" for index in (0, 1))
    for name, role in ((most, "trip count"), (begins, "condition")):
        if name and name not in graph.constants:
            return f"its {role} {name!r} is computed while running"
    if begins and not graph.constants[begins].all():
        return 0
    trips = min(int(graph.constants[most].item()), limit + 1) if most else limit + 1
    body = attribute(node, "body")
    needed = _needed(body)
    if not needed:
        return max(trips, 0)
    unknown = _unknown(graph, node, body, needed)
    if unknown is not None:
        return (
            f"its condition {body.output[0].name!r} depends on {unknown!r}, which is computed while running"
        )
    try:
        alone = _condition_alone(graph, node, body, needed, trips)
        with current().watched("counting the iterations of a loop", node) as options:
            (steps,) = run(alone, {}, optimise=False, options=options)
    except RuntimeFailure as failure:
        return f"its condition {body.output[0].name!r} cannot be computed beforehand: {failure}"
    return len(steps)


def _needed(body: onnx.GraphProto) -> set[str]:
    """The names in a body that its condition depends on, carried values included; none where it stays as it was."""
    condition, carried = (
        body.output[0].name,
        dict(zip((i.name for i in body.input[2:]), body.output[1:], strict=False)),
    )
    needed = {condition}
    before = 0
    while before != len(needed):
        before = len(needed)
        for node in reversed(body.node):
            if not needed.isdisjoint(node.output):
                needed.update(reads(node))
        needed |= {carried[name].name for name in needed & carried.keys()}
    working = [node for node in body.node if not needed.isdisjoint(node.output)]
    copies = {node.output[0] for node in working if node.op_type == "Identity"}
    return set() if needed <= copies | {body.input[1].name} else needed


def _unknown(
    graph: MutableGraph, node: onnx.NodeProto, body: onnx.GraphProto, needed: set[str]
) -> str | None:
    """A tensor that the condition depends on and that is not known before running."""
    initial = {info.name: name for info, name in zip(body.input[2:], node.input[2:], strict=True)}
    inside = {name for inner in body.node for name in inner.output} | {t.name for t in body.initializer}
    inside |= {info.name for info in body.input[:2]}
    outer = {initial.get(name, name) for name in needed - inside}
    random = {name for inner in body.node if inner.op_type in RANDOM for name in inner.output}
    return min((outer - graph.constants.keys()) | (needed & random), default=None)


def _condition_alone(
    graph: MutableGraph, node: onnx.NodeProto, body: onnx.GraphProto, needed: set[str], trips: int
) -> onnx.ModelProto:
    """A model of the loop without what its condition does not hang on; it gives the steps that were made."""
    carried = [index for index, info in enumerate(body.input[2:]) if info.name in needed]
    kept = onnx.GraphProto(name=body.name or "body")
    kept.node.extend(inner for inner in body.node if not needed.isdisjoint(inner.output))
    kept.node.append(helper.make_node("Identity", [body.input[0].name], [_STEP]))
    kept.initializer.extend(body.initializer)
    kept.input.extend([*body.input[:2], *(body.input[2 + index] for index in carried)])
    kept.output.extend([body.output[0], *(body.output[1 + index] for index in carried)])
    kept.output.append(helper.make_tensor_value_info(_STEP, TensorProto.INT64, []))
    outputs = [f"{_STEP}/{index}" for index in carried]
    loop = helper.make_node(
        "Loop",
        [f"{_STEP}/most", node.input[1], *(node.input[2 + index] for index in carried)],
        [*outputs, _STEP],
        body=kept,
    )
    constants = {name: graph.constants[name] for name in reads(loop) if name in graph.constants}
    constants[f"{_STEP}/most"] = np.asarray(trips, np.int64)
    inner = helper.make_graph(
        [loop],
        "condition",
        [],
        [helper.make_tensor_value_info(_STEP, TensorProto.INT64, [None])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [helper.make_opsetid(domain, version) for domain, version in graph.opsets.items()]
    return helper.make_model(inner, opset_imports=imports, ir_version=11)
