"""The user's file as a side of a check: its outputs and layers, run as given, against those of every backend.

From the readings of the backends to rows of the side FILE. A file has no gradients; a tensor that folding left under
its name with another value is passed over where all that follows from it agrees. What exceeds its tolerance because of
an inexact kernel of the runtime is explained; anything else is a failure that names the first node that differs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnx

from analyzer.backends import Differentiable
from analyzer.backends.file import FileCheck
from analyzer.checks.comparison import row_of
from analyzer.checks.read.reading import Reading
from analyzer.graph.graph import is_float
from analyzer.graph.samples.arrangement import Arrangement
from analyzer.types import Arrays, Row
from converters.errors import ConversionError, one_line
from converters.model import Model
from converters.verification.original import Difference, computed, first_difference, following
from converters.verification.precisions import TOLERANCE, tolerance_of

FILE = "file"
INEXACT = "ONNX Runtime's Sigmoid is inexact below −7; without it the file agrees to "


@dataclass(frozen=True)
class FileSide:
    """A model's file on the inputs of a check. reason: why it is not compared; empty where it is."""

    fn: Differentiable
    proto: onnx.ModelProto
    feeds: Arrays
    tolerances: Mapping[str, float]

    @cached_property
    def _file(self) -> FileCheck:
        return FileCheck(self.fn, self.proto)

    @cached_property
    def reason(self) -> str:
        """Run the file; say why it is not compared."""
        if self._file.drawn:
            return f"the file draws at random ({self._file.drawn})"
        try:
            return "" if self.values else "the file shares no output with the explained graph"
        except ConversionError as error:
            return f"the file does not run on these inputs: {one_line(error)}"

    @property
    def _names(self) -> list[str]:
        graph, own = self.fn.graph, set(computed(self.proto))
        return [name for name in graph.producer if name in own and graph.tensors[name].is_float]

    @cached_property
    def values(self) -> Arrays:
        """The file's own values of every float tensor that the explained graph has, too."""
        found = self._file.values(self.feeds, self._names)
        self._file.release()
        return {name: array for name, array in found.items() if is_float(array.dtype)}

    @cached_property
    def _precise(self) -> Arrays:
        """The same without the runtime's inexact kernels."""
        return self._file.values(self.feeds, self._names, precise=True)

    def rows(self, name: str, reading: Reading, arrangement: Arrangement | None) -> list[Row]:
        """Compare a backend with the file. name: of the backend. arrangement: how the reading holds the samples."""

        def arranged(values: Arrays) -> Arrays:
            if arrangement is None or arrangement.plain:
                return values
            return {name: arrangement.first(name, array) for name, array in values.items()}

        sides, own = (name, FILE), arranged(self.values)
        layers = {n: reading.side.values[n] for n in reading.layers if n not in reading.outputs}
        rows = []
        for quantity, found in (("output", reading.outputs), ("layer", layers)):
            allowed = self._allowed(quantity)
            for tensor, array in found.items():
                if tensor in own and own[tensor].shape == array.shape:
                    rows.append(row_of(quantity, tensor, sides, array, own[tensor], allowed, self.fn.graph))
                elif tensor in own:
                    rows.append(_other_shape(quantity, tensor, sides, array, allowed, self.fn))
        if not all(row["passed"] for row in rows):
            self._explain(rows, {**layers, **reading.outputs}, arranged(self._precise))
        return self._without_renamed(rows)

    def origin(self, rows: Sequence[Row]) -> Difference | None:
        """The first node that differs, where a row failed."""
        if all(row["passed"] for row in rows):
            return None
        proto = self.fn.model.light
        return first_difference(self.proto, proto, self.feeds, self._allowed("layer"))

    def _allowed(self, quantity: str) -> float:
        """The tolerance; that of its precision where the file computes in half precision or quantizes."""
        own = tolerance_of(self.proto)
        return self.tolerances[quantity] if own <= TOLERANCE else max(own, self.tolerances[quantity])

    def _explain(self, rows: Sequence[Row], found: Arrays, precise: Arrays) -> None:
        """Mark, in place, rows whose difference is that of the runtime's inexact kernels."""
        for row in rows:
            tensor = row["tensor"]
            if row["passed"] or tensor not in precise:
                continue
            sides = (row["a"], row["b"])
            again = row_of(
                row["quantity"],
                tensor,
                sides,
                found[tensor],
                precise[tensor],
                row["tolerance"],
                self.fn.graph,
            )
            if again["passed"]:
                row.update(passed=True, explanation=f"{INEXACT}{again['relative_l2']:.0e}")

    def _without_renamed(self, rows: Sequence[Row]) -> list[Row]:
        """Leave out layers that differ while all that follows from them agrees."""
        passed = {row["tensor"]: row["passed"] for row in rows}
        after = following(self.fn.model.light, passed)
        return [
            row
            for row in rows
            if row["passed"]
            or row["quantity"] == "output"
            or not after[row["tensor"]]
            or not all(passed[name] for name in after[row["tensor"]])
        ]


def file_side(
    model: Model, fn: Differentiable, feeds: Arrays, tolerances: Mapping[str, float], *, alone: bool
) -> FileSide | None:
    """The file of a model; None where it comes from a framework.

    alone: whether there is no other side. A canonical file, which is the explained graph, is one only then.
    """
    proto = model.light_original
    if proto is None and alone and model.source is None:
        proto = model.light
    return None if proto is None else FileSide(fn, proto, feeds, tolerances)


def _other_shape(
    quantity: str, tensor: str, sides: tuple[str, str], array: np.ndarray, allowed: float, fn: Differentiable
) -> Row:
    """A row for tensors of two shapes, which cannot agree."""
    missing = np.full_like(array, np.nan)
    return row_of(quantity, tensor, sides, array, missing, allowed, fn.graph)
