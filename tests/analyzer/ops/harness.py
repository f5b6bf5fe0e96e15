"""One op as a graph of one node, run and differentiated in every way there is, to be compared."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from analyzer.autodiff import sweep
from analyzer.biases import residual
from analyzer.emitter import Emitter
from analyzer.graph import Graph, Tensor
from analyzer.interpreter import Interpreter, TensorFlow, Torch
from analyzer.program import assemble

OPSET = 23
FRAMEWORKS = {"torch": Torch, "tensorflow": TensorFlow}
_MADE: dict[str, Any] = {}


def framework(name: str) -> Any:
    """The framework, made once."""
    return _MADE.setdefault(name, FRAMEWORKS[name]())


@dataclass(frozen=True)
class Case:
    """One node. `inputs` are float64 or integer arrays, None where omitted.

    Inputs in `active` are graph inputs that are differentiated, the others constants of the graph. `symbolic`
    gives the axes of the first input that the graph leaves open.
    """

    op: str
    inputs: tuple[np.ndarray | None, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    active: tuple[int, ...] = (0,)
    outputs: int = 1
    symbolic: tuple[int, ...] = ()

    def __str__(self) -> str:
        shapes = ",".join("-" if x is None else "x".join(map(str, x.shape)) or "()" for x in self.inputs)
        given = ",".join(f"{key}={value}" for key, value in self.attributes.items())
        return f"{self.op}[{shapes}]{given}{list(self.active)}{'?' if self.symbolic else ''}"

    @property
    def feeds(self) -> dict[str, np.ndarray]:
        """The active inputs by name."""
        return {f"x{i}": self.inputs[i] for i in self.active}

    def proto(self, dtype: Any) -> onnx.ModelProto:
        """A model of this one node, in a floating dtype."""
        names = ["" if x is None else f"x{i}" for i, x in enumerate(self.inputs)]
        outputs = [f"y{i}" for i in range(self.outputs)]
        node = helper.make_node(self.op, names, outputs, name="node", **self.attributes)
        arrays = {f"x{i}": as_dtype(x, dtype) for i, x in enumerate(self.inputs) if x is not None}
        infos = []
        for i in self.active:
            shape: list[Any] = list(arrays[f"x{i}"].shape)
            if i == self.active[0]:
                shape = [f"axis{a}" if a in self.symbolic else size for a, size in enumerate(shape)]
            infos.append(
                helper.make_tensor_value_info(
                    f"x{i}", helper.np_dtype_to_tensor_dtype(np.dtype(dtype)), shape
                )
            )
        constants = [
            numpy_helper.from_array(a, n) for n, a in arrays.items() if int(n[1:]) not in self.active
        ]
        body = helper.make_graph(
            [node], "case", infos, [onnx.ValueInfoProto(name=n) for n in outputs], constants
        )
        model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
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
    """The gradient graph of y0 with respect to the active inputs; the cotangent is the input `g`."""
    graph = Graph.from_proto(case.proto(dtype))
    op = Emitter(graph.opset, prefix="grad/")
    y = graph.tensors["y0"]
    seed = Tensor("g", y.dtype, y.shape)
    found = sweep(graph, op, {"y0": seed}, [f"x{i}" for i in case.active])
    return assemble(graph, op, {f"d{k}": v for k, v in found.items()}, extra_inputs={"g": seed}).proto


def gradients(case: Case, g: np.ndarray, name: str) -> list[np.ndarray]:
    """The gradients of the active inputs: the gradient graph in float64 by a framework's forms."""
    graph = Graph.from_proto(gradient_model(case, np.float64))
    for tensor in graph.tensors.values():
        assert tensor.dtype != np.float32 or tensor.constant is None, f"{tensor.name} is no double"
    feeds = {**case.feeds, "g": g}
    return run(graph, {k: v for k, v in feeds.items() if k in graph.inputs}, graph.outputs, name)


def onnxruntime_gradients(case: Case, g: np.ndarray) -> list[np.ndarray]:
    """The gradients by the gradient graph in float32 on ONNX Runtime."""
    model = gradient_model(case, np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kinds = {"tensor(float)": np.float32, "tensor(double)": np.float64}
    feeds = {**case.feeds, "g": g}
    return session.run(None, {i.name: as_dtype(feeds[i.name], kinds[i.type]) for i in session.get_inputs()})


def onnxruntime_forward(case: Case) -> np.ndarray:
    """The first output in float32 on ONNX Runtime."""
    feeds = {k: as_dtype(v, np.float32) for k, v in case.feeds.items()}
    return _session(case.proto(np.float32)).run(["y0"], feeds)[0]


def _session(model: onnx.ModelProto) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def native_gradients(case: Case, g: np.ndarray, name: str) -> list[np.ndarray]:
    """The gradients by the framework's own autodiff through the op's form, in float64."""
    made = framework(name)
    graph = case.graph
    if name == "torch":
        feeds = {k: made.tensor(v).requires_grad_(True) for k, v in case.feeds.items()}
        y = Interpreter(graph, made).run(feeds, ["y0"])["y0"]
        found = made.module.autograd.grad(y, list(feeds.values()), made.tensor(g), allow_unused=True)
    else:
        feeds = {k: made.tensor(v) for k, v in case.feeds.items()}
        with made.module.GradientTape() as tape:
            tape.watch(list(feeds.values()))
            y = Interpreter(graph, made).run(feeds, ["y0"])["y0"]
        found = tape.gradient(y, list(feeds.values()), made.tensor(g))
        found = [f if f is None else made.module.convert_to_tensor(f) for f in found]
    return [
        np.zeros_like(x) if f is None else made.array(f)
        for f, x in zip(found, case.feeds.values(), strict=True)
    ]


def forward(case: Case, feeds: Mapping[str, np.ndarray], name: str = "torch") -> np.ndarray:
    """The first output, in float64."""
    return run(case.graph, feeds, ["y0"], name)[0]


def residual_value(case: Case) -> np.ndarray:
    """The residual of the node by its rule, in float64; zeros where the rule says None."""
    graph = case.graph
    node = graph.nodes[0]
    op = Emitter(graph.opset, prefix="bias/")
    active = [i in case.active for i in range(len(case.inputs))]
    r = residual(graph, op, node, active)
    y = forward(case, case.feeds)
    if r is None:
        return np.zeros_like(y)
    program = assemble(graph, op, {"r": r})
    bias_graph = Graph.from_proto(program.proto)
    feeds = {k: v for k, v in case.feeds.items() if k in bias_graph.inputs}
    return np.broadcast_to(run(bias_graph, feeds, bias_graph.outputs, "torch")[0], y.shape)
