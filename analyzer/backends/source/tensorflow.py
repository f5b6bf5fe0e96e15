"""A TensorFlow function's own graph: any tensor fetched by name, and differentiated by tf.gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np

from analyzer.backends.interpreter import TensorFlow
from analyzer.backends.native import Fed, Measured
from analyzer.backends.source.matching import MOVES_ONLY
from analyzer.errors import AnalysisError, BackendError
from analyzer.types import Arrays
from converters.errors import one_line
from converters.model import TensorFlowSource

_CONTROL_FLOW = ("While", "StatelessWhile", "If", "StatelessIf", "Case", "StatelessCase")
# They ask how large a tensor is, not what it holds.
_SIZES = ("Shape", "ShapeN", "Size", "Rank")
_FILLS = ("ZerosLike", "OnesLike")
STOPS = ("StopGradient", "PreventGradient")


class TensorFlowNetwork:
    """The frozen concrete function of a converted Keras model or tf.function."""

    keeps_names = False

    def __init__(
        self, source: TensorFlowSource, framework: TensorFlow, stopping: Collection[str] = ()
    ) -> None:
        """stopping: the operations that stop gradients; all others of their kind pass them on, as an export does."""
        self.framework = framework
        tf: Any = framework.module
        # One graph and one session: every tf.function would keep its own copy of the weights.
        graph = tf.Graph()
        with graph.as_default():
            tf.graph_util.import_graph_def(
                _differentiable_definition(tf, source.function.graph, stopping), name=""
            )
        self._session = _session(tf, graph)
        self._graph = source.function.graph
        self._inputs = dict(source.inputs)
        self._constants = dict(source.constants)
        self._outputs = tuple(source.outputs.values())
        own = [tensor for name, tensor in self._inputs.items() if name not in self._constants]
        shapes = [self._graph.get_tensor_by_name(name).shape for name in own]
        sizes = {shape[0] for shape in shapes if shape.rank}
        self.batch: int | None = sizes.pop() if len(sizes) == 1 else None
        self._added: dict[tuple[tuple[str, ...], tuple[str, ...]], tuple[dict[str, str], dict[str, str]]] = {}

    def names(self) -> dict[str, bool]:
        """Every float tensor that the outputs depend on and that is no constant, and whether a layer computes it."""
        leading = self._leading()
        return {
            tensor.name: operation.type not in MOVES_ONLY
            for operation in self._graph.get_operations()
            if operation.name in leading and operation.type not in ("Const", "Placeholder", "NoOp")
            for tensor in operation.outputs
            if tensor.dtype.is_floating
        }

    def _leading(self) -> set[str]:
        """The operations whose values the outputs depend on.

        Keras computes the first step of a masked layer once more, for the shape of its output alone. It has the values
        of the step in the loop and no gradient.
        """
        stack = [self._graph.get_tensor_by_name(name).op for name in self._outputs]
        found: set[str] = set()
        while stack:
            operation = stack.pop()
            if operation.name not in found:
                found.add(operation.name)
                reads = () if operation.type in (*_SIZES, *_FILLS) else operation.inputs
                stack.extend(tensor.op for tensor in reads)
        return found

    def candidates(self, name: str) -> Sequence[str]:
        """tf2onnx keeps the graph's names, with its own endings for what it rewrote."""
        if name in self._inputs:
            return [self._inputs[name]]
        stem = name.split("__")[0]
        return [name, stem, f"{stem}:0"] if ":" not in stem else [name, stem]

    def values(self, feeds: Fed, names: Sequence[str]) -> Arrays:
        """The values of these tensors."""
        return self._run(names, feeds, {}) if names else {}

    def measure(
        self,
        feeds: Fed,
        outputs: Sequence[str],
        cotangents: Callable[[Arrays], list[Arrays]],
        values: Sequence[str],
        wrt: Sequence[str],
    ) -> Measured:
        """The outputs, values, and gradients at these tensors by tf.gradients in the graph itself, which is run once
        for each of the cotangents.
        """
        found = self.values(feeds, [*dict.fromkeys((*outputs, *values))])
        gradients: list[Arrays] = []
        for given in cotangents({name: found[name] for name in outputs}):
            seeds, names = self._gradients_of(tuple(given), tuple(wrt)) if wrt else ({}, {})
            fed = {seeds[name]: array for name, array in given.items() if name in seeds}
            arrays = self._run(list(names.values()), feeds, fed) if wrt else {}
            gradients.append({name: arrays[names[name]] for name in wrt})
        return Measured({name: found[name] for name in outputs}, found, gradients)

    def _run(self, names: Sequence[str], feeds: Fed, more: Arrays) -> Arrays:
        fed = {**self._constants, **feeds.inputs}
        given = {self._inputs[name]: array for name, array in fed.items() if name in self._inputs}
        given |= feeds.inner
        if feeds.inner:
            samples = next(iter(feeds.inner.values())).shape[0]
            given |= self._sized(names, given, samples)
        try:
            arrays = self._session.run(list(names), {**given, **more})
        except Exception as error:
            raise BackendError(
                f"the TensorFlow source does not run on these inputs ({one_line(error, 160)}). Fix: give inputs that "
                'the original takes, or use backend="onnxruntime"'
            ) from error
        return {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}

    def _sized(self, names: Sequence[str], given: Collection[str], samples: int) -> Arrays:
        """Zeros for the inputs of which a run from inner tensors on asks nothing but their size."""
        graph = self._session.graph
        asked: dict[str, bool] = {}
        stack = [(graph.get_tensor_by_name(name), False) for name in names]
        while stack:
            tensor, size = stack.pop()
            # What is read for its value is walked again where it was met for its size alone.
            if tensor.name in given or (tensor.name in asked and (size or not asked[tensor.name])):
                continue
            asked[tensor.name] = size
            stack.extend((read, size or tensor.op.type in _SIZES) for read in tensor.op.inputs)
        zeros = {}
        for name, own in self._inputs.items():
            if own not in asked or own in given:
                continue
            _, *axes = graph.get_tensor_by_name(own).shape
            if not asked[own] or None in axes:
                raise AnalysisError(
                    f"downstream of the tensors given the source still reads its input {name!r}. Fix: use "
                    'backend="onnxruntime" (--backend onnxruntime)'
                )
            dtype = graph.get_tensor_by_name(own).dtype.as_numpy_dtype
            zeros[own] = np.zeros((samples, *axes), dtype)
        return zeros

    def _gradients_of(
        self, outputs: tuple[str, ...], wrt: tuple[str, ...]
    ) -> tuple[dict[str, str], dict[str, str]]:
        """The names of the cotangents to feed, and of the gradients, added to the graph when first asked for."""
        key = (outputs, wrt)
        if key not in self._added:
            tf: Any = self.framework.module
            with self._session.graph.as_default() as graph:
                ys, at = ([graph.get_tensor_by_name(name) for name in names] for names in (outputs, wrt))
                seeds = [tf.compat.v1.placeholder(y.dtype) for y in ys]
                found = tf.gradients(ys, at, grad_ys=seeds)
                dense = [
                    tf.zeros_like(x) if g is None else tf.convert_to_tensor(g)
                    for g, x in zip(found, at, strict=True)
                ]
            self._added[key] = (
                {name: seed.name for name, seed in zip(outputs, seeds, strict=True)},
                {name: g.name for name, g in zip(wrt, dense, strict=True)},
            )
            if any(operation.type in _CONTROL_FLOW for operation in self._graph.get_operations()):
                # tf.gradients rewrites loops and branches in place, to keep what the backward pass needs; the session
                # that has run knows them as they were.
                self._session.close()
                self._session = _session(tf, graph)
        return self._added[key]


def _session(tf: Any, graph: Any) -> Any:
    """A session that runs a graph as stated: TensorFlow's optimizer fuses nodes although their outputs are fetched."""
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True
    return tf.compat.v1.Session(graph=graph, config=config)


def _differentiable_definition(tf: Any, graph: Any, stopping: Collection[str]) -> Any:
    """The graph's definition, with what stands in the way of tf.gradients rewritten under the same names.

    TensorFlow's CPU kernels compute grouped convolutions but have no gradient for them: each becomes one
    Conv2D a group.
    """
    definition = graph.as_graph_def()
    for node in definition.node:
        # A custom gradient is a Python closure over the traced graph, which freezing leaves behind. The forward
        # nodes are differentiated instead: for tf.nn.silu, which only saves memory so, it is the same.
        node.attr.pop("_gradient_op_type", None)
        # The exported function has no such node: docs/targets.md, "Steps, and custom backward passes".
        if node.op in STOPS and node.name not in stopping:
            node.op = "Identity"
            node.attr.pop("message", None)
    nodes = {node.name: node for node in definition.node}
    for operation in graph.get_operations():
        if operation.type != "Conv2D" or operation.get_attr("data_format") != b"NHWC":
            continue
        x, w = operation.inputs
        groups = (x.shape[-1] or 0) // w.shape[2]
        if groups > 1:
            node = nodes[operation.name]
            _split_into_groups(tf, definition, node, groups, tf.dtypes.as_dtype(node.attr["T"].type))
    return definition


def _split_into_groups(tf: Any, definition: Any, node: Any, groups: int, dtype: Any) -> None:
    """Turn a grouped Conv2D node into splits, convolutions and a concatenation that takes its name."""

    def add(op: str, part: str, inputs: Sequence[str]) -> Any:
        new = definition.node.add(op=op, name=f"{node.name}/groups/{part}", input=inputs)
        new.attr["T"].type = dtype.as_datatype_enum
        return new

    axis = definition.node.add(op="Const", name=f"{node.name}/groups/axis")
    axis.attr["dtype"].type = tf.int32.as_datatype_enum
    axis.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(3, tf.int32))
    for part, value in zip("xw", node.input, strict=False):
        add("Split", part, [axis.name, value]).attr["num_split"].i = groups
    names = []
    for group in range(groups):
        ending = f":{group}" if group else ""
        sources = [f"{node.name}/groups/{part}{ending}" for part in "xw"]
        convolution = add("Conv2D", str(group), sources)
        for key, value in node.attr.items():
            convolution.attr[key].CopyFrom(value)
        names.append(convolution.name)
    node.op = "ConcatV2"
    node.ClearField("attr")
    del node.input[:]
    node.input.extend([*names, axis.name])
    node.attr["N"].i = groups
    node.attr["T"].type = dtype.as_datatype_enum
    node.attr["Tidx"].type = tf.int32.as_datatype_enum
