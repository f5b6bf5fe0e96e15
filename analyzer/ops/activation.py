"""Activations: elementwise functions of one input.

Subgradients at a kink belong to the choice that both frameworks make for the op by that name: the side
below it for the Relu family, 0 at both bounds of a clip.
"""

from __future__ import annotations

from math import log, pi, sqrt

import numpy as np

from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.bounds import STEEPEST, bound_where_met, cut_off, met_bounds, steps_of
from analyzer.ops.registry import Elementwise, ExplicitRule, Homogeneous, Kink, register
from analyzer.ops.support import cast, sum_known

_SATURATED = 20.0
"""Where Erf and Gelu are at their limits in any precision. Powers of much larger numbers would overflow."""


def _half_and_half(op: Builder, x: Tensor) -> Tensor:
    """(1 + x) / 2 of x in [−1, 1], in one pass where ONNX Runtime has one."""
    if x.dtype == np.float32:
        return op.HardSigmoid(x, alpha=0.5, beta=0.5)
    return op.Mul(op.Add(x, 1.0), 0.5)


def gate(op: Builder, g: Tensor, condition: Tensor) -> Tensor:
    """g where the condition holds, else 0."""
    return op.Mul(g, cast(op, condition, g))


@register
class Relu(Homogeneous):
    kinks = (Kink("x = 0", "0"),)

    def torch(torch, x):
        return torch.relu(x)

    def tensorflow(tf, x):
        return tf.nn.relu(x)

    # y > 0 exactly where x > 0, and y is kept anyway.
    def vjp(op, g, y, x):
        if y.dtype != np.float32:
            return (lambda: gate(op, g, op.Greater(y, 0.0)),)
        # min(1, 3e38 y) in one pass (two of Clip's, for its bounds), which ONNX Runtime has in float32 alone: 1 for
        # every normal y > 0.
        return (lambda: op.Mul(g, op.HardSigmoid(y, alpha=STEEPEST, beta=0.0)),)


@register
class LeakyRelu(Homogeneous):
    kinks = (Kink("x = 0", "alpha"),)

    def torch(torch, x, *, alpha):
        return torch.where(x > 0, x, alpha * x)

    def tensorflow(tf, x, *, alpha):
        return tf.where(x > 0, x, alpha * x)

    def vjp(op, g, y, x, *, alpha):
        return (lambda: op.Where(op.Greater(x, 0.0), g, op.Mul(g, alpha)),)


@register
class PRelu(ExplicitRule):
    kinks = (Kink("x = 0", "to x the slope, to the slope 0"),)

    broadcasts = True

    def torch(torch, x, slope):
        return torch.where(x > 0, x, slope * x)

    def tensorflow(tf, x, slope):
        return tf.where(x > 0, x, slope * x)

    def vjp(op, g, y, x, slope):
        positive = op.Greater(x, 0.0)
        return (
            lambda: op.Where(positive, g, op.Mul(g, slope)),
            lambda: op.Where(positive, 0.0, op.Mul(g, x)),
        )

    # J_x x = y, J_slope slope = the part below 0.
    def residual(op, active, y, x, slope):
        if not active[1]:
            return None
        if not active[0]:
            return op.Where(op.Greater(x, 0.0), y, 0.0)
        return op.Where(op.Greater(x, 0.0), 0.0, op.Neg(y))


class SaturatingClip(Elementwise):
    """The range of a quantizer. Codes on its bounds stand for values inside: the gradient passes there."""

    broadcasts = True

    def torch(torch, x, low, high):
        return torch.clamp(x, low, high)

    def tensorflow(tf, x, low, high):
        return tf.clip_by_value(x, low, high)

    def vjp(op, g, y, x, low, high):
        inside = op.And(op.GreaterOrEqual(x, low), op.LessOrEqual(x, high))
        return lambda: gate(op, g, inside), None, None


@register
class Clip(Elementwise):
    kinks = (Kink("x at a bound", "to x 0, to the bound 1"), Kink("low > high", "to high 1, to x and low 0"))

    broadcasts = True
    straight_through = SaturatingClip

    # ReLU6 has the gradient 0 at its bounds in both frameworks: there it belongs to the bound.
    def torch(torch, x, low=None, high=None):
        outside, inside = _bounds(torch, x, low, high)
        return x if inside is None else torch.where(inside, x, outside)

    def tensorflow(tf, x, low=None, high=None):
        outside, inside = _bounds(tf, x, low, high)
        return tf.identity(x) if inside is None else tf.where(inside, x, outside)

    def vjp(op, g, y, x, low=None, high=None):
        steps = None if y.dtype != np.float32 else steps_of(low, high)
        if steps is not None:
            # y lies on a bound exactly where x is not inside, and leaves x to be fused with the Clip.
            return (lambda: cut_off(op, g, y, steps, low), None, None)
        above = None if low is None else op.Greater(x, low)
        below = None if high is None else op.Less(x, high)
        inside = above or below if above is None or below is None else op.And(above, below)

        # Where low > high every output is high.
        def of_low():
            under = op.LessOrEqual(x, low)
            return gate(op, g, under if high is None else op.And(under, op.LessOrEqual(low, high)))

        def of_high():
            over = op.GreaterOrEqual(x, high)
            return gate(op, g, over if low is None else op.Or(over, op.Greater(low, high)))

        entries = [lambda: g if inside is None else gate(op, g, inside)]
        entries.append(None if low is None else of_low)
        entries.append(None if high is None else of_high)
        return tuple(entries)

    # y is the input that the gradient goes to, so that J u is the VJP of y: x itself may be infinite.
    def residual(op, active, y, x, low=None, high=None):
        met = None if y.dtype != np.float32 or any(active[1:]) else met_bounds(low, high)
        if met is not None:
            return sum_known(op, [bound_where_met(op, y, bound, step) for bound, step in met])
        entries = Clip.vjp(op, y, y, x, low, high)
        for moves, entry in zip(active, entries, strict=False):
            y = op.Sub(y, entry()) if moves and entry is not None else y
        return y


def _bounds(framework, x, low, high):
    """What Clip gives outside its bounds, and where it passes x on: where x is NaN too."""
    if low is None or high is None:
        if low is None and high is None:
            return None, None
        return (high, ~(x >= high)) if low is None else (low, ~(x <= low))
    outside = framework.where((x <= low) & (low <= high), low, high)
    return outside, ~((x <= low) | (x >= high))


@register
class Sigmoid(Elementwise):
    def torch(torch, x):
        return torch.sigmoid(x)

    def tensorflow(tf, x):
        return tf.sigmoid(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Mul(y, op.Sub(1.0, y))),)


@register
class Tanh(Elementwise):
    def torch(torch, x):
        return torch.tanh(x)

    def tensorflow(tf, x):
        return tf.tanh(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Sub(1.0, op.Mul(y, y))),)


@register
class Softplus(Elementwise):
    # torch's own softplus is linear above 20, which is no double precision.
    def torch(torch, x):
        return torch.logaddexp(x, x.new_zeros(()))

    def tensorflow(tf, x):
        return tf.math.softplus(x)

    # exp(x − softplus x) is the sigmoid: ONNX Runtime's own is 0 below −18.
    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Exp(op.Sub(x, y))),)


@register
class Softsign(Elementwise):
    def torch(torch, x):
        return torch.nn.functional.softsign(x)

    def tensorflow(tf, x):
        return tf.nn.softsign(x)

    def vjp(op, g, y, x):
        # Divided twice: the square would overflow.
        scale = op.Add(op.Abs(x), 1.0)
        return (lambda: op.Div(op.Div(g, scale), scale),)


@register
class Elu(Elementwise):
    kinks = (Kink("x = 0", "alpha"),)

    # The unused branch of each `where` is kept finite. A VJP by y + alpha would not vanish far below 0, but round.
    def torch(torch, x, *, alpha):
        return torch.where(x > 0, x, alpha * torch.expm1(torch.where(x > 0, 0.0, x)))

    def tensorflow(tf, x, *, alpha):
        return tf.where(x > 0, x, alpha * tf.math.expm1(tf.where(x > 0, tf.zeros_like(x), x)))

    def vjp(op, g, y, x, *, alpha):
        slope = op.Where(op.Greater(x, 0.0), 1.0, op.Mul(op.Exp(x), alpha))
        return (lambda: op.Mul(g, slope),)


@register
class Selu(Elementwise):
    kinks = (Kink("x = 0", "alpha · gamma"),)

    def torch(torch, x, *, alpha, gamma):
        return gamma * Elu.torch(torch, x, alpha=alpha)

    def tensorflow(tf, x, *, alpha, gamma):
        return gamma * Elu.tensorflow(tf, x, alpha=alpha)

    def vjp(op, g, y, x, *, alpha, gamma):
        slope = op.Where(op.Greater(x, 0.0), gamma, op.Mul(op.Exp(x), alpha * gamma))
        return (lambda: op.Mul(g, slope),)


@register
class Celu(Elementwise):
    kinks = (Kink("x = 0", "1, the same from both sides"),)

    def torch(torch, x, *, alpha):
        return torch.where(x > 0, x, alpha * torch.expm1(torch.where(x > 0, 0.0, x) / alpha))

    def tensorflow(tf, x, *, alpha):
        return tf.where(x > 0, x, alpha * tf.math.expm1(tf.where(x > 0, tf.zeros_like(x), x) / alpha))

    def vjp(op, g, y, x, *, alpha):
        slope = op.Where(op.Greater(x, 0.0), 1.0, op.Exp(op.Div(x, alpha)))
        return (lambda: op.Mul(g, slope),)


@register
class ThresholdedRelu(Elementwise):
    kinks = (Kink("x = alpha", "0"),)

    def torch(torch, x, *, alpha):
        return torch.where(x > alpha, x, 0.0)

    def tensorflow(tf, x, *, alpha):
        return tf.where(x > alpha, x, tf.zeros_like(x))

    def vjp(op, g, y, x, *, alpha):
        return (lambda: gate(op, g, op.Greater(x, alpha)),)

    # y is x or 0.
    def residual(op, active, y, x, *, alpha):
        return None


@register
class Shrink(Elementwise):
    kinks = (Kink("x = ±lambd", "0"),)

    def torch(torch, x, *, bias, lambd):
        return torch.where(x < -lambd, x + bias, torch.where(x > lambd, x - bias, torch.zeros_like(x)))

    def tensorflow(tf, x, *, bias, lambd):
        return tf.where(x < -lambd, x + bias, tf.where(x > lambd, x - bias, tf.zeros_like(x)))

    def vjp(op, g, y, x, *, bias, lambd):
        return (lambda: gate(op, g, op.Greater(op.Abs(x), lambd)),)


@register
class HardSigmoid(Elementwise):
    kinks = (Kink("alpha · x + beta at 0 or 1", "0"),)

    def torch(torch, x, *, alpha, beta):
        return Clip.torch(torch, alpha * x + beta, x.new_zeros(()), x.new_ones(()))

    def tensorflow(tf, x, *, alpha, beta):
        return Clip.tensorflow(tf, alpha * x + beta, tf.zeros((), x.dtype), tf.ones((), x.dtype))

    def vjp(op, g, y, x, *, alpha, beta):
        # The bounds are of the line, as in the frameworks' forms: y itself may be rounded onto one.
        line = op.Add(op.Mul(x, alpha), beta)
        inside = op.And(op.Greater(line, 0.0), op.Less(line, 1.0))
        return (lambda: gate(op, op.Mul(g, alpha), inside),)


@register
class HardSwish(Elementwise):
    kinks = (Kink("x = −3", "0"), Kink("x = 3", "1"))

    def torch(torch, x):
        return torch.where(x <= -3, torch.zeros_like(x), torch.where(x >= 3, x, x * (x + 3) / 6))

    def tensorflow(tf, x):
        return tf.where(x <= -3, tf.zeros_like(x), tf.where(x >= 3, x, x * (x + 3) / 6))

    def vjp(op, g, y, x):
        between = op.Add(op.Div(x, 3.0), 0.5)
        slope = op.Where(op.LessOrEqual(x, -3.0), 0.0, op.Where(op.GreaterOrEqual(x, 3.0), 1.0, between))
        return (lambda: op.Mul(g, slope),)


@register
class Mish(Elementwise):
    def torch(torch, x):
        return x * torch.tanh(Softplus.torch(torch, x))

    def tensorflow(tf, x):
        return x * tf.tanh(tf.math.softplus(x))

    def vjp(op, g, y, x):
        s = op.Softplus(x)
        t = op.Tanh(s)
        sigmoid = op.Exp(op.Sub(x, s))
        slope = op.Add(t, op.Mul(op.Mul(x, sigmoid), op.Sub(1.0, op.Mul(t, t))))
        return (lambda: op.Mul(g, slope),)


@register
class Erf(Elementwise):
    def torch(torch, x):
        return torch.erf(x)

    # TensorFlow's own is NaN at huge numbers of double precision.
    def tensorflow(tf, x):
        return tf.math.erf(tf.clip_by_value(x, -_SATURATED, _SATURATED))

    def vjp(op, g, y, x):
        bell = op.Exp(op.Neg(op.Mul(x, x)))
        return (lambda: op.Mul(g, op.Mul(bell, 2 / sqrt(pi))),)


def _gelu_by_tanh(framework, x, clipped):
    # The frameworks' own derivative is 0 · ∞ where x³ overflows.
    return 0.5 * x * (1 + framework.tanh(sqrt(2 / pi) * (clipped + 0.044715 * clipped * clipped * clipped)))


@register
class Gelu(Elementwise):
    def torch(torch, x, *, approximate):
        if approximate == "tanh":
            return _gelu_by_tanh(torch, x, torch.clamp(x, -_SATURATED, _SATURATED))
        return torch.nn.functional.gelu(x)

    def tensorflow(tf, x, *, approximate):
        if approximate == "tanh":
            return _gelu_by_tanh(tf, x, tf.clip_by_value(x, -_SATURATED, _SATURATED))
        return 0.5 * x * (1 + Erf.tensorflow(tf, x * sqrt(0.5)))

    def vjp(op, g, y, x, *, approximate):
        if approximate == "tanh":
            x = op.Clip(x, -_SATURATED, _SATURATED)
            square = op.Mul(x, x)
            # y = x (1 + tanh u) / 2 with u = √(2/π) (x + 0.044715 x³)
            scale = sqrt(2 / pi)
            u = op.Mul(x, op.Add(op.Mul(square, 0.044715 * scale), scale))
            du = op.Add(op.Mul(square, 3 * 0.044715 * scale), scale)
            t = op.Tanh(u)
            inner = op.Mul(op.Mul(x, du), op.Sub(1.0, op.Mul(t, t)))
            slope = op.Mul(op.Add(op.Add(t, 1.0), inner), 0.5)
        else:
            # With t = x/√2: (1 + erf t) / 2 + t·exp(−t²)/√π
            t = op.Mul(x, sqrt(0.5))
            density = op.Exp(op.Sub(-log(pi) / 2, op.Mul(t, t)))
            slope = op.Add(_half_and_half(op, op.Erf(t)), op.Mul(t, density))
        return (lambda: op.Mul(g, slope),)
