"""`onnxplain inspect`: what a model is made of, and what of it can be differentiated by which backend."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from analyzer.cli.options import ExampleOption, JsonOption, ModelArgument
from analyzer.cli.terminal import Terminal

if TYPE_CHECKING:
    from analyzer.graph import Graph, Node, Tensor
    from converters.model import Model

BACKENDS = {"onnxruntime": "vjp", "torch": "torch", "tensorflow": "tensorflow"}


def inspect(model: ModelArgument, example: ExampleOption = None, as_json: JsonOption = False) -> None:
    """Show a model's inputs, outputs, layers and bias tensors, and what can be differentiated."""
    from analyzer.cli.models import open_model
    from analyzer.graph import Graph

    terminal = Terminal(as_json)
    with terminal.progress("reading the model"):
        loaded = open_model(model, example)
    graph = Graph.from_proto(loaded.proto)
    document = describe(model, loaded, graph)
    _show(terminal, document)
    terminal.document(document)


def describe(name: str, model: Model, graph: Graph) -> dict[str, Any]:
    """Everything that is shown, as plain data."""
    constants = [tensor.constant for tensor in graph.tensors.values() if tensor.constant is not None]
    proto = model.proto
    return {
        "command": "inspect",
        "model": name,
        "opset": graph.opset,
        "producer": f"{proto.producer_name} {proto.producer_version}".strip(),
        "nodes": len(graph.nodes),
        "parameters": sum(int(array.size) for array in constants if array.dtype.kind not in "iub"),
        "inputs": [_tensor(graph.tensors[item]) for item in graph.inputs],
        "outputs": [_tensor(graph.tensors[item]) for item in graph.outputs],
        "operators": dict(Counter(node.op_type for node in graph.nodes).most_common()),
        "preprocessing": None if model.preprocessing is None else vars(model.preprocessing),
        "class_names": None if model.class_names is None else len(model.class_names),
        "layers": bias_layers(graph),
        "coverage": coverage(graph),
    }


def _tensor(tensor: Tensor) -> dict[str, Any]:
    shape = None if tensor.shape is None else ["?" if axis is None else axis for axis in tensor.shape]
    return {"name": tensor.name, "dtype": tensor.dtype.name, "shape": shape}


def bias_layers(graph: Graph) -> list[dict[str, Any]]:
    """The nodes that have a bias term, in network order; those without a rule stand under `coverage`."""
    from analyzer.biases import find_biases

    inputs = [name for name in graph.inputs if graph.tensors[name].is_float]
    if not inputs or not graph.tensors[graph.outputs[0]].is_float:
        return []
    biases = find_biases(graph, graph.outputs[0], inputs, without_rule="skip")
    return [
        {
            "layer": bias.layer,
            "op": bias.node.op_type,
            "kind": bias.kind,
            "tensor": bias.tensor,
            "shape": _tensor(graph.tensors[bias.tensor])["shape"],
        }
        for bias in biases
    ]


def coverage(graph: Graph) -> dict[str, dict[str, Any]]:
    """Per backend: how many nodes on the differentiable path it covers, and each one that blocks."""
    path = differentiable_nodes(graph)
    found = {}
    for backend, form in BACKENDS.items():
        # A framework runs the whole graph, not the differentiable part alone.
        nodes = path if form == "vjp" else graph.nodes
        blocking = [node for node in nodes if not covered(node, form)]
        on_path = {id(node) for node in path}
        found[backend] = {
            "covered": sum(covered(node, form) for node in path),
            "path": len(path),
            "blocking": [_blocker(node, id(node) in on_path) for node in blocking],
        }
    return found


def differentiable_nodes(graph: Graph) -> tuple[Node, ...]:
    """The nodes on a differentiable path from a floating input to a floating output."""
    from analyzer.autodiff import path_nodes

    inputs = [name for name in graph.inputs if graph.tensors[name].is_float]
    outputs = [name for name in graph.outputs if graph.tensors[name].is_float]
    on_path = {id(node) for output in outputs for node in path_nodes(graph, inputs, output)}
    return tuple(node for node in graph.nodes if id(node) in on_path)


def covered(node: Node, form: str) -> bool:
    """Whether the op's class has this form: "vjp", "torch" or "tensorflow"."""
    from analyzer.ops import find

    rules = find(node)
    return rules is not None and getattr(rules, form) is not None


def _blocker(node: Node, on_path: bool) -> dict[str, Any]:
    op_type = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
    return {"node": node.name, "op": op_type, "differentiable_path": on_path}


def _show(terminal: Terminal, document: dict[str, Any]) -> None:
    facts = [
        f"{document['nodes']} nodes",
        f"{document['parameters']:,} parameters",
        f"opset {document['opset']}",
    ]
    if document["producer"]:
        facts.append(f"made by {document['producer']}")
    if document["class_names"]:
        facts.append(f"{document['class_names']} class names")
    terminal.out.print(document["model"], style="bold", soft_wrap=True)
    terminal.out.print("  ".join(facts))
    terminal.heading("Inputs and outputs")
    sides = [("input", item) for item in document["inputs"]] + [
        ("output", item) for item in document["outputs"]
    ]
    terminal.table(
        ("", "name", "type", "shape"),
        [(side, item["name"], item["dtype"], _shape(item)) for side, item in sides],
    )
    terminal.heading("Operators")
    terminal.out.print("  ".join(f"{op} {count}" for op, count in document["operators"].items()))
    if document["layers"]:
        terminal.heading(f"Bias terms ({len(document['layers'])})")
        rows = [
            (row["layer"], row["op"], row["kind"], row["tensor"], _shape(row)) for row in document["layers"]
        ]
        terminal.table(("layer", "op", "kind", "tensor", "shape"), rows)
    terminal.heading("Differentiable path")
    for backend, found in document["coverage"].items():
        style = "yellow" if found["blocking"] else "green"
        line = (
            f"{backend:12} {found['covered']} of {found['path']} nodes on the differentiable path are covered"
        )
        terminal.out.print(line, style=style)
        for item in found["blocking"]:
            where = "" if item["differentiable_path"] else " (not on the path, but must be run)"
            terminal.out.print(f"{'':12} blocked by {item['node']} ({item['op']}){where}", soft_wrap=True)


def _shape(item: dict[str, Any]) -> str:
    return "?" if item["shape"] is None else " × ".join(str(axis) for axis in item["shape"]) or "scalar"
