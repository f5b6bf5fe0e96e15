"""Compare what is explained with the output of the user's own file, on the user's own inputs.

One forward pass of the file, without optimisations, for every batch that is explained. A batch is compared once,
however many methods explain it, and the points of a path are not. Raises VerificationError, which names the first node
that differs. A file that draws at random, or does not run on the inputs, cannot be compared: a warning says so.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, cast

import numpy as np
import onnx
from onnx import helper

from analyzer.backends.call import EXPLAINED, key_of
from analyzer.errors import VerificationError, note
from analyzer.graph.batch_axis import Place, batched_inputs, samples_in
from analyzer.target.target import Seed, rows_of
from converters.errors import ConversionError, one_line
from converters.graph.kernels import exact
from converters.graph.tensors import shape_of
from converters.model import Model
from converters.verification.hard_points import spread
from converters.verification.original import (
    FLOOR,
    Original,
    computed,
    draws,
    first_difference,
    with_dropped_axes,
)
from converters.verification.precisions import tolerance_of
from converters.weights.references import size_of

if TYPE_CHECKING:
    from analyzer.backends.differentiable import Differentiable
    from analyzer.types import Arrays

# Batches that are known to agree; each is a hash.
_REMEMBERED = 64
# Bytes of inputs that the file is run on at once: its activations are some hundred times as large.
_AT_ONCE = 4 * 2**20
# Bytes of a file whose session is kept from one batch to the next: making it costs less than its copy of the weights.
_KEPT = 256 * 2**20
# Rows of an output count at least as this share of the largest one.
_SMALL_ROW = 1e-4
# Of the tolerance: what the largest element of an output, or of a sum, may leave in a small one by rounding.
_SHARE = 1e-2


@dataclass
class FileCheck:
    """The file of a model, and the batches on which it was compared."""

    fn: Differentiable
    original: onnx.ModelProto
    _passed: OrderedDict[tuple[bytes, str], None] = field(default_factory=OrderedDict)
    _sessions: dict[tuple[int, tuple[str, ...]], Original] = field(default_factory=dict)

    def release(self) -> None:
        """Drop the session of the file, which holds a copy of its weights."""
        self._sessions.clear()

    @cached_property
    def drawn(self) -> str:
        """The op by which the file draws at random; empty where it does not."""
        return draws(self.original)

    @cached_property
    def _tensors(self) -> frozenset[str]:
        return frozenset(computed(self.original))

    def has(self, names: Collection[str]) -> bool:
        """Whether the file computes all these tensors under their names."""
        return self._tensors.issuperset(names)

    def due(self, feeds: Arrays, outputs: Sequence[str]) -> bool:
        """Whether these inputs are to be explained and were not compared yet."""
        if self.drawn:
            return False
        if (explained := EXPLAINED.get()) is None:
            key = key_of(feeds)
            return any((key, name) not in self._passed for name in outputs)
        batch = explained.get(id(self))
        if batch is None or batch.done or key_of(feeds) != batch.key:
            return False
        batch.done = True
        return any((batch.key, name) not in self._passed for name in outputs)

    def compare(self, feeds: Arrays, seed: Seed, explained: np.ndarray) -> None:
        """Compare the explained scalars, (N,) or (N, k), with those of the file. Raises VerificationError."""
        if self._rounded(feeds) is not None or not self.has(seed.outputs):
            names = seed.outputs if self.has(seed.outputs) else self.fn.graph.outputs
            self.compare_values(feeds, self.fn.forward(feeds, names))
            self._remember(feeds, seed.outputs)
            return

        def differs(file: Arrays) -> float:
            wrong = next((n for n in seed.outputs if not _fits(seed, n, file[n])), None)
            if wrong is not None:
                raise VerificationError(self._shapes(wrong, file[wrong].shape))
            expected = seed.explained({name: self._cast(name, file[name]) for name in seed.outputs})
            return _excess(explained, expected, self._allowed(seed, file, expected))

        self._compare(feeds, seed.outputs, differs)

    def compare_values(self, feeds: Arrays, found: Mapping[str, np.ndarray]) -> None:
        """Compare tensors with those of the file. Raises VerificationError."""
        names = [name for name in found if name in self._tensors]
        if (own := self._rounded(feeds)) is not None:
            # A float32 file cannot be fed all numbers of float64: both are compared on those that it takes.
            self._remember(feeds, names)
            feeds, found = own, self.fn.forward(own, names)

        def differs(file: Arrays) -> float:
            for name in names:
                if file[name].shape != found[name].shape:
                    raise VerificationError(self._shapes(name, file[name].shape))
            return max((self._distance(found[name], file[name]) for name in names), default=0.0)

        self._compare(feeds, names, differs)

    def values(self, feeds: Arrays, names: Sequence[str], *, precise: bool = False) -> Arrays:
        """Return {name: tensor of the file}, each in the rank of the graph.

        precise: avoid the runtime's inexact kernels.

        Raises ConversionError where the file does not run on these inputs.
        """
        original = self._session(tuple(names), precise)
        given = self._given(original, feeds)
        total, batched = samples_in(self.fn.graph, feeds), batched_inputs(self.fn.graph)
        size = original.samples_of(batched)
        if size is None and batched:
            bytes_of_one = sum(feeds[name].nbytes for name in batched) // max(total, 1)
            size = min(total, max(1, _AT_ONCE // max(bytes_of_one, 1)))
        if size is None or size == total:
            return {name: self._ranked(name, array, total) for name, array in original.run(given).items()}
        micro_batches = []
        for start in range(0, total, size):
            rows = np.minimum(np.arange(start, start + size), total - 1)
            found = original.run({n: a[rows] if n in batched else a for n, a in given.items()})
            micro_batches.append({name: self._ranked(name, array, size) for name, array in found.items()})
        return {name: self._joined(name, [one[name] for one in micro_batches], size, total) for name in names}

    def _ranked(self, name: str, array: np.ndarray, samples: int) -> np.ndarray:
        if name not in self.fn.graph.tensors or (shape := self.fn.graph.tensors[name].shape) is None:
            return array
        place = self.fn.places.get(name)
        return with_dropped_axes(
            array,
            [samples if place == Place(axis) else size for axis, size in enumerate(shape)],
        )

    def _joined(self, name: str, parts: list[np.ndarray], size: int, total: int) -> np.ndarray:
        place = self.fn.places.get(name) or (Place(0) if parts[0].shape[:1] == (size,) else None)
        if place is None:
            raise ConversionError(
                f"the file takes {size} samples at once, and {name!r} has no axis of samples. Fix: give {size} samples"
            )
        return place.joined(parts, size, total)

    def _session(self, names: tuple[str, ...], precise: bool) -> Original:
        if precise:
            return Original(exact(self.original), names)
        # The threads of a session do not survive a fork: a process makes its own.
        key = (os.getpid(), names)
        if key not in self._sessions:
            self._sessions.clear()
            self._sessions[key] = Original(self.original, names)
        return self._sessions[key]

    def _given(self, original: Original, feeds: Arrays) -> Arrays:
        """The feeds of the file: zeros for an input that nothing reads, and that the canonical graph dropped."""
        given = dict(feeds)
        samples = samples_in(self.fn.graph, feeds)
        for name, info in original.infos.items():
            if name not in given:
                shape = shape_of(info.type) or ()
                sizes = [
                    size if isinstance(size, int) and size > 0 else (1 if axis else samples)
                    for axis, size in enumerate(shape)
                ]
                given[name] = np.zeros(sizes, np.float32)
        return given

    def _compare(self, feeds: Arrays, names: Sequence[str], differs: Callable[[Arrays], float]) -> None:
        """Compare on the file as given; where that differs, without inexact kernels, and as far as it is determined."""
        try:
            file = self.values(feeds, names)
        except ConversionError as error:
            self._warn(
                f"the explained output is not compared with the file, which does not run: {one_line(error)}"
            )
            return
        with np.errstate(all="ignore"):
            size = differs(file)
            if size > 1 and not self._excused(feeds, names, file, differs):
                first = first_difference(
                    self.original, self.fn.model.light, self._given_alone(feeds), self.tolerance
                )
                told = ", ".join(repr(name) for name in names)
                raise VerificationError(
                    f"expected the output {told} of the file, the explained graph differs by "
                    f"{size * self.tolerance:.2g} of its size (allowed {self.tolerance:g})"
                    f"{'' if first is None else f'; {first}'}. Fix: report the file as a defect of onnxplain; "
                    "verify=False explains the graph as it is"
                )
        self._remember(feeds, names)
        if size_of(self.original) > _KEPT:
            self.release()

    def _excused(
        self, feeds: Arrays, names: Sequence[str], file: Arrays, differs: Callable[[Arrays], float]
    ) -> bool:
        """Whether the difference is that of inexact kernels, or one that the inputs leave open; a warning says so."""
        told = ""
        try:
            whole = self._session(tuple(names), False).run(
                self._given(self._session(tuple(names), False), feeds)
            )
            if differs(whole) <= 1:
                return True
        except (ConversionError, VerificationError):
            pass
        try:
            if differs(self.values(feeds, names, precise=True)) <= 1:
                told = "ONNX Runtime's Sigmoid is inexact below −7; the explained output is that of the exact function"
        except ConversionError:
            pass
        if not told:
            moves = spread(
                lambda given: list(self.values(cast("Arrays", given), names).values()),
                feeds,
                [file[name] for name in names],
                FLOOR,
            )
            if differs(file) * self.tolerance <= max(moves, default=0.0):
                told = (
                    "the file's output is not determined at these inputs: "
                    f"it moves by {max(moves):.1g} when their last digits move"
                )
        if told:
            self._warn(told)
        return bool(told)

    def _rounded(self, feeds: Arrays) -> Arrays | None:
        """The feeds rounded to the types of the file's inputs; None where that changes none of them."""
        types = {info.name: info.type.tensor_type.elem_type for info in self.original.graph.input}
        found = {
            name: array.astype(helper.tensor_dtype_to_np_dtype(types[name])).astype(array.dtype)
            if types.get(name)
            else array
            for name, array in feeds.items()
        }
        return None if all(np.array_equal(found[name], array) for name, array in feeds.items()) else found

    def _given_alone(self, feeds: Arrays) -> Arrays:
        """The feeds as the file takes them: the first samples, where it states their number."""
        original = self._session(tuple(self.fn.graph.outputs), False)
        batched = batched_inputs(self.fn.graph)
        size = original.samples_of(batched)
        given = self._given(original, feeds)
        return given if size is None else {n: a[:size] if n in batched else a for n, a in given.items()}

    @cached_property
    def tolerance(self) -> float:
        """The relative difference that is allowed: more for files in half precision and quantized ones."""
        return tolerance_of(self.original)

    def _allowed(self, seed: Seed, file: Arrays, expected: np.ndarray) -> np.ndarray:
        """The difference allowed in each scalar: of its size, and for its rounding of the size of its terms."""
        share = _SHARE if self.tolerance < _SHARE else 1.0
        sizes = [np.zeros(len(expected))]
        for one in seed.cotangents(file):
            terms = [np.abs(np.nan_to_num(rows_of(file[n]), posinf=0, neginf=0)) for n in one]
            weights = [np.abs(rows_of(array)).astype(np.float64) for array in one.values()]
            summed = sum((t * w).sum(axis=1) for t, w in zip(terms, weights, strict=True))
            largest = sum(
                t.max(axis=1, initial=0) * w.max(axis=1, initial=0)
                for t, w in zip(terms, weights, strict=True)
            )
            sizes.append(np.asarray(summed + largest, np.float64))
        size = sizes[1] if expected.ndim < 2 else np.stack(sizes[1:], axis=1)
        allowed: np.ndarray = self.tolerance * (np.abs(expected.astype(np.float64)) + share * size)
        return allowed

    def _cast(self, name: str, array: np.ndarray) -> np.ndarray:
        """A tensor of the file in the precision in which it is explained."""
        return array.astype(self.fn.graph.tensors[name].dtype, copy=False)

    def _distance(self, found: np.ndarray, file: np.ndarray) -> float:
        """The worst sample's distance in relative L2, in tolerances."""
        if file.dtype.kind not in "fV":
            return 0.0
        value, truth = (rows_of(array).astype(np.float64) for array in (found, file))
        if not _same_infinities(value, truth):
            return float("inf")
        value, truth = (np.where(np.isfinite(truth), array, 0) for array in (value, truth))
        norms = np.maximum(np.linalg.norm(truth, axis=1), FLOOR * np.sqrt(max(truth.shape[1], 1)))
        # A small row may be a difference of numbers of the size of the largest one, which round at 6e-8 of that.
        norms = np.maximum(norms, _SMALL_ROW * norms.max(initial=0.0))
        return float((np.linalg.norm(value - truth, axis=1) / norms).max(initial=0.0)) / self.tolerance

    def _shapes(self, name: str, shape: tuple[int, ...]) -> str:
        stated = self.fn.graph.tensors[name].shape
        return (
            f"expected the output {name!r} of shape {shape} as the file gives it, the explained graph has {stated}. "
            "Fix: report the file as a defect of onnxplain; verify=False (--no-verify) explains the graph as it is"
        )

    def _remember(self, feeds: Arrays, names: Sequence[str]) -> None:
        key = key_of(feeds)
        for name in names:
            self._passed[key, name] = None
        while len(self._passed) > _REMEMBERED:
            self._passed.popitem(last=False)

    def _warn(self, told: str) -> None:
        note(told, UserWarning)


def file_of(fn: Differentiable, model: Model) -> FileCheck | None:
    """The file that a model was made of; None where the model is the file, or comes from a framework."""
    if model.light_original is None:
        return None
    found = FileCheck(fn, model.light_original)
    if found.drawn:
        note(
            f"the file draws at random ({found.drawn}): the explained output is not compared with it",
            UserWarning,
        )
    return found


def _fits(seed: Seed, name: str, y: np.ndarray) -> bool:
    weights = seed.weights if name == seed.output else seed.more[name]
    return weights is None or weights.shape == y.shape


def _excess(found: np.ndarray, expected: np.ndarray, allowed: np.ndarray) -> float:
    """The largest difference in tolerances; infinite where infinities or NaN are on one side alone."""
    v, e = found.astype(np.float64), expected.astype(np.float64)
    if v.shape != e.shape or not _same_infinities(v, e):
        return float("inf")
    finite = np.isfinite(e)
    floor = np.maximum(allowed, np.finfo(np.float64).tiny)
    return float((np.abs(v - e) / floor)[finite].max(initial=0.0))


def _same_infinities(value: np.ndarray, truth: np.ndarray) -> bool:
    finite = np.isfinite(truth)
    return bool(np.isfinite(value[finite]).all()) and np.array_equal(
        value[~finite], truth[~finite], equal_nan=True
    )
