"""`onnxplain inspect`: what a model is made of, and what of it can be differentiated by which backend.

An .onnx file is read and not run, unless --run asks for it. A model that has no canonical form is shown as it is in its
file, with the reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from analyzer.cli.options import (
    ExampleOption,
    JsonOption,
    SetOption,
    StraightThroughOption,
    TrustOption,
    parse_constants,
)
from analyzer.cli.terminal import READING, Terminal

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from analyzer.autodiff.coverage import Blocker, DifferentiablePath
    from analyzer.graph.graph import Graph, Tensor
    from converters.model import Model

SOURCE = "source"
_MOST_VALUES = 64
KINDS = ".onnx, .pt2, .keras, a SavedModel folder, or package.module:factory."


def inspect(
    models: Annotated[list[str], typer.Argument(metavar="MODEL...", help=f"Models: {KINDS}")],
    example: ExampleOption = None,
    constant: SetOption = None,
    straight_through: StraightThroughOption = False,
    run: Annotated[
        bool,
        typer.Option("--run", help="Run an .onnx file to find out whether a fixed batch can be free."),
    ] = False,
    trust: TrustOption = False,
    differentiable: Annotated[
        bool,
        typer.Option(
            "--differentiable", help="Exit with status 1 unless ONNX Runtime can differentiate every model."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show a model's inputs, outputs, layers and bias tensors, and what can be differentiated."""
    from analyzer.cli.inspect_view import show

    terminal, constants = Terminal(as_json), parse_constants(constant)
    documents = []
    for model in models:
        with terminal.progress(f"reading {model}" if len(models) > 1 else "reading the model", READING):
            documents.append(
                _document(
                    model,
                    example,
                    straight_through=straight_through,
                    trust=trust,
                    run=run,
                    constants=constants,
                )
            )
        show(terminal, documents[-1])
    several = {"command": "inspect", "models": documents}
    terminal.document(documents[0] if len(documents) == 1 else several)
    found = [f"{one['model']}: {reason}" for one in documents if (reason := obstacle(one))]
    if differentiable and found:
        terminal.failure("; ".join(found))
        raise typer.Exit(1)


def _document(model: str, example: Path | None, **options: Any) -> dict[str, Any]:
    """What is told of one model."""
    from analyzer.cli.models import open_model
    from converters.errors import UnsupportedModel
    from converters.sources.files import read_onnx

    is_file = model.lower().endswith(".onnx")
    if is_file and (found := _explainer(model)) is not None:
        return found
    try:
        loaded = open_model(model, example, verify=False, images=None, **options)
    except UnsupportedModel as error:
        if not is_file:
            raise
        return refused(model, read_onnx(model), error)
    return describe(model, loaded, _without_weights(model) if is_file else loaded.proto)


def _explainer(model: str) -> dict[str, Any] | None:
    """What an explainer file says of itself; None of another model."""
    from analyzer.explainer.description import read
    from converters.sources.files import read_onnx

    proto = read_onnx(model)
    description = read(proto)
    if description is None:
        return None
    nodes = proto.graph.node
    operators = Counter(_op(node.domain, node.op_type) for node in nodes)
    return {
        **_head(model, proto),
        "nodes": len(nodes),
        "operators": dict(operators.most_common()),
        "explainer": asdict(description),
    }


def obstacle(document: Mapping[str, Any]) -> str:
    """Return why ONNX Runtime cannot differentiate a model, from its document; empty where it can."""
    if "explainer" in document:
        return "the file is an explainer already; inspect the model that it was made from"
    if document["refused"]:
        return str(document["refused"])
    blocking = document["coverage"]["onnxruntime"]["blocking"]
    if blocking:
        first = blocking[0]
        more = f" and {len(blocking) - 1} more" if len(blocking) > 1 else ""
        return f"{first['op']} {first['node']!r}{more}: {first['reason']}"
    return (
        "" if document["path"]["nodes"] else "no output depends on a floating input by differentiable nodes"
    )


def _without_weights(path: str) -> onnx.ModelProto:
    """The file itself, whose opset and producer the canonical graph no longer shows."""
    import onnx

    return onnx.load_model(path, load_external_data=False)


def describe(name: str, model: Model, file: onnx.ModelProto) -> dict[str, Any]:
    """Everything that is shown of a canonical model, as plain data; `file` is what it was made from."""
    from analyzer.autodiff.coverage import differentiable_path
    from analyzer.graph.graph import Graph
    from converters.model import UNREAD_KEY
    from converters.verification.original import left_out

    graph = Graph.from_proto(model.proto)
    path = differentiable_path(graph)
    constants = [tensor.constant for tensor in graph.tensors.values() if tensor.constant is not None]
    return {
        **_head(name, file),
        "canonical_opset": graph.opset,
        "nodes": len(graph.nodes),
        "parameters": sum(int(array.size) for array in constants if array.dtype.kind not in "iub"),
        "inputs": [_tensor(graph.tensors[item]) for item in graph.inputs],
        "outputs": [_tensor(graph.tensors[item]) for item in graph.outputs],
        "constants": {name: _fixed(array) for name, array in model.constants.items()},
        "operators": dict(Counter(_op(node.domain, node.op_type) for node in graph.nodes).most_common()),
        "preprocessing": None if model.preprocessing is None else vars(model.preprocessing),
        "preprocessing_unread": model.metadata.get(UNREAD_KEY),
        "class_names": None if model.class_names is None else len(model.class_names),
        "layers": bias_layers(graph, path),
        "path": {
            "from": list(path.roots),
            "to": list(path.outputs),
            "from_inputs": path.from_inputs,
            "nodes": len(path.nodes),
            "ends": [{"node": node.name, "op": _op(node.domain, node.op_type)} for node in path.ends],
        },
        "coverage": backend_coverage(graph, path, model),
        "left_out": [] if model.original is None else left_out(model.original, model.proto),
        "selects_boxes": _selects_boxes(graph),
        "refused": None,
    }


def refused(name: str, file: onnx.ModelProto, error: Exception) -> dict[str, Any]:
    """What can be told of a file that has no canonical form, and why it has none."""
    from analyzer.graph.graph import Graph

    graph = Graph.from_proto(file)
    return {
        **_head(name, file),
        "canonical_opset": None,
        "nodes": len(graph.nodes),
        "parameters": None,
        "inputs": [_tensor(graph.tensors[item]) for item in graph.inputs],
        "outputs": [_tensor(graph.tensors[item]) for item in graph.outputs],
        "constants": {},
        "operators": dict(Counter(_op(node.domain, node.op_type) for node in graph.nodes).most_common()),
        "preprocessing": None,
        "preprocessing_unread": None,
        "class_names": None,
        "layers": [],
        "path": None,
        "coverage": {},
        "left_out": [],
        "selects_boxes": _selects_boxes(graph),
        "refused": str(error),
    }


def _head(name: str, proto: onnx.ModelProto) -> dict[str, Any]:
    opsets = {entry.domain or "ai.onnx": entry.version for entry in proto.opset_import}
    producer = f"{proto.producer_name} {proto.producer_version}".strip()
    return {"command": "inspect", "model": name, "opsets": opsets, "producer": producer}


def _op(domain: str, op_type: str) -> str:
    return f"{domain}.{op_type}" if domain else op_type


def _tensor(tensor: Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else ["?" if axis is None else axis for axis in tensor.shape]
    return {"name": tensor.name, "dtype": tensor.dtype.name, "shape": shape}


def _fixed(array: np.ndarray) -> dict[str, Any]:
    """The value of an input that was fixed at conversion; its text alone where it has many elements."""
    from converters.model import value_text

    dtype = "text" if array.dtype.kind == "O" else array.dtype.name
    values = array.astype(float) if array.dtype.kind == "V" else array
    return {
        "dtype": dtype,
        "shape": list(array.shape),
        "value": values.tolist() if array.size <= _MOST_VALUES else None,
        "text": value_text(array),
    }


def _selects_boxes(graph: Graph) -> dict[str, Any] | None:
    """The tensor to explain of a detector that selects boxes within; None of other models."""
    from analyzer.target.suppressed import before_suppression

    found = before_suppression(graph)
    if found is None:
        return None
    return {"node": found.node.name, "output": found.output, "layout": found.layout, "text": found.text}


def bias_layers(graph: Graph, path: DifferentiablePath) -> list[dict[str, Any]]:
    """The nodes that have a bias term, in network order; those without a rule stand under `coverage`."""
    from analyzer.autodiff.biases import find_biases

    found = find_biases(graph, path.outputs, path.roots, without_rule="skip")
    return [
        {
            "layer": bias.layer,
            "op": bias.node.op_type,
            "kind": bias.kind,
            "tensor": bias.tensor,
            "shape": _tensor(graph.tensors[bias.tensor])["shape"],
        }
        for bias in found
    ]


def backend_coverage(graph: Graph, path: DifferentiablePath, model: Model) -> dict[str, dict[str, Any]]:
    """Per backend: how many nodes on the path it covers, and each node that blocks it, with the reason."""
    from analyzer.autodiff.coverage import coverage

    found: dict[str, dict[str, Any]] = {
        backend: {
            "covered": entry.covered,
            "path": entry.total,
            "blocking": [_blocker(blocker) for blocker in entry.blockers],
        }
        for backend, entry in coverage(graph, path).items()
    }
    if model.source is not None:
        # The network's own autodiff: it needs no rule of ours at the inputs.
        total = len(path.nodes)
        found[SOURCE] = {
            "covered": total,
            "path": total,
            "blocking": [],
            "framework": model.source.framework,
        }
    return found


def _blocker(blocker: Blocker) -> dict[str, Any]:
    return {
        "node": blocker.node.name,
        "op": _op(blocker.node.domain, blocker.node.op_type),
        "reason": blocker.reason,
        "differentiable_path": blocker.on_path,
    }
