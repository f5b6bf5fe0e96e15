"""Execute a graph node by node in PyTorch or TensorFlow: the one loop for both.

Reads a Graph and the op classes' `torch` or `tensorflow` forms; the values are tensors of the framework, so that its
own autodiff differentiates them. Refuses, by name, a node whose op has no form in the framework.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from analyzer.errors import BackendError, MissingDependency, UnsupportedOp
from analyzer.graph.graph import Graph, Node
from analyzer.ops import find
from analyzer.ops.eager import scan
from converters.errors import one_line, with_fix
from converters.passes.branches import BRANCHES
from converters.sources.frameworks import import_framework
from converters.system.forks import loaded_before_fork

# NumPy has these types from ml_dtypes, under the names that torch has them by; only their bits can be handed over.
_FLOAT8 = "float8_"
# Who needs a framework here, for the error where it is missing.
_NEEDED: Any = {"needed_by": "this backend", "error": MissingDependency}


class Torch:
    """PyTorch, imported when first made."""

    name = "torch"

    def __init__(self, device: str | None = None) -> None:
        self.module = import_framework("torch", **_NEEDED)
        # Torch has no name for "the graphics card".
        self.device = "cuda" if device == "gpu" else device or "cpu"
        if self.device != "cpu":
            self._refuse_unusable()

    def _refuse_unusable(self) -> None:
        """Raise BackendError where this installation of PyTorch does not have the device."""
        if self.device.startswith("meta"):
            raise BackendError("the device 'meta' holds no values. Fix: give device=\"cpu\", or omit it")
        try:
            self.module.empty(0, device=self.device)
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            raise BackendError(
                f"PyTorch cannot use the device {self.device!r} ({one_line(error, 120)}). Fix: omit device, choose "
                f"from {', '.join(map(repr, self._usable()))}, or install a build of PyTorch for it"
            ) from error

    def _usable(self) -> list[str]:
        """The devices of this machine that PyTorch can use."""
        mps = getattr(self.module.backends, "mps", None)
        found = {"cpu": True, "cuda": self.module.cuda.is_available()}
        found["mps"] = mps is not None and mps.is_available()
        return [name for name, usable in found.items() if usable]

    def tensor(self, array: np.ndarray) -> Any:
        """A tensor of the framework with a copy of the array."""
        if loaded_before_fork("torch") and self.module.get_num_threads() > 1:
            # PyTorch's threads stayed in the parent, and a parallel loop would wait for them for ever.
            self.module.set_num_threads(1)
        if array.dtype.name == "bfloat16":
            return self.tensor(array.astype(np.float32)).to(self.module.bfloat16)
        # NumPy makes a contiguous scalar a vector of one: keep the shape.
        contiguous = np.ascontiguousarray(array).reshape(array.shape)
        if array.dtype.name.startswith(_FLOAT8):
            bits = self.module.tensor(contiguous.view(np.uint8), device=self.device)
            return bits.view(getattr(self.module, array.dtype.name))
        return self.module.tensor(contiguous, device=self.device)

    def array(self, tensor: Any) -> np.ndarray:
        """A tensor as a NumPy array."""
        if not isinstance(tensor, self.module.Tensor):
            return np.asarray(tensor)
        tensor = tensor.detach().cpu()
        if tensor.dtype == self.module.bfloat16:
            # NumPy has the type from ml_dtypes, which torch does not know.
            return np.asarray(tensor.float().numpy()).astype(np.dtype("bfloat16"))
        name = str(tensor.dtype).removeprefix("torch.")
        if name.startswith(_FLOAT8):
            return np.asarray(tensor.view(self.module.uint8).numpy()).view(np.dtype(name))
        return np.asarray(tensor.numpy())

    def alias(self, tensor: Any) -> Any:
        """The same values as another tensor: one that has a gradient of its own."""
        return tensor.view_as(tensor)


class TensorFlow:
    """TensorFlow, imported when first made. device: None leaves it to TensorFlow."""

    name = "tensorflow"

    def __init__(self, device: str | None = None) -> None:
        self.module = import_framework("tensorflow", **_NEEDED)
        self.device = device
        if device is not None:
            self._place = self._named(device)

    def placed(self) -> AbstractContextManager[Any]:
        """Return a context in which operations run on the device."""
        return nullcontext() if self.device is None else self.module.device(self._place)

    def _named(self, device: str) -> str:
        """TensorFlow's name of a device. Raises BackendError where this machine does not have it."""
        kind, _, number = device.strip().upper().partition(":")
        kind = "GPU" if kind == "CUDA" else kind
        here = self.module.config.list_logical_devices()
        names = [one.name.removeprefix("/device:") for one in here]
        if (wanted := f"{kind}:{number or 0}") not in names:
            raise BackendError(
                f"TensorFlow cannot use the device {device!r}. Fix: omit device, or give one of "
                f"{', '.join(repr(name.lower()) for name in names)}"
            )
        return f"/device:{wanted}"

    def tensor(self, array: np.ndarray) -> Any:
        """A tensor of the framework with a copy of the array. Raises BackendError in the child of a fork."""
        if loaded_before_fork("tensorflow"):
            raise BackendError(
                "TensorFlow was loaded before this process was forked, and would wait for ever. Fix: start the process "
                'with multiprocessing.get_context("spawn")'
            )
        return self.module.constant(array)

    def array(self, tensor: Any) -> np.ndarray:
        """A tensor as a NumPy array."""
        return np.asarray(tensor)

    def alias(self, tensor: Any) -> Any:
        """The same values as another tensor: one that has a gradient of its own."""
        return self.module.identity(tensor)


Framework = Torch | TensorFlow


class Interpreter:
    """A graph made ready for one framework: its constants are the framework's tensors, made once."""

    def __init__(self, graph: Graph, framework: Framework) -> None:
        self.graph = graph
        self.framework = framework
        self._constants: dict[str, Any] = {}
        self._bodies: dict[str, Interpreter] = {}

    def release(self) -> None:
        """Drop the framework's copies of the constants."""
        self._constants.clear()

    def run(
        self,
        feeds: dict[str, Any],
        wanted: Collection[str],
        watch: Callable[[Any], Any] | None = None,
    ) -> dict[str, Any]:
        """The wanted tensors as the framework's tensors, from feeds that are such tensors and are used up.

        `watch` is applied to each wanted tensor as it is computed, and its result takes the
        tensor's place: so a tensor that depends on no floating input can be differentiated for.
        Only nodes that `wanted` depends on are run, and a value is dropped after its last reader, a feed from its dict.
        """
        needed = self.graph.ancestors(wanted)
        nodes = [node for node in self.graph.nodes if any(name in needed for name in node.outputs)]
        nodes = [node for node in nodes if not all(name in feeds or not name for name in node.outputs)]
        last_reader = {name: position for position, node in enumerate(nodes) for name in node.reads}
        values = feeds
        keep = set(wanted)
        for position, node in enumerate(nodes):
            self._run_node(node, values)
            if watch is not None:
                for name in keep.intersection(node.outputs):
                    values[name] = watch(values[name])
            for name in {*node.reads, *node.outputs}:
                if name not in keep and last_reader.get(name, -1) <= position:
                    values.pop(name, None)
        return {name: self._value(name, values) for name in wanted}

    def _run_node(self, node: Node, values: dict[str, Any]) -> None:
        arguments = [self._value(name, values) if name else None for name in node.inputs]
        if node.op_type == "Scan" and not node.domain:
            values.update(zip(node.outputs, self._scan(node, arguments, values), strict=True))
            return
        if node.op_type == "If" and not node.domain:
            values.update(self._branch(node, arguments[0], values))
            return
        if node.op_type == "Loop" and not node.domain:
            ends = self._loop(node, arguments, values)
            values.update((name, one) for name, one in zip(node.outputs, ends, strict=True) if name)
            return
        form = form_of(node, self.framework.name)
        try:
            results = form(self.framework.module, *arguments, **node.attributes)
        except Exception as error:
            what = f"{node} does not run on backend {self.framework.name!r} ({one_line(error)})"
            fix = 'use backend="onnxruntime", or inputs of the sizes that the model takes'
            raise BackendError(with_fix(what, fix)) from error
        if not isinstance(results, (tuple, list)):
            results = (results,)
        if len(results) < len([name for name in node.outputs if name]):
            raise UnsupportedOp(
                f'{node}: only its first output has a {self.framework.name} form. Fix: use backend="onnxruntime"'
            )
        for name, result in zip(node.outputs, results, strict=False):
            if name:
                # A framework may return its very argument; as one tensor the two would share a gradient.
                shared = any(result is argument for argument in arguments)
                values[name] = self.framework.alias(result) if shared else result

    def _branch(self, node: Node, condition: Any, values: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs of an If: those of the branch that its condition, which holds one value, chooses."""
        role = BRANCHES[0 if bool(self.framework.array(condition).all()) else 1]
        body_run = self._body(node, role)
        around = {name: self._value(name, values) for name in node.captured}
        results = body_run.graph.outputs
        found = body_run.run(dict(around), results)
        return {
            # A branch may hand on the very tensor that it reads.
            name: self.framework.alias(found[own])
            if any(found[own] is one for one in around.values())
            else found[own]
            for name, own in zip(node.outputs, results, strict=True)
            if name
        }

    def _loop(self, node: Node, arguments: list[Any], values: Mapping[str, Any]) -> list[Any]:
        """The last states of a Loop, and what its steps give, stacked."""
        most, going, *states = arguments
        limit = None if most is None else int(self.framework.array(most).reshape(()))
        body_run = self._body(node, "body")
        inputs, outputs = body_run.graph.inputs, body_run.graph.outputs
        around = {name: self._value(name, values) for name in node.captured}
        turns = body_run.graph.tensors[inputs[0]].shape or ()
        rows: list[list[Any]] = []
        goes = going is None or bool(self.framework.array(going).all())
        yes = self.framework.tensor(np.ones((1,) * len(body_run.graph.tensors[inputs[1]].shape or ()), bool))
        while goes and (limit is None or len(rows) < limit):
            turn = self.framework.tensor(np.full((1,) * len(turns), len(rows), np.int64))
            found = body_run.run({**around, **dict(zip(inputs, [turn, yes, *states], strict=True))}, outputs)
            goes = bool(self.framework.array(found[outputs[0]]).all())
            results = [self.framework.alias(found[name]) for name in outputs[1:]]
            states, collected = results[: len(states)], results[len(states) :]
            rows.append(collected)
        if not rows and len(node.outputs) > len(states):
            raise BackendError(
                f'{node} makes no step: the shape of its collected outputs is unknown. Fix: use backend="onnxruntime"'
            )
        stack = self.framework.module.stack
        return [*states, *(stack(column) for column in zip(*rows, strict=True))]

    def _body(self, node: Node, role: str) -> Interpreter:
        """A body of a node, made ready once."""
        key = f"{node.name}/{role}"
        if key not in self._bodies:
            body = Graph.from_body(node.attributes[role], self.graph.opset)
            self._bodies[key] = Interpreter(body, self.framework)
        return self._bodies[key]

    def _scan(self, node: Node, arguments: list[Any], values: Mapping[str, Any]) -> list[Any]:
        """A Scan along axis 0, as `Builder.scan` writes it: the gradients of recurrent ops are made of them."""
        body_run = self._body(node, "body")
        inputs, outputs = body_run.graph.inputs, body_run.graph.outputs
        around = {name: self._value(name, values) for name in node.captured}
        count = len(arguments) - node.attributes["num_scan_inputs"]
        axes = [*(node.attributes["scan_input_axes"] or ()), *(node.attributes["scan_output_axes"] or ())]
        directions = {*(node.attributes["scan_input_directions"] or (0,))}
        if len(node.outputs) > count:
            directions |= {*(node.attributes["scan_output_directions"] or (0,))}
        if any(axes) or len(directions) > 1:
            raise UnsupportedOp(
                f"{node}: only a Scan along axis 0, in one direction, has a form in a framework. Fix: use "
                'backend="onnxruntime"'
            )
        reverse = directions == {1}

        def step(states: list[Any], elements: list[Any]) -> tuple[list[Any], list[Any]]:
            found = body_run.run({**around, **dict(zip(inputs, [*states, *elements], strict=True))}, outputs)
            results = [found[name] for name in outputs]
            return results[:count], results[count:]

        last, stacked = scan(self.framework.module, step, arguments[:count], arguments[count:], reverse)
        return [*last, *stacked]

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        if name in values:
            return values[name]
        if name not in self._constants:
            constant = self.graph.tensors[name].constant
            assert constant is not None, f"nothing computes {name!r}"
            self._constants[name] = self.framework.tensor(constant)
        return self._constants[name]


def form_of(node: Node, framework: str) -> Any:
    """The function that computes a node in a framework. Raises UnsupportedOp where there is none."""
    rules = find(node)
    form = getattr(rules, framework, None) if rules is not None else None
    if form is None:
        op_type = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
        other = "replace it by standard ops" if node.domain else 'add one: CONTRIBUTING.md, "Add an op"'
        raise UnsupportedOp(
            f'node {node.name!r} ({op_type}) has no {framework} form. Fix: use backend="onnxruntime", or {other}'
        )
    return form
