"""Read the description of an explainer file for a page: its inputs and outputs by their roles.

From a ModelProto to a Description, with the checks of `analyzer/explainer/description.py` and those of a page: the
browser reads the same description, and feeds every input. Raises ExportError.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import onnx

from analyzer.errors import ExportError
from analyzer.explainer.description import EXPLAINER_KEY, Description, Port, read

AGAIN = "Fix: write the file again with onnxplain.export_explainer (onnxplain export)"
_MOST_SIZE, _MOST_CAPTION = 2**31, 200


def read_description(proto: onnx.ModelProto) -> Description:
    """Return the description of an explainer file. Raises ExportError for another file, and a damaged description."""
    found = read(proto)
    if found is None:
        raise ExportError(
            f"expected an explainer file, found a model without {EXPLAINER_KEY!r} in its metadata. Fix: give the file "
            "that onnxplain export wrote"
        )
    undescribed = {info.name for info in proto.graph.input} - {port.name for port in found.inputs}
    if undescribed:
        raise ExportError(
            f"expected a description of every input, found none of {sorted(undescribed)[0]!r}. {AGAIN}"
        )
    _check_names(proto, found)
    for port in (*found.inputs, *found.outputs):
        if any(isinstance(size, int) and not 0 <= size < _MOST_SIZE for size in port.shape):
            raise ExportError(
                f"expected sizes from 0 on as the shape of {port.name!r}, found {list(port.shape)}. {AGAIN}"
            )
    if not 0 < len(found.caption) <= _MOST_CAPTION:
        raise ExportError(f"expected a caption of at most {_MOST_CAPTION} characters. {AGAIN}")
    return found


def _check_names(proto: onnx.ModelProto, found: Description) -> None:
    """Raise ExportError where an input or output is described twice, or as one of the other kind."""
    for ports, infos, kind in (
        (found.inputs, proto.graph.input, "inputs"),
        (found.outputs, proto.graph.output, "outputs"),
    ):
        names = [port.name for port in ports]
        if len(set(names)) < len(names) or not set(names) <= {info.name for info in infos}:
            raise ExportError(f"expected each of the graph's {kind} once in the description. {AGAIN}")


def input_of(found: Description, role: str) -> Port | None:
    """Return the only input of a role; None where there is none. Raises ExportError for several."""
    return _only(found.inputs, role, "input")


def output_of(found: Description, role: str) -> Port | None:
    """Return the only output of a role; None where there is none. Raises ExportError for several."""
    return _only(found.outputs, role, "output")


def explained_output(found: Description) -> Port:
    """Return the output of the model that is explained. Raises ExportError."""
    explained = [port for port in found.outputs if port.role == "output" and port.explains is True]
    if len(explained) != 1:
        raise ExportError(f"expected one output that is explained, found {len(explained)}. {AGAIN}")
    return explained[0]


def plain_description(found: Description, fed: Sequence[str]) -> dict[str, Any]:
    """Return the description for the page, without the defaults of inputs that it does not feed: they may be large.

    Raises ExportError for numbers that a browser does not read.
    """
    plain = asdict(found)
    for port in plain["inputs"]:
        if port["name"] not in fed:
            del port["default"]
    try:
        json.dumps(plain, allow_nan=False)
    except (ValueError, TypeError) as error:
        raise ExportError(f"expected finite numbers in the description. {AGAIN}") from error
    return plain


def _only(ports: Sequence[Port], role: str, kind: str) -> Port | None:
    found = [port for port in ports if port.role == role]
    if len(found) > 1:
        raise ExportError(
            f"expected one {kind} of the role {role!r}, found {', '.join(repr(one.name) for one in found[:4])}. "
            "Fix: export an explainer of a single input"
        )
    return found[0] if found else None
