"""Differentiate a step of a Scan while it is being written.

The sweep (analyzer/autodiff/sweep.py) reads a finished graph with known shapes; the step of a recurrent op is a
few calls that an Emitter has just made, between tensors that do not broadcast against each other. `pull_back` applies
the same rules to these calls, and `push_forward` applies it twice: the pull-back is linear in its
cotangents, so the pull-back of the pull-back is the Jacobian itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analyzer.graph.builder import EmittedNode, Emitter
from analyzer.graph.graph import Tensor, attribute_defaults
from analyzer.ops.registry import Kind, registered

Pairs = Sequence[tuple[Tensor, Tensor]]


def pull_back(op: Emitter, since: int, cotangents: Pairs, wrt: Sequence[Tensor]) -> list[Tensor]:
    """Emit the gradients at `wrt` through the calls that `op` has made from number `since` on.

    cotangents: (output of a call, its cotangent), an output as often as one likes.
    """
    calls = op.calls[since:]
    active = _depending_on(calls, wrt)
    found: dict[str, list[Tensor]] = {}
    for output, cotangent in cotangents:
        found.setdefault(output.name, []).append(cotangent)
    for call in reversed(calls):
        (y,) = call.outputs
        g = _total(op, found, y)
        if g is None or y.name not in active:
            continue
        rules = registered()[("", call.op_type)]
        assert rules.vjp is not None
        attributes = {**attribute_defaults(call.op_type, "", op.opset), **call.attributes}
        for u, entry in zip(call.inputs, rules.vjp(op, g, y, *call.inputs, **attributes), strict=False):
            if u is None or u.name not in active or entry is None:
                continue
            found.setdefault(u.name, []).append(entry() if callable(entry) else entry)
    gradients = [_total(op, found, u) for u in wrt]
    return [zeros(op, u) if g is None else g for u, g in zip(wrt, gradients, strict=True)]


def push_forward(op: Emitter, since: int, tangents: Pairs, outputs: Sequence[Tensor]) -> list[Tensor]:
    """Emit the tangents of `outputs` of the calls from number `since` on. tangents: (tensor, its tangent)."""
    # The value of these cotangents is never read: nothing that is linear in them depends on it.
    cotangents = [Tensor(f"{op.prefix}cotangent {index}", y.dtype) for index, y in enumerate(outputs)]
    middle = len(op.calls)
    wrt = [u for u, _ in tangents]
    gradients = pull_back(op, since, list(zip(outputs, cotangents, strict=True)), wrt)
    seeds = [(g, tangent) for g, (_, tangent) in zip(gradients, tangents, strict=True)]
    return pull_back(op, middle, seeds, cotangents)


def zeros(op: Emitter, like: Tensor) -> Tensor:
    """Zeros of the shape and dtype of a tensor, whatever it holds."""
    return op.Where(np.asarray(False), like, 0.0)


def _depending_on(calls: Sequence[EmittedNode], roots: Sequence[Tensor]) -> set[str]:
    active = {tensor.name for tensor in roots}
    for call in calls:
        rules = registered()[("", call.op_type)]
        passing = [u.name for i, u in enumerate(call.inputs) if u is not None and i not in rules.inactive]
        if rules.kind is not Kind.CONSTANT and active.intersection(passing):
            active.update(tensor.name for tensor in call.outputs)
    return active


def _total(op: Emitter, found: dict[str, list[Tensor]], tensor: Tensor) -> Tensor | None:
    parts = found.get(tensor.name)
    if not parts:
        return None
    if len(parts) > 1:
        found[tensor.name] = parts = [op.Add(*parts) if len(parts) == 2 else op.Sum(*parts)]
    return parts[0]
