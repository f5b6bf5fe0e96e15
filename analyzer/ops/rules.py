"""Find the VJP rule of a node, or say why it has none and how to explain the model nonetheless."""

from __future__ import annotations

from analyzer.errors import UnsupportedOp
from analyzer.graph.graph import Node
from analyzer.ops.registry import Op, find
from converters.passes.unroll import REASON_KEY

_IN_FLOW = {
    "Scan": "export the model with a fixed number of steps",
}
"""What to do about control flow that depends on the values of the input."""
_CLASSICAL = "ai.onnx.ml"
_OF_CLASSICAL = {
    "SVMClassifier": "write its decision function in standard ops, the kernel with MatMul and Exp, or explain an "
    "SVMRegressor, which has a gradient",
}
"""What to do about ops of classical machine learning that have no rule."""


def rules_of(node: Node) -> type[Op]:
    """The class of a node's op. Raises UnsupportedOp where it has none, or none with a VJP."""
    rules = find(node)
    if rules is None or rules.vjp is None:
        op_type = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        if node.op_type.startswith("TreeEnsemble"):
            raise UnsupportedOp(
                f"node {node.name!r} ({op_type}) is piecewise constant: its gradient is zero wherever it exists. "
                "Fix: use a method for trees, such as TreeSHAP, or explain a differentiable model"
            )
        reason = f": {node.metadata[REASON_KEY]}" if REASON_KEY in node.metadata else ""
        raise UnsupportedOp(
            f"node {node.name!r} ({op_type}) lies between the input and the target and has no VJP rule{reason}. "
            f"Fix: {_way_around(node)}"
        )
    return rules


def _way_around(node: Node) -> str:
    """Return how to explain a model with an op that has no VJP rule."""
    if node.domain == _CLASSICAL:
        return _OF_CLASSICAL.get(
            node.op_type, "export the model without this step, and explain the tensor before it"
        )
    if node.domain:
        return "replace custom ops by standard ops, or by functions in the file"
    other = _IN_FLOW.get(node.op_type, 'add a rule: CONTRIBUTING.md, "Add an op"')
    return f'use backend="source" on a converted model, or {other}'
