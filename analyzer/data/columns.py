"""The columns that explain a batch: their types, their shapes and their meaning.

From a model and a result to a list of Columns, and from a result to one array for each column, whose rows are the
samples. Class scores become the predicted class and the probability of the explained class where that is certain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.backends.watched import OutputWatch
from analyzer.graph.graph import Graph
from analyzer.methods.result import Attribution
from analyzer.target.before import SIGMOID, SOFTMAX, find_activation

NO_CLASS = -1
ERROR, TARGET, PREDICTED, OUTPUT = "error", "target", "predicted", "output"
PROBABILITY, COMPLETENESS, MAP, ATTRIBUTIONS = "probability", "completeness_error", "map", "attributions"
# Probabilities sum to 1 within this, in half precision, too.
_SUM = 1e-3


@dataclass(frozen=True)
class Column:
    """A column of results.

    dtype: a NumPy type, or "string". shape: that of one row, () for a number; None where it differs from row to row,
    and the column is then an object array of arrays. rank: the number of axes of a row. null: the value that says that
    a row has none: "" of texts, −1 of classes, NaN of floats; of arrays that differ in shape, one without elements.
    tensor: the ONNX name of the tensor that is attributed, "" of other columns.
    """

    name: str
    dtype: str
    meaning: str
    shape: tuple[int, ...] | None = ()
    rank: int = 0
    tensor: str = ""

    @property
    def null(self) -> Any:
        """The value of a row without one."""
        if self.dtype == "string":
            return ""
        return NO_CLASS if self.dtype == "int64" else float("nan")

    def empty(self, rows: int) -> np.ndarray:
        """Return the column with no row filled in."""
        if self.shape is None:
            found = np.empty(rows, object)
            for row in range(rows):
                found[row] = np.zeros((0,) * self.rank, self.dtype)
            return found
        dtype = object if self.dtype == "string" else self.dtype
        return np.full((rows, *self.shape), self.null, dtype)


FIXED = (
    Column(ERROR, "string", "why the sample could not be read or explained; empty where it was"),
    Column(
        TARGET, "int64", "the explained class; the position in the flattened output where that has more axes"
    ),
    Column(PREDICTED, "int64", "the class of the highest score in the explained output"),
    Column(OUTPUT, "float64", "the explained number: the score of the explained class"),
    Column(PROBABILITY, "float32", "the probability of the explained class, where the scores have one"),
    Column(
        COMPLETENESS, "float64", "how far the attributions miss the sum that they must have, as a share of it"
    ),
)
"""The columns that every method has."""


def array_columns(result: Attribution, *, fixed: bool, attributions: bool, dtype: str) -> tuple[Column, ...]:
    """Return the columns of maps and attributions. fixed: whether all samples have one shape."""
    kinds = {MAP: result.by_tensor(result.map)}
    if attributions:
        kinds[ATTRIBUTIONS] = attributed(result)
    meanings = {
        MAP: f"the map of {result.caption}, {'with' if result.signed else 'without'} sign",
        ATTRIBUTIONS: f"the attributions of {result.caption}, in units of the output"
        if not result.is_map
        else f"the map of {result.caption}, which attributes nothing else",
    }
    return tuple(
        Column(
            kind if len(arrays) == 1 else f"{kind}/{name}",
            dtype,
            meanings[kind],
            array.shape[1:] if fixed else None,
            array.ndim - 1,
            name or (result.wrt[0] if result.wrt else ""),
        )
        for kind, arrays in kinds.items()
        for name, array in arrays.items()
    )


def attributed(result: Attribution) -> dict[str, np.ndarray]:
    """Return the attributions of each tensor, with the samples along axis 0."""
    return {name: result.first(name, array) for name, array in result.by_tensor(result.attributions).items()}


def numbers_of(result: Attribution, watch: OutputWatch) -> dict[str, np.ndarray]:
    """Return the columns of `FIXED` for the samples of a result, without `error`. watch: the whole output."""
    rows = len(result.output)
    found = {column.name: column.empty(rows) for column in FIXED if column.name != ERROR}
    found[OUTPUT][:] = result.output
    target = None if result.target is None else np.asarray(result.target)
    if target is not None and target.shape == (rows,):
        found[TARGET][:] = target
    if result.completeness is not None:
        found[COMPLETENESS][:] = result.completeness.error
    scores = watch.values
    if (
        scores is None
        or scores.ndim != 2
        or len(scores) != rows
        or watch.graph is None
        or watch.output is None
    ):
        return found
    if scores.shape[1] > 1:
        known = ~np.isnan(scores).any(axis=1)
        found[PREDICTED][known] = scores[known].argmax(axis=1)
    if target is not None and target.shape == (rows,):
        found[PROBABILITY][:] = _probability(watch.graph, watch.output, scores.astype(np.float64), target)
    return found


def _class_scores(output: np.ndarray | None, rows: int) -> np.ndarray | None:
    """An output as (N, classes); None where it has further axes, but for those of size 1."""
    if output is None or output.ndim < 2 or len(output) != rows or output.size != rows * output.shape[1]:
        return None
    return output.reshape(rows, -1)


def _probability(graph: Graph, output: str, scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The probability of a class of each sample; NaN where scores may be something else."""
    rows = np.arange(len(scores))
    chosen = scores[rows, target]
    if (activation := find_activation(graph, output)) is not None:
        given: np.ndarray = np.exp(chosen) if activation.logarithm else chosen
        return given
    followed = {
        found.kind
        for name in graph.outputs
        if (found := find_activation(graph, name)) is not None and found.tensor == output
    }
    if followed == {SIGMOID}:
        return _sigmoid(chosen)
    if scores.shape[1] < 2:
        return np.full(len(scores), np.nan)
    with np.errstate(invalid="ignore", over="ignore"):
        powers = np.exp(scores - scores.max(axis=1, keepdims=True))
        softmax = powers[rows, target] / powers.sum(axis=1)
        sums = (scores >= 0).all(axis=1) & (np.abs(scores.sum(axis=1) - 1) <= _SUM)
    share: np.ndarray = softmax if followed == {SOFTMAX} else np.where(sums, chosen, softmax)
    return share


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    """1 / (1 + e^−x) without overflow."""
    found: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logit))
    return found


def lost_in(values: np.ndarray, dtype: str) -> str:
    """Return why a type does not hold the largest numbers of a sample; "" where it does."""
    limits = np.finfo(dtype)
    if limits.bits >= 8 * values.dtype.itemsize or not values.size:
        return ""
    largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
    if largest <= float(limits.max) and not 0 < largest < float(limits.smallest_normal):
        return ""
    return (
        f"the largest number of the sample is {largest:.3g}, which {dtype} does not hold. Fix: use "
        'dtype="float32" (--dtype float32)'
    )


def arrays_of(result: Attribution, columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """Return {column: array with the samples along axis 0} of the maps and attributions, in their own type."""
    maps, found = result.by_tensor(result.map), attributed(result)
    return {
        name: np.asarray(_of(maps if name.partition("/")[0] == MAP else found, name.partition("/")[2]))
        for name in columns
    }


def _of(arrays: Mapping[str, np.ndarray], tensor: str) -> np.ndarray:
    return arrays[tensor] if tensor else next(iter(arrays.values()))
