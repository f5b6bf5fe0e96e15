"""One op as a graph of one node, run and differentiated in every way there is, to be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from analyzer.autodiff.biases import residuals
from analyzer.autodiff.sweep import sweep
from analyzer.backends.interpreter import Interpreter, TensorFlow, Torch
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Graph, Tensor
from analyzer.graph.program import assemble
from converters.graph.opset import runnable_opset

OPSET = 23
FRAMEWORKS = {"torch": Torch, "tensorflow": TensorFlow}
_MADE: dict[str, Any] = {}


def framework(name: str) -> Any:
    """The framework, made once."""
    return _MADE.setdefault(name, FRAMEWORKS[name]())


@dataclass(frozen=True)
class Case:
    """One node. `inputs` are float64 or integer arrays, None where omitted.

    Inputs in `active` are graph inputs that are differentiated, those in `fed` are graph inputs that are not,
    the others constants of the graph. `symbolic` gives the axes of the first input that the graph leaves open.
    `target` is the output that is looked at and differentiated.
    """

    op: str
    inputs: tuple[np.ndarray | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    active: tuple[int, ...] = (0,)
    outputs: int = 1
    symbolic: tuple[int, ...] = ()
    fed: tuple[int, ...] = ()
    target: int = 0

    def __str__(self) -> str:
        shapes = ",".join("-" if x is None else "x".join(map(str, x.shape)) or "()" for x in self.inputs)
        given = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        fed = f"fed{list(self.fed)}" if self.fed else ""
        output = f"->y{self.target}" if self.target else ""
        return f"{self.op}[{shapes}]{given}{list(self.active)}{'?' if self.symbolic else ''}{fed}{output}"

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """The graph's inputs by name, the active ones first."""
        return {f"x{i}": self.inputs[i] for i in (*self.active, *self.fed)}

    @property
    def wrt(self) -> list[str]:
        """The names of the active inputs."""
        return [f"x{i}" for i in self.active]

    @property
    def result(self) -> str:
        """The name of the output that is differentiated."""
        return f"y{self.target}"

    def proto(self, dtype: Any) -> onnx.ModelProto:
        """A model of this one node, in a floating dtype."""
        names = ["" if x is None else f"x{i}" for i, x in enumerate(self.inputs)]
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, name="node", **self.attributes)
        arrays = {f"x{i}": as_dtype(x, dtype) for i, x in enumerate(self.inputs) if x is not None}
        infos = []
        for name in self.feeds:
            shape: list[Any] = list(arrays[name].shape)
            if name == self.wrt[0]:
                shape = [f"axis{a}" if a in self.symbolic else size for a, size in enumerate(shape)]
            kind = helper.np_dtype_to_tensor_dtype(arrays[name].dtype)
            infos.append(helper.make_tensor_value_info(name, kind, shape))
        constants = [numpy_helper.from_array(a, n) for n, a in arrays.items() if n not in self.feeds]
        body = helper.make_graph(
            [node], "case", infos, [onnx.ValueInfoProto(name=n) for n in outputs], constants
        )
        model = helper.make_model(
            body, opset_imports=[helper.make_opsetid("", runnable_opset([node]))], ir_version=10
        )
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)

    @cached_property
    def graph(self) -> Graph:
        return Graph.from_proto(self.proto(np.float64))


def as_dtype(x: np.ndarray, dtype: Any) -> np.ndarray:
    """Data in another floating dtype; integers, and what is float32 by the op's schema, as they are."""
    return x.astype(dtype) if x.dtype == np.float64 else x


def run(graph: Graph, feeds: Mapping[str, np.ndarray], wanted: Sequence[str], name: str) -> list[np.ndarray]:
    """Values of tensors, by the interpreter."""
    made = framework(name)
    values = Interpreter(graph, made).run({k: made.tensor(v) for k, v in feeds.items()}, list(wanted))
    return [made.array(values[w]) for w in wanted]


def gradient_model(case: Case, dtype: Any) -> onnx.ModelProto:
    """The gradient graph of the result with respect to the active inputs; the cotangent is the input `g`."""
    graph = Graph.from_proto(case.proto(dtype))
    op = Builder(graph.opset, prefix="grad/")
    y = graph.tensors[case.result]
    seed = Tensor("g", y.dtype, y.shape)
    found = sweep(graph, op, {case.result: seed}, case.wrt)
    return assemble(graph, op, {f"d{k}": v for k, v in found.items()}, extra_inputs={"g": seed}).proto


def gradients(case: Case, g: np.ndarray, name: str) -> list[np.ndarray]:
    """The gradients of the active inputs: the gradient graph in float64 by a framework's forms."""
    graph = Graph.from_proto(gradient_model(case, np.float64))
    for tensor in graph.tensors.values():
        emitted = tensor.name not in case.graph.tensors and tensor.constant is not None
        assert not emitted or tensor.dtype != np.float32, f"{tensor.name} is no double"
    feeds = {**case.feeds, "g": g}
    return run(graph, {k: v for k, v in feeds.items() if k in graph.inputs}, graph.outputs, name)


def onnxruntime_gradients(case: Case, g: np.ndarray) -> list[np.ndarray]:
    """The gradients by the gradient graph in float32 on ONNX Runtime."""
    session = onnxruntime_session(gradient_model(case, np.float32))
    feeds = {**case.feeds, "g": g}
    kinds = {i.name: np.float64 if i.type == "tensor(double)" else np.float32 for i in session.get_inputs()}
    return session.run(None, {name: as_dtype(feeds[name], kind) for name, kind in kinds.items()})


def onnxruntime_forward(case: Case) -> np.ndarray:
    """The result in float32 on ONNX Runtime."""
    feeds = {k: as_dtype(v, np.float32) for k, v in case.feeds.items()}
    return onnxruntime_session(case.proto(np.float32)).run([case.result], feeds)[0]


def onnxruntime_session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """A session of one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def native_gradients(case: Case, g: np.ndarray, name: str) -> list[np.ndarray]:
    """The gradients by the framework's own autodiff through the op's form, in float64."""
    return _native(case, case.graph, case.feeds, name, g)


def run_native(case: Case, dtype: Any, name: str) -> list[np.ndarray]:
    """The same in another floating dtype, for a cotangent of ones."""
    feeds = {k: as_dtype(v, dtype) for k, v in case.feeds.items()}
    return _native(case, Graph.from_proto(case.proto(dtype)), feeds, name, None)


def _native(
    case: Case, graph: Graph, arrays: Mapping[str, np.ndarray], name: str, g: np.ndarray | None
) -> list[np.ndarray]:
    made = framework(name)
    feeds = {k: made.tensor(v) for k, v in arrays.items()}
    if name == "torch":
        leaves = [feeds[k].requires_grad_(True) for k in case.wrt]
        y = Interpreter(graph, made).run(feeds, [case.result])[case.result]
        seed = made.module.ones_like(y) if g is None else made.tensor(g)
        found = made.module.autograd.grad(y, leaves, seed, allow_unused=True)
    else:
        leaves = [feeds[k] for k in case.wrt]
        with made.module.GradientTape() as tape:
            tape.watch(leaves)
            y = Interpreter(graph, made).run(feeds, [case.result])[case.result]
        seed = made.module.ones_like(y) if g is None else made.tensor(g)
        found = tape.gradient(y, leaves, seed)
        found = [f if f is None else made.module.convert_to_tensor(f) for f in found]
    return [
        np.zeros_like(case.feeds[k]) if f is None else made.array(f)
        for f, k in zip(found, case.wrt, strict=True)
    ]


def forward(case: Case, feeds: Mapping[str, np.ndarray], name: str = "torch") -> np.ndarray:
    """The result, in float64."""
    return run(case.graph, feeds, [case.result], name)[0]


def residual_value(case: Case) -> np.ndarray:
    """The residual of the node by its rule, in float64; zeros where the rule says None."""
    graph = case.graph
    node = graph.nodes[0]
    op = Builder(graph.opset, prefix="bias/")
    active = [i in case.active for i in range(len(case.inputs))]
    r = residuals(graph, op, node, active)[case.target]
    y = forward(case, case.feeds)
    if r is None:
        return np.zeros_like(y)
    program = assemble(graph, op, {"r": r})
    bias_graph = Graph.from_proto(program.proto)
    feeds = {k: v for k, v in case.feeds.items() if k in bias_graph.inputs}
    return np.broadcast_to(run(bias_graph, feeds, bias_graph.outputs, "torch")[0], y.shape)
