"""Convert TensorFlow and Keras: models, modules, functions, .keras files and SavedModel folders.

Everything becomes one concrete function, frozen, with its inner calls inlined; that function is both what
tf2onnx converts and the source, so the names of its tensors are the names in the graph. Refuses ops that
tf2onnx cannot express, by name, and callables whose inputs nobody states.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from converters.errors import ConversionError, ExampleNeeded, InvalidModel, UnsupportedModel, one_line
from converters.graph.unique import UniqueNames
from converters.model import TensorFlowSource
from converters.sources import foreign, tf_export, tf_freeze
from converters.sources.examples import refuse_shape
from converters.sources.frameworks import import_framework
from converters.sources.pytorch import Converted
from converters.sources.tf_graph_def import read_graph
from converters.sources.tf_text import refuse_text
from converters.sources.trust import refuse_keras_code, refuse_saved_model
from converters.system.quiet import quiet
from converters.types import NamedArrays
from converters.verify import FreeAxes, Reference

_FREE_SIZES = 32


@dataclass(frozen=True)
class _Traced:
    """A concrete function, the original as a function of flat arrays, and the names of both ends.

    `example` has one array per input; `keep` holds what the function's variables belong to.
    """

    function: Any
    run: Callable[[Sequence[np.ndarray]], Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    example: tuple[np.ndarray, ...]
    keep: Any
    free_axes: FreeAxes = field(default_factory=dict)
    call: Callable[..., Any] | None = None
    """What was traced, on flat tensors, where it can be traced again for other sizes."""

    @property
    def _shapes(self) -> list[Any]:
        # What the function captures follows its inputs.
        return [tensor.shape for tensor in self.function.inputs[: len(self.inputs)]]

    @property
    def leaves_sizes_open(self) -> bool:
        """Whether an input leaves another size than the batch open."""
        return any(shape.rank and None in shape.as_list()[1:] for shape in self._shapes)

    def at_example(self, tf: Any) -> _Traced:
        """The same for inputs of the example's sizes, the batch free as it is."""
        shapes = self._shapes
        free = [
            [None if shape[0] is None else array.shape[0], *array.shape[1:]] if array.ndim else []
            for shape, array in zip(shapes, self.example, strict=True)
        ]
        assert self.call is not None
        function = _concrete(tf, self.call, free, self.example, self.inputs)
        return replace(self, function=function, free_axes={}, call=None)


def is_tensorflow(source: object) -> bool:
    """Whether an object is TensorFlow's or Keras', told without importing either."""
    return any(kind.__module__.partition(".")[0] in ("tensorflow", "keras") for kind in type(source).__mro__)


def convert_path(path: str, example: Any, trust: bool = False) -> Converted:
    """Convert a .keras or .h5 file, a frozen .pb graph or a SavedModel folder.

    trust: load files that can run code or access other files. Raises UntrustedModel for these otherwise.
    """
    if os.path.basename(path) in ("saved_model.pb", "saved_model.pbtxt"):
        path = os.path.dirname(path) or "."
    if damaged := foreign.damage_of(path):
        raise InvalidModel(damaged)
    tf = import_framework("tensorflow")
    if path.lower().endswith((".pb", ".pbtxt")):
        with quiet("tensorflow", "absl", native=True):
            graph = read_graph(tf, path, trust)
        return convert_tensorflow(graph, example)
    if os.path.isdir(path):
        if not trust:
            refuse_saved_model(path)
        try:
            with quiet("tensorflow", "absl", native=True):
                loaded = tf.saved_model.load(path)
        except Exception as error:  # TensorFlow's loaders raise whatever they meet
            again = "Fix: write it again with tf.saved_model.save"
            raise InvalidModel(f"{path} is a damaged SavedModel ({one_line(error)}). {again}") from error
        return convert_tensorflow(loaded, example)
    keras = import_framework("keras")
    if not trust:
        refuse_keras_code(path)
    try:
        with quiet("tensorflow", "absl", native=True):
            model = keras.saving.load_model(path, compile=False, safe_mode=not trust)
    except Exception as error:
        raise InvalidModel(
            f"{path} cannot be loaded by Keras: {one_line(error).rstrip('.')}. Fix: make the model in Python, as "
            "where it was trained, load the weights with model.load_weights, and convert the model"
        ) from error
    return convert_tensorflow(model, example)


def convert_tensorflow(source: Any, example: Any, free_axes: FreeAxes | None = None) -> Converted:
    """Convert a Keras model, tf.Module, tf.function, ConcreteFunction or loaded SavedModel.

    free_axes: {argument: {axis: symbol}}, the axes besides the batch whose size is free, where the source is
    traced from the example.
    """
    if isinstance(example, (tuple, list)):
        refuse_shape(example)
    tf = import_framework("tensorflow")
    import_framework("tf2onnx")
    try:
        with quiet("tensorflow", "absl", native=True), tf_freeze.unchanged(_state(source)):
            traced = _trace(tf, source, example, free_axes or {})
    except ConversionError:
        raise
    except Exception as error:  # tracing runs the user's code, which raises what it likes
        dense = any(kind in str(error) for kind in ("SparseTensor", "RaggedTensor"))
        fix = (
            "x.to_tensor() or tf.sparse.to_dense(x) in place of x"
            if dense
            else "an example on which it runs under tf.function"
        )
        raise UnsupportedModel(
            f"the model cannot be traced on the example ({one_line(error)}). Fix: give {fix}, and write branches on "
            "values with tf.where"
        ) from error
    refuse_text(tf, source, traced.function)

    def at_example() -> Converted:
        with quiet("tensorflow", "absl", native=True):
            fixed = traced.at_example(tf)
        return replace(_converted(tf, fixed), notes=(tf_freeze.SIZED,))

    open_ended = traced.call is not None and traced.leaves_sizes_open
    try:
        return replace(_converted(tf, traced), at_example=at_example if open_ended else None)
    except UnsupportedModel:
        if not open_ended:
            raise
        return at_example()


def _converted(tf: Any, traced: _Traced) -> Converted:
    """What is made of a traced model."""
    given = tf_freeze.freeze(tf, traced.function)
    frozen = tf_freeze.in_float32(tf, given)
    assigned = traced.function.variables if tf_freeze.assigns(traced.function) else ()
    proto = tf_export.to_onnx(tf, frozen, traced.inputs, traced.outputs)
    stated = TensorFlowSource(
        frozen,
        {name: tensor.name for name, tensor in zip(traced.inputs, frozen.inputs, strict=True)},
        {name: tensor.name for name, tensor in zip(traced.outputs, frozen.outputs, strict=True)},
    )
    shapes = [tensor.shape for tensor in frozen.inputs]
    sizes = [shape[0] for shape in shapes if shape.rank]
    fixed = next((size for size in sizes if size is not None), None)

    def run(feeds: NamedArrays) -> list[np.ndarray]:
        with tf_freeze.unchanged(assigned):
            arrays = zip(traced.inputs, traced.example, strict=True)
            result = traced.run([feeds[name].astype(like.dtype, copy=False) for name, like in arrays])
        return [np.asarray(value) for value in tf.nest.flatten(result)]

    kinds = [tensor.dtype.as_numpy_dtype for tensor in frozen.inputs]
    feeds = {
        name: array.astype(kind, copy=False)
        for name, array, kind in zip(traced.inputs, traced.example, kinds, strict=True)
    }
    reference = Reference(run, f"TensorFlow {tf.__version__}", fixed, half=frozen is not given)
    stateful = assigned and tf_freeze.keeps_state(tf, traced.function)
    notes = [
        note for note, holds in ((tf_freeze.STATEFUL, stateful), (tf_freeze.HALF, reference.half)) if holds
    ]
    return Converted(proto, stated, reference, feeds, tuple(notes), traced.free_axes)


def _state(source: Any) -> list[Any]:
    """The variables of a model that are not trained: among them what a stateful layer assigns to."""
    return [variable for variable in getattr(source, "variables", ()) if not variable.trainable]


def _trace(tf: Any, source: Any, example: Any, free_axes: FreeAxes) -> _Traced:
    """Choose how a source is called by what it is."""
    if any(kind.__module__.partition(".")[0] == "keras" for kind in type(source).__mro__):
        return _trace_keras(tf, source, example, free_axes)
    if isinstance(source, tf.types.experimental.ConcreteFunction):
        return _trace_concrete(tf, source, example, source)
    if isinstance(source, tf.types.experimental.PolymorphicFunction):
        return _trace_function(tf, source, example, source, free_axes)
    signatures = getattr(source, "signatures", None)
    if signatures:
        return _trace_signature(tf, source, signatures, example)
    if callable(source):
        return _trace_function(tf, source.__call__, example, source, free_axes)
    raise ConversionError(
        f"expected a model that can be called, got {type(source).__name__}. Fix: give a Keras model or a "
        "tf.function, or define __call__"
    )


def _trace_signature(tf: Any, source: Any, signatures: Any, example: Any) -> _Traced:
    name = "serving_default" if "serving_default" in signatures else next(iter(signatures))
    return _trace_concrete(tf, signatures[name], example, source)


def _trace_keras(tf: Any, model: Any, example: Any, free_axes: FreeAxes) -> _Traced:
    """A Keras model, run with training=False; a subclassed one needs an example."""
    declared = getattr(model, "inputs", None)
    if not declared:
        if example is None:
            raise ExampleNeeded(
                f"{type(model).__name__} is a subclassed Keras model. Fix: give an `example` to trace it from, as in "
                "convert(model, x) (--example FILE), or return (net, example) from the factory"
            )
        call = _with_inference(model)
        return _trace_example(tf, call, inspect.signature(model.call), example, model, free_axes)
    names = _unique([tensor.name.partition(":")[0] for tensor in declared])
    specs = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for tensor, name in zip(declared, names, strict=True)
    ]
    structure = getattr(model, "_inputs_struct", None)

    def call_flat(*flat: Any) -> Any:
        if structure is None:
            packed = flat[0] if len(flat) == 1 else list(flat)
        else:
            packed = tf.nest.pack_sequence_as(structure, flat)
        return model(packed, training=False)

    function = tf.function(call_flat, autograph=False).get_concrete_function(*specs)
    stated = getattr(model, "output_names", None)
    outputs = _output_names(tf, function, stated)
    arrays = _example(tf, specs, names, example)
    return _Traced(function, _eager(tf, call_flat), tuple(names), outputs, arrays, model, call=call_flat)


def _with_inference(model: Any) -> Callable[..., Any]:
    return lambda *arguments, **keywords: model(*arguments, training=False, **keywords)


def _trace_concrete(tf: Any, function: Any, example: Any, keep: Any) -> _Traced:
    """A ConcreteFunction: its inputs and their names are its own."""
    # A function that was pruned from a wrapped graph takes its inputs one after the other.
    arguments, keywords = function.structured_input_signature or (_flat_signature(tf, function), {})
    specs = [spec for spec in tf.nest.flatten((arguments, keywords)) if isinstance(spec, tf.TensorSpec)]
    names = _unique([spec.name or f"input_{index}" for index, spec in enumerate(specs)])

    def call_flat(*flat: Any) -> Any:
        waiting = iter(flat)
        filled = tf.nest.map_structure(
            lambda leaf: next(waiting) if isinstance(leaf, tf.TensorSpec) else leaf, (arguments, keywords)
        )
        return function(*filled[0], **filled[1])

    outputs = _output_names(tf, function, None)
    return _Traced(
        function, _eager(tf, call_flat), tuple(names), outputs, _example(tf, specs, names, example), keep
    )


def _flat_signature(tf: Any, function: Any) -> tuple[Any, ...]:
    captured = {tensor.name for tensor in function.graph.internal_captures}
    inputs = [tensor for tensor in function.inputs if tensor.name not in captured]
    return tuple(tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.op.name) for tensor in inputs)


def _trace_function(tf: Any, function: Any, example: Any, keep: Any, free_axes: FreeAxes) -> _Traced:
    """A tf.function (or plain callable): by its input signature, its only trace, or the example."""
    traceable = isinstance(function, tf.types.experimental.PolymorphicFunction)
    if traceable and getattr(function, "input_signature", None) is not None:
        return _trace_concrete(tf, function.get_concrete_function(), example, keep)
    known = getattr(function, "concrete_functions", None)  # a function that was loaded from a SavedModel
    if traceable and known and example is None:
        return _trace_concrete(tf, known[0], example, keep)
    if example is None:
        raise ExampleNeeded(
            f"the inputs of {getattr(function, '__name__', type(keep).__name__)!r} are not stated. Fix: give an "
            "`example` (--example FILE), return (net, example) from the factory, or give the tf.function an "
            "input_signature"
        )
    plain = getattr(function, "python_function", function)
    return _trace_example(tf, function, inspect.signature(plain), example, keep, free_axes)


def _trace_example(
    tf: Any, call: Any, signature: inspect.Signature, example: Any, keep: Any, free_axes: FreeAxes
) -> _Traced:
    """Trace a callable on the example's shapes, the first axis free where all inputs share it."""
    arguments, keywords = _as_call(signature, example)
    leaves = tf.nest.flatten((arguments, keywords))
    arrays = tuple(np.asarray(leaf) for leaf in leaves)
    arrays = tuple(array.astype(np.float32) if array.dtype == np.float64 else array for array in arrays)
    names = _unique(_leaf_names(tf, signature, arguments, keywords))
    if unknown := free_axes.keys() - set(names):
        raise ConversionError(
            f"free_axes names {min(unknown)!r}; the inputs are {', '.join(names)}. Fix: give free_axes={{input: "
            "{axis: symbol}} with one of these names"
        )
    stated = [tuple(free_axes.get(name, ())) for name in names]
    shapes = [
        [None if axis in free else size for axis, size in enumerate(array.shape)]
        for array, free in zip(arrays, stated, strict=True)
    ]

    def call_flat(*flat: Any) -> Any:
        packed = tf.nest.pack_sequence_as((arguments, keywords), flat)
        return call(*packed[0], **packed[1])

    run = _eager(tf, call_flat)
    run(arrays)  # builds a subclassed model's variables outside the trace
    # A number, such as a sampling rate, has no samples.
    batch = next((array.shape[0] for array in arrays if array.ndim), None)
    free = [
        [None, *s[1:]] if a.ndim and a.shape[0] == batch else s for a, s in zip(arrays, shapes, strict=True)
    ]
    try:
        if batch:
            run([np.resize(a, (batch + 1, *a.shape[1:])) if a.shape[:1] == (batch,) else a for a in arrays])
        function = _concrete(tf, call_flat, free, arrays, names)
    except Exception:  # a model that needs its batch's size is traced with the example's
        function = _concrete(tf, call_flat, shapes, arrays, names)
    outputs = _output_names(tf, function, None)
    return _Traced(function, run, tuple(names), outputs, arrays, keep, free_axes, call_flat)


def _concrete(tf: Any, call: Any, shapes: Any, arrays: Sequence[np.ndarray], names: Sequence[str]) -> Any:
    specs = [
        tf.TensorSpec(shape, array.dtype, name=name)
        for shape, array, name in zip(shapes, arrays, names, strict=True)
    ]
    return tf.function(call, autograph=False).get_concrete_function(*specs)


def _as_call(signature: inspect.Signature, example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example as arguments; a dict is keywords where the callable has these, else one argument."""
    if isinstance(example, dict):
        return ((), example) if example.keys() <= signature.parameters.keys() else ((example,), {})
    return (tuple(example) if isinstance(example, (tuple, list)) else (example,)), {}


def _leaf_names(tf: Any, signature: inspect.Signature, arguments: Any, keywords: Any) -> list[str]:
    """Each flat input by its parameter, or by its key in a dict."""
    parameters = [name for name in signature.parameters if name != "self"]
    names: list[str] = []
    for index, argument in enumerate(arguments):
        stem = parameters[index] if index < len(parameters) else f"input_{index}"
        keys = sorted(argument) if isinstance(argument, dict) else None
        names += keys if keys is not None else [stem] * len(tf.nest.flatten(argument))
    return names + [name for name in sorted(keywords) for _ in tf.nest.flatten(keywords[name])]


def _output_names(tf: Any, function: Any, stated: Sequence[str] | None) -> tuple[str, ...]:
    """Outputs by their key, by the names that Keras states, or numbered."""
    count = len(function.outputs)
    if not count:
        raise ConversionError(
            "the function returns no tensor. Fix: return the tensor to explain, such as the logits"
        )
    structure = function.structured_outputs
    if isinstance(structure, dict) and len(structure) == count:
        names = [str(key) for key in sorted(structure)]
    elif stated and len(stated) == count:
        names = [str(name) for name in stated]
    else:
        names = ["output"] if count == 1 else [f"output_{index}" for index in range(count)]
    return tuple(_unique(names))


def _unique(names: Sequence[str]) -> list[str]:
    found = UniqueNames()
    return [found.fresh(name.replace(":", "_") or "input") for name in names]


def _eager(tf: Any, call: Callable[..., Any]) -> Callable[[Sequence[np.ndarray]], Any]:
    """The original itself, called on arrays."""

    def run(arrays: Sequence[np.ndarray]) -> Any:
        with quiet("tensorflow", "absl", native=True):
            return call(*(tf.constant(array) for array in arrays))

    return run


def _example(tf: Any, specs: Sequence[Any], names: Sequence[str], example: Any) -> tuple[np.ndarray, ...]:
    """One array per input: the example's, or noise of the stated shape, free axes 2 and 32."""
    if example is None:
        rng = np.random.default_rng(0)
        return tuple(_noise(spec, rng) for spec in specs)
    if isinstance(example, dict):
        if example.keys() != set(names):
            raise ConversionError(
                f"the example has {sorted(example)}; the model's inputs are {sorted(names)}. Fix: give a dict with "
                "one array for each input, as in convert(model, {name: array})"
            )
        values = [example[name] for name in names]
    else:
        values = tf.nest.flatten(example if isinstance(example, (tuple, list)) else [example])
    if len(values) != len(specs):
        raise ConversionError(
            f"the example has {len(values)} arrays; the model has {len(specs)} inputs, {', '.join(names)}. Fix: give "
            "one array for each, in this order or in a dict {name: array}"
        )
    return tuple(np.asarray(v).astype(s.dtype.as_numpy_dtype) for v, s in zip(values, specs, strict=True))


def _noise(spec: Any, rng: np.random.Generator) -> np.ndarray:
    if spec.shape.rank is None:
        raise ConversionError(f"the rank of input {spec.name!r} is not stated. Fix: give an `example`")
    sizes = [size or (_FREE_SIZES if axis else 2) for axis, size in enumerate(spec.shape.as_list())]
    if spec.dtype.is_integer or spec.dtype.is_bool:
        return rng.integers(0, 2, sizes).astype(spec.dtype.as_numpy_dtype)
    return rng.standard_normal(sizes).astype(spec.dtype.as_numpy_dtype)
