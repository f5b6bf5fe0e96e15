"""Bodies of networks in primitives: those that are one op's function, and near misses, which compute something else.

A number in a body, such as `{0.5}`, becomes a constant. The variable is x (n, 3, 4); the result is y.
"""

from __future__ import annotations

import math
import re

import numpy as np
import onnx
from onnx import numpy_helper, parser

ROOT, INVERSE = math.sqrt(2), math.sqrt(0.5)
BEND = math.sqrt(2 / math.pi)

_NUMBER = re.compile(r"\{([^{}]*)\}")


def network(body: str, dtype: str = "float") -> onnx.ModelProto:
    """Return the network with a body; its numbers are scalars of the type."""
    constants: dict[str, str] = {}

    def constant(match: re.Match[str]) -> str:
        return constants.setdefault(match.group(1), f"constant{len(constants)}")

    nodes = _NUMBER.sub(constant, body)
    stored = [f"{dtype} {name} = {{{value}}}" for value, name in constants.items()]
    stored += ["int64[1] last = {-1}", "int64[1] middle = {1}", f"{dtype}[4] scale = {{0.5,2,-1,3}}"]
    stored += [f"{dtype}[4] shift = {{1,-2,0.5,0.25}}", f"{dtype}[1,1] four = {{4}}"]
    text = (
        f'<ir_version: 10, opset_import: ["": 23]> g ({dtype}[n,3,4] x) => ({dtype}[n,3,4] y)'
        f" <{', '.join(stored)}> {{ {nodes} }}"
    )
    return parser.parse_model(text)


def in_half(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 network in half precision."""
    for info in (*proto.graph.input, *proto.graph.output):
        info.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float32:
            tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), tensor.name))
    return proto


def gelu(root: float = ROOT, one: float = 1.0, half: float = 0.5, more: str = "a = Add(f, {one})") -> str:
    """Return a GELU by erf with these numbers."""
    add = more.replace("{one}", f"{{{one}}}")
    return f"d = Div(x, {{{root}}}) f = Erf(d) {add} k = Mul(x, a) y = Mul(k, {{{half}}})"


def gelu_by_tanh(cube: float = 0.044715, bend: float = BEND, one: float = 1.0, power: float = 3.0) -> str:
    """Return a GELU by tanh with these numbers."""
    return (
        f"p = Pow(x, {{{power}}}) t = Mul(p, {{{cube}}}) s = Add(x, t) u = Mul(s, {{{bend}}}) h = Tanh(u)"
        f" a = Add(h, {{{one}}}) k = Mul(x, a) y = Mul(k, {{0.5}})"
    )


def hard_swish(three: float = 3.0, low: float = 0.0, six: float = 6.0, divisor: float = 6.0) -> str:
    """Return a hard swish with these numbers."""
    return (
        f"s = Add(x, {{{three}}}) c = Clip(s, {{{low}}}, {{{six}}}) m = Mul(x, c) y = Div(m, {{{divisor}}})"
    )


def layer_norm(after: str = "s = Sqrt(w) y = Div(c, s)", epsilon: float = 2.0**-17) -> str:
    """Return a layer normalization, from its variance on in other words."""
    return (
        "m = ReduceMean(x, last) c = Sub(x, m) q = Mul(c, c) v = ReduceMean(q, last)"
        f" w = Add(v, {{{epsilon}}}) {after}"
    )


SOFTMAX = "m = ReduceMax(x, last) c = Sub(x, m) n = Exp(c) s = ReduceSum(n, last)"

# body: the op that it is, in float64, too: all numbers are those of the formula.
EXACT = {
    gelu(): "Gelu",
    gelu(more="a = Add({one}, f)"): "Gelu",
    f"d = Mul({{{INVERSE}}}, x) f = Erf(d) g = Mul(f, {{0.5}}) a = Add(g, {{0.5}}) y = Mul(a, x)": "Gelu",
    f"z = Neg(x) d = Div(z, {{{ROOT}}}) f = Erf(d) a = Sub({{1}}, f) k = Mul(x, a) y = Div(k, {{2}})": "Gelu",
    "s = Softplus(x) t = Tanh(s) y = Mul(t, x)": "Mish",
    "z = Neg(x) e = Exp(z) a = Add({1}, e) y = Div({1}, a)": "Sigmoid",
    "z = Mul(x, {-1}) e = Exp(z) a = Add(e, {1}) y = Pow(a, {-1})": "Sigmoid",
    "z = Abs(x) a = Add(z, {1}) y = Div(x, a)": "Softsign",
    "r = Relu(x) y = Min(r, {6})": "Clip",
    "r = Max(x, {-2}) y = Min(r, {3.7})": "Clip",
    "l = Less(x, {0}) y = Where(l, {0}, x)": "Relu",
    "l = LessOrEqual(x, {0}) g = Not(l) y = Where(g, x, {0})": "Relu",
    "l = Mul(x, {0.25}) y = Max(x, l)": "LeakyRelu",
    "l = Mul({0.25}, x) g = GreaterOrEqual(x, {0}) y = Where(g, x, l)": "LeakyRelu",
    "r = Relu(x) z = Neg(x) n = Relu(z) l = Mul(n, {0.25}) y = Sub(r, l)": "LeakyRelu",
    "s = Add(x, {2}) c = Clip(s, {0}, {4}) y = Div(c, {4})": "HardSigmoid",
    "e = Exp(x) d = Sub(e, {1}) m = Mul(d, {1.5}) g = Greater(x, {0}) y = Where(g, x, m)": "Elu",
    layer_norm(): "LayerNormalization",
    layer_norm("s = Sqrt(w) d = Div(c, s) g = Mul(d, scale) y = Add(shift, g)"): "LayerNormalization",
    layer_norm("s = Pow(w, {-0.5}) d = Mul(s, c) g = Mul(d, {3}) y = Sub(g, shift)"): "LayerNormalization",
    layer_norm(
        "s = Sqrt(w) i = Reciprocal(s) k = Mul(i, scale) l = Mul(x, k) p = Mul(m, k) o = Sub(shift, p)"
        " y = Add(l, o)"
    ): "LayerNormalization",
    "t = ReduceSum(x, last) m = Div(t, four) c = Sub(x, m) q = Pow(c, {2}) u = ReduceSum(q, last)"
    " v = Mul(u, {0.25}) w = Add(v, {0.5}) s = Sqrt(w) y = Div(c, s)": "LayerNormalization",
    f"q = Mul(x, x) v = ReduceMean(q, last) w = Add(v, {{{2.0**-20}}}) s = Sqrt(w) i = Div({{1}}, s)"
    " d = Mul(x, i) y = Mul(d, scale)": "RMSNormalization",
    f"{SOFTMAX} y = Div(n, s)": "Softmax",
    f"{SOFTMAX} i = Reciprocal(s) y = Mul(i, n)": "Softmax",
    f"{SOFTMAX} l = Log(s) y = Sub(c, l)": "LogSoftmax",
}

# body: the op that it is in float32. Its numbers are those of the formula after rounding.
ROUNDED = {
    gelu_by_tanh(): "Gelu",
    gelu_by_tanh(bend=0.7978846): "Gelu",
    gelu(root=1.4142135): "Gelu",
    hard_swish(): "HardSwish",
    "s = Add(x, {3}) c = Clip(s, {0}, {6}) g = Mul(c, {0.16666667}) y = Mul(g, x)": "HardSwish",
    "d = Div(x, {6}) s = Add(d, {0.5}) c = Clip(s, {0}, {1}) y = Mul(x, c)": "HardSwish",
    "s = Add(x, {3}) c = Clip(s, {0}, {6}) y = Mul(c, {0.16666667})": "HardSigmoid",
    "m = Mul(x, {0.2}) s = Add(m, {0.5}) y = Clip(s, {0}, {1})": "HardSigmoid",
    "l = Mul(x, {0.01}) y = Max(x, l)": "LeakyRelu",
    "s = Softplus(x) g = Greater(x, {20}) y = Where(g, x, s)": "Softplus",
    layer_norm(epsilon=1e-5): "LayerNormalization",
}

# body: an op that it is not.
NEAR_MISSES = {
    "r = Relu(x) y = Add(r, {1e-6})": "Clip",
    "r = Relu(x) y = Add(r, {1e-12})": "Clip",
    "r = Max(x, {1e-6}) y = Sub(r, {1e-6})": "Relu",
    "r = Relu(x) y = Mul(r, {0.999999})": "HardSwish",
    "r = Clip(x, {0}, {1}) y = Add(r, {1e-7})": "HardSigmoid",
    "r = Sigmoid(x) y = Add(r, {1e-7})": "HardSigmoid",
    "r = Softplus(x) y = Add(r, {1e-6})": "Mish",
    "r = Tanh(x) y = Add(r, {1.000001})": "Gelu",
    "r = Softmax<axis = -1>(x) a = Add(r, {1e-6}) y = Log(a)": "LogSoftmax",
    "r = Softmax<axis = -1>(x) y = Log(r)": "LogSoftmax",
    f"{SOFTMAX} t = Add(s, {{1e-6}}) y = Div(n, t)": "Softmax",
    f"{SOFTMAX} d = Div(n, s) y = Add(d, {{1e-9}})": "LogSoftmax",
    f"{SOFTMAX} t = Add(s, {{1e-6}}) l = Log(t) y = Sub(c, l)": "LogSoftmax",
    f"{SOFTMAX} d = Div(n, s) y = Log(d)": "LogSoftmax",
    "n = Exp(x) s = ReduceSum(n, last) y = Div(n, s)": "Softmax",
    "r = Relu(x) s = ReduceSum(r, last) t = Add(s, {1e-6}) y = Div(r, t)": "Softmax",
    layer_norm("s = Sqrt(v) t = Add(s, {1e-6}) y = Div(c, t)"): "LayerNormalization",
    layer_norm("s = Sqrt(w) t = Add(s, {1e-6}) y = Div(c, t)"): "LayerNormalization",
    layer_norm("d = Div(c, w) y = Add(d, shift)"): "LayerNormalization",
    layer_norm("r = Relu(v) z = Add(r, {1e-6}) s = Sqrt(z) y = Div(c, s)"): "LayerNormalization",
    layer_norm("z = Max(w, {1e-6}) s = Sqrt(z) y = Div(c, s)"): "LayerNormalization",
    layer_norm("s = Sqrt(w) y = Div(x, s)"): "LayerNormalization",
    "m = ReduceMean(x, last) c = Sub(x, m) q = Mul(c, c) u = ReduceSum(q, last) v = Div(u, {3})"
    " w = Add(v, {1e-5}) s = Sqrt(w) y = Div(c, s)": "LayerNormalization",
    "m = ReduceMean(x, last) c = Sub(x, m) q = Mul(x, x) p = ReduceMean(q, last) k = Mul(m, m) d = Sub(p, k)"
    " v = Relu(d) w = Add(v, {1e-6}) s = Sqrt(w) y = Div(c, s)": "LayerNormalization",
    "q = Mul(x, x) v = ReduceMean(q, last) s = Sqrt(v) t = Add(s, {1e-8}) y = Div(x, t)": "RMSNormalization",
    "q = Mul(x, x) v = ReduceSum(q, last) w = Add(v, {1e-6}) s = Sqrt(w) y = Div(x, s)": "RMSNormalization",
    "s = ReduceL2(x, last) t = Add(s, {1e-12}) y = Div(x, t)": "RMSNormalization",
    gelu(root=1.41421): "Gelu",
    gelu(root=1.414): "Gelu",
    gelu(one=1.000001): "Gelu",
    gelu(half=0.5000001): "Gelu",
    gelu_by_tanh(cube=0.0447): "Gelu",
    gelu_by_tanh(cube=0.044714): "Gelu",
    gelu_by_tanh(bend=0.797): "Gelu",
    gelu_by_tanh(bend=0.79788): "Gelu",
    gelu_by_tanh(one=1.0000002): "Gelu",
    gelu_by_tanh(power=2.0): "Gelu",
    "m = Mul(x, {1.702}) s = Sigmoid(m) y = Mul(x, s)": "Gelu",
    "m = Mul(x, {1.702}) z = Neg(m) e = Exp(z) a = Add(e, {1}) y = Div(x, a)": "Gelu",
    hard_swish(three=3.000001): "HardSwish",
    hard_swish(low=1e-6): "HardSwish",
    hard_swish(six=5.999999): "HardSwish",
    hard_swish(divisor=6.000001): "HardSwish",
    "s = Add(x, {3}) c = Clip(s, {0}, {6}) y = Mul(c, {0.1666})": "HardSigmoid",
    "s = Add(x, {3}) c = Clip(s, {1e-6}, {6}) y = Div(c, {6})": "HardSigmoid",
    "m = Mul(x, {0.2}) s = Add(m, {0.5}) y = Clip(s, {0}, {1.000001})": "HardSigmoid",
    "s = Softplus(x) u = Add(s, {1e-6}) t = Tanh(u) y = Mul(x, t)": "Mish",
    "s = Softplus(x) t = Tanh(s) u = Add(t, {1e-7}) y = Mul(x, u)": "Mish",
    "e = Exp(x) a = Add(e, {1}) s = Log(a) t = Tanh(s) y = Mul(x, t)": "Mish",
    "l = Mul(x, {0.1}) m = Max(x, l) y = Add(m, {1e-6})": "Elu",
    "l = Mul(x, {1.5}) y = Max(x, l)": "LeakyRelu",
    "m = Mul(x, {2}) s = Softplus(m) y = Div(s, {2})": "Mish",
    "s = Softplus(x) g = Greater(x, {5}) y = Where(g, x, s)": "Mish",
    "e = Exp(x) a = Add(e, {1}) y = Log(a)": "Softplus",
    "e = Exp(x) a = Add(e, {1.000001}) y = Log(a)": "Softplus",
    "l = ReduceLogSumExp(x, last) y = Sub(x, l)": "LogSoftmax",
    "z = Neg(x) e = Exp(z) a = Add(e, {1.000001}) y = Reciprocal(a)": "Sigmoid",
    "z = Mul(x, {0.5}) t = Tanh(z) h = Mul(t, {0.5}) y = Add(h, {0.5})": "Sigmoid",
    "z = Abs(x) a = Add(z, {1.000001}) y = Div(x, a)": "Softsign",
    "z = Abs(x) a = Add(z, {1e-6}) y = Div(x, a)": "Softsign",
    "g = Greater(x, {1e-6}) y = Where(g, x, {0})": "Relu",
    "g = Greater(x, {0}) y = Where(g, x, {1e-6})": "Relu",
    # 0 for NaN.
    "g = Greater(x, {0}) y = Where(g, x, {0})": "Relu",
    "g = GreaterOrEqual(x, {0}) y = Where(g, x, {0})": "Relu",
    # Overflows where x does not.
    "z = Abs(x) a = Add(x, z) y = Mul(a, {0.5})": "Relu",
    # NaN for every x.
    "m = Max(x, {0}) y = Min(m, {nan})": "Relu",
    "e = Exp(x) d = Sub(e, {0.999999}) g = Greater(x, {0}) y = Where(g, x, d)": "Elu",
    "q = Mul(x, x) a = Add(q, {1e-12}) r = Sqrt(a) s = Add(x, r) y = Mul(s, {0.5})": "Relu",
}
