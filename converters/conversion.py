"""`convert` and `load`: any model in, one canonical and verified Model out."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import helper

from converters.budget import Limits, current, limited, preparing
from converters.canonical import canonicalise, check, is_canonical, keeps_batch_norm
from converters.errors import (
    ConversionError,
    InvalidModel,
    LimitExceeded,
    NoFiniteOutput,
    VerificationFailed,
)
from converters.graph.bounds import refuse_oversized
from converters.graph.order import in_order
from converters.model import Model, ModelFile, Preprocessing, Verification, set_metadata
from converters.passes.fixed_inputs import fix_inputs, mapping_of
from converters.passes.input_axes import normalise_axes
from converters.passes.outputs import keep_numbers, refuse_text
from converters.sources.dispatch import SourceOptions, from_source, is_convertible, of_file
from converters.sources.files import read_onnx
from converters.sources.hub import open_folder
from converters.sources.pytorch import Converted
from converters.system.arguments import named_arguments
from converters.system.deprecation import renaming
from converters.system.randomness import seed_from
from converters.verification.original import draws
from converters.verification.precisions import TOLERANCE
from converters.verification.reference import run_original
from converters.verify import FreeAxes
from converters.verify import verify as verify_graph

NOTE_KEY = "onnxplain.note"


@renaming(ConversionError)(seed="rng")
def convert(
    source: Any,
    example: Any = None,
    *,
    preprocessing: Preprocessing | None = None,
    class_names: Sequence[str] | None = None,
    free_axes: FreeAxes | None = None,
    constants: Mapping[str, Any] | None = None,
    fold_batch_norm: bool = True,
    batches: int = 3,
    tolerance: float = TOLERANCE,
    rng: np.random.Generator | int = 0,
    trust: bool = False,
    limits: Limits | None = None,
) -> Model:
    """Convert a model of any framework to one canonical ONNX graph, and compare it with the original.

    source: a torch nn.Module, ExportedProgram or .pt2 path; a Keras model, .keras or .h5 path; a tf.Module,
      tf.function, ConcreteFunction, SavedModel folder or frozen .pb graph; an onnx.ModelProto or .onnx path; or
      "package.module:factory", where factory() returns a model, or a model and an example; or a folder of Hugging Face
      that holds an .onnx file, whose class names and preprocessing are read, or "hf://organisation/name".
    example: one array or tensor, a tuple of them, or a dict {name: array}, first axis the batch. Needed
      where the source does not say its inputs: an nn.Module, a subclassed Keras model, a tf.function
      without a signature. Without it, such a network is traced from an image of the size that `preprocessing` states.
    free_axes: {argument: {axis: symbol}}, the axes besides the batch whose size is free, such as
      {"x": {1: "time"}}, for a source that is traced from the example; others state theirs.
    constants: {input: value}, inputs that are fixed to a value, such as {"sr": 16000}, so that branches on them fold.
      They are no longer inputs of the model, and `example` may leave them out. A number fills an input of stated sizes.
    fold_batch_norm: False keeps BatchNorm layers apart from the layer before them.
    batches: the number of test inputs, made from the example, that are compared with the original besides it.
    tolerance: the relative L2 error that is allowed in each output; 5 % in half precision.
    rng: a Generator or a seed for the test inputs.
    trust: load a file that can run code: a .pt2 file, a Keras file with code, a TensorFlow graph with ops that do more
      than compute. Only pass True for files whose origin you trust.
    limits: what preparing the graph may take: Limits(seconds=…, bytes=…, nodes=…). Default: by the model's size.
    Returns a Model with its `verification` and, in memory, its `source`.
    Raises a ConversionError: InvalidModel, UntrustedModel, UnsupportedModel, LimitExceeded, VerificationFailed or
    MissingFramework.
    """
    seed = seed_from(rng, ConversionError)
    _refuse_options(batches, tolerance)
    folder = open_folder(source)
    source = source if folder is None else folder.model
    options = SourceOptions(free_axes, trust, mapping_of(constants))
    converted = from_source(source, example, options, preprocessing)
    if free_axes and not converted.free_axes:
        raise ConversionError(
            "free_axes is for a network that is traced from its example; this model states its own free axes. Fix: "
            "omit free_axes, and free the axis in the model: a symbol in the ONNX file, None in keras.Input"
        )
    with limited(limits):
        try:
            proto, verification = _verified(converted, fold_batch_norm, batches, tolerance, seed)
        except VerificationFailed:
            if converted.at_example is None:
                raise
            converted = converted.at_example()
            proto, verification = _verified(converted, fold_batch_norm, batches, tolerance, seed)
    set_metadata(proto, preprocessing, class_names)
    notes = (*converted.notes, *verification.notes)
    _state(proto, notes)
    model = Model(proto, converted.source, verification, _other(converted.reference.proto, proto))
    return model if folder is None else folder.described(model)


def _refuse_options(batches: int, tolerance: float) -> None:
    """Raise ConversionError for numbers of test inputs that make no sense."""
    if not isinstance(batches, (int, np.integer)) or batches < 0:
        raise ConversionError(
            f"expected batches as a whole number of at least 0, got {batches!r}. Fix: give batches=3"
        )
    if not isinstance(tolerance, (int, float, np.number)) or not tolerance >= 0:
        raise ConversionError(
            f"expected tolerance of at least 0, got {tolerance!r}. Fix: give tolerance={TOLERANCE:g}"
        )


def _verified(
    converted: Converted, fold_batch_norm: bool, batches: int, tolerance: float, seed: int
) -> tuple[onnx.ModelProto, Verification]:
    """The canonical form of what a framework's converter returned, compared with the original."""
    try:
        proto = canonicalise(converted.proto, fold_batch_norm=fold_batch_norm)
        refuse_oversized(proto)
    except LimitExceeded:
        raise
    except ConversionError:
        # A graph may be damaged since the original itself does not take the example: that is the better reason.
        run_original(converted.reference, converted.example)
        raise
    verification = verify_graph(
        proto,
        converted.reference,
        converted.example,
        batches=batches,
        tolerance=tolerance,
        seed=seed,
        free_axes=converted.free_axes,
    )
    return proto, verification


@named_arguments
def load(
    model: Any,
    *,
    example: Any = None,
    verify: bool = True,
    trust: bool = False,
    run: bool = True,
    fold_batch_norm: bool = True,
    constants: Mapping[str, Any] | None = None,
    limits: Limits | None = None,
) -> Model:
    """A Model from an .onnx file, a ModelProto or a Model, brought to the canonical form where it is not.

    model: one of these, or anything else that `convert` takes, which is converted.
    example: the input from which a network that does not state its inputs is traced, as for `convert`.
    verify: compare the canonical graph with the file, on noise and on hard inputs. A file that does not run on noise
        of its declared shapes is compared when it is explained.
    trust: load another framework's file that can run code, as for `convert`; an .onnx file needs no trust.
    run: False only reads an .onnx file: nothing is verified, and a batch that the file states stays as it is, since
        only a run shows that samples are independent.
    fold_batch_norm: as for `convert`; a canonical file whose BatchNorm layers were folded is refused.
    constants: inputs that are fixed to a value, as for `convert`.
    limits: what preparing the graph may take: Limits(seconds=…, bytes=…, nodes=…); by default it grows with the file.
    Raises VerificationFailed where the canonical graph computes something else than the file; InvalidModel for a
    file that is missing, damaged or not an ONNX model, and for external weights outside its folder;
    UnsupportedModel for ops that the canonical opset cannot express; LimitExceeded for a file that asks for more than
    the limits.
    """
    folder = open_folder(model)
    if folder is not None:
        model = folder.model
    fixed = mapping_of(constants)
    if isinstance(model, Model):
        return convert(model, example, trust=trust, limits=limits, constants=fixed) if fixed else model
    loaded = _load(model, example, verify, trust, run, fold_batch_norm, fixed, limits)
    from_file = isinstance(model, (str, os.PathLike)) and not is_convertible(model)
    if from_file and loaded.source is None and not fixed:
        options = {"run": run, "fold_batch_norm": fold_batch_norm}
        object.__setattr__(loaded, "file", ModelFile.of(model, options))
    return loaded if folder is None else folder.described(loaded)


def _load(
    model: Any,
    example: Any,
    verify: bool,
    trust: bool,
    run: bool,
    fold_batch_norm: bool,
    constants: Mapping[str, Any],
    limits: Limits | None,
) -> Model:
    """A Model from anything but a folder of Hugging Face."""

    def converted() -> Model:
        return convert(
            model, example, trust=trust, limits=limits, fold_batch_norm=fold_batch_norm, constants=constants
        )

    if not isinstance(model, (onnx.ModelProto, str, os.PathLike)) or is_convertible(model):
        return converted()
    try:
        with limited(limits):
            proto = in_order(model if isinstance(model, onnx.ModelProto) else read_onnx(model))
    except InvalidModel:
        # A frozen graph of TensorFlow has the suffix, too.
        if (
            isinstance(model, onnx.ModelProto)
            or Path(model).suffix.lower() != ".pb"
            or not os.path.isfile(model)
        ):
            raise
        return converted()
    try:
        with limited(limits), preparing(proto):
            return _loaded(proto, verify, run, fold_batch_norm, constants, _name_of(model))
    except DecodeError as error:
        named = "" if isinstance(model, onnx.ModelProto) else f"{os.fspath(model)}: "
        raise InvalidModel(
            f"{named}the graphs within one another are too deep for protobuf. Fix: export fewer nested branches"
        ) from error
    except ConversionError as error:
        if isinstance(model, onnx.ModelProto):
            raise
        raise type(error)(f"{os.fspath(model)}: {error}") from error


def _name_of(model: onnx.ModelProto | str | os.PathLike[str]) -> str:
    """The path of a file, for a command that writes it anew."""
    return "MODEL.onnx" if isinstance(model, onnx.ModelProto) else os.fspath(model)


def _loaded(
    proto: onnx.ModelProto, verify: bool, run: bool, fold: bool, constants: Mapping[str, Any], name: str
) -> Model:
    """The Model of a file's proto. name: of the file."""
    check(proto, shapes=False)
    if is_canonical(proto):
        if not fold and not keeps_batch_norm(proto):
            raise ConversionError(
                "the file was converted with BatchNorm folded into the layers before it. Fix: convert the original "
                f"again, onnxplain convert ORIGINAL -o {name} --no-fold, or convert(original, fold_batch_norm=False)"
            )
        if not constants:
            return Model(proto)
    given, notes = keep_numbers(normalise_axes(proto, run=run))
    proto, _ = fix_inputs(given, constants)
    canonical = canonicalise(proto, fold_batch_norm=fold and not keeps_batch_norm(proto), dynamic_batch=run)
    refuse_text(canonical)
    _state(canonical, notes, stacklevel=6)
    if verify and run:
        refuse_oversized(canonical)
    found = _verified_file(given, canonical, constants) if verify and run else None
    return Model(canonical, None, found, _other(proto, canonical))


def _verified_file(
    proto: onnx.ModelProto, canonical: onnx.ModelProto, constants: Mapping[str, Any]
) -> Verification | None:
    """Compare the canonical graph of a file with the file, which is fed the constants.

    None where noise is no input for it, where it draws, or where it runs for too long: it is compared when explained.
    """
    if draws(proto):
        return None
    trial = None
    try:
        with current().trial() as trial:
            converted = of_file(proto, None, constants=constants)
            return verify_graph(
                canonical, converted.reference, converted.example, batches=0, tolerance=TOLERANCE, seed=0
            )
    except NoFiniteOutput:
        return None
    except VerificationFailed as error:
        if trial is not None and trial.stopped:
            return None
        # The options of `convert` are not those of `load`.
        what = str(error).partition(". Fix: ")[0]
        raise VerificationFailed(
            f"{what}. Fix: report the file as a defect of onnxplain; verify=False (--no-verify) loads the graph as "
            "it is"
        ) from error
    except ConversionError:
        return None


def _other(original: onnx.ModelProto | None, canonical: onnx.ModelProto) -> onnx.ModelProto | None:
    """The original, where its graph is not the canonical one."""
    if original is None or _content(original) == _content(canonical):
        return None
    return original


def _content(proto: onnx.ModelProto) -> tuple[Any, ...]:
    """What a model computes, but for its names of nodes."""
    graph = proto.graph
    nodes = [
        (node.op_type, node.domain, *node.input, "", *node.output, *node.attribute) for node in graph.node
    ]
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    return nodes, list(graph.initializer), opsets, list(proto.functions)


def _state(proto: onnx.ModelProto, notes: Sequence[str], stacklevel: int = 4) -> None:
    """Warn of what the user must know of a conversion, and store it in the model."""
    for note in notes:
        warnings.warn(note, stacklevel=stacklevel)
    if notes:
        helper.set_model_props(proto, {**_metadata(proto), NOTE_KEY: "; ".join(notes)})


def _metadata(proto: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in proto.metadata_props}


__all__ = ["NOTE_KEY", "TOLERANCE", "convert", "load"]
