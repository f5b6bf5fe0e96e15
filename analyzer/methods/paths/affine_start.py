"""Follow a straight line behind the part of a network that is affine in its inputs.

An affine function takes a straight line to a straight line, and has one Jacobian all along it. So the first
convolution, the embedding of patches or the first matrix is computed at both ends of a path only; gradients are summed
where the network begins to bend, and their sum is pulled back to the inputs once. From Lines to Lines that find the
same attributions, or to the same where nothing is gained: where the network bends at its inputs, where what is behind
the affine part is larger than they are, or where a framework differentiates, which is asked for nothing but gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.autodiff.sweep import carries_gradient
from analyzer.backends.caches import Cache
from analyzer.backends.inner_tensors import cut
from analyzer.errors import AnalysisError, UnsupportedOp
from analyzer.graph.graph import Graph, Node
from analyzer.methods.paths.fixed_target import Held, in_batches
from analyzer.methods.paths.lines import Lines, Point, arrays_of, vectors
from analyzer.ops import find
from analyzer.ops.registry import Kind
from analyzer.target.target import Target

# Linear ops whose kind says less than that.
_LINEAR = frozenset(
    [
        "AveragePool",
        "CumSum",
        "DepthToSpace",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "GatherElements",
        "GatherND",
        "GlobalAveragePool",
        "Identity",
        "Neg",
        "ReduceMean",
        "ReduceSum",
        "Reshape",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Tile",
        "Transpose",
        "Trilu",
        "Unsqueeze",
    ]
)
# Affine in several inputs together; any other op is in one of them, the rest held.
_JOINING = frozenset({"Add", "Concat", "Mean", "Sub", "Sum"})
# What is worth being computed once.
_COSTLY = frozenset({"Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul"})
_SIZES = frozenset({"Shape", "Size"})
# Points are made, and gradients summed, number by number: twice as many as the inputs' cost more than a small layer.
_LARGER = 2


def frontier(graph: Graph, names: Sequence[str], outputs: Sequence[str]) -> tuple[str, ...]:
    """The tensors, affine in the inputs `names`, from which all of the outputs that depends on these is computed.

    Empty where an input or an output is among them, or where nothing costly lies before them.
    """
    leading = graph.ancestors(outputs)
    varying, affine = set(names), set(names)
    found: dict[str, None] = {name: None for name in outputs if name in names}
    costly: set[str] = set()
    for node in graph.nodes:
        if (
            not leading.intersection(node.outputs)
            or node.op_type in _SIZES
            or not varying.intersection(node.reads)
        ):
            continue
        varying.update(name for name in node.outputs if name)
        if _is_affine(graph, node, varying, affine):
            affine.update(name for name in node.outputs if name)
            if node.op_type in _COSTLY or costly.intersection(node.reads):
                costly.update(node.outputs)
        else:
            found |= dict.fromkeys(name for name in node.reads if name in affine)
    if not found or not costly or {*names, *outputs} & found.keys() or affine.intersection(outputs):
        return ()
    # What is computed from others of them alone is computed behind them.
    ahead = graph.descendants(names, lambda node, index: node.reads[index] not in found)
    return tuple(name for name in found if name in ahead)


def _is_affine(graph: Graph, node: Node, varying: set[str], affine: set[str]) -> bool:
    """Whether the outputs of a node are affine in tensors that are, and depend on the inputs by no other way."""
    moved = [index for index, name in enumerate(node.reads) if name in varying]
    if not all(node.reads[i] in affine and carries_gradient(graph, node, i) for i in moved):
        return False
    if node.op_type in _JOINING:
        return True
    rules = find(node)
    if rules is None or len(moved) > 1:
        return False
    if node.op_type == "Div":
        return moved == [0]
    return rules.kind in (Kind.AFFINE, Kind.MULTILINEAR) or node.op_type in _LINEAR


_STARTS: Cache[tuple[str, ...]] = Cache("affine starts")


def behind_affine_start(lines: Lines) -> Lines:
    """The same lines, followed behind the affine part of the network where that costs less."""
    held = lines.held
    fn = held.fn
    if fn.backend != "onnxruntime" or fn.engine.batch is not None:
        return lines
    points = _STARTS.get(fn, (held.names, held.tensors), lambda: frontier(fn.graph, held.names, held.tensors))
    if not points:
        return lines
    try:
        rest = cut(fn, points)
        if rest.arrangement is not None and not {
            *rest.arrangement.spans,
            *rest.arrangement.wrapped,
        }.isdisjoint(points):
            # Gradients of moved tensors would have to be moved back.
            return lines
        ends = fn.forward(held.feeds, points)
        starts = [fn.forward(_with(held, start), points) for start in lines.starts]
    except (AnalysisError, UnsupportedOp):
        # What a cut does not serve, such as a tensor without an axis of samples, is followed from the inputs on.
        return lines
    if not all(np.isfinite(array).all() for found in (ends, *starts) for array in found.values()):
        # An infinite bias, which a ReLU makes a zero: no line leads through an infinity.
        return lines
    kept = {name: array for name, array in held.feeds.items() if name in rest.graph.inputs}
    follow = replace(held, bound=held.bound.on(rest, {**kept, **ends}), names=points)
    behind = Lines(follow, starts, lines.batch_size)
    if behind.size > _LARGER * lines.size:
        return lines
    return LinesBehind(held, lines.starts, lines.batch_size, behind)


def _with(held: Held, start: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {**held.feeds, **{name: start[name] for name in held.names}}


@dataclass(frozen=True, eq=False)
class LinesBehind(Lines):
    """Lines whose points are evaluated `behind` the affine start: their gradients are those of its tensors."""

    behind: Lines

    @property
    def gradient_size(self) -> int:
        """The numbers of a gradient."""
        return self.behind.size

    def evaluate(self, wanted: Sequence[tuple[int, float]], *, open_ends: bool = False) -> Iterator[Point]:
        """The points behind the affine start."""
        return self.behind.evaluate(wanted, open_ends=open_ends)

    def attributions(self, lines: Sequence[int], gradients: np.ndarray) -> np.ndarray:
        """Pulled back to the inputs first."""
        return super().attributions(lines, self._pulled_back(lines, gradients))

    def _pulled_back(self, lines: Sequence[int], gradients: np.ndarray) -> np.ndarray:
        """Gradients (n, K, G) behind the affine start as gradients (n, K, D) at the inputs of these lines."""
        held, points = self.held, self.behind.held.names
        shapes = {name: self.behind.held.feeds[name].shape[1:] for name in points}
        flat = gradients.reshape(-1, gradients.shape[-1])
        rows = np.repeat(np.asarray(lines) // len(self.starts), self.targets)
        found = np.empty((len(flat), self.size))
        for batch in in_batches(len(flat), self.batch_size):
            weights = {
                name: array.astype(self.behind.held.feeds[name].dtype)
                for name, array in arrays_of(flat[batch], shapes).items()
            }
            ends = held.bound.at({}, rows[batch])
            pulled = ends.fn.bind(ends.feeds, Target(weights=weights)).gradients(held.names).gradients
            found[batch] = vectors(pulled, held.names, 1)[:, 0]
        return found.reshape(len(gradients), self.targets, self.size)
