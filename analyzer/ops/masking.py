"""Keep a derivative of 0 at 0, also where another factor of the chain rule is infinite or NaN.

A branch that a Where, a Max or a target does not take has the cotangent 0, and adds nothing to a gradient. So does an
input that a Relu or a Clip cuts off: its slope is 0. Reverse mode multiplies these zeros by what is left of the chain
all the same, and 0 · ∞ is NaN, as for Where(x > 0, √x, 0) at 0. With `op.masked` set, the sweep and FullGrad's products
are 0 there. Programs are masked only where a plain run gave NaN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.registry import Kind, Op

_SAME_SHAPE = frozenset({"Sqrt", "Reciprocal", "Relu"})
"""Elementwise ops of a kind that has others."""
_SELECTORS = frozenset({"Relu", "Clip", "HardSigmoid", "ThresholdedRelu", "Max", "Min"})
"""Ops that are flat around an input of slope 0."""


def product(op: Builder, g: Tensor, factor: Tensor) -> Tensor:
    """Return g · factor, in a masked program 0 where g is 0."""
    found = op.Mul(g, factor)
    return op.Where(op.Equal(g, 0.0), 0.0, found) if op.masked else found


def entries(
    op: Builder,
    rules: type[Op],
    g: Any,
    y: Any,
    inputs: Sequence[Tensor | None],
    attributes: Mapping[str, Any],
) -> Sequence[Any]:
    """Return the entries of a VJP rule, in a masked program with zeros kept where they are."""
    assert rules.vjp is not None
    if not op.masked or rules.several_outputs:
        entries: Sequence[Any] = rules.vjp(op, g, y, *inputs, **attributes)
        return entries
    unmoved = op.Equal(g, 0.0)
    if rules.__name__.endswith("Softmax"):
        # A row that is masked whole is NaN, and left out by a Where behind the softmax.
        y = op.Where(op.And(op.IsNaN(y), unmoved), 0.0, y)
    found: Sequence[Any] = rules.vjp(op, g, y, *inputs, **attributes)
    by_element = rules.kind is Kind.ELEMENTWISE or rules.__name__ in _SAME_SHAPE
    if not rules.broadcasts and not by_element:
        return found
    slopes: Sequence[Any] = (None,) * len(found)
    if rules.__name__ in _SELECTORS:
        one = op.Where(unmoved, op.tensor(1.0, g.dtype), 1.0)
        slopes = rules.vjp(op, one, y, *inputs, **attributes)
    # Further inputs of an op that does not broadcast, as the limits of a Clip, have entries of other shapes.
    count = len(found) if rules.broadcasts else 1
    kept = [partial(_masked, op, unmoved, *pair) for pair in zip(found[:count], slopes, strict=False)]
    return [*kept, *found[count:]]


def _masked(op: Builder, unmoved: Tensor, entry: Any, slope: Any) -> Tensor | None:
    entry, slope = (one() if callable(one) else one for one in (entry, slope))
    if entry is None:
        return None
    zero = unmoved if slope is None else op.Or(unmoved, op.Equal(slope, 0.0))
    return op.Where(zero, 0.0, entry)
