"""What is known of each ONNX op, one class an op: its forms in torch and TensorFlow, its VJP, its kind.

An op's class is a namespace of plain functions, never instantiated. Frameworks arrive as arguments.

    def torch(torch, *inputs, **attributes)        -> the output, or a tuple of outputs
    def tensorflow(tf, *inputs, **attributes)      -> the output, or a tuple of outputs
    def vjp(op, g, y, *inputs, **attributes)       -> one entry per input, optional ones included

- inputs are positional, in ONNX's order, None where omitted; attributes are keywords, completed with
  the schema's defaults (None where the schema has none).
- in `vjp`, `op` is a Builder, `g` the cotangent of the output `y`, inputs are Tensors. An entry is a
  Tensor, None ("no gradient"), or a function without arguments that emits one: it is called only if that
  input is active, so that no rule pays for gradients nobody wants. Where an op broadcasts, entries have the
  output's shape: the sweep sums them back. Ops with `several_outputs` get tuples for `g` and `y`, with
  None in `g` where an output does not lead to the target, and state a tuple of residuals.
- the class's base says its kind, from which its FullGrad bias follows (analyzer/autodiff/biases.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from analyzer.graph.graph import Node
from converters.straight_through import STRAIGHT_THROUGH


class Kind(Enum):
    """What the residual r = y − Σ J u of a node is; see analyzer/autodiff/biases.py."""

    HOMOGENEOUS = "homogeneous"
    AFFINE = "affine"
    ELEMENTWISE = "elementwise"
    SYMMETRIC = "symmetric Jacobian"
    MULTILINEAR = "multilinear"
    EXPLICIT_RULE = "explicit rule"
    CONSTANT = "piecewise constant"


@dataclass(frozen=True)
class Kink:
    """A place where an op has no derivative, or several, and the subgradient chosen there: on every backend."""

    where: str
    choice: str


class Op:
    """Base of every op's class. `inactive` lists inputs that never carry a gradient (shapes, indices).

    `kinks` states every choice of a subgradient; docs/subgradients.md is made from it.
    """

    kind: Kind
    domain: str = ""
    inactive: frozenset[int] = frozenset()
    broadcasts: bool = False
    several_outputs: bool = False
    has_bodies: bool = False
    """Whether it runs bodies, which read tensors of the graph around them. Its rules are then
    vjp(op, graph, node, g, names): the gradients at these tensors, which the node reads, and
    residual(op, graph, node, names): r of each output, None for one that is not a float."""
    quantizes: bool = False
    """Whether it rounds a float to codes, whose derivative is not zero but refused: a user wants another."""
    draws: bool = False
    """Whether it draws at random by a distribution that it reads: refused likewise."""
    straight_through: type[Op] | None = None
    """The class that stands in for this one at nodes marked to be differentiated straight through."""
    placed: bool = True
    """Whether its bias has a place in FullGrad's map; its share of the output is counted in any case."""
    kinks: tuple[Kink, ...] = ()
    torch: Callable[..., Any] | None = None
    tensorflow: Callable[..., Any] | None = None
    vjp: Callable[..., Any] | None = None
    residual: Callable[..., Any] | None = None
    """residual(op, active, y, *inputs, **attributes): r, or None where it is zero. `active` has a bool
    per input. Needed for the kinds AFFINE and EXPLICIT_RULE; for the other kinds the default is derived. With
    `several_outputs`, y is a tuple and so is the result, an entry per output."""


class Homogeneous(Op):
    """Positively homogeneous, f(a·u) = aᵏ·f(u) for a > 0, in its active inputs together.

    By Euler's theorem Σ J u = k·y, so r = (1 − k)·y. Linear and piecewise linear ops have k = 1, r = 0.
    """

    kind = Kind.HOMOGENEOUS
    degree: float = 1


class Affine(Op):
    """Affine in its active inputs together: r = the output where they are zero; states `residual`."""

    kind = Kind.AFFINE


class Elementwise(Op):
    """The Jacobian is diagonal, hence its own transpose: r = y − vjp(u)."""

    kind = Kind.ELEMENTWISE


class SymmetricJacobian(Op):
    """The Jacobian is its own transpose: r = y − vjp(u)."""

    kind = Kind.SYMMETRIC


class Multilinear(Op):
    """Linear in each active input alone: with k of them active r = (1 − k)·y."""

    kind = Kind.MULTILINEAR


class ExplicitRule(Op):
    """None of the others: states `residual` itself."""

    kind = Kind.EXPLICIT_RULE


class PiecewiseConstant(Op):
    """Derivative zero wherever it exists, or an output that is no float: what depends on it is a constant."""

    kind = Kind.CONSTANT


_REGISTRY: dict[tuple[str, str], type[Op]] = {}
OpClass = TypeVar("OpClass", bound=type[Op])


def register(cls: OpClass) -> OpClass:
    """Enter an op's class under its ONNX name. A second class of that name is refused."""
    key = (cls.domain, cls.__name__)
    if key in _REGISTRY:
        raise ValueError(
            f"the op {cls.__name__} is registered twice: {_REGISTRY[key].__module__} and {cls.__module__}"
        )
    if not hasattr(cls, "kind"):
        raise TypeError(f"the op {cls.__name__} has no kind: derive it from one of the kinds' classes")
    _REGISTRY[key] = cls
    return cls


def find(node: Node) -> type[Op] | None:
    """The class of a node's op, or None where there is none."""
    rules = _REGISTRY.get((node.domain, node.op_type))
    if rules is not None and rules.straight_through is not None and STRAIGHT_THROUGH in node.metadata:
        return rules.straight_through
    return rules


def registered() -> Mapping[tuple[str, str], type[Op]]:
    """Every op's class by (domain, op type)."""
    return dict(_REGISTRY)
