"""Resolve a Target against a model's outputs to a Seed: indices checked, masks and positions made weights.

From a Target, a Graph and the number of samples to a Seed; a sum of targets becomes weights over all their outputs.
Refused, with what the output has: a name, a class, a coordinate or a shape that is not the model's. What only a run
shows, as where a class is the highest, is asked for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from analyzer.errors import TargetError
from analyzer.graph.fixes import FINITE, INDICES
from analyzer.graph.graph import Graph, Tensor
from analyzer.target.class_axis import class_axis, fits
from analyzer.target.moves import Moves
from analyzer.target.suppressed import before_suppression
from analyzer.target.target import (
    HIGHEST,
    PREDICTED,
    Bare,
    Chosen,
    Index,
    Seed,
    Target,
    chosen_classes,
    target_array,
)
from converters.system.text import counted

_EACH = "Fix: give one class, or an array with a class for each sample"

ShapeOf = Callable[[str], tuple[int, ...]]
Values = Callable[[str], np.ndarray]


def resolve(
    target: Target, graph: Graph, samples: int, sizes: ShapeOf | None = None, values: Values | None = None
) -> Seed:
    """Check a Target against the graph's shapes and return its Seed. Raises TargetError.

    sizes: the shape of an output on the inputs at hand, asked where the graph leaves open what an index needs.
    values: an output on these inputs, computed where the target depends on it.
    """
    if isinstance(target.weights, Mapping):
        return _over_several(target.weights, graph, samples)
    if target.parts is not None:
        return _sum(target.parts, graph, samples, sizes, values)
    if target.moved is not None:
        return _as_moved(target, target.moved, graph, samples, values)
    y = _output(graph, _named(target, graph))
    assert y.shape is not None
    if target.weights is not None:
        return Seed(y.name, weights=_weights(target.weights, y, samples))
    if target.highest:
        return Seed(y.name)
    if sizes is not None and not all(isinstance(axis, int) for axis in y.shape[1:]):
        y = replace(y, shape=(y.shape[0], *sizes(y.name)[1:]))
    if target.top is not None:
        return Seed(y.name, index=_highest(target.top, y, samples))
    if isinstance(target.each, Chosen) and y.rank > 2:
        return Seed(y.name, index=chosen_classes(_flat(target.each, y, samples), y.name))
    if target.each is not None:
        return Seed(y.name, index=_classes(target.each, y, samples))
    if isinstance(target.index, Chosen) and y.rank > 2:
        return Seed(y.name, index=chosen_classes(_flat(target.index, y, samples), y.name))
    if isinstance(target.index, Bare):
        target = replace(target, index=_read_tuple(target.index, y, samples))
    if target.position is not None:
        return Seed(y.name, index=_at(target.position, y, samples, values))
    assert target.index is not None
    if isinstance(target.index, tuple):
        if target.mask is not None or target.axis is not None:
            raise TargetError(
                f"a mask, or an axis, goes with a class, not with the coordinates {target.index}. Fix: give the "
                "index of a class"
            )
        return Seed(y.name, index=_at(target.index, y, samples, None))
    return _summed(target, target.index, y, samples, values)


def _as_moved(target: Target, moves: Moves, graph: Graph, samples: int, values: Values | None) -> Seed:
    """The seed of a tensor whose elements are counted in another shape, or in another order of axes."""
    assert values is not None
    name = _named(target, graph)
    y = _output(graph, name)
    assert y.shape is not None
    known = all(isinstance(size, int) for size in y.shape[1:])
    sizes = tuple(int(size) for size in (y.shape if known else values(name).shape)[1:] if size is not None)
    places = moves.places(sizes)
    flat = places.ravel()

    def moved(of: str) -> np.ndarray:
        value = values(of)
        return value.reshape(len(value), -1)[:, flat].reshape(len(value), *places.shape)

    tensors = {**graph.tensors, name: replace(y, shape=(y.shape[0], *places.shape))}
    found = resolve(replace(target, moved=None), replace(graph, tensors=tensors), samples, None, moved)
    if found.index is not None:
        index = np.where(found.index < 0, found.index, flat[found.index])
        return replace(found, index=chosen_classes(index, name))
    if found.weights is None:
        return found
    weights = np.empty((len(found.weights), flat.size), found.weights.dtype)
    weights[:, flat] = found.weights.reshape(len(weights), -1)
    return replace(found, weights=weights.reshape(len(weights), *sizes))


def _named(target: Target, graph: Graph) -> str:
    """The output that a target is of. A result's own classes may come from another model: there it is the first."""
    given = target.index if target.each is None else target.each
    if not isinstance(given, Chosen):
        return target.output or graph.default_output
    name = target.output or given.output
    return name if name in graph.tensors and name is not None else graph.default_output


def _flat(index: Chosen, y: Tensor, samples: int) -> np.ndarray:
    """Positions in the flattened samples, (N,) or (N, k), checked."""
    assert y.shape is not None
    array = np.asarray(index)
    if array.shape[:1] != (samples,):
        raise TargetError(f"target indices of shape {array.shape} for {counted(samples, 'sample')}. {_EACH}")
    known = all(isinstance(axis, int) for axis in y.shape[1:])
    return _checked(array, int(np.prod(_static(y.shape[1:], y))) if known else None, y)


def _read_tuple(given: Bare, y: Tensor, samples: int) -> Index:
    """A bare tuple as the coordinates of one element, or as a class per sample, where only one of them fits."""
    assert y.shape is not None
    element, each = tuple(given), list(given)
    if len(y.shape) <= 2:
        if len(given) not in (1, samples):
            raise TargetError(
                f"the target {element} has {len(given)} classes for {counted(samples, 'sample')} of {y.name!r} "
                f"{y.shape}. Fix: give an int, or one class per sample"
            )
        return np.asarray(each if len(given) == samples else each * samples)
    if len(given) == len(y.shape) - 1 and len(given) != samples:
        return element
    raise TargetError(
        f"the target {element} has two readings for {counted(samples, 'sample')} of {y.name!r} {y.shape}. Fix: "
        f"Target(index={element}) explains the element at these coordinates of each sample, "
        f"Target(index={each}, axis=1) or Target(index={each}, axis=-1) a class per sample"
    )


def _output(graph: Graph, output: str) -> Tensor:
    """A float output of known rank."""
    if output not in graph.tensors:
        raise TargetError(f"the model has no output {output!r}. Fix: choose from {', '.join(graph.outputs)}")
    y = graph.tensors[output]
    if not y.is_float:
        proposal = before_suppression(graph)
        fix = "name a float tensor that it is computed from, such as the logits, in Target(output=…)"
        raise TargetError(
            f"the output {output!r} is {y.dtype} and has no gradient. Fix: {proposal.fix if proposal else fix}"
        )
    if y.shape is None:
        raise TargetError(
            f"the rank of {output!r} is unknown, and an index cannot be checked. Fix: state the shape of {output!r} in "
            "the file, and export loops with a fixed number of steps"
        )
    return y


def _over_several(weights: Mapping[str, np.ndarray], graph: Graph, samples: int) -> Seed:
    if not weights:
        raise TargetError("weights over outputs name no output. Fix: give a dict {output name: array}")
    ys = [_output(graph, name) for name in weights]
    kinds = {y.dtype for y in ys}
    if len(kinds) > 1:
        raise TargetError(
            f"outputs of several types, {', '.join(sorted(map(str, kinds)))}, do not sum. Fix: explain them in "
            "separate calls"
        )
    found = {y.name: _weights(weights[y.name], y, samples) for y in ys}
    first, *more = found
    return Seed(first, weights=found[first], more={name: found[name] for name in more})


def _sum(
    parts: Sequence[tuple[float, Target]],
    graph: Graph,
    samples: int,
    sizes: ShapeOf | None,
    values: Values | None,
) -> Seed:
    """The weights of a sum over every output that one of its parts is of."""
    assert values is not None
    totals: dict[str, np.ndarray] = {}
    for factor, part in parts:
        seed = resolve(part, graph, samples, sizes, values)
        (weights,) = seed.cotangents({name: values(name) for name in seed.outputs})
        for name, array in weights.items():
            totals[name] = totals.get(name, 0) + factor * array
    return _over_several(totals, graph, samples)


def _weights(weights: np.ndarray, y: Tensor, samples: int) -> np.ndarray:
    array = _numbers(weights, "weights")
    assert y.shape is not None
    if array.ndim == len(y.shape) - 1:
        array = np.broadcast_to(array, (samples, *array.shape))
    # Of an output whose number of rows only running shows, any number will do.
    rows = array.shape[:1] if y.shape and y.shape[0] is None else (samples,)
    expected = (*rows, *y.shape[1:]) if y.shape else ()
    if not fits(array.shape, expected):
        raise TargetError(
            f"target weights of shape {array.shape} do not fit the output {y.name!r}. Fix: give an array of shape "
            f"{expected}"
        )
    return np.array(array, y.dtype, order="C")


def _highest(top: int, y: Tensor, samples: int) -> np.ndarray:
    """Indices (N, k) that stand for the highest class, the next, …"""
    classes = _axis_of_classes(y)
    if isinstance(top, bool) or not isinstance(top, (int, np.integer)) or top < 1:
        raise TargetError(
            f"expected the number of classes in top, at least 1, got {top!r}. Fix: give Target(top=3)"
        )
    if isinstance(classes, int) and top > classes:
        raise TargetError(
            f"top={top}: the output {y.name!r} has {classes} classes. Fix: give top={classes} or less"
        )
    return np.full((samples, top), HIGHEST, np.int64)


def _classes(each: object, y: Tensor, samples: int) -> np.ndarray:
    """Several classes of each sample, (N, k), checked."""
    classes = _axis_of_classes(y)
    array = _integers(each)
    if array.ndim != 2 or array.shape[0] != samples or not array.size:
        raise TargetError(
            f"got classes of shape {array.shape} for {counted(samples, 'sample')}. Fix: give each an "
            f"array ({samples}, k)"
        )
    return _checked(array, classes, y)


def _axis_of_classes(y: Tensor) -> int | str | None:
    assert y.shape is not None
    if len(y.shape) != 2:
        raise TargetError(
            f"the output {y.name!r} {y.shape} is not (N, classes), which top and each take. Fix: explain one class "
            "at a time, or one element with Target(index=(…))"
        )
    return y.shape[1]


def _at(position: Index, y: Tensor, samples: int, values: Values | None) -> np.ndarray:
    """One element a sample, by its position in the flattened sample: at its coordinates, or the highest of those that
    begin with them.

    values: None where all coordinates must be given.
    """
    assert y.shape is not None
    sizes = _static(y.shape[1:], y)
    array = _integers(position)
    if isinstance(position, tuple) or array.ndim == 0:
        array = np.broadcast_to(array.reshape(-1), (samples, array.size))
    rows = array.reshape(len(array), -1)
    if array.ndim > 2 or len(rows) != samples:
        raise TargetError(
            f"positions of shape {array.shape} for {counted(samples, 'sample')}. Fix: give one row for each "
            "sample, or one"
        )
    given = rows.shape[1]
    if given > len(sizes) or (values is None and given < len(sizes)):
        raise TargetError(
            f"the target {position} has {given} coordinates, the output {y.name!r} {y.shape}. Fix: give "
            f"{len(sizes)}, one for each axis after the first"
        )
    checked = np.stack([_checked(rows[:, i], sizes[i], y) for i in range(given)], axis=1)
    numbers = np.arange(math.prod(sizes)).reshape(sizes)
    value = values(y.name) if values is not None and given < len(sizes) else None
    found = np.empty(samples, np.int64)
    for sample, place in enumerate(map(tuple, checked)):
        there = numbers[place]
        found[sample] = there if value is None else there.flat[value[(sample, *place)].argmax()]
    return found


def _summed(target: Target, index: Index, y: Tensor, samples: int, values: Values | None) -> Seed:
    """A class of each sample; where the output has further axes, summed over these, or over a mask of them."""
    assert y.shape is not None
    axis = class_axis(target, y)
    classes = y.shape[axis] if len(y.shape) > 1 else 1
    array = _integers(index)
    if array.ndim == 0:
        array = np.full(samples, int(array))
    if array.ndim > 2 or array.shape[0] != samples:
        raise TargetError(f"target indices of shape {array.shape} for {counted(samples, 'sample')}. {_EACH}")
    checked = _checked(array, classes, y)
    others = [size for place, size in enumerate(y.shape) if place not in (0, axis)]
    if array.ndim == 1 and target.mask is None and all(size == 1 for size in others):
        return Seed(y.name, index=checked)
    weights = np.zeros((samples, *_static(y.shape[1:], y)), y.dtype)
    by_class = np.moveaxis(weights, axis, 1) if len(y.shape) > 1 else weights[:, None]
    masks = _masks(target.mask, by_class.shape, axis, y, values)
    for sample, chosen in enumerate(checked.reshape(samples, -1)):
        for one in chosen:
            by_class[sample, one] = masks(sample, one)
    return Seed(y.name, weights=weights)


def _masks(
    mask: np.ndarray | str | None, shape: tuple[int, ...], axis: int, y: Tensor, values: Values | None
) -> Callable[[int, int], np.ndarray | float]:
    """The weights of a class of a sample over the remaining axes. shape: of the output, the classes on axis 1."""
    if mask is None:
        return lambda sample, one: 1.0
    if len(shape) < 3:
        raise TargetError(
            f"the output {y.name!r} {y.shape} has no axes besides its classes to mask. Fix: omit mask"
        )
    if isinstance(mask, str):
        if mask != PREDICTED or values is None:
            raise TargetError(f'unknown mask {mask!r}. Fix: give an array, or "{PREDICTED}"')
        predicted = np.moveaxis(values(y.name), axis, 1).argmax(axis=1)

        def where_highest(sample: int, one: int) -> np.ndarray:
            found = np.asarray(predicted[sample] == one)
            if not found.any():
                raise TargetError(
                    f"the class {one} is nowhere the highest in sample {sample}. Fix: give another class, or a mask "
                    "as an array"
                )
            return found

        return where_highest
    array = _numbers(mask, "mask")
    if array.shape == shape[2:]:
        array = np.broadcast_to(array, (shape[0], *shape[2:]))
    if array.shape != (shape[0], *shape[2:]):
        raise TargetError(
            f"a mask of shape {np.shape(mask)} does not fit the axes of {y.name!r} besides its classes. Fix: give an "
            f"array of shape {shape[2:]}"
        )
    return lambda sample, one: array[sample]


def _numbers(value: object, what: str) -> np.ndarray:
    array = target_array(value)
    if array.dtype.kind not in "fiub":
        raise TargetError(
            f"target {what}: expected numbers, got {array.dtype}. Fix: give an array of numbers"
        )
    if not np.isfinite(array).all():
        raise TargetError(f"target {what} hold NaN or infinity. {FINITE}")
    return array


def _integers(value: object) -> np.ndarray:
    array = target_array(value)
    if array.dtype.kind not in "iu":
        raise TargetError(f"target indices are ints, got {array.dtype}. {INDICES}")
    return array


def _checked(array: np.ndarray, size: int | str | None, y: Tensor) -> np.ndarray:
    """Indices within an axis, negative ones counted from its end."""
    return np.asarray([_in_range(int(i), size, y) for i in array.flat], np.int64).reshape(array.shape)


def _in_range(index: int, size: int | str | None, y: Tensor) -> int:
    if isinstance(size, int) and not -size <= index < size:
        raise TargetError(
            f"the target {index} is out of range: the output {y.name!r} has {size} classes. Fix: give one from 0 to "
            f"{size - 1}, or a negative one from the last"
        )
    if not isinstance(size, int) and index < 0:
        raise TargetError(
            f"the target {index} counts from the end of {y.name!r}, whose size is unknown. Fix: count from 0"
        )
    return index % size if isinstance(size, int) else index


def _static(shape: Sequence[int | str | None], y: Tensor) -> tuple[int, ...]:
    if not all(isinstance(axis, int) for axis in shape):
        raise TargetError(
            f"the output {y.name!r} {y.shape} has axes of unknown size. Fix: use Target(weights=array)"
        )
    return tuple(int(axis) for axis in shape if isinstance(axis, int))
