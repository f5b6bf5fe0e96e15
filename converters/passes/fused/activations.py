"""Activations of ONNX Runtime, some with a bias before them."""

from __future__ import annotations

from typing import Any

import onnx

from converters.graph.expansion import Expander, expands


@expands("Gelu")
def gelu(op: Expander, x: str) -> str:
    return str(op.Gelu(x))


@expands("BiasGelu")
def bias_gelu(op: Expander, x: str, bias: str) -> str:
    return str(op.Gelu(op.Add(x, bias)))


@expands("FastGelu")
def fast_gelu(op: Expander, x: str, bias: str | None = None) -> str:
    return str(op.Gelu(op.Add(x, bias) if bias else x, approximate="tanh"))


@expands("QuickGelu")
def quick_gelu(op: Expander, x: str, *, alpha: float = 1.702) -> str:
    return str(op.Mul(x, op.Sigmoid(op.Mul(x, alpha))))


@expands("ScaledSiLU")
def scaled_silu(op: Expander, x: str, *, scale: float = 1.0) -> str:
    return str(op.Mul(op.Mul(x, op.Sigmoid(x)), scale))


# Their parameters, in the order of `activation_params`, are attributes of the standard's ops.
_PARAMETERS: dict[str, tuple[str, ...]] = {
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "HardSwish": (),
    "LeakyRelu": ("alpha",),
    "Relu": (),
    "Selu": ("alpha", "gamma"),
    "Sigmoid": (),
    "Softplus": (),
    "Softsign": (),
    "Tanh": (),
    "ThresholdedRelu": ("alpha",),
}


def activated(op: Expander, y: str, activation: str | None, parameters: list[float] | None = None) -> str:
    """y after the activation that a fused layer names. Raises UnsupportedModel for one that ONNX lacks."""
    given = parameters or []
    if not activation:
        return y
    if activation == "Clip":
        return str(op.Clip(y, *(float(bound) for bound in given)))
    if activation == "QuickGelu":
        return str(quick_gelu(op, y, **({"alpha": given[0]} if given else {})))
    if activation not in _PARAMETERS or not onnx.defs.has(activation):
        raise op.refuse(f"has the activation {activation!r}, which has no standard form")
    attributes: dict[str, Any] = dict(zip(_PARAMETERS[activation], map(float, given), strict=False))
    return str(getattr(op, activation)(y, **attributes))
