"""Describe one call of a PyTorch module: its tensors are the inputs, and other arguments are constants.

Reads a module and an example; returns a TorchCall. The outputs of the call become a flat list of tensors: values of
other types, such as None, numbers and caches of keys and values, are left out. Refuses an example without a tensor,
and one that does not fit the signature of forward.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import ml_dtypes
import numpy as np

from converters.errors import ConversionError, one_line
from converters.system.forks import ForkLock
from converters.system.quiet import quiet
from converters.types import NamedArrays

if TYPE_CHECKING:
    import torch

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class TorchCall:
    """The arguments of one call.

    `positional` and `keywords` hold the tensors, `constants` the keyword arguments without tensors.
    `adds_axis`: outputs without an axis of size 1 get a first axis, the batch of one sample.
    """

    module: Any
    positional: tuple[Any, ...]
    keywords: dict[str, Any]
    constants: dict[str, Any]
    adds_axis: bool = False

    @property
    def tree(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments that hold tensors."""
        return self.positional, self.keywords

    @property
    def named(self) -> list[tuple[str, Any]]:
        """The arguments that hold tensors, each with the name of its parameter."""
        names = parameters(self.module, len(self.positional))
        return [*zip(names, self.positional, strict=True), *self.keywords.items()]

    def with_tree(self, tree: tuple[tuple[Any, ...], dict[str, Any]]) -> TorchCall:
        """Return the same call with other tensors."""
        return dataclasses.replace(self, positional=tree[0], keywords=tree[1])


def make_call(torch: Any, module: Any, example: Any) -> TorchCall:
    """Return the call that an example describes, with tensors on the module's device."""
    weight = next(itertools.chain(module.parameters(), module.buffers()), None)
    device = weight.device if weight is not None else torch.device("cpu")
    floating = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)

    def prepare(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            if value.dtype.kind not in "biufc":
                raise ConversionError(
                    f"the example holds {value.dtype}. Fix: give an array or tensor of numbers"
                )
            tensor = torch.from_numpy(np.ascontiguousarray(value).reshape(value.shape)).to(device)
            # NumPy's default is float64; a float32 module would refuse it.
            return tensor.to(floating) if value.dtype == np.float64 and floating is not None else tensor
        return value.detach().to(device) if isinstance(value, torch.Tensor) else value

    tree_map = torch.utils._pytree.tree_map
    positional: tuple[Any, ...] = ()
    keywords: dict[str, Any] = {}
    if isinstance(example, Mapping):
        keywords = {name: tree_map(prepare, value) for name, value in example.items()}
    else:
        values = tuple(example) if isinstance(example, (tuple, list)) else (example,)
        positional = tuple(tree_map(prepare, value) for value in values)
    if not tensors_of(torch, (positional, keywords)):
        shape = positional and all(isinstance(value, int) for value in positional)
        axes = ", ".join(map(str, positional)) if shape else "2, 3, 224, 224"
        told = "" if shape else " for images of 224 x 224 pixels"
        raise ConversionError(
            f"the example holds no tensor or array, got {_shown(example)}. Fix: give an array or tensor, such as "
            f"torch.randn({axes}){told}"
        )
    _check_signature(module, positional, keywords)
    return _without_constants(torch, module, positional, keywords)


def _shown(example: Any) -> str:
    text = " ".join(repr(example).split())
    return text if len(text) <= 60 else f"{text[:59]}…"


def _check_signature(module: Any, positional: Sequence[Any], keywords: Mapping[str, Any]) -> None:
    """Raise ConversionError where forward does not take these arguments."""
    signature = inspect.signature(module.forward)
    try:
        signature.bind(*positional, **keywords)
    except TypeError as error:
        given = [f"{len(positional)} positional"] if positional else list(keywords)
        raise ConversionError(
            f"the example does not fit {type(module).__name__}.forward({', '.join(signature.parameters)}) "
            f"({one_line(error)}): it gives {', '.join(given) or 'no arguments'}. Fix: give a tuple in the order of "
            "the parameters, or a dict {parameter: tensor}"
        ) from error


def _without_constants(
    torch: Any, module: Any, positional: tuple[Any, ...], keywords: dict[str, Any]
) -> TorchCall:
    """Return the call with the arguments that hold no tensor set apart."""
    names = parameters(module, len(positional))
    plain = [not tensors_of(torch, value) for value in positional]
    if any(plain) and not _collects(module).intersection(names):
        first = plain.index(True)
        keywords = dict(zip(names[first:], positional[first:], strict=True)) | keywords
        positional = positional[:first]
    kept = {name: value for name, value in keywords.items() if tensors_of(torch, value)}
    return TorchCall(module, positional, kept, {n: v for n, v in keywords.items() if n not in kept})


def parameters(module: Any, count: int) -> list[str]:
    """Return the parameter of each positional argument; *args take all that are left."""
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        left = count - len(names)
        names += [parameter.name] * (left if parameter.kind is parameter.VAR_POSITIONAL else min(left, 1))
    return names


def _collects(module: Any) -> set[str]:
    """Return the parameter that takes any number of positional arguments."""
    found = inspect.signature(module.forward).parameters.values()
    return {parameter.name for parameter in found if parameter.kind is parameter.VAR_POSITIONAL}


def by_parameter(module: Any, positional: Sequence[Any]) -> dict[str, Any]:
    """Return values of positional arguments by the names that forward gives them; *args take a tuple."""
    collects, found = _collects(module), dict[str, Any]()
    for name, value in zip(parameters(module, len(positional)), positional, strict=True):
        found[name] = (*found.get(name, ()), value) if name in collects else value
    return found


def tensors_of(torch: Any, tree: Any) -> list[torch.Tensor]:
    """Return the tensors of nested arguments, in the order in which the exporter numbers them."""
    return [leaf for leaf in torch.utils._pytree.tree_leaves(tree) if isinstance(leaf, torch.Tensor)]


def flat_outputs(torch: Any, result: Any, left_out: list[str], path: str = "") -> list[torch.Tensor]:
    """Return the tensors of a result in order; other values but None are added to `left_out`."""
    if result is None:
        return []
    if isinstance(result, torch.Tensor):
        return [result]
    inside: list[tuple[Any, Any]] | None = None
    if isinstance(result, Mapping):
        inside = list(result.items())
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        inside = [(field.name, getattr(result, field.name)) for field in dataclasses.fields(result)]
    elif isinstance(result, (tuple, list)):
        inside = list(enumerate(result))
    elif "Cache" not in type(result).__name__:
        leaves = torch.utils._pytree.tree_leaves(result)
        inside = None if len(leaves) == 1 and leaves[0] is result else list(enumerate(leaves))
    if inside is None:
        left_out.append(f"{path or 'the result'} ({type(result).__name__})")
        return []
    found = (
        flat_outputs(torch, value, left_out, f"{path}.{key}" if path else str(key)) for key, value in inside
    )
    return list(itertools.chain.from_iterable(found))


def call_outputs(torch: Any, call: TorchCall, result: Any, left_out: list[str]) -> list[torch.Tensor]:
    """Return the tensors of a call's result, with the axis that the call adds."""
    found = flat_outputs(torch, result, left_out)
    if not found:
        raise ConversionError(
            f"{type(call.module).__name__}.forward returns no tensor ({type(result).__name__}). "
            "Fix: return the tensor to explain, such as the logits"
        )
    return [y[None] if call.adds_axis and 1 not in y.shape else y for y in found]


@contextlib.contextmanager
def flat_forward(torch: Any, call: TorchCall, left_out: list[str]) -> Iterator[None]:
    """Give the module a forward that takes the tensors of a call and returns a flat tuple of tensors."""
    module, original = call.module, call.module.forward
    own = module.__dict__.get("forward")
    signature = inspect.signature(original)
    kept = [p for p in signature.parameters.values() if p.name not in call.constants]

    @functools.wraps(original)
    def forward(*arguments: Any, **keywords: Any) -> Any:
        left_out.clear()
        return tuple(call_outputs(torch, call, original(*arguments, **keywords, **call.constants), left_out))

    forward.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own


@contextlib.contextmanager
def batched_experts(module: torch.nn.Module) -> Iterator[None]:
    """Let the mixtures of experts of transformers multiply in batches while a module is traced.

    It computes the same. Their other forms branch on the tokens of each expert, or use ops without an ONNX form.
    """
    key, batched = "_experts_implementation", "batched_mm"
    configs = {id(c): c for part in module.modules() if hasattr(c := getattr(part, "config", None), key)}
    before = [(config, getattr(config, key)) for config in configs.values()]
    try:
        for config, _ in before:
            setattr(config, key, batched)
        yield
    finally:
        for config, own in before:
            setattr(config, key, own)


# torch.export replaces parts of PyTorch while it traces, so that no module may run in another thread meanwhile.
_ONE_AT_A_TIME = ForkLock()


def exclusive(function: _Function) -> _Function:
    """Let one thread at a time trace a module or run it."""

    @functools.wraps(function)
    def locked(*arguments: Any, **keywords: Any) -> Any:
        with _ONE_AT_A_TIME:
            return function(*arguments, **keywords)

    return cast("_Function", locked)


@contextlib.contextmanager
def inference_mode(torch: Any, module: torch.nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode, and give each its own flag back, whatever happens. One thread at a time."""
    with _ONE_AT_A_TIME:
        yield from _evaluating(torch, module)


def _evaluating(torch: Any, module: torch.nn.Module) -> Iterator[None]:
    flags = [(part, part.training) for part in module.modules()]
    # The module of an exported program has its mode traced in, and refuses eval().
    traced = type(module).__module__.startswith("torch.fx") or hasattr(module, "_guards_fn")
    if not traced:
        module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in flags:
            part.training = training


def run_call(torch: Any, call: TorchCall, tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return the outputs of the module for other tensors, given in the order of `tensors_of`."""
    waiting = iter(tensors)
    positional, keywords = torch.utils._pytree.tree_map(
        lambda value: next(waiting) if isinstance(value, torch.Tensor) else value, call.tree
    )
    with inference_mode(torch, call.module), quiet():
        result = call.module(*positional, **keywords, **call.constants)
    return call_outputs(torch, call, result, [])


def runner(torch: Any, call: TorchCall, names: Sequence[str]) -> Any:
    """Return a function from arrays by ONNX name to the original's outputs, in order."""
    devices = [tensor.device for tensor in tensors_of(torch, call.tree)]

    def run(feeds: NamedArrays) -> list[np.ndarray]:
        given = [from_numpy(torch, feeds[name], at) for name, at in zip(names, devices, strict=True)]
        return [to_numpy(y) for y in run_call(torch, call, given)]

    return run


def from_numpy(torch: Any, array: np.ndarray, device: Any) -> Any:
    """Return an array as a tensor; bfloat16 keeps its type."""
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.astype(np.float32)).to(device, torch.bfloat16)
    return torch.from_numpy(np.array(array)).to(device)


def to_numpy(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor as an array; bfloat16 keeps its type."""
    tensor = tensor.detach().cpu().resolve_conj().resolve_neg()
    if str(tensor.dtype) == "torch.bfloat16":
        return tensor.float().numpy().astype(ml_dtypes.bfloat16)
    return tensor.numpy()
