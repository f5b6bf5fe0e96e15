"""Find where the backward pass of a PyTorch module is not the derivative of its forward pass.

Reads the call that was converted and arrays for its inputs. Runs the module under autograd twice: as it is, and as it
was exported. An export keeps no autograd.Function, `detach`, `no_grad` or gradient hook: the second run differentiates
straight through each of these passages. Returns both gradients and the passages that make the difference. A
passage that no gradient reaches, and one whose backward pass is the derivative, makes none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from converters.errors import ConversionError, one_line
from converters.model import PyTorchSource
from converters.sources.frameworks import import_framework
from converters.sources.torch_call import (
    TorchCall,
    call_outputs,
    from_numpy,
    inference_mode,
    tensors_of,
    to_numpy,
)
from converters.sources.torch_passages import Passage, Watch, nodes_of, watching
from converters.system.quiet import quiet
from converters.types import NamedArrays
from converters.verification.norms import norm

# One forward and one backward pass each.
MOST_TRIED = 32
# A Function may compute the derivative in another order.
_ROUNDINGS = 16


@dataclass(frozen=True)
class CustomPassage:
    """A passage whose backward pass is not the derivative.

    nodes: the nodes of the exported program that come from it, if any, each with the one that it reads.
    """

    passage: Passage
    nodes: Mapping[str, str]

    def __str__(self) -> str:
        return str(self.passage)


@dataclass(frozen=True)
class Backward:
    """The gradients of a module by its own backward pass and by that of the exported function, at each leaf.

    tolerance: relative L2 within which they agree, that of the module's precision.
    """

    own: NamedArrays
    exported: NamedArrays
    tolerance: float
    places: tuple[CustomPassage, ...]


def own_backward(
    source: PyTorchSource, feeds: NamedArrays, weights: NamedArrays, wrt: Sequence[str], tolerance: float
) -> Backward | None:
    """Return both gradients of Σ ⟨weights, output⟩; None where the module has no passage that a gradient reaches.

    feeds: arrays by ONNX name. weights: by output; random ones where the shape is another.
    wrt: inputs; a name that is not an input stands for every embedding lookup.
    tolerance: relative L2 from which on two gradients differ.
    Raises ConversionError where a run fails.
    """
    if source.call is None:
        return None
    torch = import_framework("torch")
    runs = _Runs(torch, source, {**source.constants, **feeds}, weights, wrt)
    try:
        with _frozen(torch, source.call.module):
            return runs.compared(tolerance)
    except Exception as error:  # the original is the user's code
        where = "; ".join(map(str, runs.watched.passages if runs.watched else ()))
        raise ConversionError(
            f"the module does not run under autograd on these inputs ({one_line(error, 160)})"
            + (f"; not compared: {where}" if where else "")
        ) from error


class _Runs:
    """Runs of one module under autograd. watched, outputs: of the last run."""

    def __init__(
        self, torch: Any, source: PyTorchSource, feeds: NamedArrays, weights: NamedArrays, wrt: Sequence[str]
    ) -> None:
        self.torch, self.source, self.feeds, self.weights = torch, source, feeds, weights
        self.call: TorchCall = source.call
        self.wrt = [name for name in source.inputs if name in wrt]
        self.embedded = len(self.wrt) < len(set(wrt))
        self.watched: Watch | None = None
        self.outputs: list[Any] = []

    def compared(self, tolerance: float) -> Backward | None:
        """Both gradients, and the passages each of which alone makes a difference."""
        torch, exported = self.torch, self.gradients(())
        watched, outputs = self.watched, self.outputs
        assert watched is not None
        passages = list(watched.passages)
        if not passages:
            return None
        precisions = [torch.finfo(y.dtype).eps for y in outputs if y.is_floating_point()]
        tolerance = max([tolerance, *(_ROUNDINGS * eps for eps in precisions)])
        own = self.gradients(passages)
        ys = [[to_numpy(y).astype(np.float64) for y in each] for each in (outputs, self.outputs)]
        if any(apart(a, b) > tolerance for a, b in zip(*ys, strict=True)):
            raise ConversionError("its outputs change where these passages are left out")
        places: tuple[CustomPassage, ...] = ()
        if differ(own, exported, tolerance):
            tried = passages[:MOST_TRIED]
            alone = [one for one in tried if differ(self.gradients((one,)), exported, tolerance)]
            nodes = nodes_of(self.source.program, watched)
            places = tuple(CustomPassage(one, nodes[one]) for one in alone or passages)
        return Backward(own, exported, tolerance, places)

    def gradients(self, kept: Sequence[Passage]) -> dict[str, np.ndarray]:
        """Return the gradient at each leaf, with the backward passes of `kept` as they are."""
        torch, call = self.torch, self.call
        leaves, (positional, keywords) = self._arguments()
        with watching(torch, call.module, kept, embedded=self.embedded) as watch:
            result = call.module(*positional, **keywords, **call.constants)
            outputs = call_outputs(torch, call, result, [])
            leaves |= watch.leaves
            found = self._backward(leaves, outputs)
        self.watched, self.outputs = watch, outputs
        return {
            name: to_numpy(torch.zeros_like(leaf) if g is None else g).astype(np.float64)
            for (name, leaf), g in zip(leaves.items(), found, strict=True)
        }

    def _backward(self, leaves: Mapping[str, Any], outputs: Sequence[Any]) -> Sequence[Any]:
        """Return the gradient at each leaf, None for zero."""
        weighted = zip(outputs, self._cotangents(outputs), strict=True)
        pairs = [(y, w) for y, w in weighted if w is not None and y.requires_grad]
        if not pairs or not leaves:
            return [None] * len(leaves)
        ys, ws = zip(*pairs, strict=True)
        found: Sequence[Any] = self.torch.autograd.grad(ys, list(leaves.values()), ws, allow_unused=True)
        return found

    def _arguments(self) -> tuple[dict[str, Any], Any]:
        """Return the inputs that are leaves, and the arguments of the module."""
        torch = self.torch
        leaves, given = dict[str, Any](), list[Any]()
        for name, old in zip(self.source.inputs, tensors_of(torch, self.call.tree), strict=True):
            tensor = from_numpy(torch, self.feeds[name], old.device).to(old.dtype)
            if name in self.wrt and tensor.is_floating_point():
                leaves[name] = tensor.requires_grad_()
                # A module may change its input in place, and a leaf may not be changed.
                tensor = tensor.clone()
            given.append(tensor)
        waiting = iter(given)
        tree = torch.utils._pytree.tree_map(
            lambda value: next(waiting) if isinstance(value, torch.Tensor) else value, self.call.tree
        )
        return leaves, tree

    def _cotangents(self, outputs: Sequence[Any]) -> list[Any]:
        """The weights over each output: those given; random ones of another shape; None where it is not explained."""
        torch, rng = self.torch, np.random.default_rng(0)
        found = list[Any]()
        for name, y in zip(self.source.outputs, outputs, strict=True):
            if name not in self.weights or not y.is_floating_point():
                found.append(None)
                continue
            given = self.weights[name]
            drawn = given if given.shape == tuple(y.shape) else rng.standard_normal(tuple(y.shape))
            found.append(torch.as_tensor(np.array(drawn, np.float32), dtype=y.dtype, device=y.device))
        return found


def differ(a: NamedArrays, b: NamedArrays, tolerance: float) -> bool:
    """Whether two gradients are apart at any leaf."""
    return any(apart(a[name], b[name]) > tolerance for name in a)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / max(‖a‖, ‖b‖); equal NaN and infinities count as equal."""
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    difference = norm(np.where(same, 0.0, a - b))
    return difference / max(norm(a), norm(b)) if difference else 0.0


@contextlib.contextmanager
def _frozen(torch: Any, module: Any) -> Iterator[None]:
    """Put a module in eval mode under autograd, without gradients of its weights."""
    asked = [weight for weight in module.parameters() if weight.requires_grad]
    for weight in asked:
        weight.requires_grad_(False)
    try:
        with inference_mode(torch, module), torch.enable_grad(), quiet():
            yield
    finally:
        for weight in asked:
            weight.requires_grad_(True)
