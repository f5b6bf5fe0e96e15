"""Rows of results as the Attribution that they were: of the method's own class, where the rows hold its fields.

From a pyarrow table and a manifest. What no column holds, such as the bias terms of FullGrad, is not there.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

import numpy as np

from analyzer.data.arrow import arrow
from analyzer.data.columns import ATTRIBUTIONS, COMPLETENESS, MAP, OUTPUT, TARGET
from analyzer.data.table_schema import SHAPE
from analyzer.errors import AnalysisError
from analyzer.methods import METHODS
from analyzer.methods.completeness import Completeness
from analyzer.methods.result import Attribution, SaliencyMap


def attribution(table: Any, manifest: Mapping[str, Any]) -> Attribution:
    """Return the explanation of the rows of a table. Raises AnalysisError where arrays differ in shape."""
    maps, attributions = (_arrays(table, kind, manifest) for kind in (MAP, ATTRIBUTIONS))
    output = _numbers(table, OUTPUT)
    names = manifest["class_names"]
    target = table.column(TARGET)
    found: dict[str, Any] = {
        "maps": _single(maps),
        "output": output,
        "target": None if target.null_count else np.asarray(target.to_pylist(), np.int64),
        "completeness": _completeness(table, output),
        "signed": _signed(manifest),
        "wrt": tuple(attributions or maps),
        "method": manifest["method"],
        "settings": manifest["settings"],
        "class_names": None if names is None else tuple(names),
    }
    if attributions:
        found["attributions"] = _single(attributions)
    kind = _class_of(manifest["method"])
    own = {one.name: one for one in fields(kind)}
    found |= {key: value for key, value in manifest["settings"].items() if key in own and key not in found}
    lacking = [
        name
        for name, one in own.items()
        if name not in found and one.init and one.default is MISSING and one.default_factory is MISSING
    ]
    if lacking:
        kind = SaliencyMap if issubclass(kind, SaliencyMap) else Attribution
        found = {key: value for key, value in found.items() if key in {one.name for one in fields(kind)}}
    return kind(**found)


def _class_of(method: str) -> type[Attribution]:
    """The class that a method's function states to return."""
    if method not in METHODS:
        return Attribution
    function = inspect.unwrap(METHODS[method].run)
    stated = inspect.get_annotations(function, eval_str=True).get("return")
    return stated if isinstance(stated, type) and issubclass(stated, Attribution) else Attribution


def _signed(manifest: Mapping[str, Any]) -> bool:
    """Whether the map has a sign, as the meaning of its column says."""
    return any(
        name.partition("/")[0] == MAP and str(entry["meaning"]).endswith("with sign")
        for name, entry in manifest["schema"].items()
    )


def _completeness(table: Any, output: np.ndarray) -> Completeness | None:
    """The error of the completeness; None where no row has one. The sums themselves are not stored."""
    error = table.column(COMPLETENESS)
    if error.null_count == len(error):
        return None
    unknown = np.full(len(output), np.nan)
    return Completeness(unknown, unknown, _numbers(table, COMPLETENESS), unknown)


def _numbers(table: Any, name: str) -> np.ndarray:
    found: np.ndarray = np.asarray(
        [np.nan if value is None else value for value in table.column(name).to_pylist()], np.float64
    )
    return found


def _arrays(table: Any, kind: str, manifest: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """{tensor: (N, *shape)} of the columns "map", or "map/NAME"."""
    found = {}
    for name, entry in manifest["schema"].items():
        if "tensor" in entry and name.partition("/")[0] == kind:
            found[entry["tensor"]] = stacked(table, name)
    return found


def stacked(table: Any, name: str) -> np.ndarray:
    """Return a column of arrays as one array, (N, *shape). Raises AnalysisError where they differ in shape."""
    column = table.column(name).combine_chunks()
    if isinstance(column, arrow().ChunkedArray):
        column = column.chunk(0)
    if isinstance(column.type, arrow().FixedShapeTensorType):
        return np.array(column.to_numpy_ndarray())
    shapes = table.column(name + SHAPE).to_pylist()
    if len({tuple(shape) for shape in shapes}) > 1:
        raise AnalysisError(
            f"the samples have a {name} of different shapes, {tuple(shapes[0])} and others. Fix: take one sample at a "
            "time, results[0]"
        )
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.array(flat).reshape(len(table), *shapes[0])


def _single(arrays: dict[str, np.ndarray]) -> Any:
    return next(iter(arrays.values())) if len(arrays) == 1 else arrays
