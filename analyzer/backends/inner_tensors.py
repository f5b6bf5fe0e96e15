"""Cut a model at inner tensors, the points of attribution.

`cut` returns the model from these tensors on, on the same backend. They are its inputs, together with the original
inputs that are still needed, so any method attributes them as it attributes an image. Refuses a tensor that is computed
from another of the points, and a tensor whose samples do not lie along its first axis.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import onnx
from onnx import helper

from analyzer.backends import Differentiable
from analyzer.backends.caches import Cache
from analyzer.errors import AnalysisError
from analyzer.graph.batch_axis import Place, batched_inputs
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Node
from analyzer.graph.program import assemble
from analyzer.graph.samples.arrangement import FIRST, INDEPENDENT, Arrangement
from analyzer.graph.samples.view import viewed
from converters.model import PREPROCESSING_KEY, Model
from converters.weights.references import sharing

_PARTS: Cache[Differentiable] = Cache("parts")


def cut(fn: Differentiable, points: Sequence[str]) -> Differentiable:
    """The model from these tensors on. It is made once, and kept by the model that it is a part of.

    points: ONNX tensor names. The inputs of the result are these, then the original inputs that are still needed
    beside them; its outputs, its tensors' names and its backend are those of `fn`. Points that hold the samples along
    another axis than the first are moved: `result.arrangement.all_first` brings their values into its form.
    Raises UnknownTensor for a name, AnalysisError where a point is computed from another or where its samples cannot be
    told apart.
    """
    names = fn.roots(points)
    arrangement = _arrangement(fn, names)

    def made() -> Differentiable:
        graph = behind(fn.graph, names)
        if arrangement is None or (fn.arrangement is not None and fn.arrangement.plain and arrangement.plain):
            return replace(
                fn,
                model=_part(fn.model, graph),
                engine=fn.engine.cut(graph),
                caches={},
                arrangement=arrangement,
            )
        return _moved_part(fn, graph, names, arrangement)

    return _PARTS.get(fn, (names, None if arrangement is None else arrangement.key), made)


def _arrangement(fn: Differentiable, points: Sequence[str]) -> Arrangement | None:
    """How the points hold the samples of a model whose own arrangement is known; None where it is not."""
    whole = fn.arrangement
    if whole is None:
        _refuse_unbatched(fn, points)
        return None
    spans, wrapped = {}, set()
    for name in points:
        known = None if name in whole.spans else whole.inner.get(name)
        if known is not None and whole.samples == INDEPENDENT:
            if known[0] != FIRST:
                spans[name] = known[0]
        elif fn.engine.batch == 1:
            if (fn.graph.tensors[name].shape or (None,))[0] != 1:
                wrapped.add(name)
        else:
            _refuse_unbatched(fn, [name])
    return Arrangement(whole.samples, spans, frozenset(wrapped), note=whole.note, inner=whole.inner)


def _moved_part(
    fn: Differentiable, graph: Graph, points: Sequence[str], arrangement: Arrangement
) -> Differentiable:
    """The part of a view, or of a model with points that are moved."""
    shapes = {name: arrangement.inner[name][1] for name in arrangement.spans}
    shapes |= {name: (0,) * len(graph.tensors[name].shape or ()) for name in arrangement.wrapped}
    moved = viewed(graph, arrangement, shapes)
    engine = fn.engine.cut(graph)
    if not arrangement.plain:
        engine = engine.arranged(moved, arrangement)
    results = {name: moved.tensors[name] for name in moved.outputs}
    with sharing():
        model = Model(assemble(moved, Builder(moved.opset), results).proto)
    stored = {key: value for key, value in fn.model.metadata.items() if key != PREPROCESSING_KEY}
    helper.set_model_props(model.light, stored)
    assert fn.arrangement is not None
    # Outputs that were wrapped by the view stay so: a class of every row is refused there, too.
    kept = arrangement.wrapped | (fn.arrangement.wrapped & set(moved.outputs))
    return replace(fn, model=model, engine=engine, caches={}, arrangement=replace(arrangement, wrapped=kept))


def behind(graph: Graph, points: Sequence[str]) -> Graph:
    """The graph whose inputs are the points and what else its outputs need; nothing else stays."""
    given = set(points)
    needed = set(graph.outputs)
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if any(name in needed - given for name in node.outputs):
            # A node that computes a point beside something else, as a Split does, must not define it.
            kept.append(replace(node, outputs=tuple(_again(name, given) for name in node.outputs)))
            needed.update(name for name in node.reads if name)
    inputs = (*points, *(name for name in graph.inputs if name in needed - given))
    present = {*inputs, *needed, *(name for node in kept for name in node.outputs)}
    tensors = {name: tensor for name, tensor in graph.tensors.items() if name in present}
    renamed = {_again(name, given): replace(graph.tensors[name], name=_again(name, given)) for name in points}
    tensors |= {name: tensor for name, tensor in renamed.items() if name in present}
    return replace(graph, nodes=tuple(reversed(kept)), tensors=tensors, inputs=inputs)


def _again(name: str, given: Collection[str]) -> str:
    """The name under which a node still computes a tensor that is given."""
    return f"again/{name}" if name in given else name


def _part(model: Model, graph: Graph) -> Model:
    """A model without source: the nodes and constants of its file that the graph has kept."""
    whole = model.light.graph
    given = graph.inputs
    # The graph has no node for a weight that is widened (graph.py).
    computed = {name for node in graph.nodes for name in node.outputs if name}
    computed |= {name for name, tensor in graph.tensors.items() if tensor.stored is not None}
    nodes = []
    for node in whole.node:
        if computed.intersection(_again(name, given) for name in node.output):
            nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
            nodes[-1].output[:] = [_again(name, given) for name in node.output]
    infos = {info.name: info for info in (*whole.value_info, *whole.output, *whole.input)}
    body = helper.make_graph(
        nodes,
        whole.name,
        [infos[name] for name in given],
        list(whole.output),
        [tensor for tensor in whole.initializer if tensor.name in graph.tensors],
        value_info=[info for info in whole.value_info if info.name in computed],
    )
    proto = helper.make_model(body, opset_imports=model.light.opset_import, ir_version=model.light.ir_version)
    # How a photograph becomes an input says nothing of an inner tensor.
    stored = {key: value for key, value in model.metadata.items() if key != PREPROCESSING_KEY}
    helper.set_model_props(proto, stored)
    return Model(proto)


def _refuse_unbatched(fn: Differentiable, points: Iterable[str]) -> None:
    """Raise AnalysisError for a tensor along whose first axis the samples do not lie, one by one."""
    graph = fn.graph
    batched = batched_inputs(graph)
    if not batched:
        raise AnalysisError(
            "the inputs of the model have no axis of samples in common: no tensor in it can be its input. Fix: omit "
            "wrt= (--at), and attribute the inputs"
        )
    samples = (graph.tensors[batched[0]].shape or (None,))[0]
    for name in points:
        shape = graph.tensors[name].shape
        if fn.places.get(name) == Place(0) and shape and shape[0] == samples:
            continue
        stated = "of unknown rank" if shape is None else f"of shape ({', '.join(map(str, shape))})"
        near = _batched_twin(fn, name, samples)
        raise AnalysisError(
            f"{name!r} {stated} does not hold one sample after the other along its first axis"
            + (
                f". Fix: attribute {near!r}, the same values with the samples first"
                if near
                else ". Fix: attribute another tensor, with the samples along its first axis, or use wrt= in gradients"
            )
        )


def _batched_twin(fn: Differentiable, name: str, samples: int | str | None) -> str | None:
    """A transposed twin of a tensor that holds the samples along its first axis."""
    producer = fn.graph.producer.get(name)
    before = [producer] if producer is not None and producer.op_type == "Transpose" else []
    behind = [node for node in fn.graph.consumers.get(name, ()) if node.op_type == "Transpose"]
    twins = [*(node.inputs[0] for node in before), *(node.outputs[0] for node in behind)]
    return next(
        (
            twin for twin in twins
            if fn.places.get(twin) == Place(0) and (fn.graph.tensors[twin].shape or (None,))[0] == samples
        ),
        None,
    )  # fmt: skip
