"""Take a model as users hold it: a network that does not state its inputs is traced from the inputs of the call.

From anything that `convert` takes, and inputs, to a Model. Warns from the second time on that a network is converted
anew at each call: its weights may have changed since.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice, product
from typing import Any
from weakref import WeakSet

import numpy as np

from analyzer.errors import InputError, ShapeError, note
from analyzer.types import as_array
from converters import ConversionError, Model, convert, load
from converters.errors import ExampleNeeded, UnsupportedModel
from converters.sources.pytorch import is_pytorch

# Layouts in which a network that does not state its inputs is tried.
MOST_LAYOUTS = 9
# Samples of an example: conversion runs it several times.
_SAMPLES = 8
_MOVE = "change the order of the axes, inputs.transpose"
_ORDERS: dict[int, list[tuple[tuple[int, ...], str]]] = {
    4: [((0, 3, 1, 2), f"{_MOVE}(0, 3, 1, 2)"), ((0, 2, 3, 1), f"{_MOVE}(0, 2, 3, 1)")],
    3: [
        ((0, 1, 2), "add a batch axis, inputs[None]"),
        ((2, 0, 1), f"{_MOVE}(2, 0, 1)[None]"),
        ((1, 2, 0), f"{_MOVE}(1, 2, 0)[None]"),
    ],
}
"""Orders of the axes of images, and how to bring inputs into them."""
_CONVERTED: WeakSet[Any] = WeakSet()


def model_for(model: Any, inputs: Any = None, *, verify: bool = True, trust: bool = False) -> Model:
    """Return the Model of anything that `convert` takes. inputs: those of the call, from which a network is traced.

    Raises ExampleNeeded where a network does not state its inputs, and there are none.
    """
    try:
        return load(model, verify=verify, trust=trust)
    except ExampleNeeded:
        if inputs is None:
            raise
        whole = as_arrays(inputs)
    _remark(model)
    some = _first_samples(whole)
    try:
        converted = convert(model, some, trust=trust)
    except ConversionError as error:
        if some is whole:
            raise _explained(error, model, whole, trust) from error
    else:
        if some is whole or not _states_batch(converted):
            return converted
    # Samples that depend on one another, as the nodes of a graph, or a network that takes one batch alone.
    return convert(model, whole, trust=trust)


def model_in_layout_of(model: Any, inputs: Any, names: Mapping[str, str] | None, trust: bool) -> Model:
    """Return the Model of a network in the first layout of the inputs that it takes, such as channels last.

    names: {input of another model: input of this one}. Raises the ConversionError of the inputs as given.
    """
    failure: ConversionError | None = None
    for example in examples(_first_samples(as_arrays(inputs)), names):
        try:
            return convert(model, example, trust=trust)
        except ConversionError as error:
            failure = failure or error
    assert failure is not None
    raise failure


def _explained(error: ConversionError, model: Any, inputs: Any, trust: bool) -> Exception:
    """The error of a network that does not run on the inputs; how to move their axes, where it then runs."""
    if isinstance(inputs, np.ndarray) and isinstance(error, UnsupportedModel):
        for order, fix in _ORDERS.get(inputs.ndim, ()):
            moved = inputs.transpose(order) if inputs.ndim == 4 else inputs.transpose(order)[None]
            with suppress(ConversionError):
                convert(model, moved, trust=trust, batches=0)
                return ShapeError(
                    f"{type(model).__name__} does not run on inputs of shape {inputs.shape}, it runs on {moved.shape}. "
                    f"Fix: {fix}"
                )
    return error


def as_arrays(inputs: Any) -> Any:
    """Return the inputs of a call as arrays. Raises InputError for a value that cannot be converted to an array."""
    return {n: _array(a) for n, a in inputs.items()} if isinstance(inputs, Mapping) else _array(inputs)


def _first_samples(arrays: Any) -> Any:
    """The first rows of inputs that have many, all as many; else the inputs themselves."""
    values = list(arrays.values()) if isinstance(arrays, dict) else [arrays]
    sizes = {value.shape[0] if value.ndim else 0 for value in values}
    if len(sizes) != 1 or next(iter(sizes)) <= _SAMPLES:
        return arrays
    if isinstance(arrays, dict):
        return {name: value[:_SAMPLES] for name, value in arrays.items()}
    return arrays[:_SAMPLES]


def _states_batch(model: Model) -> bool:
    """Whether an input takes one size alone along its first axis."""
    shapes = (info.type.tensor_type.shape.dim for info in model.light.graph.input)
    return any(len(axes) > 0 and axes[0].HasField("dim_value") for axes in shapes)


def examples(example: Any, names: Mapping[str, str] | None) -> Iterator[Any]:
    """Yield the example in every common layout; with several arrays, first as a dict by name, then in order."""
    if not isinstance(example, Mapping):
        yield from _moved(example)
        return
    layouts = product(*(_moved(array) for array in example.values()))
    for arrays in islice(layouts, MOST_LAYOUTS):
        yield {(names or {}).get(name, name): array for name, array in zip(example, arrays, strict=True)}
        if names is None:
            yield arrays


def _moved(array: np.ndarray) -> list[np.ndarray]:
    """An array as it is, with its channels last, and with them first."""
    if array.ndim < 3:
        return [array]
    return [array, *(np.ascontiguousarray(np.moveaxis(array, *axes)) for axes in ((1, -1), (-1, 1)))]


def _array(value: Any) -> Any:
    """An array of numbers; of bfloat16, which NumPy does not have, the tensor itself."""
    if is_pytorch(value) and str(getattr(value, "dtype", "")) == "torch.bfloat16":
        return value.detach()
    try:
        array = as_array(value)
    except ValueError as error:
        raise InputError(
            "expected inputs as an array of numbers, got rows of different lengths. Fix: give rows of one length"
        ) from error
    if array.dtype.kind not in "fiub":
        raise InputError(
            f"expected inputs as an array of numbers, got {type(value).__name__}. Fix: give an array or a tensor, or "
            "a dict {input name: array}"
        )
    return array


def _remark(model: Any) -> None:
    """Say how to convert a network once, when it is converted again."""
    try:
        if model in _CONVERTED:
            note(
                f"{type(model).__name__} is converted anew at each call. For several calls convert it once, "
                "model = onnxplain.convert(network, inputs), and give this model"
            )
        _CONVERTED.add(model)
    except TypeError:  # an object without weak references
        return
