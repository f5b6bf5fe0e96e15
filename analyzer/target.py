"""Say which scalar is explained: a class per sample, the highest logit, or weights over an output.

A Target is resolved against a model's output to a Seed: either a class index per sample (−1 for the
highest) or an array of weights shaped like the output, whose inner product with it is the scalar.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analyzer.errors import TargetError
from analyzer.graph import Graph, Tensor

HIGHEST = -1

Index = int | tuple[int, ...] | Sequence[int] | np.ndarray


@dataclass(frozen=True)
class Target:
    """The scalar to explain, per sample.

    output: the name of a model output, or of any float tensor; None is the first output.
    index: an int is a class, the same for every sample; an array (N,) a class per sample; an array (N, k)
        the sum of k classes per sample; a tuple the coordinates of one element, without the batch axis. On
        an output with more axes than (N, classes) a class is summed over the remaining axes.
    weights: an array shaped like one sample of the output, or like the whole output.
    With neither, the highest element of each sample.
    """

    output: str | None = None
    index: Index | None = None
    weights: np.ndarray | None = None

    def __post_init__(self) -> None:
        if self.index is not None and self.weights is not None:
            raise TargetError("a Target takes an index or weights, not both")


TargetLike = Target | int | Sequence[int] | np.ndarray | None


@dataclass(frozen=True)
class Seed:
    """A resolved target: `index` (N,) into a (N, classes) output, or `weights` like the output.

    With neither, the highest element of each sample.
    """

    output: str
    index: np.ndarray | None = None
    weights: np.ndarray | None = None

    def cotangent(self, y: np.ndarray) -> np.ndarray:
        """The weights over the output y: one-hot rows for an index."""
        if self.weights is not None:
            return self.weights
        flat = rows_of(y)
        weights = np.zeros_like(flat)
        chosen = self.chosen(y)
        assert chosen is not None
        np.put_along_axis(weights, chosen[:, None], 1, axis=1)
        return weights.reshape(y.shape)

    def chosen(self, y: np.ndarray) -> np.ndarray | None:
        """The class of each sample, (N,); None where weights are explained."""
        if self.weights is not None:
            return None
        return rows_of(y).argmax(axis=1) if self.index is None else self.index

    def rows(self, chosen: np.ndarray) -> Seed:
        """The seed of some of the samples."""
        return Seed(
            self.output,
            None if self.index is None else self.index[chosen],
            None if self.weights is None else self.weights[chosen],
        )


def rows_of(y: np.ndarray) -> np.ndarray:
    """An output as (N, elements of a sample)."""
    return y.reshape(y.shape[0] if y.ndim else 1, -1)


def as_target(target: TargetLike) -> Target:
    """A Target from what the API takes: None, an int, an array of ints, or a Target."""
    if isinstance(target, Target):
        return target
    if target is None:
        return Target()
    if isinstance(target, (bool, float, str)):
        raise TargetError(f"a target is None, an int, an array (N,) of ints or a Target, not {target!r}")
    if isinstance(target, (int, np.integer)):
        return Target(index=int(target))
    array = np.asarray(target)
    if array.dtype.kind not in "iu":
        raise TargetError(f"target indices are ints, not {array.dtype}; weights go into Target(weights=…)")
    return Target(index=array if array.ndim else int(array))


def resolve(
    target: Target, graph: Graph, samples: int, sizes: Callable[[str], tuple[int, ...]] | None = None
) -> Seed:
    """Check a Target against the graph's shapes and return its Seed. Raises TargetError.

    sizes: the shape of an output on the inputs at hand, asked where the graph leaves open what an index needs.
    """
    output = target.output or graph.outputs[0]
    if output not in graph.tensors:
        raise TargetError(f"the model has no output {output!r}; it has {', '.join(graph.outputs)}")
    y = graph.tensors[output]
    if not y.is_float:
        raise TargetError(f"the output {output!r} is {y.dtype} and has no gradient")
    if y.shape is None:
        raise TargetError(f"the rank of {output!r} is unknown: an index or weights cannot be checked")
    if target.weights is not None:
        return Seed(output, weights=_weights(target.weights, y, samples))
    if target.index is None:
        return Seed(output)
    if sizes is not None and not all(isinstance(axis, int) for axis in y.shape[1:]):
        y = replace(y, shape=(y.shape[0], *sizes(output)[1:]))
    return _indexed(target.index, y, samples)


def _weights(weights: np.ndarray, y: Tensor, samples: int) -> np.ndarray:
    array = np.asarray(weights)
    if array.dtype.kind not in "fiub":
        raise TargetError(f"target weights are numbers, not {array.dtype}")
    if not np.isfinite(array).all():
        raise TargetError("target weights hold NaN or infinity")
    assert y.shape is not None
    if array.ndim == len(y.shape) - 1:
        array = np.broadcast_to(array, (samples, *array.shape))
    # Of an output whose number of rows only running shows, any number will do.
    rows = array.shape[:1] if y.shape and y.shape[0] is None else (samples,)
    expected = (*rows, *y.shape[1:]) if y.shape else ()
    fits = array.ndim == len(expected) and all(
        have == want for have, want in zip(array.shape, expected, strict=True) if isinstance(want, int)
    )
    if not fits:
        raise TargetError(
            f"target weights of shape {array.shape} do not fit the output {y.name!r} {expected}"
        )
    return np.array(array, y.dtype, order="C")


def _indexed(index: Index, y: Tensor, samples: int) -> Seed:
    assert y.shape is not None
    rest = y.shape[1:]
    if isinstance(index, tuple):
        if len(index) != len(rest):
            raise TargetError(
                f"the target {index} has {len(index)} coordinates, the output {y.name!r} {y.shape}"
            )
        weights = np.zeros((samples, *_static(rest, y)), y.dtype)
        element = [_in_range(i, axis, y) for i, axis in zip(index, rest, strict=True)]
        place: tuple[int | slice, ...] = (slice(None), *element)
        weights[place] = 1
        return Seed(y.name, weights=weights)
    array = np.asarray(index)
    if array.ndim == 0:
        array = np.full(samples, int(array))
    if array.ndim > 2 or array.shape[0] != samples:
        raise TargetError(f"target indices of shape {array.shape} for {samples} samples: give one per sample")
    classes = rest[0] if rest else 1
    checked = np.vectorize(lambda i: _in_range(int(i), classes, y), otypes=[np.int64])(array)
    if array.ndim == 1 and len(rest) <= 1:
        return Seed(y.name, index=checked)
    weights = np.zeros((samples, *_static(rest, y)), y.dtype)
    for sample, classes_of_sample in enumerate(checked.reshape(samples, -1)):
        weights[sample, classes_of_sample] = 1
    return Seed(y.name, weights=weights)


def _in_range(index: int, size: int | str | None, y: Tensor) -> int:
    if isinstance(size, int) and not -size <= index < size:
        raise TargetError(f"the target {index} is out of range: the output {y.name!r} has {size} classes")
    return index % size if isinstance(size, int) else index


def _static(shape: Sequence[int | str | None], y: Tensor) -> tuple[int, ...]:
    if not all(isinstance(axis, int) for axis in shape):
        raise TargetError(f"the output {y.name!r} {y.shape} has axes of unknown size: use Target(weights=…)")
    return tuple(int(axis) for axis in shape if isinstance(axis, int))
