"""The directions of a recurrent node, ready to be scanned. Gates, states and inputs have the letters of ONNX.

Reads the inputs and attributes of an LSTM, GRU or RNN; returns a record for each direction. The input's share of the
gates is one MatMul outside of the Scan. Refuses layout=1, which a canonical graph does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.graph import Tensor
from analyzer.ops.recurrent.cells import Cell, Lettered, Weights, activation_functions, gru, lstm, rnn
from analyzer.ops.recurrent.steps import Tree, zeros
from analyzer.ops.support import onnx_dtype


@dataclass(frozen=True)
class RecurrentInputs:
    """The inputs of a recurrent node, in order, by ONNX's letters."""

    x: Tensor
    w: Tensor
    r: Tensor
    b: Tensor | None = None
    lengths: Tensor | None = None
    h: Tensor | None = None
    c: Tensor | None = None
    p: Tensor | None = None


INPUTS = tuple(RecurrentInputs.__dataclass_fields__)


@dataclass(frozen=True)
class RecurrentForm:
    """The differences between the three ops: the cell, and the letters of its gates, states and functions.

    peepholes: the gates that may have one. functions: the usual function of each letter.
    """

    cell: Cell
    gates: str
    states: str
    functions: Mapping[str, str]
    peepholes: str = ""


LSTM_FORM = RecurrentForm(lstm, "iofc", "hc", {"f": "Sigmoid", "g": "Tanh", "h": "Tanh"}, peepholes="iof")
GRU_FORM = RecurrentForm(gru, "zrh", "h", {"f": "Sigmoid", "g": "Tanh"})
RNN_FORM = RecurrentForm(rnn, "i", "h", {"f": "Tanh"})
_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


@dataclass(frozen=True)
class RecurrentDirection:
    """One direction of a recurrent node.

    gates: the input's share of each gate, (T, N, H).
    states: the initial states, (N, H).
    running: whether a sample's sequence has not ended, (T, N, 1), or None.
    w: (gates · H, input).
    """

    cell: Cell
    weights: Weights
    w: Tensor
    gates: Lettered
    states: Lettered
    running: Tensor | None
    reverse: bool

    @property
    def sequences(self) -> Tree:
        """The sequences that a Scan of the cell reads."""
        return {"gates": self.gates, **({} if self.running is None else {"running": self.running})}

    def step(self, op: Builder, elements: Tree, states: Lettered) -> tuple[Lettered, Tensor]:
        """Emit one step from the elements of `sequences`. Return the next states, and the element of Y."""
        following = self.cell(op, elements["gates"], states, self.weights)
        if self.running is None:
            return following, following["h"]
        running = elements["running"]
        kept = {letter: op.Where(running, new, states[letter]) for letter, new in following.items()}
        return kept, op.Where(running, following["h"], 0.0)


def layers(
    op: Builder,
    form: RecurrentForm,
    inputs: RecurrentInputs,
    *,
    direction: str,
    activations: Sequence[str] | None,
    activation_alpha: Sequence[float] | None,
    activation_beta: Sequence[float] | None,
    clip: float | None,
    layout: int,
    hidden_size: int | None,
    input_forget: int = 0,
    linear_before_reset: int = 0,
) -> list[RecurrentDirection]:
    """Return a node's directions. Raises UnsupportedOp for a form that a canonical graph does not have."""
    if layout:
        raise UnsupportedOp(
            "a recurrent op with layout=1 is not canonical. Fix: convert the model with onnxplain.convert first"
        )
    reversals = _DIRECTIONS[direction]
    names = activations or [*form.functions.values()] * len(reversals)
    functions = iter(activation_functions(names, activation_alpha, activation_beta))
    running = None if inputs.lengths is None else _running(op, inputs.x, inputs.lengths)
    found = []
    for number, reverse in enumerate(reversals):
        own = of_direction(op, inputs, number)
        inside, outside = _biases(op, form, own.b, bool(linear_before_reset))
        weights = Weights(
            recurrent=by_letter(op, own.r, form.gates, axis=0),
            bias=inside,
            peepholes={} if own.p is None else by_letter(op, own.p, form.peepholes, axis=0),
            functions={letter: next(functions) for letter in form.functions},
            clip=clip,
            input_forget=bool(input_forget),
            linear_before_reset=bool(linear_before_reset),
        )
        share = input_share(op, own)
        gates = by_letter(op, share if outside is None else op.Add(share, outside), form.gates, axis=2)
        first = op.Gather(next(iter(gates.values())), np.asarray(0), axis=0)
        given = {"h": own.h, "c": own.c}
        states = {letter: given[letter] or zeros(op, first) for letter in form.states}
        found.append(RecurrentDirection(form.cell, weights, own.w, gates, states, running, reverse))
    return found


def of_direction(op: Builder, inputs: RecurrentInputs, number: int) -> RecurrentInputs:
    """Emit the inputs of one direction, without their axis of directions."""

    def pick(tensor: Tensor) -> Tensor:
        return op.Gather(tensor, np.asarray(number), axis=0)

    b, h, c, p = (None if t is None else pick(t) for t in (inputs.b, inputs.h, inputs.c, inputs.p))
    return RecurrentInputs(inputs.x, pick(inputs.w), pick(inputs.r), b, inputs.lengths, h, c, p)


def input_share(op: Builder, own: RecurrentInputs) -> Tensor:
    """Emit X Wᵀ, the input's share of all gates."""
    return op.MatMul(own.x, op.Transpose(own.w, perm=[1, 0]))


def by_letter(op: Builder, x: Tensor, letters: str, axis: int) -> dict[str, Tensor]:
    """Emit the equal parts of a tensor along an axis, one a letter."""
    if len(letters) == 1:
        return {letters: x}
    parts = op.emit("Split", [x], outputs=len(letters), axis=axis, num_outputs=len(letters))
    return dict(zip(letters, parts, strict=True))


def _biases(
    op: Builder, form: RecurrentForm, b: Tensor | None, linear_before_reset: bool
) -> tuple[Lettered, Tensor | None]:
    """Return the bias of each gate that the cell adds, and the bias that is added to the input's share."""
    if b is None:
        return {}, None
    of_input, of_state = op.emit("Split", [b], outputs=2, axis=0, num_outputs=2)
    if linear_before_reset:
        # The reset gate scales the recurrent bias too.
        return by_letter(op, of_state, form.gates, axis=0), of_input
    return {}, op.Add(of_input, of_state)


def _running(op: Builder, x: Tensor, lengths: Tensor) -> Tensor:
    """Emit whether a step lies before the end of a sample's sequence, (T, N, 1)."""
    total = op.Squeeze(op.Shape(x, start=0, end=1), [0])
    steps = op.Range(np.asarray(0), total, np.asarray(1))
    ends = op.Cast(lengths, to=onnx_dtype(np.dtype(np.int64)))
    return op.Less(op.Unsqueeze(steps, [1, 2]), op.Unsqueeze(ends, [0, 2]))
