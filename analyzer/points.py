"""Inner tensors as points of attribution: find them by what users call them, and cut a model there.

`find_points` reads ONNX tensor names, module paths, names of Keras layers, or "embedding". `cut` returns the same
model, on the same backend, from these tensors on: they are its inputs, beside the original ones that are still
needed, so any method attributes them as it attributes an image. Refused by name: what is found in no graph, a tensor
that is computed from another of the points, and one whose samples do not lie along its first axis.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import onnx
from onnx import helper

from analyzer.backends import Differentiable
from analyzer.backends.base import batched_inputs
from analyzer.batch.arrangement import FIRST, INDEPENDENT, Arrangement
from analyzer.batch.view import viewed
from analyzer.emitter import Emitter
from analyzer.errors import AnalysisError, UnknownTensor
from analyzer.graph import Graph, Node
from analyzer.program import assemble
from analyzer.samples import Place
from analyzer.scopes import find_layer, output_of, path_of
from analyzer.tokens import embedded_tokens
from converters.model import PREPROCESSING_KEY, Model

EMBEDDING = "embedding"
"""Stands for the vectors of a model's tokens."""

# They ask how large a tensor is, not what it holds.
_SIZES = frozenset({"Shape", "Size"})
_SUGGESTED = 3


def find_points(fn: Differentiable, at: str | Sequence[str]) -> tuple[str, ...]:
    """The ONNX names of the tensors that `at` means, each once.

    at: "embedding", the vectors that the inputs look up in constant tables, before anything is added; the ONNX name of
        a float tensor; the path of a module ("layer1.0") or the name of a Keras layer ("dense", "block/dense"), as
        the exporter recorded it: its output is meant, or every one of its outputs. Or a sequence of these.
    Raises UnknownTensor where there is no such tensor or layer, with names that are near; AnalysisError where a name
    means several layers, or where one of the tensors is computed from another.
    """
    wanted = [at] if isinstance(at, str) else list(at) if isinstance(at, Sequence) else []
    if not wanted or not all(isinstance(name, str) for name in wanted):
        raise UnknownTensor(f"name tensors or layers, as text, not {at!r}")
    return fn.roots([found for name in wanted for found in _found(fn.graph, name)])


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
    key = ("cut", names, None if arrangement is None else arrangement.key)
    if key not in fn.plans:
        graph = behind(fn.graph, names)
        if arrangement is None or (fn.arrangement is not None and fn.arrangement.plain and arrangement.plain):
            fn.plans[key] = replace(
                fn,
                model=_part(fn.model, graph),
                engine=fn.engine.cut(graph),
                plans={},
                arrangement=arrangement,
            )
        else:
            fn.plans[key] = _moved_part(fn, graph, names, arrangement)
    made: Differentiable = fn.plans[key]
    return made


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
    whole = assemble(moved, Emitter(moved.opset), {name: moved.tensors[name] for name in moved.outputs}).proto
    stored = {key: value for key, value in fn.model.metadata.items() if key != PREPROCESSING_KEY}
    helper.set_model_props(whole, stored)
    assert fn.arrangement is not None
    # Outputs that were wrapped by the view stay so: a class of every row is refused there, too.
    kept = arrangement.wrapped | (fn.arrangement.wrapped & set(moved.outputs))
    return replace(
        fn, model=Model(whole), engine=engine, plans={}, arrangement=replace(arrangement, wrapped=kept)
    )


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
    whole = model.proto.graph
    given = graph.inputs
    computed = {name for node in graph.nodes for name in node.outputs if name}
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
    proto = helper.make_model(body, opset_imports=model.proto.opset_import, ir_version=model.proto.ir_version)
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
            "the inputs of the model have no axis of samples in common: no tensor in it can be its input"
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
            + (f": attribute {near!r}, the same values with the samples first" if near else "")
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


def _found(graph: Graph, name: str) -> tuple[str, ...]:
    """What one name means: the tokens' vectors, a tensor, or the outputs of a layer."""
    if name == EMBEDDING and (vectors := embedded_tokens(graph)):
        return vectors
    tensor = graph.tensors.get(name)
    if tensor is not None and tensor.constant is None:
        return (name,)
    if outputs := _layer_outputs(graph, name):
        return outputs
    if tensor is not None:
        raise UnknownTensor(f"{name!r} is a constant of the model: nothing is attributed to it")
    if name == EMBEDDING:
        raise UnknownTensor(
            'no input is looked up in a constant table, which "embedding" means: name a tensor'
        )
    layers = [scope for node in graph.nodes for scope in output_of(node) if scope]
    known = dict.fromkeys([*layers, *(output for node in graph.nodes for output in node.outputs if output)])
    near = difflib.get_close_matches(name, known, n=_SUGGESTED)
    hint = f"; near are {', '.join(map(repr, near))}" if near else "; fn.tensors lists the tensors"
    raise UnknownTensor(f"the graph has no tensor and no layer {name!r}{hint}")


def _layer_outputs(graph: Graph, name: str) -> tuple[str, ...]:
    """The float tensors that a layer computes and something else reads; none where there is no such layer."""
    homes = find_layer(graph, name)
    if not homes:
        _refuse_folded(graph, name)
    several = list(dict.fromkeys(homes.values()))
    if len(several) > 1:
        raise AnalysisError(f"several layers are called {name!r}: {', '.join(several)}; name one of them")
    fed = graph.descendants(graph.inputs)
    found = [
        output
        for node in graph.nodes
        if node.name in homes
        for output in node.outputs
        if output in fed and graph.tensors[output].is_float and _leaves(graph, output, homes)
    ]
    return tuple(found)


def _refuse_folded(graph: Graph, layer: str) -> None:
    """Raise UnknownTensor for a module whose output is no tensor: the one behind it was folded into it."""
    for node in graph.nodes:
        path, _, modules = path_of(node)
        if modules and layer in path:
            raise UnknownTensor(
                f"{layer!r} was folded together with {output_of(node)[-1]!r}, whose output is "
                f"{node.outputs[0]!r}; convert(…, fold_batch_norm=False) keeps both"
            )


def _leaves(graph: Graph, name: str, layer: Collection[str]) -> bool:
    """Whether a tensor is read outside a layer, for more than its size."""
    readers = graph.consumers.get(name, ())
    return name in graph.outputs or any(
        node.name not in layer and node.op_type not in _SIZES for node in readers
    )
