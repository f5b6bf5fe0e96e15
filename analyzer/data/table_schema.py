"""The columns of result parts as a schema of pyarrow, and the rows of a batch as a record batch.

Arrays of one shape have the type `arrow.fixed_shape_tensor`; arrays whose shapes differ are a list and, in a second
column, their shape. Names, units and classes are in the metadata, so that one file alone can be understood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from analyzer.data.arrow import arrow
from analyzer.data.columns import ERROR, Column
from converters.system.plain_data import plain

METADATA = b"onnxplain"
POSITION, ID, LABEL, LABEL_INDEX = "position", "id", "label", "label_index"
SHAPE = "/shape"
OWN = (
    Column(POSITION, "int64", "the number of the sample in the source, from 0"),
    Column(ID, "string", "the file or the row that the sample comes from"),
    Column(LABEL, "string", "the label as the source has it"),
    Column(LABEL_INDEX, "int64", "the class of the label, where it is certain"),
)
"""The columns that come from the source."""


def schema_of(columns: Sequence[Column], remarks: Mapping[str, Any]) -> Any:
    """Return the schema of parts. columns: of the explainer. remarks: of the metadata, as JSON."""
    pa = arrow()
    fields = []
    for column in (*OWN, *(one for one in columns if one.name != ERROR)):
        meaning = {b"meaning": column.meaning.encode()}
        if column.rank == 0:
            fields.append(pa.field(column.name, pa.type_for_alias(column.dtype), metadata=meaning))
        elif column.shape is not None:
            kind = pa.fixed_shape_tensor(_float(column.dtype), column.shape)
            fields.append(pa.field(column.name, kind, metadata=meaning))
        else:
            fields.append(pa.field(column.name, pa.list_(_float(column.dtype)), metadata=meaning))
            shape = {b"meaning": f"the shape of {column.name}".encode()}
            fields.append(pa.field(column.name + SHAPE, pa.list_(pa.int32()), metadata=shape))
    return pa.schema(fields, metadata={METADATA: json.dumps(plain(remarks))})


def described(columns: Sequence[Column]) -> dict[str, Any]:
    """Return {column: its type, shape, meaning and tensor}, for the manifest."""
    found = {}
    for column in (*OWN, *(one for one in columns if one.name != ERROR)):
        entry: dict[str, Any] = {"type": column.dtype, "meaning": column.meaning}
        if column.rank:
            shape = None if column.shape is None else list(column.shape)
            entry |= {"shape": shape, "rank": column.rank, "tensor": column.tensor}
        found[column.name] = entry
    return found


def stored_columns(stored: Mapping[str, Any]) -> list[Column]:
    """Return the columns of the explainer that a manifest states, as `described` wrote them."""
    own = {column.name for column in OWN}
    found = []
    for name, entry in stored.items():
        shape = entry.get("shape", ())
        more = (None if shape is None else tuple(shape), entry.get("rank", 0), entry.get("tensor", ""))
        if name not in own:
            found.append(Column(name, entry["type"], entry["meaning"], *more))
    return found


def rows_of(schema: Any, columns: Mapping[str, Any], rows: Sequence[int]) -> Any:
    """Return the record batch of some rows of a batch of results."""
    pa = arrow()
    arrays = []
    for field in schema:
        name = field.name
        if name.endswith(SHAPE) and name not in columns:
            values = columns[name.removesuffix(SHAPE)]
            arrays.append(pa.array([list(np.shape(values[row])) for row in rows], field.type))
            continue
        values = columns[name]
        if isinstance(field.type, pa.FixedShapeTensorType):
            arrays.append(_tensors(field.type, np.stack([values[row] for row in rows])))
        elif pa.types.is_list(field.type):
            flat = [np.asarray(values[row]).reshape(-1) for row in rows]
            arrays.append(pa.array(flat, field.type))
        else:
            arrays.append(pa.array([_plain(values[row], field.type) for row in rows], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _tensors(kind: Any, stacked: np.ndarray) -> Any:
    pa = arrow()
    flat = pa.array(np.ascontiguousarray(stacked).reshape(-1))
    storage = pa.FixedSizeListArray.from_arrays(flat, type=kind.storage_type)
    return pa.ExtensionArray.from_storage(kind, storage)


def _plain(value: Any, kind: Any) -> Any:
    """A number or a text; None for −1 of a class, for NaN, and for an empty text of a label."""
    types = arrow().types
    if value is None or types.is_string(kind):
        return value
    if types.is_integer(kind):
        return int(value) if value >= 0 else None
    return None if np.isnan(value) else value


def _float(dtype: str) -> Any:
    pa = arrow()
    return {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}[dtype]
