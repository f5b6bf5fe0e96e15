"""Find the bias of every node: what it adds to the output beyond what its active inputs carry.

For a node y = op(u₁…u_k) with active inputs u and Jacobians J_i = ∂y/∂u_i, the residual is
r = y − Σ_i J_i u_i, and FullGrad's identity f(x) = ⟨x, ∂f/∂x⟩ + Σ_nodes Σ (∂f/∂y) ⊙ r holds for any
differentiable graph: multiply r by ∂f/∂y, use J_iᵀ ∂f/∂y = ∂f/∂u_i, and the sum telescopes. What r is
follows from the op's kind, so almost no op needs bias code of its own. Reads a Graph, returns Bias
records in topological order. Source: Srinivas & Fleuret 2019, section 3 and its appendix on implicit biases.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.autodiff.sweep import leading_tensors, path_nodes
from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node, Tensor
from analyzer.graph.layer_names import layer_of
from analyzer.graph.magnitudes import MASKED, softmax_axis
from analyzer.ops import find
from analyzer.ops.chain_rule import active_tensors, carries_gradient
from analyzer.ops.registry import Homogeneous, Kind, Op
from analyzer.ops.rules import rules_of

EXPLICIT = "explicit"
IMPLICIT = "implicit"


@dataclass(frozen=True)
class Bias:
    """One output of a node that has a bias. `tensor` names the output; `active` says which of the node's reads are.

    kind: "explicit" for a constant that the node adds (the biases of the paper), "implicit" for the residual of a
    non-linear node.
    """

    tensor: str
    node: Node
    active: tuple[bool, ...]
    kind: str

    @property
    def layer(self) -> str:
        """The module path that the exporter recorded, else the node's name."""
        return layer_of(self.node)


def find_biases(
    graph: Graph,
    outputs: tuple[str, ...],
    inputs: Sequence[str],
    terms: str = "all",
    *,
    without_rule: str = "raise",
) -> tuple[Bias, ...]:
    """The tensors between the inputs and the outputs that have a bias, in topological order.

    terms: "all", or "explicit" for the paper's own biases alone.
    without_rule: "raise" UnsupportedOp where a node on the path has no rule for what it does, or "skip" it, to
    list what is known of a graph that cannot be differentiated.
    """
    active = active_tensors(graph, inputs)
    leading = leading_tensors(graph, outputs)
    scratch = Builder(graph.opset)
    found = []
    for node in path_nodes(graph, inputs, outputs):
        mask = tuple(
            bool(name) and name in active and carries_gradient(graph, node, index)
            for index, name in enumerate(node.reads)
        )
        kind = _bias_kind(graph, node)
        if terms == EXPLICIT and kind != EXPLICIT:
            continue
        try:
            biased = zip(node.outputs, residuals(graph, scratch, node, mask), strict=False)
        except UnsupportedOp:
            if without_rule == "skip":
                continue
            raise
        found += [Bias(name, node, mask, kind) for name, r in biased if r is not None and name in leading]
    return tuple(found)


def _bias_kind(graph: Graph, node: Node) -> str:
    rules = find(node)
    if rules is None or rules.kind is not Kind.AFFINE:
        return IMPLICIT
    # A lone number, such as the ε of a normalisation written out in primitives, is no layer's bias.
    constants = [graph.tensors[name].constant for name in node.inputs if name]
    scalars = all(constant is None or constant.size == 1 for constant in constants)
    output = graph.tensors[node.outputs[0]]
    wide = output.shape is None or any(axis != 1 for axis in output.shape[1:])
    return IMPLICIT if rules.broadcasts and scalars and wide else EXPLICIT


def residuals(graph: Graph, op: Builder, node: Node, active: Sequence[bool]) -> tuple[Tensor | None, ...]:
    """Emit r = y − Σ J u for each output of a node, broadcastable to it; None where it is zero.

    Of an op without `several_outputs` it is the first output alone. Raises UnsupportedOp where the op has no rule.
    """
    rules = rules_of(node)
    inputs, outputs = graph.inputs_of(node), graph.outputs_of(node)
    y = outputs[0]
    with op.differentiating(node):
        if rules.has_bodies:
            assert rules.residual is not None
            names = [name for name, moves in zip(node.reads, active, strict=True) if moves]
            found = tuple(rules.residual(op, graph, node, list(dict.fromkeys(names))))
        elif rules.residual is not None:
            stated = rules.residual(
                op, tuple(active), tuple(outputs) if rules.several_outputs else y, *inputs, **node.attributes
            )
            found = tuple(stated) if rules.several_outputs else (stated,)
        elif rules.kind is Kind.HOMOGENEOUS:
            assert issubclass(rules, Homogeneous)
            found = tuple(_scaled(op, output, 1 - rules.degree) for output in outputs)
        elif rules.kind is Kind.MULTILINEAR:
            found = (_scaled(op, y, 1 - sum(active)),)
        else:
            assert rules.kind in (Kind.ELEMENTWISE, Kind.SYMMETRIC), f"{node}: its kind needs a `residual`"
            assert y is not None
            found = (_minus_own_product(graph, op, rules, node, y, inputs, active),)
    unmasked = (
        _without_masked_rows(graph, op, node, found[0], active) if rules.kind is Kind.AFFINE else found[0]
    )
    careful = not graph.infinite.isdisjoint((*node.reads, *node.outputs))
    return tuple(finite(op, r) if careful else r for r in (unmasked, *found[1:]))


def _scaled(op: Builder, y: Tensor | None, factor: float) -> Tensor | None:
    if y is None or factor == 0:
        return None
    if factor == 1:
        return y
    return op.Neg(y) if factor == -1 else op.Mul(y, float(factor))


def finite(op: Builder, t: Tensor | None) -> Tensor | None:
    """Return t with 0 for ±∞, as the mask of an attention may hold.

    Nothing passes a softmax, an exponential or a maximum at −∞: its gradient is 0 there, and 0 · ∞ counts as 0.
    """
    if t is None:
        return None
    if t.constant is not None:
        return op.tensor(np.where(np.isinf(t.constant), 0, t.constant).astype(t.dtype))
    return op.Where(op.IsInf(t), op.tensor(0, t.dtype), t)


def _without_masked_rows(
    graph: Graph, op: Builder, node: Node, r: Tensor | None, active: Sequence[bool]
) -> Tensor | None:
    """Return r less one number per row, in the rows that a mask hides whole from a softmax.

    A softmax does not see such a shift: the gradients of a row sum to 0. Their product with −1e9, or with the lowest
    number there is, would be rounding errors far larger than the output. So is a sum with it, which rounds the scores
    away: there r is what the sum did, less its row's maximum.
    """
    if r is None or graph.masking.isdisjoint(node.reads):
        return r
    axis = softmax_axis(graph, node.outputs[0])
    shapes = [graph.tensors[name].shape for name in node.reads if name]
    ranks = [len(shape) for shape in shapes if shape is not None]
    if axis is None or len(ranks) < len(shapes) or max(ranks) < -axis:
        return r
    if r.constant is not None and (r.rank < -axis or (r.constant.max(axis) >= MASKED).all()):
        return r
    wide = r if r.shape is not None and r.rank == max(ranks) else op.Expand(r, [1] * max(ranks))
    highest = op.ReduceMax(wide, [axis], keepdims=1)
    shifted = op.Sub(wide, highest)
    moving = [graph.tensors[name] for name, moves in zip(node.inputs, active, strict=True) if moves]
    if node.op_type == "Add" and len(moving) == 1:
        y = graph.tensors[node.outputs[0]]
        # Two lowest numbers may add up to −∞, of which the difference to its row's maximum is NaN.
        y = op.Max(y, float(np.finfo(np.float16).min)) if y.name in graph.infinite else y
        shifted = op.Sub(op.Sub(y, op.ReduceMax(y, [axis], keepdims=1)), moving[0])
    return op.Where(op.Less(highest, MASKED), shifted, wide)


def _minus_own_product(
    graph: Graph,
    op: Builder,
    rules: type[Op],
    node: Node,
    y: Tensor,
    inputs: Sequence[Tensor | None],
    active: Sequence[bool],
) -> Tensor:
    """Emit y − Σ J_i u_i, where J_i is its own transpose: the VJP rule applied to u_i is J_i u_i."""
    result = y
    for index, u in enumerate(inputs):
        if u is None or not active[index]:
            continue
        assert rules.vjp is not None
        vector = finite(op, u) if u.name in graph.infinite else u
        entry = rules.vjp(op, vector, y, *inputs, **node.attributes)[index]
        entry = entry() if callable(entry) else entry
        if entry is not None:
            result = op.Sub(result, entry)
    return result
