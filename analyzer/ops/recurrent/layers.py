"""LSTM, GRU and RNN: a Scan of their cell over the sequence, forwards, and backwards for the gradient.

The input's share of the gates is one MatMul outside of the Scan, and so is the gradient of the input. The way
back reads the hidden states from Y; the gates are computed again, all steps at once, and the cell states by a short
Scan. Sequences shorter than the
longest (`sequence_lens`) keep their state behind their end, where Y is 0. Gradients go to the input and the
initial states; weights that depend on the differentiated tensor are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Emitter
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.eager import Composed
from analyzer.ops.recurrent.cells import Cell, Weights, activation_functions, gru, lstm, rnn
from analyzer.ops.recurrent.steps import pull_back, push_forward, zeros
from analyzer.ops.registry import ExplicitRule, Kink, register
from analyzer.ops.support import onnx_dtype


@dataclass(frozen=True)
class RecurrentInputs:
    """The inputs of a recurrent node, by ONNX's letters."""

    x: Tensor
    w: Tensor
    r: Tensor
    b: Tensor | None = None
    lengths: Tensor | None = None
    h: Tensor | None = None
    c: Tensor | None = None
    p: Tensor | None = None


@dataclass(frozen=True)
class RecurrentForm:
    """What sets the three ops apart: the cell, its number of gates and of states, and its usual functions."""

    cell: Cell
    gates: int
    states: int
    functions: Sequence[str]


_LSTM = RecurrentForm(lstm, 4, 2, ("Sigmoid", "Tanh", "Tanh"))
_GRU = RecurrentForm(gru, 3, 1, ("Sigmoid", "Tanh"))
_RNN = RecurrentForm(rnn, 1, 1, ("Tanh",))
_KINKS = (Kink("an activation or the clip at its kink", "as the op of that name"),)
_DIRECTIONS = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}


@dataclass(frozen=True)
class RecurrentDirection:
    """One direction of a recurrent node, ready to be scanned.

    gates: the input's share of each gate, (T, N, H). states: the initial ones, (N, H). running: (T, N, 1), whether a
    sample's sequence has not ended, or None. w: (gates · H, input).
    """

    cell: Cell
    weights: Weights
    w: Tensor
    gates: Sequence[Tensor]
    states: Sequence[Tensor]
    running: Tensor | None
    reverse: bool

    @property
    def sequences(self) -> list[Tensor]:
        """What a Scan of the cell runs over."""
        return [*self.gates, *([] if self.running is None else [self.running])]

    def step(
        self, op: Emitter, elements: Sequence[Tensor], states: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor]:
        """One step from the elements of `sequences`: the next states, and the element of Y."""
        count = len(self.gates)
        following = self.cell(op, elements[:count], states, self.weights)
        if self.running is None:
            return [*following], following[0]
        running = elements[count]
        kept = [op.Where(running, new, old) for new, old in zip(following, states, strict=True)]
        return kept, op.Where(running, following[0], 0.0)


def layers(
    op: Emitter,
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
    """A node's directions. Raises UnsupportedOp for what a canonical graph does not have."""
    if layout:
        raise UnsupportedOp(
            "a recurrent op with layout=1 is not canonical. Fix: convert the model with onnxplain.convert first"
        )
    reversals = _DIRECTIONS[direction]
    names = activations or [*form.functions] * len(reversals)
    functions = activation_functions(names, activation_alpha, activation_beta)
    running = None if inputs.lengths is None else _running(op, inputs.x, inputs.lengths)
    found = []
    for number, reverse in enumerate(reversals):
        own = _of_direction(op, inputs, number)
        inside, outside = _biases(op, form, own.b, bool(linear_before_reset))
        weights = Weights(
            recurrent=_split(op, own.r, form.gates, axis=0),
            bias=inside,
            peepholes=() if own.p is None else _split(op, own.p, 3, axis=0),
            functions=functions[number * len(form.functions) :][: len(form.functions)],
            clip=clip,
            input_forget=bool(input_forget),
            linear_before_reset=bool(linear_before_reset),
        )
        share = _share(op, own)
        gates = _split(op, share if outside is None else op.Add(share, outside), form.gates, axis=2)
        first = op.Gather(gates[0], np.asarray(0), axis=0)
        states = [zeros(op, first) if state is None else state for state in (own.h, own.c)[: form.states]]
        found.append(RecurrentDirection(form.cell, weights, own.w, gates, states, running, reverse))
    return found


def _of_direction(op: Emitter, inputs: RecurrentInputs, number: int) -> RecurrentInputs:
    """The inputs without their axis of directions."""

    def pick(tensor: Tensor) -> Tensor:
        return op.Gather(tensor, np.asarray(number), axis=0)

    b, h, c, p = (None if t is None else pick(t) for t in (inputs.b, inputs.h, inputs.c, inputs.p))
    return RecurrentInputs(inputs.x, pick(inputs.w), pick(inputs.r), b, inputs.lengths, h, c, p)


def _share(op: Emitter, own: RecurrentInputs) -> Tensor:
    """X Wᵀ, the input's share of all gates."""
    return op.MatMul(own.x, op.Transpose(own.w, perm=[1, 0]))


def _biases(
    op: Emitter, form: RecurrentForm, b: Tensor | None, linear_before_reset: bool
) -> tuple[Sequence[Tensor], Tensor | None]:
    """The biases inside of the cell, a gate each, and the bias that is added to the input's share."""
    if b is None:
        return (), None
    of_input, of_state = _split(op, b, 2, axis=0)
    if linear_before_reset:
        # The reset gate scales the recurrent bias too.
        return _split(op, of_state, form.gates, axis=0), of_input
    return (), op.Add(of_input, of_state)


def _running(op: Emitter, x: Tensor, lengths: Tensor) -> Tensor:
    """(T, N, 1): whether a step lies before the end of a sample's sequence."""
    total = op.Squeeze(op.Shape(x, start=0, end=1), [0])
    steps = op.Range(np.asarray(0), total, np.asarray(1))
    ends = op.Cast(lengths, to=onnx_dtype(np.dtype(np.int64)))
    return op.Less(op.Unsqueeze(steps, [1, 2]), op.Unsqueeze(ends, [0, 2]))


def _split(op: Emitter, x: Tensor, count: int, axis: int) -> list[Tensor]:
    return [x] if count == 1 else [*op.emit("Split", [x], outputs=count, axis=axis, num_outputs=count)]


def _stacked(op: Emitter, parts: Sequence[Tensor], axis: int) -> Tensor:
    """One tensor of the directions' parts, along a new axis."""
    wide = [op.Unsqueeze(part, [axis]) for part in parts]
    return wide[0] if len(wide) == 1 else op.Concat(*wide, axis=axis)


def forward(form: RecurrentForm, op: Emitter, *inputs: Any, **attributes: Any) -> tuple[Tensor, ...]:
    """Y and the last states, by a Scan of the cell."""
    ends, sequences = [], []
    for layer in layers(op, form, RecurrentInputs(*inputs), **attributes):

        def step(
            op: Emitter, states: list[Tensor], elements: list[Tensor], layer: RecurrentDirection = layer
        ) -> Any:
            following, y = layer.step(op, elements, states)
            return following, [y]

        last, (y,) = op.scan(step, layer.states, layer.sequences, layer.reverse)
        ends.append(last)
        sequences.append(y)
    return _stacked(op, sequences, 1), *(_stacked(op, states, 0) for states in zip(*ends, strict=True))


def vjp(
    form: RecurrentForm,
    op: Emitter,
    g: Sequence[Tensor | None],
    y: Sequence[Tensor | None],
    *inputs: Any,
    **attributes: Any,
) -> tuple[Any, ...]:
    """The entries of the inputs X, W, R, B, sequence_lens, initial_h, initial_c, P."""
    given = RecurrentInputs(*inputs)
    of_outputs = [*g, *[None] * (1 + form.states - len(g))]

    @cache
    def pulled() -> list[tuple[Tensor, list[Tensor]]]:
        found = []
        for number, layer in enumerate(layers(op, form, given, **attributes)):
            # Y has the directions on axis 1, the last states on axis 0.
            of_y, *of_ends = (
                None if part is None else op.Gather(part, np.asarray(number), axis=int(part is of_outputs[0]))
                for part in of_outputs
            )
            ends = [
                zeros(op, state) if end is None else end
                for state, end in zip(layer.states, of_ends, strict=True)
            ]
            own_y = op.Gather(_all_steps(op, given.x, y), np.asarray(number), axis=1)
            found.append(_pulled_back(op, layer, own_y, of_y, ends))
        return found

    def of_x() -> Tensor:
        parts = [of_input for of_input, _ in pulled()]
        return parts[0] if len(parts) == 1 else op.Add(*parts)

    def of_state(index: int) -> Callable[[], Tensor]:
        return lambda: _stacked(op, [of_states[index] for _, of_states in pulled()], 0)

    def refuse() -> Tensor:
        raise UnsupportedOp(
            f"the weights of the recurrent op that reads {given.r.name!r} depend on the differentiated tensor: "
            f"they have no VJP rule. {TRACED}"
        )

    return of_x, refuse, refuse, refuse, None, of_state(0), of_state(1), refuse


def _pulled_back(
    op: Emitter, layer: RecurrentDirection, y: Tensor, of_y: Tensor | None, of_ends: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor]]:
    """The gradients of the input, (T, N, I), and of the initial states."""
    count = len(layer.sequences)

    def back(op: Emitter, cotangents: list[Tensor], elements: list[Tensor]) -> Any:
        own, states = elements[:count], elements[count:][: len(cotangents)]
        since = len(op.calls)
        following, y = layer.step(op, own, states)
        pairs = list(zip(following, cotangents, strict=True))
        if of_y is not None:
            pairs.append((y, elements[-1]))
        gates = own[: len(layer.gates)]
        gradients = pull_back(op, since, pairs, [*gates, *states])
        return gradients[len(gates) :], gradients[: len(gates)]

    sequences = [*layer.sequences, *_before(op, layer, y), *([] if of_y is None else [of_y])]
    of_states, of_gates = op.scan(back, of_ends, sequences, not layer.reverse)
    wide = of_gates[0] if len(of_gates) == 1 else op.Concat(*of_gates, axis=2)
    return op.MatMul(wide, layer.w), of_states


def _before(op: Emitter, layer: RecurrentDirection, y: Tensor) -> list[Tensor]:
    """The states before each step, (T, N, H)."""
    hidden = _hidden_before(op, layer, y)
    if len(layer.states) == 1:
        return [hidden]

    def advance(op: Emitter, cells: list[Tensor], elements: list[Tensor]) -> Any:
        following, _ = layer.step(op, elements[:-1], [elements[-1], *cells])
        return following[1:], cells

    _, cells = op.scan(advance, layer.states[1:], [*layer.sequences, hidden], layer.reverse)
    return [hidden, *cells]


def _hidden_before(op: Emitter, layer: RecurrentDirection, y: Tensor) -> Tensor:
    """The hidden state before each step: Y of the step that came before it."""

    def tail(x: Tensor) -> Tensor:
        return op.Slice(x, [1], [np.iinfo(np.int64).max], [0])

    first = op.Unsqueeze(layer.states[0], [0])
    if not layer.reverse:
        return op.Concat(first, op.Slice(y, [0], [-1], [0]), axis=0)
    hidden = op.Concat(tail(y), first, axis=0)
    if layer.running is None:
        return hidden
    # Behind a sequence's end, where its way back begins, Y is 0. (The last step has the initial state either way.)
    started = op.Concat(tail(layer.running), op.Slice(layer.running, [0], [1], [0]), axis=0)
    return op.Where(started, hidden, first)


def _all_steps(op: Emitter, x: Tensor, y: Sequence[Tensor | None]) -> Tensor:
    """Y, which the model's node may have left out."""
    return op.forward_output(0, x.dtype.type) if y[0] is None else y[0]


def residual(
    form: RecurrentForm,
    op: Emitter,
    active: Sequence[bool],
    y: Sequence[Tensor | None],
    *inputs: Any,
    **attributes: Any,
) -> tuple[Tensor | None, ...]:
    """r = y − Σ J u of each output: a Scan carries J u along beside the states."""
    given = RecurrentInputs(*inputs)
    # The initial states follow five other inputs; what is omitted is not active.
    moves = [active[5 + index] if len(active) > 5 + index else False for index in range(form.states)]
    pushed = []
    for number, layer in enumerate(layers(op, form, given, **attributes)):
        own = _of_direction(op, given, number)
        of_gates = _split(op, _share(op, own), form.gates, axis=2) if active[0] else []
        of_states = [
            state if active else zeros(op, state) for state, active in zip(layer.states, moves, strict=True)
        ]
        own_y = op.Gather(_all_steps(op, given.x, y), np.asarray(number), axis=1)
        pushed.append(_pushed_forward(op, layer, own_y, of_gates, of_states))
    of_y, *of_ends = zip(*pushed, strict=True)
    products = [_stacked(op, of_y, 1), *(_stacked(op, end, 0) for end in of_ends)]
    return tuple(
        None if value is None else op.Sub(value, product) for value, product in zip(y, products, strict=False)
    )


def _pushed_forward(
    op: Emitter, layer: RecurrentDirection, y: Tensor, of_gates: Sequence[Tensor], of_states: Sequence[Tensor]
) -> list[Tensor]:
    """The tangents of Y and of the last states, from those of the gates (none: zero) and the initial states."""
    own_count, count = len(layer.sequences), len(layer.states)

    def step(op: Emitter, tangents: list[Tensor], elements: list[Tensor]) -> Any:
        own, states, moving = (
            elements[:own_count],
            elements[own_count:][:count],
            elements[own_count + count :],
        )
        since = len(op.calls)
        following, y = layer.step(op, own, states)
        # The gates come first among a layer's sequences.
        pairs = [*zip(own, moving, strict=False), *zip(states, tangents, strict=True)]
        of_y, *of_following = push_forward(op, since, pairs, [y, *following])
        return of_following, [of_y]

    sequences = [*layer.sequences, *_before(op, layer, y), *of_gates]
    last, (of_y,) = op.scan(step, of_states, sequences, layer.reverse)
    return [of_y, *last]


@register
class LSTM(ExplicitRule):
    kinks = _KINKS
    several_outputs = True
    inactive = frozenset({4})
    torch = tensorflow = Composed(partial(forward, _LSTM))
    vjp = partial(vjp, _LSTM)
    residual = partial(residual, _LSTM)


@register
class GRU(ExplicitRule):
    kinks = _KINKS
    several_outputs = True
    inactive = frozenset({4})
    torch = tensorflow = Composed(partial(forward, _GRU))
    vjp = partial(vjp, _GRU)
    residual = partial(residual, _GRU)


@register
class RNN(ExplicitRule):
    kinks = _KINKS
    several_outputs = True
    inactive = frozenset({4})
    torch = tensorflow = Composed(partial(forward, _RNN))
    vjp = partial(vjp, _RNN)
    residual = partial(residual, _RNN)
