"""Fix inputs of a converted model, and feed their values to the original that it is compared with.

From a Converted, or a PyTorch module with an example, to the same with constants in place of inputs. A module that
branches on a number in Python cannot be traced with a tensor in its place: it is called with the number.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from converters.errors import ConversionError
from converters.passes.fixed_inputs import fix_inputs, plain, state_constants
from converters.sources.pytorch import Converted
from converters.types import NamedArrays

Convert = Callable[[Any], Converted]


def with_constants(converted: Converted, constants: Mapping[str, Any]) -> Converted:
    """Return a converted model in which inputs are constants. Its original is run with their values.

    Raises ConversionError for unknown names, and for values that the inputs do not take.
    """
    if not constants:
        return converted
    proto, values = fix_inputs(converted.proto, constants)
    run, again = converted.reference.run, converted.at_example

    def run_fixed(arrays: NamedArrays) -> Sequence[np.ndarray]:
        return run({**arrays, **values})

    source = converted.source
    return replace(
        converted,
        proto=proto,
        source=None if source is None else replace(source, constants={**source.constants, **values}),
        reference=replace(converted.reference, run=run_fixed),
        example={name: array for name, array in converted.example.items() if name not in values},
        free_axes={name: axes for name, axes in converted.free_axes.items() if name not in values},
        at_example=None if again is None else lambda: with_constants(again(), constants),
    )


def fixed_module(module: Any, example: Any, constants: Mapping[str, Any], convert: Convert) -> Converted:
    """Convert an nn.Module with constants: as inputs of the graph that are fixed, or as arguments of its call.

    convert: from an example to a Converted.
    """
    parameters = parameters_of(module.forward)
    named = {name: value for name, value in constants.items() if name in parameters}
    if not named or example is None:
        return with_constants(convert(example), constants)
    given = _by_parameter(parameters, example)
    numbers = {name: plain(value) for name, value in named.items() if np.ndim(plain(value)) == 0}
    others = {name: value for name, value in constants.items() if name not in numbers}

    def traced() -> Converted:
        missing = {name: np.asarray(plain(value)) for name, value in named.items() if name not in given}
        return with_constants(convert({**given, **missing}), constants)

    def called() -> Converted:
        arrays = {name: np.asarray(plain(value)) for name, value in others.items() if name in parameters}
        found = with_constants(convert({**arrays, **given, **numbers}), others)
        proto = onnx.ModelProto()
        proto.CopyFrom(found.proto)
        state_constants(proto, {name: _stored(value) for name, value in numbers.items()})
        return replace(found, proto=proto)

    ways = [traced, called] if named.keys() <= given.keys() else [called, traced]
    return _first_of(ways if numbers else [traced])


def with_missing(
    example: Any, constants: Mapping[str, Any], names: Sequence[str], convert: Convert
) -> Converted:
    """Convert a TensorFlow model with constants, whose values the example may leave out.

    names: the parameters of its call; empty where they are not known.
    """
    values = {name: np.asarray(plain(value)) for name, value in constants.items()}
    ways = [lambda: convert(example)]
    if isinstance(example, Mapping) and not values.keys() <= example.keys():
        ways.append(lambda: convert({**values, **example}))
    elif example is not None and not isinstance(example, Mapping) and values.keys() <= {*names}:
        ways.append(lambda: convert({**values, **_by_parameter(names, example)}))
    return with_constants(_first_of(ways), constants)


def parameters_of(call: Any) -> list[str]:
    """Return the names of the parameters of a call; none where Python does not know them, as of TorchScript."""
    try:
        return [*inspect.signature(call).parameters]
    except (ValueError, TypeError):
        return []


def _by_parameter(parameters: Sequence[str], example: Any) -> dict[str, Any]:
    """Return an example by the parameters of a call, in order where it does not name them."""
    if isinstance(example, Mapping):
        return dict(example)
    values = example if isinstance(example, (tuple, list)) else (example,)
    return dict(zip(parameters, values, strict=False))


def _stored(value: Any) -> np.ndarray:
    array = np.asarray(value)
    return array.astype(object) if array.dtype.kind == "U" else array


def _first_of(ways: Sequence[Callable[[], Converted]]) -> Converted:
    """Return what the first of several ways gives. Raises the ConversionError of the first where all fail."""
    first, *others = ways
    try:
        return first()
    except ConversionError:
        with suppress(ConversionError):
            if others:
                return _first_of(others)
        raise
