"""What `onnxplain inspect` shows in a terminal, from the document that --json prints."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analyzer.cli.terminal import Terminal

FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}
_SHOWN = 12
"""Kinds of blocking nodes, or roots, that are listed; the rest is counted, and --json has them all."""


def show(terminal: Terminal, document: dict[str, Any]) -> None:
    """Print the whole document."""
    if "explainer" in document:
        _show_explainer(terminal, document)
        return
    _show_head(terminal, document)
    _show_tensors(terminal, document)
    _show_left_out(terminal, document["left_out"])
    if document["selects_boxes"] is not None:
        terminal.paragraph(f"{document['selects_boxes']['text']}.", style="yellow")
    terminal.heading("Operators")
    terminal.out.print(" · ".join(f"{op}×{count}" for op, count in document["operators"].items()))
    if document["refused"]:
        terminal.heading("What can be differentiated")
        terminal.out.print(f"✗ Nothing: {document['refused']}", style="yellow")
        return
    _show_layers(terminal, document["layers"])
    _show_coverage(terminal, document)
    _show_blockers(terminal, document["coverage"])


def _show_explainer(terminal: Terminal, document: dict[str, Any]) -> None:
    """Print what an explainer file says of itself."""
    found = document["explainer"]
    settings = ", ".join(
        f"{name}={value!r}" for name, value in found["settings"].items() if value is not None
    )
    terminal.out.print(document["model"], style="bold", soft_wrap=True)
    facts = [f"{found['caption']} of a model", _count(document["nodes"], "node"), f"opset {found['opset']}"]
    terminal.out.print(" · ".join([*facts, found["precision"], f"made by onnxplain {found['onnxplain']}"]))
    for text in (f"Settings: {settings or 'none'}", f"SHA-256 of the model: {found['model_sha256']}"):
        terminal.out.print(text, soft_wrap=True, markup=False)
    for heading, ports in (("Inputs", found["inputs"]), ("Outputs", found["outputs"])):
        terminal.heading(heading)
        for port in ports:
            shape = " × ".join(map(str, port["shape"])) or "number"
            default = "" if port["default"] is None else f", default {port['default']}"
            optional = f" (optional{default})" if port["optional"] else default
            terminal.out.print(
                f"{port['name']}  {port['type']}  {shape}{optional}", soft_wrap=True, markup=False
            )
            terminal.out.print(f"    {port['meaning']}", soft_wrap=True, markup=False)


def _show_head(terminal: Terminal, document: dict[str, Any]) -> None:
    opset = document["opsets"].get("ai.onnx")
    canonical = document["canonical_opset"]
    facts = [_count(document["nodes"], "node")]
    if document["parameters"] is not None:
        facts.append(_count(document["parameters"], "parameter"))
    facts.append(
        f"opset {opset}" if canonical in (None, opset) else f"opset {opset}, analyzed in {canonical}"
    )
    facts += [f"{name} {version}" for name, version in document["opsets"].items() if name != "ai.onnx"]
    if document["producer"]:
        facts.append(f"made by {document['producer']}")
    if document["class_names"]:
        facts.append(f"{document['class_names']} class names")
    terminal.out.print(document["model"], style="bold", soft_wrap=True)
    terminal.out.print(" · ".join(facts))
    if document["preprocessing"] is not None:
        terminal.out.print(f"Images: {_reading_of(document['preprocessing'])}", soft_wrap=True)
    elif document["preprocessing_unread"]:
        terminal.out.print(f"Images are not read: {document['preprocessing_unread']}", soft_wrap=True)


def _reading_of(fields: dict[str, Any]) -> str:
    """Return how a photograph becomes an input, in a line."""
    height, width = fields["size"]
    side, how = fields["resize"], fields["interpolation"]
    fitted = {
        "crop": f"the shorter side resized to {side}" if side else "resized to cover the size",
        "stretch": f"both sides resized to {side}" if side else "both sides resized to the size",
        "pad": "resized to fit into the size, with grey (114) around it",
    }[fields["fit"]]
    cropped = ", the centre cropped" if fields["fit"] == "crop" or side else ""
    mean, std = (", ".join(f"{one:.4g}" for one in fields[name]) for name in ("mean", "std"))
    return f"{height} x {width}, {fitted} ({how}){cropped}; mean {mean}, std {std} of pixels in [0, 1]"


def _show_tensors(terminal: Terminal, document: dict[str, Any]) -> None:
    terminal.heading("Inputs and outputs")
    sides = [(side, item) for side in ("input", "output") for item in document[f"{side}s"]]
    terminal.table(
        ("", "name", "type", "shape"),
        [(side, item["name"], item["dtype"], _shape(item["shape"])) for side, item in sides],
        fixed=(0, 2),
    )
    for name, constant in document["constants"].items():
        text = f"Fixed at conversion: {name} = {constant['text']} ({constant['dtype']})"
        terminal.out.print(text, soft_wrap=True, markup=False)


def _show_left_out(terminal: Terminal, left_out: Sequence[str]) -> None:
    if left_out:
        terminal.out.print(f"Left out of the explained graph: {', '.join(left_out)}", style="yellow")


def _show_layers(terminal: Terminal, layers: Sequence[dict[str, Any]]) -> None:
    if not layers:
        return
    terminal.heading(f"Bias terms of FullGrad ({len(layers)})")
    explicit = sum(row["kind"] == "explicit" for row in layers)
    terminal.out.print(
        f"{explicit} explicit (what a layer adds), {len(layers) - explicit} implicit (what a non-linear node leaves)",
        style="dim",
    )
    terminal.table(
        ("layer", "op", "kind", "tensor", "shape"),
        [(row["layer"], row["op"], row["kind"], row["tensor"], _shape(row["shape"])) for row in layers],
        fixed=(2,),
    )


def _show_coverage(terminal: Terminal, document: dict[str, Any]) -> None:
    terminal.heading("What can be differentiated")
    path = document["path"]
    if path["nodes"]:
        terminal.out.print(_roots(path))
    else:
        for line in _no_path(path):
            terminal.out.print(line, style="yellow")
    for backend, found in document["coverage"].items():
        if not path["nodes"] and not found["blocking"]:
            continue
        terminal.out.print(_line(backend, found), style="yellow" if found["blocking"] else "green")


def _roots(path: dict[str, Any]) -> str:
    text = f"{_count(path['nodes'], 'node')} from {_names(path['from'])} to {_names(path['to'])}"
    if path["from_inputs"]:
        return text
    return (
        "The inputs are integers, which have no gradient. Ask for it at an inner tensor, "
        f'wrt=["{path["from"][0]}"]:\n{text}'
    )


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _no_path(path: dict[str, Any]) -> list[str]:
    if not path["from"]:
        return ["✗ No tensor of floats depends on the inputs: there is nothing to differentiate"]
    if not path["ends"]:
        return ["✗ No output of floats depends on the inputs: there is nothing to differentiate"]
    names = _names([f"{end['node']} ({end['op']})" for end in path["ends"]])
    return [f"✗ The derivative of every output is zero: the path ends at {names}"]


def _line(backend: str, found: dict[str, Any]) -> str:
    mark = "✗" if found["blocking"] else "✓"
    text = f"{mark} {backend:12} {found['covered']} of {found['path']} nodes on the differentiable path are covered"
    if "framework" in found:
        text = f"{text}, by {FRAMEWORKS[found['framework']]} itself"
    return text


def _show_blockers(terminal: Terminal, coverage: dict[str, dict[str, Any]]) -> None:
    """One entry per op and reason, with the first node and the backends it stops."""
    from rich.padding import Padding

    groups: dict[tuple[str, str, bool], dict[str, list[str]]] = {}
    for backend, found in coverage.items():
        for item in found["blocking"]:
            key = (item["op"], item["reason"], item["differentiable_path"])
            groups.setdefault(key, {}).setdefault(backend, []).append(item["node"])
    if not groups:
        return
    terminal.heading("What stands in the way")
    for (op, reason, on_path), backends in list(groups.items())[:_SHOWN]:
        nodes = next(iter(backends.values()))
        more = f" and {len(nodes) - 1} more" if len(nodes) > 1 else ""
        terminal.out.print(f"{nodes[0]} ({op}){more} stops {', '.join(backends)}")
        where = "" if on_path else " (not on the path, but it has to be run)"
        terminal.out.print(Padding(f"{reason}{where}", (0, 0, 0, 2)), style="dim")
    if len(groups) > _SHOWN:
        terminal.out.print(
            f"and {len(groups) - _SHOWN} other kinds of nodes: --json lists every node", style="dim"
        )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _shape(shape: Sequence[int | str] | None) -> str:
    """A shape as people write it: batch × 3 × 224 × 224."""
    return "?" if shape is None else " × ".join(str(axis) for axis in shape) or "scalar"
