"""Convert PyTorch: an nn.Module with an example, an ExportedProgram, or a .pt2 file.

Returns the exporter's ONNX graph, unoptimised, the source whose FX node names are the graph's tensor names,
and the original as a reference to verify against. The module is exported in inference mode and restored
afterwards. Refuses models that torch.export cannot trace, in one line.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import onnx

from converters.errors import ConversionError, ExampleNeeded, InvalidModel, UnsupportedModel, one_line
from converters.model import PyTorchSource
from converters.passes.rebatch import BATCH
from converters.sources.frameworks import import_framework
from converters.sources.torch_call import (
    TorchCall,
    batched_experts,
    by_parameter,
    exclusive,
    flat_forward,
    inference_mode,
    make_call,
    run_call,
    runner,
    tensors_of,
    to_numpy,
)
from converters.sources.torch_ops import translations
from converters.sources.torch_program import state_squeezed_axes
from converters.sources.torch_refusals import refusal
from converters.sources.torch_samples import reads_one_sample
from converters.sources.torch_weights import fold_weights
from converters.system.quiet import quiet
from converters.types import NamedArrays
from converters.verify import FreeAxes, Reference

if TYPE_CHECKING:
    import onnx_ir
    import torch
    from torch.export import ExportedProgram

# The exporter writes attention as one op from opset 23 on; below, as products and a softmax.
_EXPORT_OPSET = 20


@dataclass(frozen=True)
class Converted:
    """What a framework's converter returns: the graph as exported, its source, and how to check it."""

    proto: onnx.ModelProto
    source: Any
    reference: Reference
    example: NamedArrays
    notes: tuple[str, ...] = ()
    free_axes: FreeAxes = field(default_factory=dict)
    at_example: Callable[[], Converted] | None = None
    """Convert the same for inputs of the example's sizes, where the source leaves more than the batch open."""


def is_pytorch(source: object) -> bool:
    """Whether an object is PyTorch's, told without importing PyTorch."""
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(source).__mro__)


@exclusive
def convert_module(module: torch.nn.Module, example: Any, free_axes: FreeAxes | None = None) -> Converted:
    """Convert an nn.Module. `example` is a tensor or array, a tuple of them, or a dict by argument name.

    Arguments without a tensor are constants of the conversion.
    free_axes: {argument: {axis: symbol}}, the axes besides the batch whose size is free.
    """
    torch = import_framework("torch")
    module = _unwrapped(torch, module)
    _refuse_untraceable(torch, module)
    if example is None:
        raise ExampleNeeded(
            f"{type(module).__name__} is an nn.Module, which is traced from an example. Fix: give an `example` input, "
            "as in onnxplain.convert(module, example) (--example FILE), and use the Model that it returns; a factory "
            "returns (net, example), and for a network of images `preprocessing` (--size 224) is enough"
        )
    call = make_call(torch, module, example)
    _refuse_inputs(torch, call)
    stated = _stated_axes(torch, call, free_axes or {})
    with inference_mode(torch, module):
        traced = _export(torch, call, stated)
        proto, decomposed = to_onnx(torch, traced.program)
    names = _input_names(proto)
    leaves = tensors_of(torch, call.tree)
    free = {name: axes for name, axes in zip(names, stated, strict=True) if axes}
    _name_axes(proto, free)
    reference = Reference(runner(torch, traced.call, names), _label(torch), traced.batch)
    feeds = {name: to_numpy(leaf) for name, leaf in zip(names, leaves, strict=True)}
    source = PyTorchSource(decomposed, names, outputs=_output_names(proto), call=traced.call)
    return Converted(proto, source, reference, feeds, traced.notes, free)


@exclusive
def convert_program(program: ExportedProgram) -> Converted:
    """Convert an ExportedProgram, with the inputs that it was traced with as its example."""
    torch = import_framework("torch")
    if program.example_inputs is None:
        raise UnsupportedModel(
            "the ExportedProgram holds no example inputs. Fix: export it with them, or convert the nn.Module"
        )
    arguments, keywords = program.example_inputs
    call = TorchCall(program.module(), tuple(arguments), dict(keywords), {})
    proto, decomposed = to_onnx(torch, program)
    names = _input_names(proto)
    leaves = tensors_of(torch, call.tree)
    first = next((info for info in proto.graph.input if info.type.tensor_type.shape.dim), None)
    fixed = first is not None and first.type.tensor_type.shape.dim[0].HasField("dim_value")
    batch = int(leaves[0].shape[0]) if fixed else None
    feeds = {name: to_numpy(leaf) for name, leaf in zip(names, leaves, strict=True)}
    reference = Reference(runner(torch, call, names), _label(torch), batch)
    source = PyTorchSource(decomposed, names, outputs=_output_names(proto), call=call)
    return Converted(proto, source, reference, feeds)


def load_program(path: str | os.PathLike[str]) -> ExportedProgram:
    """Read a .pt2 file that the user trusts: torch.export.load unpickles parts of it and evaluates others."""
    torch = import_framework("torch")
    if not os.path.isfile(path):
        raise InvalidModel(f"{os.fspath(path)} does not exist. Fix: give the path of an existing .pt2 file")
    try:
        with quiet("torch"):
            return cast("ExportedProgram", torch.export.load(path))
    except Exception as error:  # zip, JSON and schema errors have no common base
        raise InvalidModel(
            f"{os.fspath(path)} is not a .pt2 file, or a damaged one ({one_line(error, 120)}). "
            "Fix: write it again with torch.export.save"
        ) from error


def _label(torch: Any) -> str:
    return f"PyTorch {torch.__version__}"


def _unwrapped(torch: Any, module: Any) -> Any:
    """The module inside torch.compile's or a data-parallel wrapper, whose forward has the names."""
    if hasattr(module, "_orig_mod"):
        return _unwrapped(torch, module._orig_mod)
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    return _unwrapped(torch, module.module) if isinstance(module, parallel) else module


def _refuse_untraceable(torch: Any, module: Any) -> None:
    """Raise UnsupportedModel for TorchScript, and for weights that are not dense."""
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            where = f"the submodule {name!r}" if name else "the model"
            raise UnsupportedModel(
                f"{where} is TorchScript (torch.jit.trace or torch.jit.script), which holds no Python code to trace. "
                "Fix: give the nn.Module that it was made from"
            )
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if tensor.layout is not torch.strided:
            raise UnsupportedModel(
                f"the weight {name!r} is sparse, and sparse tensors have no ONNX form. Fix: call .to_dense() on it"
            )


def _refuse_inputs(torch: Any, call: TorchCall) -> None:
    """Raise UnsupportedModel for inputs that no graph takes."""
    for name, value in call.named:
        for tensor in tensors_of(torch, value):
            if tensor.is_complex():
                raise UnsupportedModel(
                    f"the input {name!r} is complex, and ONNX graphs take real numbers. Fix: give "
                    "torch.view_as_real(x), and begin forward with torch.view_as_complex"
                )
            if tensor.layout is not torch.strided:
                raise UnsupportedModel(
                    f"the input {name!r} is sparse, and ONNX graphs take dense tensors. Fix: give x.to_dense()"
                )


def _refuse_quantized(module: torch.nn.Module) -> None:
    """Raise UnsupportedModel for modules whose weights are packed codes: no tracer sees into them."""
    for name, part in module.named_modules():
        if type(part).__module__.startswith("torch.ao.nn.") and ".quantized" in type(part).__module__:
            raise UnsupportedModel(
                f"torch.export cannot trace the quantized module {name!r} ({type(part).__name__}). Fix: convert the "
                "float network, and quantize its ONNX file with onnxruntime.quantization"
            )


def _stated_axes(torch: Any, call: TorchCall, free_axes: FreeAxes) -> list[Mapping[int, str]]:
    """For every tensor of the arguments, in the exporter's order, the axes that the user calls free."""
    known = dict(call.named)
    unknown = [name for name in free_axes if name not in known]
    if unknown:
        raise ConversionError(
            f"free_axes names {unknown[0]!r}; the example's arguments are {', '.join(known)}. Fix: give "
            "free_axes={argument: {axis: symbol}} with one of these names"
        )
    return [free_axes.get(name, {}) for name, value in call.named for _ in tensors_of(torch, value)]


def _name_axes(proto: onnx.ModelProto, free: FreeAxes) -> None:
    """Give the free axes of the inputs, and axes of the same size elsewhere, the symbols that the user chose."""
    symbols: dict[str, str] = {}
    for info in proto.graph.input:
        for axis, symbol in free.get(info.name, {}).items():
            if known := info.type.tensor_type.shape.dim[axis].dim_param:
                symbols.setdefault(known, symbol)
    for info in (*proto.graph.input, *proto.graph.output, *proto.graph.value_info):
        for dim in info.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_param = symbols[dim.dim_param]


@dataclass(frozen=True)
class _Traced:
    """A program, the call that it computes, the one batch that it takes (None: any), and notes for the user."""

    program: ExportedProgram
    call: TorchCall
    batch: int | None
    notes: tuple[str, ...]


def _export(torch: Any, call: TorchCall, stated: Sequence[Mapping[int, str]]) -> _Traced:
    """Trace with a symbolic batch; where that fails, with the example's batch, and a note that says so."""
    refused: Exception | None = None
    leaves, left_out = tensors_of(torch, call.tree), list[str]()
    batch = next((int(leaf.shape[0]) for leaf in leaves if leaf.ndim), 0)
    alone = batch == 1 and reads_one_sample(torch, call)
    if batch and not alone:
        # The tracer would freeze a batch of 0 or 1.
        traced = call.with_tree(_with_batch(torch, call.tree, batch, max(batch, 2)))
        try:
            program = _trace(torch, traced, _free_axes(torch, call.tree, batch, stated), left_out)
            return _Traced(program, call, None, _left_out(left_out))
        except ConversionError:
            raise
        except Exception as error:  # torch.export documents no exceptions
            refused = error
    call = dataclasses.replace(call, adds_axis=batch == 1)
    fixed = _free_axes(torch, call.tree, 0, stated) if any(stated) else None
    try:
        program = _trace(torch, call, fixed, left_out)
    except ConversionError:
        raise
    except Exception as error:
        _refuse_quantized(call.module)
        _refuse_example(torch, call)
        raise UnsupportedModel(
            refusal(f"torch.export cannot trace {type(call.module).__name__}", error)
        ) from error
    note = _batch_note(alone, batch, refused)
    return _Traced(program, call, batch or None, (note, *_left_out(left_out)))


def _batch_note(alone: bool, batch: int, refused: Exception | None) -> str:
    """Return why a program takes the example's batch alone."""
    if alone:
        return "the model reads the first sample alone: it is converted for one sample at a time"
    why = "no input has a batch axis" if refused is None else one_line(refused, 160)
    return f"PyTorch's own program is traced for the example's batch size alone ({batch}): {why}"


def _left_out(outputs: Sequence[str]) -> tuple[str, ...]:
    """Return the note on outputs that are not tensors."""
    return (f"outputs left out, since they are not tensors: {', '.join(outputs)}",) if outputs else ()


def _refuse_example(torch: Any, call: TorchCall) -> None:
    """Raise UnsupportedModel where the module itself does not run on the example."""
    try:
        run_call(torch, call, tensors_of(torch, call.tree))
    except ConversionError:
        raise
    except Exception as error:  # the original is the user's code
        shapes = ", ".join(f"{name} {tuple(getattr(value, 'shape', ()))}" for name, value in call.named)
        if "does not require grad" in str(error):
            raise UnsupportedModel(
                refusal(f"{type(call.module).__name__} fails on the example", error)
            ) from error
        raise UnsupportedModel(
            f"{type(call.module).__name__} itself fails on the example, {shapes} ({one_line(error, 160)}). "
            "Fix: give an example on which module(example) runs"
        ) from error


def _trace(torch: Any, call: TorchCall, dynamic: Any, left_out: list[str]) -> ExportedProgram:
    """Trace a call; `dynamic` holds the free axes of its tensors, None where all are fixed."""
    shapes = None if dynamic is None else {**by_parameter(call.module, dynamic[0]), **dynamic[1]}
    with quiet("torch"), flat_forward(torch, call, left_out), batched_experts(call.module):
        program = torch.export.export(
            call.module, call.positional, call.keywords, dynamic_shapes=shapes, strict=False
        )
    return cast("ExportedProgram", program)


def _with_batch(torch: Any, tree: Any, batch: int, size: int) -> Any:
    """The same arguments with another batch size, samples repeated as needed."""

    def resize(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.ndim or value.shape[0] != batch:
            return value
        return value[torch.arange(size, device=value.device) % batch]

    return tree if size == batch else torch.utils._pytree.tree_map(resize, tree)


def _free_axes(torch: Any, tree: Any, batch: int, stated: Sequence[Mapping[int, str]]) -> Any:
    """For each tensor its free axes: those stated, and the first where its size is the batch."""
    symbol = torch.export.Dim(BATCH)
    waiting = iter(stated)

    def axes(value: Any) -> Any:
        if not isinstance(value, torch.Tensor):
            return None
        free = dict.fromkeys(next(waiting), torch.export.Dim.DYNAMIC)
        if batch and value.ndim and value.shape[0] == batch:
            free[0] = symbol
        return free or None

    return torch.utils._pytree.tree_map(axes, tree)


def to_onnx(torch: Any, program: torch.export.ExportedProgram) -> tuple[onnx.ModelProto, ExportedProgram]:
    """The exporter's graph, with nothing folded, and the decomposed program that its names come from.

    Where an op has no ONNX form, what depends on weights alone is evaluated, and the rest exported again.
    """
    with quiet("torch", "onnxscript"):
        state_squeezed_axes(torch, program)
        try:
            return _exported(torch, program)
        except Exception as error:  # the exporter's errors have no common base
            refused = error
        try:
            if fold_weights(torch, program):
                return _exported(torch, program)
        except Exception as error:
            refused = error
    raise UnsupportedModel(refusal("the model has no ONNX form", refused)) from refused


def _exported(torch: Any, program: ExportedProgram) -> tuple[onnx.ModelProto, ExportedProgram]:
    exported = torch.onnx.export(
        program,
        dynamo=True,
        optimize=False,
        opset_version=_EXPORT_OPSET,
        verbose=False,
        custom_translation_table=translations(torch),
    )
    _tell_apart(exported.model.graph)
    return exported.model_proto, exported.exported_program


def _tell_apart(graph: onnx_ir.Graph) -> None:
    """Rename the parameters whose name is also that of an input or of a node's output, such as `x` or `mean`."""
    values = (*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs))
    taken = {value.name for value in values if value.name}
    for name in taken.intersection(graph.initializers):
        # No other tensor can be called so: a module's attribute is a parameter or has parameters.
        graph.initializers[name].name = f"{name}.stored"


def _input_names(proto: onnx.ModelProto) -> tuple[str, ...]:
    stored = {tensor.name for tensor in proto.graph.initializer}
    return tuple(info.name for info in proto.graph.input if info.name not in stored)


def _output_names(proto: onnx.ModelProto) -> tuple[str, ...]:
    return tuple(info.name for info in proto.graph.output)
