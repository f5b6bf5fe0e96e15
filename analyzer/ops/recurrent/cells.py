"""The cells of LSTM, GRU and RNN: one step of each, written once in ONNX ops.

The step is emitted, differentiated and run in a framework from these lines alone. A cell gets the input's share of
every gate, (N, H) each and biases included, and the states, and returns the next states. Gates, states and functions
have the letters of the ONNX documentation: gates i, o, f, c of LSTM, z, r, h of GRU, i of RNN; states h, c;
functions f, g, h.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor

Activation = Callable[[Builder, Tensor], Tensor]
Lettered = Mapping[str, Tensor]
"""Tensors by the letter of their gate or state."""


@dataclass(frozen=True)
class Weights:
    """The parameters of a step, for one direction.

    recurrent: R of each gate, (H, H).
    bias: the recurrent bias of each gate, (H,), where the cell adds it and not the input's share.
    peepholes: P of each gate that has one, (H,).
    functions: f, g, h.
    clip: the bound of the arguments of f and g.
    """

    recurrent: Lettered
    bias: Lettered
    peepholes: Lettered
    functions: Mapping[str, Activation]
    clip: float | None = None
    input_forget: bool = False
    linear_before_reset: bool = False

    def of(self, op: Builder, h: Tensor, gate: str) -> Tensor:
        """Emit the hidden state's share of a gate."""
        share = op.Gemm(h, self.recurrent[gate], transB=1)
        return op.Add(share, self.bias[gate]) if self.bias else share

    def peeped(self, op: Builder, x: Tensor, c: Tensor, gate: str) -> Tensor:
        """Emit a gate's argument plus its peephole's share of the cell state."""
        return op.Add(x, op.Mul(c, self.peepholes[gate])) if self.peepholes else x

    def function(self, op: Builder, letter: str, x: Tensor) -> Tensor:
        """Emit f or g of a gate's argument."""
        return self.functions[letter](op, x if self.clip is None else op.Clip(x, -self.clip, self.clip))


Cell = Callable[[Builder, Lettered, Lettered, Weights], Lettered]


def lstm(op: Builder, x: Lettered, states: Lettered, w: Weights) -> Lettered:
    """Emit one step of LSTM."""
    h, c = states["h"], states["c"]
    i, o, f, g = (op.Add(x[gate], w.of(op, h, gate)) for gate in "iofc")
    i, f = w.peeped(op, i, c, "i"), w.peeped(op, f, c, "f")
    i = w.function(op, "f", i)
    f = op.Sub(1.0, i) if w.input_forget else w.function(op, "f", f)
    c = op.Add(op.Mul(f, c), op.Mul(i, w.function(op, "g", g)))
    o = w.function(op, "f", w.peeped(op, o, c, "o"))
    # As in ONNX Runtime, the cell state is not clipped where h reads it.
    return {"h": op.Mul(o, w.functions["h"](op, c)), "c": c}


def gru(op: Builder, x: Lettered, states: Lettered, w: Weights) -> Lettered:
    """Emit one step of GRU. The reset gate scales the state, or (as in PyTorch) the state's product with R."""
    h = states["h"]
    z = w.function(op, "f", op.Add(x["z"], w.of(op, h, "z")))
    r = w.function(op, "f", op.Add(x["r"], w.of(op, h, "r")))
    reset = op.Mul(r, w.of(op, h, "h")) if w.linear_before_reset else w.of(op, op.Mul(r, h), "h")
    new = w.function(op, "g", op.Add(x["h"], reset))
    return {"h": op.Add(op.Mul(op.Sub(1.0, z), new), op.Mul(z, h))}


def rnn(op: Builder, x: Lettered, states: Lettered, w: Weights) -> Lettered:
    """Emit one step of an Elman network."""
    return {"h": w.function(op, "f", op.Add(x["i"], w.of(op, states["h"], "i")))}


# The ONNX op of each function, empty where there is none, and the parameters that it takes.
_FUNCTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "relu": ("Relu", ()),
    "tanh": ("Tanh", ()),
    "sigmoid": ("Sigmoid", ()),
    "softsign": ("Softsign", ()),
    "softplus": ("Softplus", ()),
    "leakyrelu": ("LeakyRelu", ("alpha",)),
    "thresholdedrelu": ("ThresholdedRelu", ("alpha",)),
    "elu": ("Elu", ("alpha",)),
    "hardsigmoid": ("HardSigmoid", ("alpha", "beta")),
    "affine": ("", ("alpha", "beta")),
    "scaledtanh": ("", ("alpha", "beta")),
}


def activation_functions(
    names: Sequence[str], alpha: Sequence[float] | None, beta: Sequence[float] | None
) -> list[Activation]:
    """The functions by the names of a node's attribute, whose parameters are consumed in order.

    Raises UnsupportedOp for a name that ONNX does not list, or a parameter that is missing and has no default.
    """
    given = {"alpha": iter(alpha or ()), "beta": iter(beta or ())}
    return [_function(name, given) for name in names]


def _function(name: str, given: dict[str, Iterator[float]]) -> Activation:
    key = name.lower()
    if key not in _FUNCTIONS:
        raise UnsupportedOp(
            f"{name!r} is not an activation of a recurrent op. Fix: export it with one of {', '.join(_FUNCTIONS)}"
        )
    op_type, wanted = _FUNCTIONS[key]
    # What is not given is left to the default of the op of that name.
    parameters = {p: value for p in wanted if (value := next(given[p], None)) is not None}
    if not op_type and len(parameters) < len(wanted):
        raise UnsupportedOp(
            f"the activation {name} needs activation_alpha and activation_beta. Fix: state them in the file"
        )

    def function(op: Builder, x: Tensor) -> Tensor:
        if key == "affine":
            return op.Add(op.Mul(x, parameters["alpha"]), parameters["beta"])
        if key == "scaledtanh":
            return op.Mul(op.Tanh(op.Mul(x, parameters["beta"])), parameters["alpha"])
        result: Tensor = getattr(op, op_type)(x, **parameters)
        return result

    return function
