"""The cells of LSTM, GRU and RNN: one step of each, written once in ONNX ops.

The step is emitted, differentiated and run in a framework from these lines alone. A cell gets the input's share of
every gate, (N, H) each and biases included, and the states; it returns the next states, the hidden state first.
Letters are those of the ONNX documentation: i, o, f, c for LSTM, z, r, h for GRU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Emitter
from analyzer.graph.graph import Tensor

Activation = Callable[[Emitter, Tensor], Tensor]


@dataclass(frozen=True)
class Weights:
    """What a step needs besides its input and states, for one direction.

    recurrent: R of each gate, (H, H). bias: the recurrent bias of each gate (H,), where it stands inside of the
    cell and not in the input's share. peepholes: P of each gate, (H,). functions: f, g, h. clip: the bound of
    what the gates' functions get.
    """

    recurrent: Sequence[Tensor]
    bias: Sequence[Tensor]
    peepholes: Sequence[Tensor]
    functions: Sequence[Activation]
    clip: float | None = None
    input_forget: bool = False
    linear_before_reset: bool = False

    def of(self, op: Emitter, h: Tensor, gate: int) -> Tensor:
        """The hidden state's share of a gate."""
        share = op.Gemm(h, self.recurrent[gate], transB=1)
        return op.Add(share, self.bias[gate]) if self.bias else share

    def function(self, op: Emitter, number: int, x: Tensor) -> Tensor:
        """One of the functions f, g of a gate."""
        return self.functions[number](op, x if self.clip is None else op.Clip(x, -self.clip, self.clip))


Cell = Callable[[Emitter, Sequence[Tensor], Sequence[Tensor], Weights], tuple[Tensor, ...]]


def lstm(op: Emitter, x: Sequence[Tensor], states: Sequence[Tensor], w: Weights) -> tuple[Tensor, ...]:
    """One step of LSTM. Gates i, o, f, c; states h, c; peepholes of i, o, f."""
    h, c = states
    i, o, f, g = (op.Add(share, w.of(op, h, gate)) for gate, share in enumerate(x))
    if w.peepholes:
        i = op.Add(i, op.Mul(c, w.peepholes[0]))
        f = op.Add(f, op.Mul(c, w.peepholes[2]))
    i = w.function(op, 0, i)
    f = op.Sub(1.0, i) if w.input_forget else w.function(op, 0, f)
    c = op.Add(op.Mul(f, c), op.Mul(i, w.function(op, 1, g)))
    if w.peepholes:
        o = op.Add(o, op.Mul(c, w.peepholes[1]))
    # As in ONNX Runtime, the cell state is not clipped where h reads it.
    return op.Mul(w.function(op, 0, o), w.functions[2](op, c)), c


def gru(op: Emitter, x: Sequence[Tensor], states: Sequence[Tensor], w: Weights) -> tuple[Tensor, ...]:
    """One step of GRU. Gates z, r, h. What is reset is the state, or (as in PyTorch) its product with R."""
    (h,) = states
    z = w.function(op, 0, op.Add(x[0], w.of(op, h, 0)))
    r = w.function(op, 0, op.Add(x[1], w.of(op, h, 1)))
    reset = op.Mul(r, w.of(op, h, 2)) if w.linear_before_reset else w.of(op, op.Mul(r, h), 2)
    new = w.function(op, 1, op.Add(x[2], reset))
    return (op.Add(op.Mul(op.Sub(1.0, z), new), op.Mul(z, h)),)


def rnn(op: Emitter, x: Sequence[Tensor], states: Sequence[Tensor], w: Weights) -> tuple[Tensor, ...]:
    """One step of an Elman network."""
    (h,) = states
    return (w.function(op, 0, op.Add(x[0], w.of(op, h, 0))),)


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

    def function(op: Emitter, x: Tensor) -> Tensor:
        if key == "affine":
            return op.Add(op.Mul(x, parameters["alpha"]), parameters["beta"])
        if key == "scaledtanh":
            return op.Mul(op.Tanh(op.Mul(x, parameters["beta"])), parameters["alpha"])
        result: Tensor = getattr(op, op_type)(x, **parameters)
        return result

    return function
