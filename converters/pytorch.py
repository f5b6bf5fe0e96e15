"""Convert PyTorch: an nn.Module with an example, an ExportedProgram, or a .pt2 file.

Returns the exporter's ONNX graph, unoptimised, the source whose FX node names are the graph's tensor names,
and the original as a reference to verify against. The module is exported in inference mode and given back
exactly as it came. Refuses what torch.export cannot trace, in one line.
"""

from __future__ import annotations

import contextlib
import inspect
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import ml_dtypes
import numpy as np
import onnx

from converters.errors import ConversionError, InvalidModel, UnsupportedModel, one_line
from converters.frameworks import import_framework
from converters.model import PyTorchSource
from converters.quiet import quiet
from converters.rebatch import BATCH
from converters.verify import Arrays, FreeAxes, Reference

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
    example: Arrays
    notes: tuple[str, ...] = ()
    free_axes: FreeAxes = field(default_factory=dict)
    at_example: Callable[[], Converted] | None = None
    """Convert the same for inputs of the example's sizes, where the source leaves more than the batch open."""


def is_pytorch(source: object) -> bool:
    """Whether an object is PyTorch's, told without importing PyTorch."""
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(source).__mro__)


def convert_module(module: torch.nn.Module, example: Any, free_axes: FreeAxes | None = None) -> Converted:
    """Convert an nn.Module. `example` is a tensor or array, a tuple of them, or a dict by argument name.

    free_axes: {argument: {axis: symbol}}, the axes besides the batch whose size is free.
    """
    torch = import_framework("torch")
    if example is None:
        raise ConversionError(
            f"{type(module).__name__} is an nn.Module: give an `example` input, from which it is traced"
        )
    module = _unwrapped(torch, module)
    arguments, keywords = _arguments(torch, module, example)
    stated = _stated_axes(torch, module, arguments, keywords, free_axes or {})
    with _inference_mode(torch, module):
        program, notes = _export(torch, module, arguments, keywords, stated)
        proto, decomposed = _to_onnx(torch, program)
    names = _input_names(proto)
    leaves = _tensors(torch, (arguments, keywords))
    free = {name: axes for name, axes in zip(names, stated, strict=True) if axes}
    _name_axes(proto, free)
    batch = None if not notes else int(leaves[0].shape[0])
    reference = Reference(_module_runner(torch, module, arguments, keywords, names), _label(torch), batch)
    feeds = {name: to_numpy(leaf) for name, leaf in zip(names, leaves, strict=True)}
    return Converted(proto, PyTorchSource(decomposed, names), reference, feeds, notes, free)


def convert_program(program: ExportedProgram) -> Converted:
    """Convert an ExportedProgram, with the inputs that it was traced with as its example."""
    torch = import_framework("torch")
    if program.example_inputs is None:
        raise UnsupportedModel("the ExportedProgram holds no example inputs; export it with them")
    arguments, keywords = program.example_inputs
    proto, decomposed = _to_onnx(torch, program)
    names = _input_names(proto)
    leaves = _tensors(torch, (arguments, keywords))
    first = next((info for info in proto.graph.input if info.type.tensor_type.shape.dim), None)
    fixed = first is not None and first.type.tensor_type.shape.dim[0].HasField("dim_value")
    batch = int(leaves[0].shape[0]) if fixed else None
    runner = _module_runner(torch, program.module(), arguments, keywords, names)
    feeds = {name: to_numpy(leaf) for name, leaf in zip(names, leaves, strict=True)}
    return Converted(proto, PyTorchSource(decomposed, names), Reference(runner, _label(torch), batch), feeds)


def load_program(path: str | os.PathLike[str]) -> ExportedProgram:
    """Read a .pt2 file, as torch.export.load does: without unpickling objects of other classes."""
    torch = import_framework("torch")
    if not os.path.isfile(path):
        raise InvalidModel(f"{os.fspath(path)} does not exist")
    try:
        with quiet("torch"):
            return cast("ExportedProgram", torch.export.load(path))
    except Exception as error:  # zip, JSON and schema errors have no common base
        raise InvalidModel(
            f"{os.fspath(path)} is no .pt2 file, or a damaged one: {one_line(error)}"
        ) from error


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """A tensor as an array; bfloat16 keeps its type."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.numpy()


def _label(torch: Any) -> str:
    return f"PyTorch {torch.__version__}"


def _unwrapped(torch: Any, module: Any) -> Any:
    """The module inside torch.compile's or a data-parallel wrapper, whose forward has the names."""
    if hasattr(module, "_orig_mod"):
        return _unwrapped(torch, module._orig_mod)
    parallel = (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)
    return _unwrapped(torch, module.module) if isinstance(module, parallel) else module


def _arguments(torch: Any, module: torch.nn.Module, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as positional and keyword arguments, with tensors on the module's device."""
    weight = next(itertools.chain(module.parameters(), module.buffers()), None)
    device = weight.device if weight is not None else torch.device("cpu")
    floating = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)

    def prepare(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            tensor = torch.from_numpy(np.ascontiguousarray(value)).to(device)
            # NumPy makes float64 unasked; a float32 module would refuse it.
            return tensor.to(floating) if value.dtype == np.float64 and floating is not None else tensor
        return value.detach().to(device) if isinstance(value, torch.Tensor) else value

    tree_map = torch.utils._pytree.tree_map
    if isinstance(example, dict):
        return (), {name: tree_map(prepare, value) for name, value in example.items()}
    values = tuple(example) if isinstance(example, (tuple, list)) else (example,)
    return tuple(tree_map(prepare, value) for value in values), {}


def _tensors(torch: Any, tree: Any) -> list[torch.Tensor]:
    """The tensors of nested arguments, in the order in which the exporter numbers them."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


@contextlib.contextmanager
def _inference_mode(torch: Any, module: torch.nn.Module) -> Iterator[None]:
    """Every submodule in eval mode, each given back its own flag, whatever happens."""
    flags = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in flags:
            part.training = training


def _refuse_quantized(module: torch.nn.Module) -> None:
    """Raise UnsupportedModel for modules whose weights are packed codes: no tracer sees into them."""
    for name, part in module.named_modules():
        if type(part).__module__.startswith("torch.ao.nn.") and ".quantized" in type(part).__module__:
            raise UnsupportedModel(
                f"torch.export cannot trace the quantized module {name!r} ({type(part).__name__}): convert the float "
                "network, and quantize its ONNX file with onnxruntime.quantization"
            )


def _stated_axes(
    torch: Any, module: Any, arguments: Sequence[Any], keywords: Mapping[str, Any], free_axes: FreeAxes
) -> list[Mapping[int, str]]:
    """For every tensor of the arguments, in the exporter's order, the axes that the user calls free."""
    named = [*zip(_parameters(module, len(arguments)), arguments, strict=True), *keywords.items()]
    unknown = [name for name in free_axes if name not in dict(named)]
    if unknown:
        raise ConversionError(
            f"free_axes names {unknown[0]!r}; the example's arguments are {', '.join(dict(named))}"
        )
    return [free_axes.get(name, {}) for name, value in named for _ in _tensors(torch, value)]


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


def _export(
    torch: Any,
    module: torch.nn.Module,
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
    stated: Sequence[Mapping[int, str]],
) -> tuple[ExportedProgram, tuple[str, ...]]:
    """Trace with a symbolic batch; where that fails, with the example's batch, and a note that says so."""
    refusal: Exception | None = None
    leaves = _tensors(torch, (arguments, keywords))
    batch = leaves[0].shape[0] if leaves and leaves[0].ndim else 0
    with quiet("torch"):
        if batch:
            # A batch of 0 or 1 would be frozen by the tracer.
            traced = _with_batch(torch, (arguments, keywords), batch, max(batch, 2))
            dynamic = _free_axes(torch, (arguments, keywords), batch, stated)
            try:
                return _trace(torch, module, traced[0], traced[1], dynamic), ()
            except Exception as error:  # torch.export documents no exceptions
                refusal = error
        try:
            fixed = _free_axes(torch, (arguments, keywords), 0, stated) if any(stated) else None
            program = _trace(torch, module, arguments, keywords, fixed)
        except Exception as error:
            _refuse_quantized(module)
            raise UnsupportedModel(
                f"torch.export cannot trace {type(module).__name__}: {one_line(error)}"
            ) from error
    why = one_line(refusal, 160) if refusal is not None else "the first input has no batch axis"
    return program, (f"PyTorch's own program is traced for the example's batch size alone: {why}",)


def _trace(torch: Any, module: Any, arguments: Any, keywords: Any, dynamic: Any) -> ExportedProgram:
    shapes = None if dynamic is None else {**_by_parameter(module, dynamic[0]), **dynamic[1]}
    program = torch.export.export(module, arguments, keywords, dynamic_shapes=shapes, strict=False)
    return cast("ExportedProgram", program)


def _parameters(module: Any, count: int) -> list[str]:
    """The parameter that each positional argument goes to; *args take all that are left."""
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        left = count - len(names)
        names += [parameter.name] * (left if parameter.kind is parameter.VAR_POSITIONAL else min(left, 1))
    return names


def _by_parameter(module: Any, positional: Sequence[Any]) -> dict[str, Any]:
    """What belongs to positional arguments, by the names that forward gives them; *args take a tuple."""
    names = _parameters(module, len(positional))
    collects = {
        p.name for p in inspect.signature(module.forward).parameters.values() if p.kind is p.VAR_POSITIONAL
    }
    found: dict[str, Any] = {}
    for name, value in zip(names, positional, strict=True):
        found[name] = (*found.get(name, ()), value) if name in collects else value
    return found


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


def _to_onnx(torch: Any, program: torch.export.ExportedProgram) -> tuple[onnx.ModelProto, ExportedProgram]:
    """The exporter's graph, with nothing folded, and the decomposed program that its names come from."""
    try:
        with quiet("torch", "onnxscript"):
            exported = torch.onnx.export(
                program, dynamo=True, optimize=False, opset_version=_EXPORT_OPSET, verbose=False
            )
            _tell_apart(exported.model.graph)
            return exported.model_proto, exported.exported_program
    except Exception as error:  # the exporter's errors have no common base
        raise UnsupportedModel(f"the model has no ONNX form: {_cause(error)}") from error


def _tell_apart(graph: onnx_ir.Graph) -> None:
    """Rename the parameters whose name is also that of an input or of a node's output, such as `x` or `mean`."""
    values = (*graph.inputs, *(value for node in graph.all_nodes() for value in node.outputs))
    taken = {value.name for value in values if value.name}
    for name in taken.intersection(graph.initializers):
        # No other tensor can be called so: a module's attribute is a parameter or has parameters.
        graph.initializers[name].name = f"{name}.stored"


def _cause(error: BaseException) -> str:
    """The first line of the innermost cause: the exporter wraps it in a page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.strip()


def _input_names(proto: onnx.ModelProto) -> tuple[str, ...]:
    stored = {tensor.name for tensor in proto.graph.initializer}
    return tuple(info.name for info in proto.graph.input if info.name not in stored)


def _module_runner(torch: Any, module: Any, arguments: Any, keywords: Any, names: Sequence[str]) -> Any:
    """A function from arrays by ONNX name to the original's outputs, in order."""
    pytree = torch.utils._pytree

    def run(feeds: Arrays) -> list[np.ndarray]:
        waiting = iter(names)

        def fill(value: Any) -> Any:
            if not isinstance(value, torch.Tensor):
                return value
            array = feeds[next(waiting)]
            if array.dtype == ml_dtypes.bfloat16:
                return torch.from_numpy(array.astype(np.float32)).to(value.device, torch.bfloat16)
            return torch.from_numpy(np.array(array)).to(value.device)

        given, named = pytree.tree_map(fill, (arguments, keywords))
        flags = _inference_mode(torch, module) if isinstance(module, torch.nn.Module) else torch.no_grad()
        # An exported program's module has its mode traced in, and refuses eval().
        if type(module).__module__.startswith("torch.fx") or hasattr(module, "_guards_fn"):
            flags = torch.no_grad()
        with flags, quiet():
            result = module(*given, **named)
        return [to_numpy(leaf) for leaf in pytree.tree_leaves(result) if isinstance(leaf, torch.Tensor)]

    return run
