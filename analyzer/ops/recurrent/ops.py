"""LSTM, GRU and RNN: a Scan of their cell over the sequence, forwards, and backwards for the gradient.

The gradient of the input is one MatMul outside of the Scan. The backward pass reads the hidden states from Y; the gates
are computed again, all steps at once, and the cell states by a short Scan. Sequences shorter than the longest
(`sequence_lens`) keep their state past their end, where Y is 0. Gradients go to the input and the initial states;
weights that depend on the differentiated tensor are refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from analyzer.errors import UnsupportedOp
from analyzer.graph.builder import Builder
from analyzer.graph.fixes import TRACED
from analyzer.graph.graph import Tensor
from analyzer.ops.eager import Composed
from analyzer.ops.recurrent.cells import Lettered
from analyzer.ops.recurrent.layers import (
    GRU_FORM,
    INPUTS,
    LSTM_FORM,
    RNN_FORM,
    RecurrentDirection,
    RecurrentForm,
    RecurrentInputs,
    by_letter,
    input_share,
    layers,
    of_direction,
)
from analyzer.ops.recurrent.steps import Tree, pull_back, push_forward, scan, zeros
from analyzer.ops.registry import ExplicitRule, Kink, register

NamedResults = tuple[Lettered, Lettered]
"""The next states and the elements of the outputs."""


def forward(form: RecurrentForm, op: Builder, *inputs: Any, **attributes: Any) -> tuple[Tensor, ...]:
    """Emit Y and the last states, by a Scan of the cell."""
    ends, rows = [], []
    for layer in layers(op, form, RecurrentInputs(*inputs), **attributes):

        def step(
            op: Builder, states: Lettered, elements: Tree, layer: RecurrentDirection = layer
        ) -> NamedResults:
            following, y = layer.step(op, elements, states)
            return following, {"y": y}

        last, outputs = scan(op, step, layer.states, layer.sequences, layer.reverse)
        ends.append(last)
        rows.append(outputs["y"])
    return _stacked(op, rows, 1), *(_stacked(op, [end[letter] for end in ends], 0) for letter in form.states)


def _stacked(op: Builder, parts: Sequence[Tensor], axis: int) -> Tensor:
    """Emit one tensor of the directions' parts, along a new axis."""
    wide = [op.Unsqueeze(part, [axis]) for part in parts]
    return wide[0] if len(wide) == 1 else op.Concat(*wide, axis=axis)


def vjp(
    form: RecurrentForm,
    op: Builder,
    g: Sequence[Tensor | None],
    y: Sequence[Tensor | None],
    *inputs: Any,
    **attributes: Any,
) -> tuple[Any, ...]:
    """Return the entry of each input."""
    given = RecurrentInputs(*inputs)
    of_outputs = dict(zip(("y", *form.states), g, strict=False))

    @cache
    def pulled() -> list[tuple[Tensor, Lettered]]:
        found = []
        for number, layer in enumerate(layers(op, form, given, **attributes)):
            of_y = of_outputs["y"] and _of_direction(op, of_outputs["y"], number, axis=1)
            of_ends = {}
            for letter, state in layer.states.items():
                end = of_outputs.get(letter)
                of_ends[letter] = zeros(op, state) if end is None else _of_direction(op, end, number, axis=0)
            own_y = _of_direction(op, _all_steps(op, given.x, y), number, axis=1)
            found.append(_pulled_back(op, layer, own_y, of_y, of_ends))
        return found

    def of_x() -> Tensor:
        parts = [of_input for of_input, _ in pulled()]
        return parts[0] if len(parts) == 1 else op.Add(*parts)

    def of_state(letter: str) -> Callable[[], Tensor]:
        return lambda: _stacked(op, [of_states[letter] for _, of_states in pulled()], 0)

    def refuse() -> Tensor:
        raise UnsupportedOp(
            f"the weights of the recurrent op that reads {given.r.name!r} depend on the differentiated tensor: "
            f"they have no VJP rule. {TRACED}"
        )

    entries = {"x": of_x, "lengths": None, **{letter: of_state(letter) for letter in form.states}}
    return tuple(entries.get(name, refuse) for name in INPUTS)


def _of_direction(op: Builder, t: Tensor, number: int, axis: int) -> Tensor:
    """Emit one direction of an output. Y has the directions on axis 1, the last states on axis 0."""
    return op.Gather(t, np.asarray(number), axis=axis)


def _pulled_back(
    op: Builder, layer: RecurrentDirection, y: Tensor, of_y: Tensor | None, of_ends: Lettered
) -> tuple[Tensor, Lettered]:
    """Emit the gradients of the input, (T, N, I), and of the initial states."""

    def back(op: Builder, cotangents: Lettered, at: Tree) -> NamedResults:
        since = len(op.calls)
        following, y = layer.step(op, at["layer"], at["states"])
        pairs = [(state, cotangents[letter]) for letter, state in following.items()]
        if of_y is not None:
            pairs.append((y, at["of_y"]))
        wrt = {"gates": at["layer"]["gates"], "states": at["states"]}
        found = pull_back(op, since, pairs, wrt)
        return found["states"], found["gates"]

    read = {"layer": layer.sequences, "states": _before(op, layer, y)}
    of_states, of_gates = scan(
        op, back, of_ends, read if of_y is None else {**read, "of_y": of_y}, not layer.reverse
    )
    parts = list(of_gates.values())
    wide = parts[0] if len(parts) == 1 else op.Concat(*parts, axis=2)
    return op.MatMul(wide, layer.w), of_states


def _before(op: Builder, layer: RecurrentDirection, y: Tensor) -> Lettered:
    """Emit the states before each step, (T, N, H)."""
    hidden = _hidden_before(op, layer, y)
    cells = {letter: state for letter, state in layer.states.items() if letter != "h"}
    if not cells:
        return {"h": hidden}

    def advance(op: Builder, states: Lettered, at: Tree) -> NamedResults:
        following, _ = layer.step(op, at["layer"], {"h": at["h"], **states})
        return {letter: following[letter] for letter in states}, states

    _, before = scan(op, advance, cells, {"layer": layer.sequences, "h": hidden}, layer.reverse)
    return {"h": hidden, **before}


def _hidden_before(op: Builder, layer: RecurrentDirection, y: Tensor) -> Tensor:
    """Emit the hidden state before each step: Y of the step that came before it."""

    def tail(x: Tensor) -> Tensor:
        return op.Slice(x, [1], [np.iinfo(np.int64).max], [0])

    first = op.Unsqueeze(layer.states["h"], [0])
    if not layer.reverse:
        return op.Concat(first, op.Slice(y, [0], [-1], [0]), axis=0)
    hidden = op.Concat(tail(y), first, axis=0)
    if layer.running is None:
        return hidden
    # Past a sequence's end, where its backward pass begins, Y is 0. (The last step has the initial state either way.)
    started = op.Concat(tail(layer.running), op.Slice(layer.running, [0], [1], [0]), axis=0)
    return op.Where(started, hidden, first)


def _all_steps(op: Builder, x: Tensor, y: Sequence[Tensor | None]) -> Tensor:
    """Return Y, which the model's node may have left out."""
    return op.forward_output(0, x.dtype.type) if y[0] is None else y[0]


def residual(
    form: RecurrentForm,
    op: Builder,
    active: Sequence[bool],
    y: Sequence[Tensor | None],
    *inputs: Any,
    **attributes: Any,
) -> tuple[Tensor | None, ...]:
    """Emit r = y − Σ J u of each output. A Scan carries J u along with the states."""
    given = RecurrentInputs(*inputs)
    moving = {name for name, moves in zip(INPUTS, active, strict=False) if moves}
    pushed = []
    for number, layer in enumerate(layers(op, form, given, **attributes)):
        share = input_share(op, of_direction(op, given, number)) if "x" in moving else None
        of_gates = {} if share is None else by_letter(op, share, form.gates, axis=2)
        of_states = {
            letter: state if letter in moving else zeros(op, state) for letter, state in layer.states.items()
        }
        own_y = _of_direction(op, _all_steps(op, given.x, y), number, axis=1)
        pushed.append(_pushed_forward(op, layer, own_y, of_gates, of_states))
    products = {name: [one[name] for one in pushed] for name in ("y", *form.states)}
    axes = {"y": 1}
    return tuple(
        None if value is None else op.Sub(value, _stacked(op, parts, axes.get(name, 0)))
        for value, (name, parts) in zip(y, products.items(), strict=False)
    )


def _pushed_forward(
    op: Builder, layer: RecurrentDirection, y: Tensor, of_gates: Lettered, of_states: Lettered
) -> Mapping[str, Tensor]:
    """Emit the tangents of Y and of the last states, from those of the gates (none: zero) and the initial states."""

    def step(op: Builder, tangents: Lettered, at: Tree) -> NamedResults:
        since = len(op.calls)
        following, y = layer.step(op, at["layer"], at["states"])
        pairs = [(at["layer"]["gates"][gate], tangent) for gate, tangent in at["of_gates"].items()]
        pairs += [(at["states"][letter], tangent) for letter, tangent in tangents.items()]
        found = push_forward(op, since, pairs, {"y": y, "states": following})
        return found["states"], {"y": found["y"]}

    read = {"layer": layer.sequences, "states": _before(op, layer, y), "of_gates": of_gates}
    last, rows = scan(op, step, of_states, read, layer.reverse)
    return {**rows, **last}


class Recurrent(ExplicitRule):
    """Base of the three ops. Sequence lengths carry no gradient."""

    kinks = (Kink("an activation or the clip at its kink", "as the op of that name"),)
    several_outputs = True
    inactive = frozenset({INPUTS.index("lengths")})


@register
class LSTM(Recurrent):
    torch = tensorflow = Composed(partial(forward, LSTM_FORM))
    vjp = partial(vjp, LSTM_FORM)
    residual = partial(residual, LSTM_FORM)


@register
class GRU(Recurrent):
    torch = tensorflow = Composed(partial(forward, GRU_FORM))
    vjp = partial(vjp, GRU_FORM)
    residual = partial(residual, GRU_FORM)


@register
class RNN(Recurrent):
    torch = tensorflow = Composed(partial(forward, RNN_FORM))
    vjp = partial(vjp, RNN_FORM)
    residual = partial(residual, RNN_FORM)
