"""Check that the graph within an If, a Loop or a Scan takes and gives as many values as the node does.

Reads a NodeProto; raises InvalidModel, which names the node. The standard's checker does not compare the two.
"""

from __future__ import annotations

import onnx

from converters.errors import InvalidModel

_FIX = "Fix: export the model again"


def validate_bodies(node: onnx.NodeProto, place: str) -> None:
    """Raise InvalidModel for a body that does not fit its node."""
    graphs = {entry.name: entry.g for entry in node.attribute if entry.HasField("g")}
    if node.op_type == "If":
        for name, branch in graphs.items():
            _expect(place, f"outputs of {name!r}", len(node.output), len(branch.output))
    elif node.op_type in ("Loop", "Scan") and "body" in graphs:
        body = graphs["body"]
        _expect(place, "inputs of its body", len(node.input), len(body.input))
        if node.op_type == "Loop":
            _validate_outputs(node, body, max(len(node.input) - 2, 0), 1, place)
        else:
            _validate_scan(node, body, place)


def _validate_scan(node: onnx.NodeProto, body: onnx.GraphProto, place: str) -> None:
    """Check that a Scan has the inputs that it counts, and states an axis or direction for each that it scans."""
    ints = {entry.name: len(entry.ints) for entry in node.attribute if not entry.ref_attr_name}
    scanned = next((entry.i for entry in node.attribute if entry.name == "num_scan_inputs"), 0)
    if scanned > len(node.input):
        raise InvalidModel(
            f"{place}: expected 'num_scan_inputs' of at most {len(node.input)} inputs, got {scanned}. {_FIX}"
        )
    carried = len(node.input) - scanned
    _validate_outputs(node, body, carried, 0, place)
    for stem, count in (("scan_input_", scanned), ("scan_output_", len(body.output) - carried)):
        for name in (stem + "axes", stem + "directions"):
            if ints.get(name):
                _expect(place, f"numbers in {name!r}", count, ints[name])


def _validate_outputs(
    node: onnx.NodeProto, body: onnx.GraphProto, carried: int, conditions: int, place: str
) -> None:
    """Check that a body gives a condition, what is carried on, and what the node collects; a node may omit the last."""
    least = conditions + max(carried, len(node.output))
    if len(body.output) < least:
        raise InvalidModel(f"{place}: expected {least} outputs of its body, got {len(body.output)}. {_FIX}")


def _expect(place: str, told: str, expected: int, found: int) -> None:
    if found != expected:
        raise InvalidModel(f"{place}: expected {expected} {told}, got {found}. {_FIX}")
