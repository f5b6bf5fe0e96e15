"""What an explainer file says of itself: its method, settings, inputs and outputs, as metadata and docstrings.

The JSON text under EXPLAINER_KEY is one object; see `Description`. Metadata of a file are untrusted: `read` checks
types and sizes before anything is used, and raises ExportError.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import onnx

from analyzer.errors import ExportError

EXPLAINER_KEY = "onnxplain.explainer"
TOKENIZER_KEY = "onnxplain.tokenizer"
FORMAT = 1
_MOST = 2**24
INPUT_ROLES = ("model", "target", "baseline", "noise", "image")
OUTPUT_ROLES = (
    "output",
    "attribution",
    "map",
    "complete_map",
    "explained",
    "explained_target",
    "completeness_error",
    "delta",
    "overlay",
)


@dataclass(frozen=True)
class Port:
    """An input or an output. shape: numbers, and names of free axes. of: the tensor that is attributed.

    optional, default: of inputs. explains: whether an output is the one that is explained.
    """

    name: str
    role: str
    shape: tuple[int | str, ...]
    type: str
    meaning: str
    of: str = ""
    optional: bool = False
    default: Any = None
    explains: bool = False


@dataclass(frozen=True)
class Description:
    """An explainer. settings: of the method. sum_of: "output" or "difference", to which attributions sum, else None."""

    method: str
    caption: str
    settings: Mapping[str, Any]
    signed: bool
    onnxplain: str
    model_sha256: str
    opset: int
    precision: str
    sum_of: str | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    format: int = FORMAT
    notes: tuple[str, ...] = field(default=())

    def write(self, proto: onnx.ModelProto) -> None:
        """Store the description in a model, in place: metadata, and a docstring for each input and output."""
        text = json.dumps(asdict(self), ensure_ascii=False)
        set_entry(proto, EXPLAINER_KEY, text)
        words = {port.name: port.meaning for port in (*self.inputs, *self.outputs)}
        for info in (*proto.graph.input, *proto.graph.output):
            info.doc_string = words.get(info.name, "")
        proto.graph.doc_string = (
            f"{self.caption} of a model, with the model's own outputs. Made by onnxplain."
        )

    def port(self, role: str) -> Port | None:
        """Return the first input or output of a role."""
        return next((one for one in (*self.inputs, *self.outputs) if one.role == role), None)


def set_entry(proto: onnx.ModelProto, key: str, value: str) -> None:
    """Set an entry of a model's metadata."""
    kept = [(entry.key, entry.value) for entry in proto.metadata_props if entry.key != key]
    del proto.metadata_props[:]
    for name, text in (*kept, (key, value)):
        proto.metadata_props.add(key=name, value=text)


def read(proto: onnx.ModelProto) -> Description | None:
    """Return the description of an explainer file; None of another model. Raises ExportError where it is damaged."""
    text = next((entry.value for entry in proto.metadata_props if entry.key == EXPLAINER_KEY), None)
    if text is None:
        return None
    try:
        found = _parsed(json.loads(text) if len(text) <= _MOST else None)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise ExportError(
            f"the metadata {EXPLAINER_KEY!r} of the file is damaged ({error}). Fix: export the explainer again"
        ) from error
    ports = {one.name for one in (*proto.graph.input, *proto.graph.output)}
    if missing := [one.name for one in (*found.inputs, *found.outputs) if one.name not in ports]:
        raise ExportError(
            f"the metadata of the file name {missing[0]!r}, which is not one of its inputs or outputs. Fix: export "
            "the explainer again"
        )
    return found


def _parsed(stored: Any) -> Description:
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise ValueError(f"expected an object of format {FORMAT}")
    fields = dict(stored)
    for key in ("method", "caption", "onnxplain", "model_sha256", "precision"):
        if not isinstance(fields[key], str):
            raise ValueError(f"expected {key} to be text")
    if not isinstance(fields["settings"], dict) or not isinstance(fields["opset"], int):
        raise ValueError("expected settings and an opset")
    if not isinstance(fields["signed"], bool) or fields["sum_of"] not in (None, "output", "difference"):
        raise ValueError("expected signed to be true or false, and sum_of output, difference or null")
    fields["inputs"] = tuple(_port(one, INPUT_ROLES) for one in _listed(fields["inputs"]))
    fields["outputs"] = tuple(_port(one, OUTPUT_ROLES) for one in _listed(fields["outputs"]))
    fields["notes"] = tuple(str(one) for one in _listed(fields.get("notes", [])))
    return Description(**fields)


def _port(stored: Any, roles: Sequence[str]) -> Port:
    port = Port(**{**stored, "shape": tuple(stored["shape"])})
    texts = (port.name, port.role, port.type, port.meaning, port.of)
    if not all(isinstance(one, str) for one in texts) or port.role not in roles:
        raise ValueError(f"expected an input or output with one of the roles {', '.join(roles)}")
    if not all(isinstance(size, (int, str)) for size in port.shape):
        raise ValueError(f"expected sizes or names of axes as the shape of {port.name!r}")
    return port


def _listed(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError("expected a list")
    return value
