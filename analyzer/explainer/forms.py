"""Bring an explainer into the form that was asked for: preprocessing, metadata, required inputs.

From a model and its description to the model that is written, checked by the rules of ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import onnx

from analyzer.errors import ExportError
from analyzer.explainer.description import TOKENIZER_KEY, Description, Port, set_entry
from analyzer.explainer.files import check_file
from analyzer.explainer.photograph import with_preprocessing
from analyzer.explainer.runtimes import at_opset, fit, missing
from converters.model import CLASS_NAMES_KEY, PREPROCESSING_KEY, Model


@dataclass(frozen=True)
class FileForm:
    """How a file is written. See `export_explainer`."""

    opset: int
    fp16: bool = False
    check_for: str | None = None
    with_preprocessing: bool = False
    overlay: bool = False
    required_inputs: bool = False
    tokenizer: str | None = None


def lowered_to(proto: onnx.ModelProto, form: FileForm) -> tuple[onnx.ModelProto, Mapping[str, int]]:
    """Return a model in the opset and the ops of a form, and {op: number of nodes} that were lowered."""
    proto = at_opset(proto, form.opset)
    if form.check_for is None:
        return proto, {}
    lowered = {one.op: one.count for one in missing(proto, form.check_for) if one.lowered}
    return fit(proto, form.check_for), lowered


def in_form(
    proto: onnx.ModelProto, description: Description, model: Model, form: FileForm
) -> tuple[onnx.ModelProto, Description]:
    """Return the model to write and its description."""
    for key in (PREPROCESSING_KEY, CLASS_NAMES_KEY):
        if key in model.metadata:
            set_entry(proto, key, model.metadata[key])
    if form.tokenizer is not None:
        set_entry(proto, TOKENIZER_KEY, form.tokenizer)
    if form.with_preprocessing:
        proto, description = _of_photographs(proto, description, model, overlay=form.overlay)
        if form.check_for is not None:
            proto = fit(proto, form.check_for)
    elif form.overlay:
        raise ExportError("an overlay is drawn over photographs. Fix: give with_preprocessing=True, too")
    if form.required_inputs:
        proto, description = with_required_inputs(proto, description)
    description.write(proto)
    check_file(proto)
    return proto, description


def _of_photographs(
    proto: onnx.ModelProto, description: Description, model: Model, *, overlay: bool
) -> tuple[onnx.ModelProto, Description]:
    """The file that takes photographs. Raises ExportError where the model does not state how it reads them."""
    preprocessing = model.preprocessing
    if preprocessing is None:
        raise ExportError(
            "the model does not state its preprocessing. Fix: convert it with preprocessing=Preprocessing(…), or give "
            "--size, --mean and --std"
        )
    maps = {
        port.name: description.signed or port.role == "complete_map"
        for port in description.outputs
        if port.role in ("map", "complete_map")
    }
    first = next(port for port in description.outputs if port.role == "map")
    if not any(port.name == first.of and port.role == "model" for port in description.inputs):
        raise ExportError(
            f"the map lies over {first.of!r}, which is not an image input. Fix: omit wrt, or with_preprocessing"
        )
    proto = with_preprocessing(
        proto, preprocessing, input_name=first.of, maps=maps, overlay=first.name if overlay else None
    )
    return proto, _described_for_photographs(proto, description, first, maps)


def _described_for_photographs(
    proto: onnx.ModelProto, description: Description, first: Port, maps: Mapping[str, bool]
) -> Description:
    """The description with the inputs and outputs that a file of photographs has."""
    size = ("height", "width")
    known = {port.name for port in (*description.inputs, *description.outputs)}
    inputs, outputs = [], []
    # The input of photographs may have the name of the input that it replaces.
    (image,) = (info.name for info in proto.graph.input if info.name not in known - {first.of})
    for port in description.inputs:
        if port.name == first.of:
            words = "photographs of one size, RGB; convert grey ones, and remove alpha, first"
            port = Port(image, "image", (port.shape[0], *size, 3), "uint8", words, of=first.of)
        inputs.append(port)
    for port in description.outputs:
        if port.name in maps:
            port = replace(
                port, shape=(port.shape[0], *size), meaning=f"{port.meaning}, at the size of the photograph"
            )
        outputs.append(port)
    for info in proto.graph.output:
        if info.name not in known:
            words = "the map as a picture to draw over the photograph, RGBA"
            outputs.append(
                Port(info.name, "overlay", (first.shape[0], *size, 4), "uint8", words, of=first.of)
            )
    return replace(description, inputs=tuple(inputs), outputs=tuple(outputs))


def with_required_inputs(
    proto: onnx.ModelProto, description: Description
) -> tuple[onnx.ModelProto, Description]:
    """Return a model all of whose inputs must be fed: JavaScript runtimes do not feed inputs with a default.

    The defaults stay in the description. One that is too large for it, such as stored noise, becomes a constant.
    """
    fed = {port.name for port in description.inputs if port.optional and port.default is not None}
    stored = {port.name for port in description.inputs if port.optional} - fed
    changed = onnx.ModelProto()
    changed.CopyFrom(proto)
    weights = [one for one in changed.graph.initializer if one.name not in fed]
    inputs = [info for info in changed.graph.input if info.name not in stored]
    del changed.graph.initializer[:], changed.graph.input[:]
    changed.graph.initializer.extend(weights)
    changed.graph.input.extend(inputs)
    ports = tuple(replace(port, optional=False) for port in description.inputs if port.name not in stored)
    return changed, replace(description, inputs=ports)
