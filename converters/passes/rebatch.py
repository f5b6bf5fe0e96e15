"""Make a fixed batch symbolic, and prove by running that samples stay independent.

Reads a MutableGraph whose types are inferred. The first axis of every input is taken for the batch. Constants that
spell the old batch (the target of a Reshape, of an Expand, a class token that is joined on) are rewritten;
then a batch of different samples must give, sample by sample, what the fixed graph gives for each alone, and each
sample must keep every bit of its results where the others become NaN. Otherwise the graph keeps its batch.
"""

from __future__ import annotations

import copy

import numpy as np
import onnx
from onnx import helper

from converters.budget import current
from converters.errors import InvalidModel
from converters.graph.mutable import MutableGraph
from converters.graph.nodes import attribute, is_standard
from converters.graph.runtime import RuntimeFailure, Session
from converters.graph.tensors import shape_of
from converters.verify import relative_l2

BATCH = "batch"
_SAMPLES = 3
_TOLERANCE = 1e-3


def name_batch(graph: MutableGraph) -> None:
    """Call a symbolic (or unnamed) first axis of the inputs `batch`."""
    names: dict[str, str] = {}
    unnamed = False
    for info in graph.inputs:
        shape = shape_of(info.type)
        if not shape or isinstance(shape[0], int):
            continue
        if shape[0] is None:
            info.type.tensor_type.shape.dim[0].dim_param = BATCH
            unnamed = True
        elif not names:
            names[shape[0]] = BATCH
    if unnamed:
        _infer_anew(graph)
    if set(names) == {BATCH}:
        return
    for known in [*(info.type for info in (*graph.inputs, *graph.outputs)), *graph.types.values()]:
        for axis in known.tensor_type.shape.dim if known.tensor_type.HasField("shape") else ():
            if axis.dim_param in names:
                axis.dim_param = names[axis.dim_param]


def _infer_anew(graph: MutableGraph) -> None:
    """Infer all types from those of the inputs: an axis without a name would keep the name from what follows it."""
    before, graph.types = graph.types, {}
    for info in graph.outputs:
        for axis in info.type.tensor_type.shape.dim if shape_of(info.type) else ():
            if not axis.HasField("dim_value") and not axis.dim_param:
                info.type.tensor_type.ClearField("shape")
                break
    graph.infer_types()
    for name, known in before.items():
        if name not in graph.types or shape_of(graph.types[name]) is None:
            graph.types[name] = known


def free_batch(graph: MutableGraph) -> MutableGraph:
    """The graph with a symbolic batch where that is proved right, else the graph as it was."""
    batch = _fixed_batch(graph)
    if batch is None:
        return graph
    free = _rewritten(graph, batch)
    try:
        free.infer_types()
        with current().trial():
            proved = _samples_are_independent(graph, free, batch)
    except (InvalidModel, RuntimeFailure):
        # The graph holds its batch in a way that no rewriting here undoes: it keeps it.
        return graph
    return free if proved else graph


def _fixed_batch(graph: MutableGraph) -> int | None:
    """The size that the first axes of all inputs share, where it is fixed. Lists of tensors have no batch."""
    if not all(info.type.HasField("tensor_type") for info in (*graph.inputs, *graph.outputs)):
        return None
    sizes = {shape[0] for info in graph.inputs if (shape := shape_of(info.type))}
    size = sizes.pop() if len(sizes) == 1 else None
    return size if isinstance(size, int) and size > 0 else None


def _rewritten(graph: MutableGraph, batch: int) -> MutableGraph:
    """A copy with a symbolic batch; what spelled the old batch is rewritten."""
    free = copy.copy(graph)
    free.nodes = [_copied(node) for node in graph.nodes]
    free.constants = dict(graph.constants)
    free.inputs = [_copied(info) for info in graph.inputs]
    free.outputs = [_copied(info) for info in graph.outputs]
    free.types = {}
    for info in free.inputs:
        if shape_of(info.type):
            info.type.tensor_type.shape.dim[0].dim_param = BATCH
    for info in free.outputs:
        info.type.tensor_type.ClearField("shape")
    replaced = {}
    for node in free.nodes:
        if is_standard(node, "Reshape"):
            _free_reshape(graph, free, node, batch)
        elif is_standard(node, "Expand"):
            _free_expand(free, node, batch)
        elif is_standard(node, "Concat"):
            replaced[id(node)] = [*_free_concat(graph, free, node, batch), node]
    free.replace(replaced)
    return free


def _copied(message: onnx.NodeProto | onnx.ValueInfoProto) -> onnx.NodeProto | onnx.ValueInfoProto:
    twin = type(message)()
    twin.CopyFrom(message)
    return twin


def _free_reshape(graph: MutableGraph, free: MutableGraph, node: onnx.NodeProto, batch: int) -> None:
    """[1, -1] and [1, 8, 4] become [0, 32] and [0, 8, 4]: the fixed graph knows every other size."""
    target, given = graph.shape(node.output[0]), graph.shape(node.input[0])
    if node.input[1] not in free.constants or not target or not all(isinstance(n, int) and n for n in target):
        return
    if not isinstance(target[0], int) or target[0] % batch:
        return
    name = free.fresh(f"{node.output[0]}.shape")
    # 0 copies the batch of the data; where the batch is merged with other axes, -1 works it out.
    keeps_batch = given and given[0] == target[0] == batch and not attribute(node, "allowzero", 0)
    free.constants[name] = np.asarray([0 if keeps_batch else -1, *target[1:]], np.int64)
    free.set_input(node, 1, name)


def _free_expand(free: MutableGraph, node: onnx.NodeProto, batch: int) -> None:
    """An Expand to the old batch lets the batch of its data through."""
    target = free.constants.get(node.input[1])
    if target is None or not target.size or int(target[0]) != batch:
        return
    name = free.fresh(f"{node.output[0]}.shape")
    free.constants[name] = np.concatenate([np.ones(1, np.int64), target[1:]])
    free.set_input(node, 1, name)


def _free_concat(
    graph: MutableGraph, free: MutableGraph, node: onnx.NodeProto, batch: int
) -> list[onnx.NodeProto]:
    """Let a Concat read a constant that is joined to every sample (a class token) once for each sample of the batch.

    Returns the nodes that repeat it.
    """
    axis = attribute(node, "axis")
    shape = graph.shape(node.output[0])
    made: list[onnx.NodeProto] = []
    if shape is None or axis in (0, -len(shape)):
        return made
    data = next((name for name in node.input if name not in graph.constants), None)
    for index, name in enumerate(node.input):
        constant = graph.constants.get(name)
        if data is None or constant is None or constant.shape[0] != batch or np.any(constant != constant[:1]):
            continue
        once, rest, size, target, spread = (
            free.fresh(f"{name}.{role}") for role in ("once", "rest", "batch", "shape", "spread")
        )
        free.constants[once] = constant[:1]
        free.constants[rest] = np.asarray(constant.shape[1:], np.int64)
        made += [
            helper.make_node("Shape", [data], [size], start=0, end=1),
            helper.make_node("Concat", [size, rest], [target], axis=0),
            helper.make_node("Expand", [once, target], [spread]),
        ]
        node.input[index] = spread
    return made


def _samples_are_independent(graph: MutableGraph, free: MutableGraph, batch: int) -> bool:
    """Whether a batch of different samples gives what the fixed graph gives for each sample alone."""
    rng = np.random.default_rng(0)
    samples = {info.name: _random(info.type, rng) for info in graph.inputs}
    one_at_a_time = Session(graph.to_proto())
    alone = []
    for index in range(_SAMPLES):
        feeds = {name: np.repeat(array[index : index + 1], batch, axis=0) for name, array in samples.items()}
        alone.append(one_at_a_time.run(feeds))
    session = Session(free.to_proto())
    together = session.run(samples)
    for output, singles in zip(together, zip(*alone, strict=True), strict=True):
        if any(single.ndim == 0 or single.shape[0] != batch for single in singles):
            return False
        if len({single.shape for single in singles}) > 1:
            # The size of an output depends on values.
            return False
        expected = np.concatenate([single[:1] for single in singles])
        if output.shape != expected.shape or not relative_l2(output, expected) <= _TOLERANCE:
            return False
    return all(_is_alone(session, samples, together, index) for index in range(_SAMPLES))


def _is_alone(
    session: Session, samples: dict[str, np.ndarray], together: list[np.ndarray], index: int
) -> bool:
    """Return whether a sample's results keep all their bits where every other sample is NaN.

    NaN shows the weakest dependence. Other numbers take its place where the graph does not run with it.
    """
    own = np.arange(_SAMPLES) == index
    for other in (_poisoned, _rolled):
        feeds = {
            name: np.where(own.reshape(-1, *(1,) * (array.ndim - 1)), array, other(array))
            for name, array in samples.items()
        }
        try:
            found = session.run(feeds)
        except RuntimeFailure:
            continue
        return all(
            # Other numbers may be another choice of elements: a result of another size.
            a.shape == b.shape and np.array_equal(a[index], b[index], equal_nan=a.dtype.kind == "f")
            for a, b in zip(together, found, strict=True)
        )
    return False


def _poisoned(array: np.ndarray) -> np.ndarray:
    """Return NaN in place of floats, and 1 - x in place of whole numbers, which are 0 or 1."""
    return np.full_like(array, np.nan) if array.dtype.kind == "f" else (1 - array).astype(array.dtype)


def _rolled(array: np.ndarray) -> np.ndarray:
    return np.roll(array, 1, axis=0)


def _random(known: onnx.TypeProto, rng: np.random.Generator) -> np.ndarray:
    """Random samples of an input; free axes other than the batch are given a small size."""
    shape = shape_of(known) or ()
    sizes = (_SAMPLES, *(size if isinstance(size, int) else 8 for size in shape[1:]))
    dtype = helper.tensor_dtype_to_np_dtype(known.tensor_type.elem_type)
    if np.dtype(dtype).kind in "iub":
        return rng.integers(0, 2, sizes).astype(dtype)
    return rng.standard_normal(sizes).astype(dtype)
