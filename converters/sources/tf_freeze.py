"""Freeze a TensorFlow function: its variables become constants, its inner calls are inlined.

Reads a tf ConcreteFunction; returns another with the same inputs and outputs by name.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from converters.errors import UnsupportedModel, one_line
from converters.system.quiet import quiet

_COUNT = itertools.count()
# What a user is told of a model that is not converted as it is.
STATEFUL = (
    "the model keeps a state from one call to the next: it was converted with the state of this moment, "
    "which no analysis changes"
)
HALF = "layers that compute in half precision were converted in float32"
SIZED = (
    "tf2onnx does not convert the model at free sizes: it was converted at the sizes of the `example`, "
    "which is to have those of the inputs"
)
_UNWANTED = ("_XlaMustCompile", "_noinline")
_ASSIGNMENTS = frozenset({"AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp"})


def freeze(tf: Any, function: Any) -> Any:
    """The function with its variables as constants and its inner calls inlined.

    Variables have the values of this moment. What the function assigns to them is left out.
    """
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        with quiet("tensorflow", "absl", native=True):
            if assigns(function):
                frozen = _without_assignments(function)
            else:
                frozen = convert_variables_to_constants_v2(function, lower_control_flow=False)
            graph_def = frozen.graph.as_graph_def(add_shapes=True)
            if not any(node.op.endswith("PartitionedCall") for node in graph_def.node):
                return frozen
            # Keras compiles some ops (grouped convolution, exact GELU) as functions of their own.
            _allow_inlining(graph_def)
            _rename_functions(graph_def, f"_inlined_{next(_COUNT)}")
            wrapped = _wrap(tf, graph_def, frozen)
            return convert_variables_to_constants_v2(
                wrapped, lower_control_flow=False, aggressive_inlining=True
            )
    except Exception as error:  # TensorFlow documents no exceptions here
        raise UnsupportedModel(
            f"the variables of the model cannot be made constants ({one_line(error)}). Fix: write it with "
            "tf.saved_model.save, and convert the folder, or give a model without variables that it changes"
        ) from error


def assigns(function: Any) -> bool:
    """Whether a concrete function, or one that it calls, assigns to a variable."""
    return any(node.op in _ASSIGNMENTS for node in _nodes(function.graph.as_graph_def()))


def keeps_state(tf: Any, function: Any) -> bool:
    """Whether a function assigns floats, as a stateful layer does; a layer that draws assigns integers."""
    assigned = (node for node in _nodes(function.graph.as_graph_def()) if node.op in _ASSIGNMENTS)
    return any(tf.dtypes.as_dtype(node.attr["dtype"].type).is_floating for node in assigned)


def _without_assignments(function: Any) -> Any:
    """What convert_variables_to_constants_v2 does, which fails where a variable is assigned to."""
    from tensorflow.python.framework import convert_to_constants as tools

    data = tools._FunctionConverterDataInEager(function, lower_control_flow=False, aggressive_inlining=False)
    graph_def, converted = tools._replace_variables_by_constants(data)
    dropped = {node.name for node in _nodes(graph_def) if node.op in _ASSIGNMENTS}
    orders = {f"^{name}" for name in dropped}
    for holder in (graph_def, *graph_def.library.function):
        nodes = holder.node if holder is graph_def else holder.node_def
        kept = [node for node in nodes if node.op not in _ASSIGNMENTS]
        for node in kept:
            read = [name for name in node.input if name not in orders]
            del node.input[:]
            node.input.extend(read)
        copies = [copy.deepcopy(node) for node in kept]
        del nodes[:]
        nodes.extend(copies)
    for inner in graph_def.library.function:
        for result, name in list(inner.control_ret.items()):
            if name in dropped:
                del inner.control_ret[result]
                inner.signature.control_output.remove(result)
    return tools._construct_concrete_function(function, graph_def, converted)


def in_float32(tf: Any, frozen: Any) -> Any:
    """A frozen function whose half-precision layers compute in float32; itself where it has none.

    Every backend analyzes such a model in float32, and tf2onnx does not know all of its ops in half precision.
    """
    graph_def = frozen.graph.as_graph_def(add_shapes=True)
    if not _widen(tf, graph_def):
        return frozen
    _rename_functions(graph_def, f"_float32_{next(_COUNT)}")
    return _wrap(tf, graph_def, frozen)


def _widen(tf: Any, graph_def: Any) -> bool:
    """Put float32 in place of half-precision types and constants. Returns whether there were any."""
    half = {tf.float16.as_datatype_enum, tf.bfloat16.as_datatype_enum}
    wide, changed = tf.float32.as_datatype_enum, False
    for node in _nodes(graph_def):
        for value in node.attr.values():
            if value.type in half:
                value.type, changed = wide, True
            for index, dtype in enumerate(value.list.type):
                if dtype in half:
                    value.list.type[index], changed = wide, True
            if value.HasField("tensor") and value.tensor.dtype in half:
                array = tf.make_ndarray(value.tensor).astype("float32")
                value.tensor.CopyFrom(tf.make_tensor_proto(array, tf.float32))
    for function in graph_def.library.function:
        for argument in (*function.signature.input_arg, *function.signature.output_arg):
            if argument.type in half:
                argument.type, changed = wide, True
    return changed


def _nodes(graph_def: Any) -> list[Any]:
    """The nodes of a GraphDef and of its functions."""
    inner = (node for function in graph_def.library.function for node in function.node_def)
    return [*graph_def.node, *inner]


def _allow_inlining(graph_def: Any) -> None:
    for holder in (*_nodes(graph_def), *graph_def.library.function):
        for key in _UNWANTED:
            holder.attr.pop(key, None)


def _rename_functions(graph_def: Any, suffix: str) -> None:
    """TensorFlow keeps one definition per function name: changed functions need names of their own."""
    names = {function.signature.name for function in graph_def.library.function}
    for function in graph_def.library.function:
        function.signature.name += suffix
    for node in _nodes(graph_def):
        for value in node.attr.values():
            for called in [value.func] if value.HasField("func") else value.list.func:
                if called.name in names:
                    called.name += suffix
        if node.op in names:
            node.op += suffix
    for gradient in graph_def.library.gradient:
        gradient.function_name += suffix
        gradient.gradient_func += suffix


def _wrap(tf: Any, graph_def: Any, frozen: Any) -> Any:
    """A GraphDef as a concrete function with the inputs and outputs of another, by name."""
    wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
    element = wrapped.graph.as_graph_element
    inputs = [element(tensor.name) for tensor in frozen.inputs]
    return wrapped.prune(inputs, [element(tensor.name) for tensor in frozen.outputs])


@contextmanager
def unchanged(variables: Sequence[Any]) -> Iterator[None]:
    """Give variables back the values that they had: a stateful layer assigns to its own when it is run."""
    before = [(variable, variable.numpy()) for variable in variables]
    try:
        yield
    finally:
        for variable, value in before:
            variable.assign(value)
