"""The functions that the standard has ops for, each as one formula.

A formula takes a Form, to be compared with what a file computes, or a Rounded, to be evaluated. FUNCTIONS is the table
of activations: a new one is one row. Sources: Hendrycks & Gimpel 2016 (GELU), Misra 2019 (Mish), Howard et al. 2019
(hard swish), Ba, Kiros & Hinton 2016 (LayerNorm), Zhang & Sennrich 2019 (RMSNorm).
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from converters.passes.joins.form import Form
from converters.passes.joins.rounded import Precision

Value = Any
"""A Form or a Rounded."""
Formula = Callable[..., Value]
Parameters = Mapping[str, float]


def sigmoid(x: Value) -> Value:
    """Return 1 / (1 + exp(−x))."""
    return 1 / (1 + (-x).function("exp"))


def softplus(x: Value) -> Value:
    """Return log(1 + exp(x)), exact for every x."""
    return x.function("softplus")


def softsign(x: Value) -> Value:
    """Return x / (1 + |x|)."""
    return x / (1 + x.function("abs"))


def relu(x: Value) -> Value:
    """Return max(x, 0)."""
    return x.clip(0.0, math.inf)


def hard_sigmoid(x: Value, alpha: Value, beta: Value) -> Value:
    """Return αx + β between 0 and 1."""
    return (alpha * x + beta).clip(0.0, 1.0)


def leaky_relu(x: Value, alpha: Value) -> Value:
    """Return x above zero and αx below."""
    return x.above(0.0).choose(x, alpha * x)


def elu(x: Value, alpha: Value) -> Value:
    """Return x above zero and α(exp(x) − 1) below."""
    return x.above(0.0).choose(x, alpha * (x.function("exp") - 1))


def gelu(x: Value) -> Value:
    """Return x·Φ(x)."""
    return 0.5 * x * (1 + (x * math.sqrt(0.5)).function("erf"))


def gelu_by_tanh(x: Value) -> Value:
    """Return the approximation of x·Φ(x) by tanh."""
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).function("tanh"))


def mean(x: Value, axes: tuple[int, ...], count: int) -> Value:
    """Return the mean over axes with `count` elements."""
    return x.total(axes) * (1 / count)


def rms_normalization(x: Value, scale: Value, epsilon: Value, axes: tuple[int, ...], count: int) -> Value:
    """Return x, its mean square brought to one, times a scale."""
    return x * (mean(x * x, axes, count) + epsilon) ** -0.5 * scale


def layer_normalization(
    x: Value, scale: Value, shift: Value, epsilon: Value, axes: tuple[int, ...], count: int
) -> Value:
    """Return x, its mean brought to zero and its variance to one, times a scale, plus a shift."""
    centred = x - mean(x, axes, count)
    return rms_normalization(centred, scale, epsilon, axes, count) + shift


def softmax(x: Value, axes: tuple[int, ...]) -> Value:
    """Return exp(x) over its sum; the largest element is taken off first."""
    raised = (x - x.largest(axes)).function("exp")
    return raised / raised.total(axes)


def log_softmax(x: Value, axes: tuple[int, ...]) -> Value:
    """Return the logarithm of softmax; the largest element is taken off first."""
    shifted = x - x.largest(axes)
    return shifted - shifted.function("exp").total(axes).function("log")


ParameterReader = Callable[[Parameters, Precision], Parameters | None]


def _as_written(found: Parameters, precision: Precision) -> Parameters | None:
    return found


def _bounds(found: Parameters, precision: Precision) -> Parameters | None:
    return found if -math.inf < found["low"] < found["high"] < math.inf else None


def _slope(found: Parameters, precision: Precision) -> Parameters | None:
    return found if 0 < found["alpha"] < 1 else None


def _above_zero(found: Parameters, precision: Precision) -> Parameters | None:
    return found if found["alpha"] > 0 else None


def _line(found: Parameters, precision: Precision) -> Parameters | None:
    """Return slope and offset of (kx + t between 0 and h)·c, whose largest value c·h must be 1."""
    given = {"outer": 1.0, "top": 1.0, **found}
    top = given["top"]
    if not top > 0 or not precision.equal(given["outer"], 1 / top, 1):
        return None
    alpha, beta = given["inner"] / top, given["offset"] / top
    return {"alpha": alpha, "beta": beta} if alpha > 0 and 0 < beta < 1 else None


def _linear_beyond(found: Parameters, precision: Precision) -> Parameters | None:
    """Accept a threshold from which on softplus(x) rounds to x."""
    at = found["threshold"]
    return {} if at > 0 and precision.round(at + math.log1p(math.exp(-at))) == precision.round(at) else None


@dataclass(frozen=True)
class Function:
    """An op of the standard.

    definition: its formula, with its parameters after x; it is the first form, too, unless forms has all of them.
    forms: what else files write. Parameters have any names.
    read: the definition's parameters from a form's; None where the op is not that function.
    inputs: the parameters that the op takes as inputs; the others are float32 attributes.
    stated: further attributes.
    in_double: whether the op's own constants are exact in float64.
    """

    op_type: str
    definition: Formula
    forms: tuple[Formula, ...] = ()
    read: ParameterReader = _as_written
    inputs: tuple[str, ...] = ()
    stated: Mapping[str, str] = field(default_factory=dict)
    in_double: bool = True

    @cached_property
    def patterns(self) -> tuple[Form, ...]:
        """The normal form of every way to write it."""
        return tuple(pattern(formula) for formula in self.forms or (self.definition,))


def pattern(formula: Formula, **fixed: Value) -> Form:
    """Return the normal form of a formula whose parameters, unless fixed, are free."""
    _, *names = inspect.signature(formula).parameters
    free = {name: Form.parameter(name) for name in names if name not in fixed}
    result: Form = formula(Form.atom("x"), **free, **fixed)
    return result


def _thresholded(x: Value, threshold: Value) -> Value:
    return x.above(threshold).choose(x, softplus(x))


FUNCTIONS: tuple[Function, ...] = (
    Function("Gelu", gelu),
    Function("Gelu", gelu_by_tanh, stated={"approximate": "tanh"}, in_double=False),
    Function(
        "HardSwish",
        lambda x: x * hard_sigmoid(x, 1 / 6, 0.5),
        (lambda x: x * hard_sigmoid(x, 1 / 6, 0.5), lambda x: x * (x + 3).clip(0.0, 6.0) / 6),
        in_double=False,
    ),
    Function("Mish", lambda x: x * softplus(x).function("tanh")),
    Function(
        "Mish",
        lambda x: x * softplus(x).function("tanh"),
        (lambda x, threshold: x * _thresholded(x, threshold).function("tanh"),),
        _linear_beyond,
    ),
    Function("Swish", lambda x: x * sigmoid(x)),
    Function("Softplus", softplus),
    Function("Softplus", softplus, (_thresholded,), _linear_beyond),
    Function("Softsign", softsign),
    Function("Sigmoid", sigmoid),
    Function("Relu", relu, (relu, lambda x: x.above(0.0).choose(x, 0.0))),
    Function("Clip", lambda x, low, high: x.clip(low, high), read=_bounds, inputs=("low", "high")),
    Function(
        "HardSigmoid",
        hard_sigmoid,
        (
            lambda x, inner, offset: (inner * x + offset).clip(0.0, 1.0),
            lambda x, outer, inner, offset, top: outer * (inner * x + offset).clip(0.0, top),
        ),
        _line,
    ),
    Function(
        "LeakyRelu",
        leaky_relu,
        (
            leaky_relu,
            lambda x, alpha: x.maximum(alpha * x),
            lambda x, alpha: relu(x) + alpha * x.clip(-math.inf, 0.0),
            lambda x, alpha: relu(x) - alpha * relu(-x),
        ),
        _slope,
    ),
    Function(
        "Elu",
        elu,
        (
            elu,
            lambda x, alpha: x.above(0.0).choose(x, alpha * (x.clip(-math.inf, 0.0).function("exp") - 1)),
            lambda x, alpha: relu(x) + (alpha * (x.function("exp") - 1)).clip(-math.inf, 0.0),
            lambda x, alpha: relu(x) + alpha * (x.clip(-math.inf, 0.0).function("exp") - 1),
        ),
        _above_zero,
    ),
)
