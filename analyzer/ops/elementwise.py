"""Arithmetic of one or more operands, with broadcasting, and casts."""

from __future__ import annotations

from functools import reduce

from analyzer.graph.fixes import INFERENCE
from analyzer.ops.registry import Affine, Elementwise, ExplicitRule, Homogeneous, Kink, Multilinear, register
from analyzer.ops.support import cast, is_zero, onnx_dtype, sum_known


@register
class Add(Affine):
    broadcasts = True

    def torch(torch, a, b):
        return torch.add(a, b)

    def tensorflow(tf, a, b):
        return tf.add(a, b)

    def vjp(op, g, y, a, b):
        return g, g

    def residual(op, active, y, a, b):
        return sum_known(op, [u for u, moves in zip((a, b), active, strict=True) if not moves])


@register
class Sub(Affine):
    broadcasts = True

    def torch(torch, a, b):
        return torch.sub(a, b)

    def tensorflow(tf, a, b):
        return tf.subtract(a, b)

    def vjp(op, g, y, a, b):
        return g, lambda: op.Neg(g)

    def residual(op, active, y, a, b):
        if active[0]:
            return None if active[1] or is_zero(b) else op.Neg(b)
        return None if is_zero(a) else a


@register
class Sum(Affine):
    broadcasts = True

    def torch(torch, *terms):
        return reduce(torch.add, terms)

    def tensorflow(tf, *terms):
        return reduce(tf.add, terms)

    def vjp(op, g, y, *terms):
        return (g,) * len(terms)

    def residual(op, active, y, *terms):
        return sum_known(op, [u for u, moves in zip(terms, active, strict=True) if not moves])


@register
class Mean(Affine):
    broadcasts = True

    def torch(torch, *terms):
        return reduce(torch.add, terms) / len(terms)

    def tensorflow(tf, *terms):
        return reduce(tf.add, terms) / len(terms)

    def vjp(op, g, y, *terms):
        share = op.Div(g, float(len(terms)))
        return (share,) * len(terms)

    def residual(op, active, y, *terms):
        total = sum_known(op, [u for u, moves in zip(terms, active, strict=True) if not moves])
        return None if total is None else op.Div(total, float(len(terms)))


@register
class Mul(Multilinear):
    broadcasts = True

    def torch(torch, a, b):
        return torch.mul(a, b)

    def tensorflow(tf, a, b):
        return tf.multiply(a, b)

    def vjp(op, g, y, a, b):
        return lambda: op.Mul(g, b), lambda: op.Mul(g, a)


@register
class Div(ExplicitRule):
    broadcasts = True

    # Integers are divided towards zero, as in C.
    def torch(torch, a, b):
        return torch.div(a, b, rounding_mode=None if a.dtype.is_floating_point else "trunc")

    def tensorflow(tf, a, b):
        return tf.divide(a, b) if a.dtype.is_floating else tf.truncatediv(a, b)

    def vjp(op, g, y, a, b):
        return lambda: op.Div(g, b), lambda: op.Neg(op.Div(op.Mul(g, y), b))

    # J_a a = y and J_b b = −y.
    def residual(op, active, y, a, b):
        if active[0]:
            return y if active[1] else None
        return op.Mul(y, 2.0)


@register
class Neg(Homogeneous):
    def torch(torch, x):
        return torch.neg(x)

    def tensorflow(tf, x):
        return tf.negative(x)

    def vjp(op, g, y, x):
        return (lambda: op.Neg(g),)


@register
class Abs(Homogeneous):
    kinks = (Kink("x = 0", "0"),)

    def torch(torch, x):
        return torch.abs(x)

    def tensorflow(tf, x):
        return tf.abs(x)

    def vjp(op, g, y, x):
        return (lambda: op.Mul(g, op.Sign(x)),)


@register
class Reciprocal(Homogeneous):
    degree = -1

    def torch(torch, x):
        return torch.reciprocal(x)

    def tensorflow(tf, x):
        return tf.math.reciprocal(x)

    def vjp(op, g, y, x):
        return (lambda: op.Neg(op.Mul(op.Mul(g, y), y)),)


@register
class Sqrt(Homogeneous):
    kinks = (Kink("x = 0", "+∞, as IEEE division gives"),)

    degree = 0.5

    def torch(torch, x):
        return torch.sqrt(x)

    def tensorflow(tf, x):
        return tf.sqrt(x)

    def vjp(op, g, y, x):
        return (lambda: op.Div(op.Mul(g, 0.5), y),)


@register
class Pow(Elementwise):
    kinks = (
        Kink("base 0, exponent 0", "0 to the base and to the exponent"),
        Kink("base 0, exponent 1", "1 to the base, 0 to the exponent"),
        Kink("base 0, exponent above 1", "0 to both"),
    )

    broadcasts = True

    # The result has the dtype of the base.
    def torch(torch, a, b):
        return torch.pow(a, b).to(a.dtype)

    def tensorflow(tf, a, b):
        if a.dtype.is_floating or not b.dtype.is_floating:
            exponent = tf.cast(b, a.dtype)
            # TensorFlow's derivative of 0⁰ by its base would be 0·(1/0).
            return tf.pow(tf.where(exponent == 0, tf.stop_gradient(a), a), exponent)
        return tf.cast(tf.pow(tf.cast(a, b.dtype), b), a.dtype)

    def vjp(op, g, y, a, b):
        exponent = b if b.dtype == a.dtype else cast(op, b, a)
        known = b.constant
        squared = known is not None and known.size == 1 and float(known.reshape(-1)[0]) == 2

        # A power of 0 does not move with its base, not even at 0, where a⁻¹ is infinite.
        def of_base():
            if squared:
                return op.Mul(g, op.Mul(a, 2.0))
            fixed = op.Equal(exponent, 0.0)
            slope = op.Mul(exponent, op.Pow(op.Where(fixed, 1.0, a), op.Sub(exponent, 1.0)))
            return op.Mul(g, slope)

        # 0ᵇ stays 0 while b > 0: its derivative there is 0, not 0·(−∞).
        def of_exponent():
            return op.Mul(g, op.Mul(y, _log_base(op, a)))

        return of_base, of_exponent

    # J_a a = b·y and J_b b = y·b·log a.
    def residual(op, active, y, a, b):
        exponent = b if b.dtype == a.dtype else cast(op, b, a)
        parts = [op.Mul(exponent, _log_base(op, a))] if active[1] else []
        parts += [exponent] if active[0] else []
        return op.Mul(y, op.Sub(1.0, parts[0] if len(parts) == 1 else op.Add(*parts)))


def _log_base(op, a):
    """log a, but 0 where a is 0: a power of 0 stays 0."""
    return op.Log(op.Where(op.Equal(a, 0.0), 1.0, a))


def _torch_terms(torch, terms):
    return torch.stack(torch.broadcast_tensors(*terms))


def _tf_terms(tf, terms):
    shape = reduce(tf.broadcast_static_shape, [term.shape for term in terms])
    return tf.stack([tf.broadcast_to(term, shape) for term in terms])


def _not_shared(op, active, y, terms):
    """What the operands without a gradient keep of the extremum y, to which those that equal it contribute evenly."""
    fixed = [term for term, moves in zip(terms, active, strict=True) if not moves]
    if not fixed:
        return None
    hits = {term.name: cast(op, op.Equal(term, y), y) for term in terms}
    return op.Mul(y, op.Div(op.Sum(*(hits[t.name] for t in fixed)), op.Sum(*(hits[t.name] for t in terms))))


def _shared_among_equals(op, g, y, terms):
    """g to the operands that equal the extremum y, shared evenly among them, as for a reduction over them."""
    if len(terms) == 1:
        return (g,)
    hits = [cast(op, op.Equal(term, y), y) for term in terms]
    share = op.Div(g, op.Sum(*hits))
    return tuple(op.Mul(share, hit) for hit in hits)


@register
class Max(Elementwise):
    kinks = (Kink("operands that are equal", "shared evenly"),)

    broadcasts = True

    # Ties: torch.maximum shares the gradient evenly, tf.maximum would not.
    def torch(torch, *terms):
        return torch.amax(_torch_terms(torch, terms), 0)

    def tensorflow(tf, *terms):
        return tf.reduce_max(_tf_terms(tf, terms), 0)

    def vjp(op, g, y, *terms):
        return _shared_among_equals(op, g, y, terms)

    def residual(op, active, y, *terms):
        return _not_shared(op, active, y, terms)


@register
class Min(Elementwise):
    kinks = (Kink("operands that are equal", "shared evenly"),)

    broadcasts = True

    def torch(torch, *terms):
        return torch.amin(_torch_terms(torch, terms), 0)

    def tensorflow(tf, *terms):
        return tf.reduce_min(_tf_terms(tf, terms), 0)

    def vjp(op, g, y, *terms):
        return _shared_among_equals(op, g, y, terms)

    def residual(op, active, y, *terms):
        return _not_shared(op, active, y, terms)


@register
class Mod(Elementwise):
    kinks = (Kink("a at a multiple of b", "1 to a, −a / b to b: the quotient is taken as fixed"),)

    broadcasts = True

    def torch(torch, a, b, *, fmod):
        return torch.fmod(a, b) if fmod else torch.remainder(a, b)

    def tensorflow(tf, a, b, *, fmod):
        if not fmod:
            return tf.math.floormod(a, b)
        if not a.dtype.is_floating:
            return a - tf.truncatediv(a, b) * b
        wide = a.dtype if a.dtype in (tf.float32, tf.float64) else tf.float32
        p, q = tf.cast(a, wide), tf.cast(b, wide)
        # TensorFlow's own truncatemod has no gradient.
        times = tf.stop_gradient(tf.sign(p / q) * tf.floor(tf.abs(p / q)))
        return tf.cast(p - times * q, a.dtype)

    # y = a − n·b with an integer n that is constant almost everywhere.
    def vjp(op, g, y, a, b, *, fmod):
        return g, lambda: op.Mul(g, op.Div(op.Sub(y, a), b))


@register
class Where(Affine):
    broadcasts = True
    inactive = frozenset({0})

    def torch(torch, condition, a, b):
        return torch.where(torch.as_tensor(condition), a, b)

    def tensorflow(tf, condition, a, b):
        return tf.where(condition, a, b)

    def vjp(op, g, y, condition, a, b):
        return None, lambda: op.Where(condition, g, 0.0), lambda: op.Where(condition, 0.0, g)

    def residual(op, active, y, condition, a, b):
        if active[1]:
            return None if active[2] or is_zero(b) else op.Where(condition, 0.0, b)
        return None if is_zero(a) else op.Where(condition, a, 0.0)


@register
class Identity(Homogeneous):
    def torch(torch, x):
        return x

    def tensorflow(tf, x):
        return tf.identity(x)

    def vjp(op, g, y, x):
        return (g,)


def _torch_dtype(torch, number):
    import onnx.helper as helper

    name = helper.tensor_dtype_to_np_dtype(number).name
    return getattr(torch, {"bool": "bool"}.get(name, name))


@register
class Cast(Homogeneous):
    def torch(torch, x, *, to, **attributes):
        return x.to(_torch_dtype(torch, to))

    def tensorflow(tf, x, *, to, **attributes):
        import onnx.helper as helper

        return tf.cast(x, tf.as_dtype(helper.tensor_dtype_to_np_dtype(to)))

    def vjp(op, g, y, x, *, to, **attributes):
        return (g if y.dtype == x.dtype else op.Cast(g, to=onnx_dtype(x.dtype)),)


@register
class CastLike(Homogeneous):
    inactive = frozenset({1})

    def torch(torch, x, like, **attributes):
        return x.to(like.dtype)

    def tensorflow(tf, x, like, **attributes):
        return tf.cast(x, like.dtype)

    def vjp(op, g, y, x, like, **attributes):
        return (g if y.dtype == x.dtype else op.Cast(g, to=onnx_dtype(x.dtype)), None)


@register
class Dropout(Homogeneous):
    several_outputs = True
    inactive = frozenset({1, 2})

    def torch(torch, x, ratio=None, training=None, *, seed):
        _refuse_training(ratio, training)
        return x, torch.ones_like(x, dtype=torch.bool)

    def tensorflow(tf, x, ratio=None, training=None, *, seed):
        _refuse_training(ratio, training)
        return tf.identity(x), tf.ones(x.shape, tf.bool)

    def vjp(op, g, y, x, *rest, seed):
        return g[0], None, None


def _refuse_training(ratio, training):
    if training is not None and bool(training) and (ratio is None or float(ratio) > 0):
        raise ValueError(f"Dropout {INFERENCE}")
