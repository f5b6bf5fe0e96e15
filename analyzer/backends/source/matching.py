"""Find a graph's tensors in the network that it was converted from: by name, then by value.

Exporters keep most names; folding and renaming lose some, layouts differ by a permutation of axes, and a
surviving name may hold another value. So every match is verified on values: `match` returns, for each
ONNX tensor that the source has, the source's name and the permutation that brings its axes into ONNX's order.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import permutations, product

import numpy as np

from converters.verification.norms import norm

# Values of two frameworks in float32: far above rounding, far below any two different layers.
TOLERANCE = 1e-3
FAR = 1e3

# Between equal values, only the tensor that a layer computes is looked for by value: one of several copies
# that were moved, reshaped or renamed may carry only a part of the gradient.
MOVES_ONLY = frozenset(
    {"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Cast", "Expand", "Dropout"}
    # What a loop gives back it also keeps, and the target may read either.
    | {"ExpandDims", "StopGradient", "ReadVariableOp", "Placeholder", "While", "StatelessWhile"}
    | {"view", "permute", "transpose", "clone", "alias", "unsqueeze", "squeeze", "contiguous"}
)


@dataclass(frozen=True)
class Match:
    """A source tensor that holds the values of an ONNX tensor.

    `kept` are the source's axes without those of length 1 that ONNX does not have; axes of length 1 that it
    has follow them, and `order` then transposes them into ONNX's. Where axes are merged on either side, the source's
    are split first, into `split`, and joined last, into `joined`: shapes without their first axis.
    """

    name: str
    order: tuple[int, ...]
    kept: tuple[int, ...]
    split: tuple[int, ...] = ()
    joined: tuple[int, ...] = ()

    def to_onnx(self, array: np.ndarray) -> np.ndarray:
        """A source array (value or gradient) in ONNX's axes, of any number of samples."""
        if self.split:
            apart = array.reshape(-1, *self.split).transpose(self.order)
            return np.asarray(apart.reshape(-1, *self.joined), order="C")
        ones = (1,) * (len(self.order) - len(self.kept))
        shape = (*(array.shape[axis] for axis in self.kept), *ones)
        return np.asarray(array.reshape(shape).transpose(self.order), order="C")

    def shape_of(self, shape: tuple[int, ...], seen: tuple[int, ...]) -> tuple[int, ...]:
        """The source's shape of an array of this shape in ONNX's axes. seen: what it was when it was matched."""
        if self.split:
            return (-1, *seen[1:])
        sizes = dict(zip(self.order, shape, strict=True))
        kept = [sizes[index] for index in range(len(self.kept))]
        return tuple(kept[self.kept.index(axis)] if axis in self.kept else 1 for axis in range(len(seen)))

    def from_onnx(self, array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """The way back: an array in ONNX's axes as one of the source's shape."""
        if self.split:
            array = array.reshape(-1, *(self.split[axis - 1] for axis in self.order[1:]))
        return np.ascontiguousarray(array.transpose(np.argsort(self.order))).reshape(shape)


def match(
    wanted: Mapping[str, np.ndarray],
    offered: Mapping[str, np.ndarray],
    names: Mapping[str, Sequence[str]],
    computed: frozenset[str],
    computed_in_source: frozenset[str],
    trusted: Collection[str] = (),
) -> dict[str, Match]:
    """The source tensor of each wanted tensor, where there is one.

    wanted, offered: values of both sides on the same inputs, in topological order. names: the source names that
    an ONNX name may stand for. computed, computed_in_source: tensors that a layer computes, see MOVES_ONLY.
    trusted: names that hold whatever the values say, so that a wrong layer is compared and not overlooked.
    """
    found: dict[str, Match] = {}
    for name, value in wanted.items():
        for candidate in names.get(name, ()):
            if candidate in offered and (matched := same_values(candidate, offered[candidate], value)):
                found[name] = matched
                break
        if name not in found and name in trusted:
            by_shape = (_by_shape(c, offered[c], value) for c in names.get(name, ()) if c in offered)
            if matched := next(filter(None, by_shape), None):
                found[name] = matched
    taken = {matched.name for matched in found.values()}
    by_print: dict[tuple[float, ...], list[str]] = {}
    for name in offered:
        if name in computed_in_source and name not in taken:
            by_print.setdefault((offered[name].size,), []).append(name)
    missing = [name for name in wanted if name not in found and name in computed]
    for name, candidates in _by_value(missing, wanted, offered, by_print).items():
        if len(candidates) == 1:
            found[name] = candidates[0]
    return found


def _by_value(
    missing: Sequence[str],
    wanted: Mapping[str, np.ndarray],
    offered: Mapping[str, np.ndarray],
    by_print: Mapping[tuple[float, ...], Sequence[str]],
) -> dict[str, list[Match]]:
    """Candidates by value alone. Several equal ones on both sides are paired in topological order."""
    prints = {name: fingerprint(offered[name]) for names in by_print.values() for name in names}
    groups: dict[tuple[str, ...], list[str]] = {}
    matches: dict[str, list[Match]] = {}
    for name in missing:
        value = wanted[name]
        own = fingerprint(value)
        close = [
            c for c in by_print.get((value.size,), ()) if np.allclose(prints[c], own, rtol=1e-3, atol=1e-6)
        ]
        same = [matched for c in close if (matched := same_values(c, offered[c], value))]
        matches[name] = same
        groups.setdefault(tuple(matched.name for matched in same), []).append(name)
    for candidates, names in groups.items():
        if len(candidates) == len(names) > 1:
            for index, name in enumerate(names):
                matches[name] = [matches[name][index]]
        elif len(names) > 1:
            for name in names:
                matches[name] = []
    return matches


def fingerprint(array: np.ndarray) -> np.ndarray:
    """Numbers that do not depend on the order of axes."""
    flat = array.astype(np.float64).reshape(-1)
    scale = np.abs(flat).max(initial=0.0)
    return np.array(
        [np.abs(flat).mean() if flat.size else 0.0, np.sqrt((flat**2).mean()) if flat.size else 0.0, scale]
    )


def same_values(
    name: str, offered: np.ndarray, wanted: np.ndarray, *, batch_first: bool = True
) -> Match | None:
    """The match of two arrays that are equal up to a permutation of axes and axes of length 1; see alignments."""
    return next(equal_values(name, offered, wanted, batch_first=batch_first), None)


def equal_values(
    name: str, offered: np.ndarray, wanted: np.ndarray, *, batch_first: bool = True
) -> Iterator[Match]:
    """Yield every alignment that makes two arrays equal: several where the values are symmetric, such as zeros."""
    if offered.dtype.kind == "f":
        for found in alignments(name, offered.shape, wanted.shape, batch_first=batch_first):
            if _close(found.to_onnx(offered), wanted):
                yield found


def regrouped_values(
    name: str,
    offered: np.ndarray,
    wanted: np.ndarray,
    shapes: Collection[tuple[int, ...]],
    wanted_shapes: Collection[tuple[int, ...]],
) -> Match | None:
    """The match of two arrays that are equal once merged axes are taken apart: (N, C·H·W) and (N, H·W·C).

    shapes, wanted_shapes: into what the source's, and ONNX's, array may be split, the samples first.
    """
    if not offered.size:
        return None
    for split, apart in product(shapes, wanted_shapes):
        if math.prod(split) != offered.size or sorted(split) != sorted(apart):
            continue
        for found in alignments(name, split, apart):
            one = replace(found, split=split[1:], joined=wanted.shape[1:])
            if found.kept == tuple(range(len(split))) and _close(one.to_onnx(offered), wanted):
                return one
    return None


def alignments(
    name: str, offered: tuple[int, ...], wanted: tuple[int, ...], *, batch_first: bool = True
) -> Iterator[Match]:
    """Every permutation of axes, axes of length 1 aside, that brings one shape into another.

    batch_first: axis 0 is the batch on both sides, whatever its length, and stays.
    """
    if math.prod(offered) != math.prod(wanted):
        return
    shape, kept = offered, tuple(range(len(offered)))
    if sorted(shape) != sorted(wanted):
        if [s for s in sorted(shape) if s != 1] != [s for s in sorted(wanted) if s != 1]:
            return
        kept = tuple(axis for axis, size in enumerate(shape) if (axis == 0 and batch_first) or size != 1)
        extra = len(wanted) - len(kept)
        if extra < 0 or (batch_first and shape[:1] != wanted[:1]):
            return
        shape = (*(shape[axis] for axis in kept), *(1,) * extra)
    for order in permutations(range(len(shape))):
        moves_batch = batch_first and order[:1] != (0,)[: len(order)]
        if not moves_batch and tuple(shape[axis] for axis in order) == wanted:
            yield Match(name, order, kept)


def closest(
    name: str, offered: np.ndarray, wanted: np.ndarray, *, batch_first: bool = True
) -> tuple[Match, float] | None:
    """The alignment that brings an array nearest to another, and their relative L2; None where none fits."""
    found = [
        (match, distance_of(match, offered, wanted))
        for match in alignments(name, offered.shape, wanted.shape, batch_first=batch_first)
    ]
    return min(found, key=lambda pair: pair[1], default=None)


def distance_of(match: Match, offered: np.ndarray, wanted: np.ndarray) -> float:
    """Return the relative L2 of a source array in ONNX's axes from ONNX's array."""
    return _relative(match.to_onnx(offered), wanted)


def _relative(a: np.ndarray, b: np.ndarray) -> float:
    # The squares of half precision overflow at 256.
    a, b = a.astype(np.float64), b.astype(np.float64)
    largest = max(norm(a), norm(b))
    return norm(a - b) / largest if largest else 0.0


def _by_shape(name: str, offered: np.ndarray, wanted: np.ndarray) -> Match | None:
    """The first permutation of axes that gives the shape, the identity before all others."""
    for order in permutations(range(offered.ndim)):
        if tuple(offered.shape[axis] for axis in order) == wanted.shape:
            return Match(name, order, tuple(range(offered.ndim)))
    return None


def _close(a: np.ndarray, b: np.ndarray) -> bool:
    """Whether two arrays hold the same values: by their norm, and element by element far from zero.

    The −10⁹, or −∞, that an attention mask puts in would hide every other difference from a norm.
    """
    a, b = a.astype(np.float64), b.astype(np.float64)
    near = (np.abs(a) <= FAR) & (np.abs(b) <= FAR)
    if not np.allclose(a[~near], b[~near], rtol=TOLERANCE, atol=0, equal_nan=True):
        return False
    difference = norm(a[near] - b[near])
    return bool(difference <= TOLERANCE * max(norm(b[near]), 1e-12))
