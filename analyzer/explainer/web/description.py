"""Read the description of an explainer file, and check it before a page is made of it.

From a ModelProto to a Description: the inputs and outputs by their roles. The file may come from a stranger: everything
that the page reads is checked against the graph. Raises ExportError with one line for a file without a description, and
for one that does not fit its graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from analyzer.errors import ExportError

KEY = "onnxplain.explainer"
TOKENIZER_KEY = "onnxplain.tokenizer"
FORMAT = 1
INPUT_ROLES = ("model", "target", "baseline", "noise", "image")
OUTPUT_ROLES = (
    "output", "attribution", "map", "complete_map", "explained", "explained_target", "completeness_error", "delta",
    "overlay",
)  # fmt: skip
# Characters of the description; a tokenizer is a text apart.
MOST_TEXT = 2**24
AGAIN = "Fix: write the file again with onnxplain.export_explainer (onnxplain export)"


@dataclass(frozen=True)
class Port:
    """One input or output. shape: sizes; names, or None, of free axes. default: where the page feeds nothing."""

    name: str
    role: str
    shape: tuple[int | str | None, ...]
    dtype: str
    of: str | None = None
    explains: bool = False
    default: Any = None


@dataclass(frozen=True)
class Description:
    """What an explainer file says of itself. stored: the whole object, as the page shows it."""

    method: str
    caption: str
    signed: bool
    sum_of: str | None
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    stored: Mapping[str, Any]

    def input_of(self, role: str) -> Port | None:
        """Return the only input of a role; None where there is none. Raises ExportError for several."""
        return _only(self.inputs, role, "input")

    def output_of(self, role: str) -> Port | None:
        """Return the only output of a role; None where there is none. Raises ExportError for several."""
        return _only(self.outputs, role, "output")

    @property
    def explained(self) -> Port:
        """Return the output of the model that is explained. Raises ExportError."""
        found = [port for port in self.outputs if port.role == "output" and port.explains]
        if len(found) != 1:
            raise ExportError(f"expected one output that is explained, found {len(found)}. {AGAIN}")
        return found[0]


def read_description(proto: onnx.ModelProto) -> Description:
    """Return the description of an explainer file. Raises ExportError."""
    texts = {entry.key: entry.value for entry in proto.metadata_props}
    if KEY not in texts:
        raise ExportError(
            f"expected an explainer file, found a model without {KEY!r} in its metadata. Fix: give the file that "
            "onnxplain export wrote"
        )
    stored = _json(texts[KEY])
    if stored.get("format") != FORMAT:
        raise ExportError(
            f"expected an explainer of format {FORMAT}, found {str(stored.get('format'))[:20]}. {AGAIN}"
        )
    found = Description(
        method=_text(stored, "method"),
        caption=_text(stored, "caption"),
        signed=stored.get("signed") is True,
        sum_of=_sum_of(stored),
        inputs=_ports(stored, "inputs", INPUT_ROLES, {info.name for info in proto.graph.input}),
        outputs=_ports(stored, "outputs", OUTPUT_ROLES, {info.name for info in proto.graph.output}),
        stored=stored,
    )
    undescribed = {info.name for info in proto.graph.input} - {port.name for port in found.inputs}
    if undescribed:
        raise ExportError(
            f"expected a description of every input, found none of {sorted(undescribed)[0]!r}. {AGAIN}"
        )
    return found


def _json(text: str) -> dict[str, Any]:
    try:
        stored = json.loads(text) if len(text) <= MOST_TEXT else None
        # Browsers read no NaN.
        json.dumps(stored, allow_nan=False)
    except (ValueError, RecursionError):
        stored = None
    if not isinstance(stored, dict):
        raise ExportError(f"expected an object of JSON in the metadata {KEY!r}, found {text[:40]!r}. {AGAIN}")
    return stored


def _text(stored: Mapping[str, Any], key: str) -> str:
    value = stored.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= 200:
        raise ExportError(
            f"expected a short text as {key!r} of the explainer, found {repr(value)[:40]}. {AGAIN}"
        )
    return value


def _sum_of(stored: Mapping[str, Any]) -> str | None:
    value = stored.get("sum_of")
    if value not in (None, "output", "difference"):
        raise ExportError(
            f'expected "output", "difference" or null as \'sum_of\' of the explainer, found {repr(value)[:40]}. '
            f"{AGAIN}"
        )
    return value if value is None else str(value)


def _ports(stored: Mapping[str, Any], key: str, roles: Sequence[str], names: set[str]) -> tuple[Port, ...]:
    entries = stored.get(key)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ExportError(f"expected a list of objects as {key!r} of the explainer. {AGAIN}")
    ports = tuple(_port(entry, key, roles, names) for entry in entries)
    if len({port.name for port in ports}) < len(ports):
        raise ExportError(f"expected each name once among the {key} of the explainer. {AGAIN}")
    return ports


def _port(entry: Mapping[str, Any], key: str, roles: Sequence[str], names: set[str]) -> Port:
    name, role, shape, dtype = (entry.get(one) for one in ("name", "role", "shape", "type"))
    of = entry.get("of")
    if not isinstance(name, str) or name not in names:
        raise ExportError(
            f"expected names of the graph's {key} in the explainer's description, found {repr(name)[:60]}. {AGAIN}"
        )
    if role not in roles:
        raise ExportError(f"expected a role of {name!r} that is known, found {repr(role)[:40]}. {AGAIN}")
    if not isinstance(shape, list) or not all(_is_axis(axis) for axis in shape):
        raise ExportError(
            f"expected sizes and names as the shape of {name!r}, found {repr(shape)[:60]}. {AGAIN}"
        )
    if not isinstance(dtype, str) or not isinstance(of, str | None):
        raise ExportError(f"expected texts as 'type' and 'of' of {name!r}. {AGAIN}")
    return Port(name, str(role), tuple(shape), dtype, of, entry.get("explains") is True, entry.get("default"))


def _is_axis(axis: Any) -> bool:
    # A free axis may have no name.
    return axis is None or isinstance(axis, str) or (type(axis) is int and 0 <= axis < 2**31)


def _only(ports: Sequence[Port], role: str, kind: str) -> Port | None:
    found = [port for port in ports if port.role == role]
    if len(found) > 1:
        raise ExportError(
            f"expected one {kind} of the role {role!r}, found {', '.join(repr(one.name) for one in found[:4])}. "
            "Fix: export an explainer of a single input"
        )
    return found[0] if found else None
