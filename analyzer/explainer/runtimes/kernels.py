"""Which ops of a model a runtime has kernels for, by the tables in `tables/`, each of one version of ONNX Runtime.

`python -m tools.kernels` makes the tables. ONNX Runtime runs an op without a kernel by its standard body, where it has
one. A node that the WebGPU provider has no kernel for runs on the CPU, with copies of its tensors: slower, not wrong.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import onnx
from onnx import TensorProto

from analyzer.errors import ExportError
from analyzer.explainer.runtimes.bodies import has_body
from analyzer.explainer.runtimes.mutable import MutableModel, Writer, describe
from analyzer.explainer.runtimes.traps import trap
from converters.graph.nodes import is_standard

# The CPU kernels for these have bodies that are graphs: whatever their types, they run.
_CONTROL = frozenset({"If", "Loop", "Scan"})


@dataclass(frozen=True)
class Runtime:
    """A runtime that files are exported for.

    name: as users give it. label: with the version that its table is of. table: of the kernels that run on the CPU.
    accelerated: the table of the provider that is preferred to the CPU. opset: the newest that it takes, and ir: the
    newest IR version. preferred: the newest opset whose kernels the provider has. little_memory: whether devices of
    this kind often have too little memory for several gradients at once.
    """

    name: str
    label: str
    table: str
    opset: int
    ir: int
    accelerated: str = ""
    preferred: int | None = None
    little_memory: bool = False


RUNTIMES: Mapping[str, Runtime] = {
    runtime.name: runtime
    for runtime in (
        Runtime("node", "onnxruntime-node 1.30.0", "cpu", 26, 13),
        Runtime("web", "onnxruntime-web 1.30.0 (WASM)", "cpu", 26, 13, little_memory=True),
        # Its provider has no kernels for the ops as they are since opset 22.
        Runtime("webgpu", "onnxruntime-web 1.30.0 (WebGPU)", "cpu", 26, 13, "webgpu", 21, little_memory=True),
        Runtime(
            "webgpu-jsep",
            "onnxruntime-web 1.30.0 (WebGPU, JSEP)",
            "cpu",
            26,
            13,
            "jsep",
            21,
            little_memory=True,
        ),
        Runtime("mobile", "onnxruntime-android and onnxruntime-c 1.30.0", "cpu", 26, 13, little_memory=True),
    )
}
"""{name: runtime}. The mobile packages with fewer kernels ended with version 1.18; later ones have all CPU kernels."""


@dataclass(frozen=True)
class Missing:
    """An op that a runtime has no kernel for.

    count: of its nodes, at any depth. nodes: their names. lowered: whether `fit` replaces them by ops that it has.
    runs: whether they run all the same, on the CPU, with copies.
    """

    op: str
    count: int
    nodes: tuple[str, ...]
    why: str
    lowered: bool
    runs: bool


def runtime_of(name: str) -> Runtime:
    """Return the runtime of a name. Raises ExportError for an unknown one."""
    if name not in RUNTIMES:
        raise ExportError(f"expected one of {', '.join(RUNTIMES)}, got {name!r}. Fix: choose one of these")
    return RUNTIMES[name]


@cache
def table(name: str) -> Mapping[str, Any]:
    """Return a table: its `version`, `source` and `kernels`."""
    text = (files("analyzer.explainer.runtimes") / "tables" / f"{name}.json").read_text()
    found: Mapping[str, Any] = json.loads(text)
    return found


def lacking(op: Writer, node: onnx.NodeProto, runtime: Runtime) -> tuple[str, bool] | None:
    """Return why a runtime has no kernel for a node, and whether the node runs all the same; None where it has."""
    if not is_standard(node):
        return f"{runtime.label} is only known to run ops of ai.onnx", False
    if node.op_type == "Constant":
        return None
    kinds, provider = _types(op, node), runtime.accelerated
    taken = bool(provider) and "double" not in kinds and _has_kernel(provider, op, node, kinds)
    wrong = trap(op, node, provider) if taken else ""
    name = f"{runtime.label}, by the kernels of {table(provider or runtime.table)['version']},"
    if wrong:
        return f"{name} {wrong}", False
    if taken:
        return None
    if not _has_kernel(runtime.table, op, node, kinds) and not has_body(op):
        return f"{name} has no kernel for it{_of_types(kinds)}", False
    if not provider:
        return None
    if "double" in kinds:
        return f"{name} computes float64 on the CPU, with copies", True
    if "int64" in kinds:
        return f"{name} computes int64 on the CPU, where it keeps sizes and indices", True
    return f"{name} has no WebGPU kernel for it{_of_types(kinds)}: it runs on the CPU, with copies", True


def lacks(
    proto: onnx.ModelProto, runtime: Runtime, has_form: Callable[[Writer, onnx.NodeProto], bool]
) -> list[Missing]:
    """Return the ops that a runtime lacks, by op and reason. has_form: whether a node has a plain form there."""
    found: dict[tuple[str, str, bool, bool], list[str]] = defaultdict(list)

    def look(op: Writer, node: onnx.NodeProto) -> None:
        why = lacking(op, node, runtime)
        if why is not None:
            lowered = has_form(op, node) or _had_kernel(op, node, runtime)
            found[node.op_type, *why, lowered].append(node.name or describe(node))

    model = MutableModel(proto)
    model.infer()
    model.rewrite(look)
    return [
        Missing(op_type, len(names), tuple(names), why, lowered, runs)
        for (op_type, why, runs, lowered), names in sorted(found.items())
    ]


def _had_kernel(op: Writer, node: onnx.NodeProto, runtime: Runtime) -> bool:
    """Return whether the provider has a kernel for a node at the older opset that it prefers."""
    older = runtime.preferred
    if older is None or op.model.opset <= older or not is_standard(node):
        return False
    try:
        return _has_kernel(runtime.accelerated, op, node, _types(op, node), older)
    except onnx.defs.SchemaError:
        return False


def _types(op: Writer, node: onnx.NodeProto) -> list[str]:
    """The types of the first input and the first output, "" where they are unknown or there is none."""
    first = [next((name for name in names if name), "") for names in (node.input[:1], node.output[:1])]
    return [_name(op.element(name)) if name else "" for name in first]


def _name(element: int) -> str:
    return str(TensorProto.DataType.Name(element)).lower() if element else ""


def _of_types(kinds: Sequence[str]) -> str:
    known = [kind for kind in dict.fromkeys(kinds) if kind]
    return f" for {' and '.join(known)}" if known else ""


def _has_kernel(
    name: str, op: Writer, node: onnx.NodeProto, kinds: Sequence[str], opset: int | None = None
) -> bool:
    since = onnx.defs.get_schema(node.op_type, opset or op.model.opset).since_version
    for first, last, types in table(name)["kernels"].get(node.op_type, ()):
        # ONNX Runtime takes a kernel without a last version for its first version alone: the op may change later.
        if first != since and (last is None or not first <= since <= last):
            continue
        if node.op_type in _CONTROL or not types:
            return True
        if "" in types:
            if ">".join(kinds) in types[""] or "" in kinds:
                return True
        elif _fits(op, node, types):
            return True
    return False


def _fits(op: Writer, node: onnx.NodeProto, types: Mapping[str, Sequence[str]]) -> bool:
    """Return whether the types of a node's tensors are among those of a kernel; unknown types are."""
    schema = onnx.defs.get_schema(node.op_type, op.model.opset)
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for position, name in enumerate(names):
            one = formal[min(position, len(formal) - 1)]
            # Some kernels name an input in place of the parameter of its type.
            allowed = types.get(one.type_str, types.get(one.name))
            element = _name(op.element(name)) if name else ""
            if element == "float16" and "float" in (allowed or ()):
                # ONNX Runtime inserts casts to float32 around such nodes.
                continue
            if allowed is not None and element and element not in allowed:
                return False
    return True
