"""A TensorFlow function's own graph: any tensor fetched by name, and differentiated by tf.gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.backends.matching import MOVES_ONLY
from analyzer.backends.native import Arrays
from analyzer.errors import BackendError
from analyzer.interpreter import TensorFlow
from converters.errors import one_line
from converters.model import TensorFlowSource


class TensorFlowNetwork:
    """The frozen concrete function of a converted Keras model or tf.function."""

    keeps_names = False

    def __init__(self, source: TensorFlowSource, framework: TensorFlow) -> None:
        self.framework = framework
        self._graph_def = _differentiable_definition(framework.module, source.function.graph)
        self._graph = source.function.graph
        self._inputs = dict(source.inputs)
        shapes = [self._graph.get_tensor_by_name(name).shape for name in self._inputs.values()]
        sizes = {shape[0] for shape in shapes if shape.rank}
        self.batch: int | None = sizes.pop() if len(sizes) == 1 else None
        self._compiled: dict[tuple[Any, ...], Callable[..., Any]] = {}

    def names(self) -> dict[str, bool]:
        """Every float tensor of the graph that is no constant, and whether a layer computes it."""
        return {
            tensor.name: operation.type not in MOVES_ONLY
            for operation in self._graph.get_operations()
            if operation.type not in ("Const", "Placeholder", "NoOp")
            for tensor in operation.outputs
            if tensor.dtype.is_floating
        }

    def candidates(self, name: str) -> Sequence[str]:
        """tf2onnx keeps the graph's names, with its own endings for what it rewrote."""
        if name in self._inputs:
            return [self._inputs[name]]
        stem = name.split("__")[0]
        return [name, stem, f"{stem}:0"] if ":" not in stem else [name, stem]

    def values(self, feeds: Mapping[str, np.ndarray], names: Sequence[str]) -> Arrays:
        """The values of these tensors."""
        if not names:
            return {}
        run = self._function(tuple(names), None, ())
        return {name: np.asarray(value) for name, value in zip(names, run(self._ordered(feeds)), strict=True)}

    def measure(
        self,
        feeds: Mapping[str, np.ndarray],
        output: str,
        cotangent: Callable[[np.ndarray], np.ndarray],
        values: Sequence[str],
        wrt: Sequence[str],
    ) -> tuple[np.ndarray, Arrays, Arrays]:
        """The output, values, and gradients at these tensors by tf.gradients in the graph itself."""
        tf: Any = self.framework.module
        found = self.values(feeds, [*dict.fromkeys((output, *values))])
        gradients: Arrays = {}
        if wrt:
            run = self._function((), output, tuple(wrt))
            arrays = run([*self._ordered(feeds), tf.constant(cotangent(found[output]))])
            gradients = {name: np.asarray(array) for name, array in zip(wrt, arrays, strict=True)}
        return found[output], found, gradients

    def _ordered(self, feeds: Mapping[str, np.ndarray]) -> list[Any]:
        return [self.framework.tensor(feeds[name]) for name in self._inputs]

    def _function(
        self, fetches: tuple[str, ...], output: str | None, wrt: tuple[str, ...]
    ) -> Callable[..., Any]:
        """A function of the inputs (and the cotangent) that fetches tensors, or gradients of the output."""
        key = (fetches, output, wrt)
        if key not in self._compiled:
            self._compiled[key] = self._build(fetches, output, wrt)
        return self._compiled[key]

    def _build(
        self, fetches: tuple[str, ...], output: str | None, wrt: tuple[str, ...]
    ) -> Callable[..., Any]:
        tf: Any = self.framework.module
        names = [*self._inputs.values()]
        originals = [self._graph.get_tensor_by_name(name) for name in names]
        signature = [tf.TensorSpec(t.shape, t.dtype) for t in originals]
        if output is not None:
            y = self._graph.get_tensor_by_name(output)
            signature.append(tf.TensorSpec(None, y.dtype))

        def body(*arguments: Any) -> Any:
            mapped = dict(zip(names, arguments, strict=False))
            elements = tf.graph_util.import_graph_def(
                self._graph_def,
                input_map=mapped,
                return_elements=[*fetches, *wrt, *([output] if output else [])],
                name="source",
            )
            at_inputs = [
                mapped.get(name, element) for name, element in zip((*fetches, *wrt), elements, strict=False)
            ]
            if output is None:
                return at_inputs
            found = tf.gradients(elements[-1], at_inputs, grad_ys=arguments[-1])
            return [
                tf.zeros_like(x) if g is None else tf.convert_to_tensor(g)
                for g, x in zip(found, at_inputs, strict=True)
            ]

        wrapped = tf.compat.v1.wrap_function(body, signature)

        def run(arguments: Sequence[Any]) -> Any:
            try:
                return wrapped(*arguments)
            except Exception as error:
                raise BackendError(
                    f"the TensorFlow source does not run on these inputs: {one_line(error)}"
                ) from error

        return run


def _differentiable_definition(tf: Any, graph: Any) -> Any:
    """The graph's definition, with what stands in the way of tf.gradients rewritten under the same names.

    TensorFlow's CPU kernels compute grouped convolutions but have no gradient for them: each becomes one
    Conv2D a group.
    """
    definition = graph.as_graph_def()
    for node in definition.node:
        # A custom gradient is a Python closure over the traced graph, which freezing leaves behind. The forward
        # nodes are differentiated instead: for tf.nn.silu, which only saves memory so, it is the same.
        node.attr.pop("_gradient_op_type", None)
    nodes = {node.name: node for node in definition.node}
    for operation in graph.get_operations():
        if operation.type != "Conv2D" or operation.get_attr("data_format") != b"NHWC":
            continue
        x, w = operation.inputs
        groups = (x.shape[-1] or 0) // w.shape[2]
        if groups > 1:
            _split_into_groups(tf, definition, nodes[operation.name], groups, x.dtype)
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
