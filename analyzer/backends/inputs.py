"""Check the inputs of a call, and convert them to the arrays that a graph takes.

From a Graph and arrays to feeds {input name: array} in the graph's types. Refuses wrong names, numbers, shapes and NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

from analyzer.errors import InputError, ShapeError
from analyzer.graph.batch_axis import batched_inputs
from analyzer.graph.channel_axis import shape_with_channels
from analyzer.graph.fixes import ALIKE, FINITE, NUMBERS, numbers_fix, shape_fix
from analyzer.graph.graph import Graph, Tensor
from analyzer.types import Arrays, Inputs, as_array, kind_of
from converters.types import Shape


class Feeds(dict[str, np.ndarray]):
    """Inputs that were checked for a graph, {input name: array}, which are not checked again.

    single: whether one array was given in place of {input name: array}. One array is then the answer.
    """

    def __init__(self, graph: Graph, arrays: Mapping[str, np.ndarray], *, single: bool) -> None:
        super().__init__(arrays)
        self.graph, self.single = graph, single

    def of(self, graph: Graph) -> Feeds:
        """Return the feeds of another graph of the same model."""
        return self if graph is self.graph else Feeds(graph, self, single=self.single)

    def form(self, arrays: Arrays) -> Any:
        """Return results by tensor in the form of the inputs: one array, or {tensor: array}."""
        return next(iter(arrays.values())) if self.single else arrays


# The inputs of the method that runs, as it was given them, and checked.
_CALL: ContextVar[tuple[Inputs, Feeds] | None] = ContextVar("inputs of a call", default=None)


@contextmanager
def calling(inputs: Inputs, feeds: Feeds) -> Iterator[None]:
    """Let `checked_for` return these feeds for these very inputs within the block."""
    token = _CALL.set((inputs, feeds))
    try:
        yield
    finally:
        _CALL.reset(token)


def checked_for(graph: Graph, inputs: Inputs) -> Feeds | None:
    """Return the feeds of the inputs that the method in progress was given; None of any others."""
    given, feeds = _CALL.get() or (None, None)
    return feeds if feeds is not None and inputs is given and feeds.graph is graph else None


def check_inputs(graph: Graph, inputs: Inputs) -> Feeds:
    """Return the feeds in the graph's dtypes; those that were checked for this graph as they are.

    Raises InputError for a missing or unknown name, a dtype that does not hold numbers, NaN or infinity; ShapeError
    for a shape that the input does not take.
    """
    if isinstance(inputs, Feeds) and inputs.graph is graph:
        return inputs
    names = ", ".join(graph.inputs)
    if isinstance(inputs, Mapping):
        given = dict(inputs)
    elif len(graph.inputs) == 1:
        given = {graph.inputs[0]: inputs}
    else:
        raise InputError(
            f"the model has {len(graph.inputs)} inputs, {names}, got one value. Fix: {_give(graph)}"
        )
    unknown = [name for name in given if name not in graph.inputs]
    missing = [name for name in graph.inputs if name not in given]
    if unknown or missing:
        what = f"unknown input {unknown[0]!r}" if unknown else f"missing input {missing[0]!r}"
        raise InputError(f"{what}; the model's inputs are {names}. Fix: {_give(graph)}")
    batched = batched_inputs(graph)
    feeds = {
        n: _check_input(graph.tensors[n], shape_with_channels(graph, n), given[n], free=n in batched)
        for n in graph.inputs
    }
    counts = {feeds[name].shape[0] for name in batched}
    symbols = {shape[0] for name in batched if (shape := graph.tensors[name].shape)}
    # Axes of different names, as of nodes and of edges, need not agree: arranging.py decides.
    if len(counts) > 1 and len(symbols) == 1:
        raise ShapeError(f"the inputs have different numbers of samples: {sorted(counts)}. {ALIKE}")
    if 0 in counts:
        raise ShapeError("the input has no samples. Fix: give at least one")
    return Feeds(graph, feeds, single=not isinstance(inputs, Mapping))


def refuse_not_finite(name: str, array: np.ndarray) -> None:
    """Raise InputError where the values of an input hold NaN or infinity."""
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        bad = int(array.size - np.isfinite(array).sum())
        raise InputError(
            f"the input {name!r} holds NaN or infinity ({bad} of {array.size} elements). {FINITE}"
        )


def _check_input(tensor: Tensor, shape: Shape | None, value: object, *, free: bool) -> np.ndarray:
    """One feed in the dtype of its tensor; `free` lets any number of samples pass. shape: with all sizes known."""
    where = f"the input {tensor.name!r}"
    try:
        array = as_array(value)
    except ValueError as error:  # rows of different lengths
        raise InputError(
            f"{where} takes {tensor.dtype} numbers, not rows of different lengths. {NUMBERS}"
        ) from error
    if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
        raise InputError(
            f"{where} takes {tensor.dtype} numbers, not {kind_of(value, array)}. {numbers_fix(array)}"
        )
    if not tensor.is_float and array.dtype.kind == "f":
        raise InputError(
            f"{where} takes {tensor.dtype}, not {array.dtype}. Fix: give x.astype({tensor.dtype.name!r})"
        )
    if shape is not None:
        _check_shape(shape, array, where, free)
    refuse_not_finite(tensor.name, array)
    # Not ascontiguousarray, which makes a scalar a vector of one.
    return np.asarray(array, dtype=tensor.dtype, order="C")


def _give(graph: Graph) -> str:
    """Return how to give all inputs of a graph."""
    named = ", ".join(f"{name!r}: array" for name in graph.inputs)
    return f"give {'one array, or ' if len(graph.inputs) == 1 else ''}a dict {{{named}}}"


def _check_shape(axes: Shape, array: np.ndarray, where: str, free: bool) -> None:
    stated = (None, *axes[1:]) if free and axes else axes
    fits = array.ndim == len(axes) and all(
        have == want for have, want in zip(array.shape, stated, strict=True) if isinstance(want, int)
    )
    if fits:
        return
    wanted = f"({', '.join(str(axis) if axis is not None else '?' for axis in axes)})"
    raise ShapeError(
        f"{where} has shape {array.shape}, the model takes {wanted}. {shape_fix(array.shape, stated)}"
    )
