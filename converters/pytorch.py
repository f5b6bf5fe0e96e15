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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import ml_dtypes
import numpy as np
import onnx

from converters.errors import ConversionError, InvalidModel, UnsupportedModel, one_line
from converters.frameworks import import_framework
from converters.model import PyTorchSource
from converters.quiet import quiet
from converters.rebatch import BATCH
from converters.verify import Arrays, Reference

if TYPE_CHECKING:
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


def is_pytorch(source: object) -> bool:
    """Whether an object is PyTorch's, told without importing PyTorch."""
    return any(kind.__module__.partition(".")[0] == "torch" for kind in type(source).__mro__)


def convert_module(module: torch.nn.Module, example: Any) -> Converted:
    """Convert an nn.Module. `example` is a tensor or array, a tuple of them, or a dict by argument name."""
    torch = import_framework("torch")
    if example is None:
        raise ConversionError(
            f"{type(module).__name__} is an nn.Module: give an `example` input, from which it is traced"
        )
    module = _unwrapped(torch, module)
    arguments, keywords = _arguments(torch, module, example)
    with _inference_mode(torch, module):
        program, notes = _export(torch, module, arguments, keywords)
        proto, decomposed = _to_onnx(torch, program)
    names = _input_names(proto)
    leaves = _tensors(torch, (arguments, keywords))
    batch = None if not notes else int(leaves[0].shape[0])
    reference = Reference(_module_runner(torch, module, arguments, keywords, names), _label(torch), batch)
    feeds = {name: to_numpy(leaf) for name, leaf in zip(names, leaves, strict=True)}
    return Converted(proto, PyTorchSource(decomposed, names), reference, feeds, notes)


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


def _export(
    torch: Any, module: torch.nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> tuple[ExportedProgram, tuple[str, ...]]:
    """Trace with a symbolic batch; where that fails, with the example's batch, and a note that says so."""
    refusal: Exception | None = None
    leaves = _tensors(torch, (arguments, keywords))
    batch = leaves[0].shape[0] if leaves and leaves[0].ndim else 0
    with quiet("torch"):
        if batch:
            # A batch of 0 or 1 would be frozen by the tracer.
            traced = _with_batch(torch, (arguments, keywords), batch, max(batch, 2))
            dynamic = _batch_axes(torch, (arguments, keywords), batch)
            try:
                return _trace(torch, module, traced[0], traced[1], dynamic), ()
            except Exception as error:  # torch.export documents no exceptions
                refusal = error
        try:
            program = _trace(torch, module, arguments, keywords, None)
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


def _by_parameter(module: Any, positional: Sequence[Any]) -> dict[str, Any]:
    """What belongs to positional arguments, by the names that forward gives them; *args take a tuple."""
    found: dict[str, Any] = {}
    for index, parameter in enumerate(inspect.signature(module.forward).parameters.values()):
        if parameter.kind is parameter.VAR_POSITIONAL:
            found[parameter.name] = tuple(positional[index:])
            break
        if index < len(positional):
            found[parameter.name] = positional[index]
    return found


def _with_batch(torch: Any, tree: Any, batch: int, size: int) -> Any:
    """The same arguments with another batch size, samples repeated as needed."""

    def resize(value: Any) -> Any:
        if not isinstance(value, torch.Tensor) or not value.ndim or value.shape[0] != batch:
            return value
        return value[torch.arange(size, device=value.device) % batch]

    return tree if size == batch else torch.utils._pytree.tree_map(resize, tree)


def _batch_axes(torch: Any, tree: Any, batch: int) -> Any:
    """For each tensor, whether its first axis is the batch."""
    symbol = torch.export.Dim(BATCH)

    def axes(value: Any) -> Any:
        is_batched = isinstance(value, torch.Tensor) and value.ndim and value.shape[0] == batch
        return {0: symbol} if is_batched else None

    return torch.utils._pytree.tree_map(axes, tree)


def _to_onnx(torch: Any, program: torch.export.ExportedProgram) -> tuple[onnx.ModelProto, ExportedProgram]:
    """The exporter's graph, with nothing folded, and the decomposed program that its names come from."""
    try:
        with quiet("torch", "onnxscript"):
            exported = torch.onnx.export(
                program, dynamo=True, optimize=False, opset_version=_EXPORT_OPSET, verbose=False
            )
            return exported.model_proto, exported.exported_program
    except Exception as error:  # the exporter's errors have no common base
        raise UnsupportedModel(f"the model has no ONNX form: {_cause(error)}") from error


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
