"""A model at the sizes and switches of its inputs, where loops or branches depend on them.

From a Differentiable and feeds to a Differentiable whose loops are written out for these sizes: recurrent layers on
sequences of free length, branches on a shape or on an integer input such as a sampling rate. Any other model is
returned as it is. A Squeeze without axes is read in the same way, where an axis of size 1 makes a difference.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

import onnx

from analyzer.backends.caches import Cache
from analyzer.errors import note
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.graph import Graph, Node
from analyzer.graph.precision import FLOAT64, at_least_float32, in_precision, precisions
from converters.graph.opset import all_nodes
from converters.model import Model
from converters.passes.branches import BRANCHES
from converters.specialise import (
    CONTROL_FLOW,
    Specialised,
    drops_axes,
    specialised,
    switches,
    without_axes_of_one,
)

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays

# Each has its own copy of the weights.
_KEPT = 4
_MADE: Cache[Differentiable | None] = Cache("models at sizes")
_SETTLED: Cache[bool] = Cache("the model is at sizes")
_SWITCHES: Cache[tuple[str, ...]] = Cache("switches")
_DROPS: Cache[bool] = Cache("drops axes of size 1")


def at_sizes(fn: Differentiable, feeds: Arrays) -> Differentiable:
    """The model at the sizes of the feeds, made once for each; itself where it has no control flow in the way.

    Warns when it writes loops out. Raises VerificationFailed where the outputs then change.
    """
    moved = fn.arrangement is not None and not fn.arrangement.plain
    if moved or _SETTLED.of(fn):
        # A view is made of a model that is at sizes, and has other axes than the file.
        return fn
    rewrite = _rewriting(
        fn.model,
        fn.graph,
        (fn.backend,),
        feeds,
        lambda original: _DROPS.get(fn, (), lambda: drops_axes(original)),
    )
    if rewrite is None:
        return fn
    batched = batched_inputs(fn.graph)
    settings = tuple(feeds[name].tobytes() for name in _switches(fn) if name in feeds)
    # Whether the loops allow a free batch is seen when they are written out.
    open_ended = (tuple((n, a.shape[1:] if n in batched else a.shape) for n, a in feeds.items()), settings)
    fixed = (tuple((name, array.shape) for name, array in feeds.items()), settings, "fixed")
    kept = _MADE.of(fn)
    for key in (open_ended, fixed):
        if key in kept:
            return kept[key] or fn
    written = rewrite()
    if written is None:
        kept[fixed] = None
        return fn
    made = _bound(fn, replace(fn.model, proto=written.proto))
    for oldest in list(kept)[: max(len(kept) - _KEPT + 1, 0)]:
        del kept[oldest]
    kept[open_ended if made.engine.batch is None else fixed] = made
    note(_note(made.graph, feeds, written.switches), UserWarning)
    return made


def model_at_sizes(model: Model, graph: Graph, backends: tuple[str, ...], feeds: Arrays) -> Model:
    """The same for a model that several backends share, where control flow is in the way of one of them."""
    rewrite = _rewriting(model, graph, backends, feeds, drops_axes)
    found = None if rewrite is None else rewrite()
    if found is None:
        return model
    note(_note(Graph.from_proto(found.proto), feeds, found.switches), UserWarning)
    return replace(model, proto=found.proto)


def depends_on_sizes(model: Model, graph: Graph) -> bool:
    """Whether the graph may differ for other inputs: a loop or branch has stayed in it, or a rank is open."""
    return _has_control_flow(graph) or drops_axes(model.original)


def _rewriting(
    model: Model,
    graph: Graph,
    backends: tuple[str, ...],
    feeds: Arrays,
    drops: Callable[[onnx.ModelProto], bool],
) -> Callable[[], Specialised | None] | None:
    """Return the function that writes the model out for the feeds; None where nothing in it depends on their sizes.

    drops: whether a file squeezes axes of size 1 that it does not name, as `drops_axes` finds.
    """
    if any(_in_the_way(graph, name) for name in backends):
        return lambda: specialised(model.proto, feeds)
    original = model.original
    if original is None or not _has_axes_of_one(graph, feeds):
        return None
    return (lambda: without_axes_of_one(original, model.proto, feeds)) if drops(original) else None


def _has_axes_of_one(graph: Graph, feeds: Arrays) -> bool:
    """Whether an axis that the graph leaves open has size 1."""
    return any(
        size == 1 and not isinstance(stated, int)
        for name, array in feeds.items()
        for size, stated in zip(array.shape, graph.tensors[name].shape or (), strict=False)
    )


def _has_control_flow(graph: Graph) -> bool:
    return any(node.op_type in CONTROL_FLOW and not node.domain for node in graph.nodes)


def _in_the_way(graph: Graph, backend: str) -> bool:
    """Whether the backend cannot run, or no rule differentiates, a loop or branch of the graph."""
    nodes = [node for node in graph.nodes if node.op_type in CONTROL_FLOW and not node.domain]
    floats = [name for name in graph.inputs if graph.tensors[name].is_float]
    by_value = (
        graph.descendants(floats, lambda node, _: node.op_type not in ("Shape", "Size")) if nodes else ()
    )
    nodes = [node for node in nodes if not _branches_on(node, by_value)]
    if not nodes or backend in ("torch", "tensorflow"):
        return bool(nodes)
    computed = graph.descendants(graph.inputs)
    return any(_passes_floats(graph, node, computed) for node in nodes)


def _branches_on(node: Node, values: Collection[str]) -> bool:
    """Whether a node is a branch that values decide, which is differentiated as it is, without loops within."""
    bodies = [node.attributes.get(role) for role in BRANCHES]
    inner = [one.op_type for body in bodies if body is not None for one in all_nodes(list(body.node))]
    return node.op_type == "If" and node.inputs[0] in values and not {"Loop", "Scan"} & {*inner}


def _passes_floats(graph: Graph, node: Node, computed: frozenset[str]) -> bool:
    reads = any(name in computed and graph.tensors[name].is_float for name in node.reads if name)
    return reads and any(graph.tensors[name].is_float for name in node.outputs if name)


def _bound(fn: Differentiable, model: Model) -> Differentiable:
    """A model with other nodes on the backend of another, in its precision."""
    stated = Graph.from_proto(model.proto)
    double = precisions(fn.graph) <= {FLOAT64} and not precisions(stated) <= {FLOAT64}
    graph = in_precision(stated, FLOAT64) if double else at_least_float32(stated)
    made = replace(fn, model=model, engine=fn.engine.rebound(graph), caches={})
    _SETTLED.of(made)[()] = True
    return made


def _switches(fn: Differentiable) -> tuple[str, ...]:
    return _SWITCHES.get(fn, (), lambda: switches(fn.model.proto))


def _note(graph: Graph, feeds: Arrays, switches: tuple[str, ...]) -> str:
    shapes = ", ".join(
        f"{name} = {feeds[name].tolist()}" if name in switches else f"{name} {_shape(graph, name)}"
        for name in graph.inputs
    )
    what = "sizes or switches" if switches else "sizes"
    return f"loops, branches and ranks that depend on {what} are written out for the inputs at hand: {shapes}"


def _shape(graph: Graph, name: str) -> str:
    axes = graph.tensors[name].shape or ()
    return f"({', '.join('N' if not isinstance(axis, int) else str(axis) for axis in axes)})"
