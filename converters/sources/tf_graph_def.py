"""Read a frozen TensorFlow 1 graph, a `.pb` or `.pbtxt` file, as a concrete function.

Its inputs are the placeholders, its outputs the tensors that no operation reads. Refuses files that hold no graph,
and graphs whose variables were not frozen.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from converters.errors import InvalidModel, UnsupportedModel, one_line
from converters.sources.trust import refuse_graph

_AGAIN = "Fix: write the frozen graph again, or give its SavedModel folder"
_VARIABLES = ("VarHandleOp", "VariableV2", "Variable")
# They compute nothing that anybody asks for.
_SILENT = ("NoOp", "Const", "Placeholder", "PlaceholderWithDefault", "Assert", "Print", "SaveV2", "RestoreV2")


def read_graph(tf: Any, path: str, trust: bool = False) -> Any:
    """The graph in a file as a concrete function. Raises InvalidModel, UntrustedModel or UnsupportedModel.

    trust: import ops that do more than compute.
    """
    graph_def = _parsed(tf, path)
    variable = next((node.name for node in graph_def.node if node.op in _VARIABLES), None)
    if variable is not None:
        raise UnsupportedModel(
            f"{path} has variables, such as {variable!r}, whose values it does not hold. Fix: freeze the graph with "
            "tf.compat.v1.graph_util.convert_variables_to_constants(session, graph_def, output_names)"
        )
    if not trust:
        refuse_graph(path, graph_def)
    inputs = [node.name for node in graph_def.node if node.op == "Placeholder"]
    try:
        wrapped = tf.compat.v1.wrap_function(lambda: tf.import_graph_def(graph_def, name=""), [])
        outputs = _outputs(wrapped.graph)
        if not inputs or not outputs:
            raise InvalidModel(
                f"{path} is not a model: its graph has no placeholder, or no output. Fix: freeze a graph that computes "
                "an output from a tf.compat.v1.placeholder"
            )
        return wrapped.prune([f"{name}:0" for name in inputs], outputs)
    except InvalidModel:
        raise
    except Exception as error:  # TensorFlow's importer documents no exceptions
        raise InvalidModel(
            f"{path}: TensorFlow cannot import the graph ({one_line(error)}). Fix: write the frozen graph again with "
            "this version of TensorFlow, or give its SavedModel folder"
        ) from error


def _parsed(tf: Any, path: str) -> Any:
    from google.protobuf import text_format

    graph_def = tf.compat.v1.GraphDef()
    content = Path(path).read_bytes()
    try:
        if path.lower().endswith(".pbtxt"):
            text_format.Parse(content.decode(), graph_def)
        else:
            graph_def.ParseFromString(content)
    except Exception as error:  # protobuf's errors share no base but Exception
        raise InvalidModel(
            f"{path} is not a TensorFlow graph, or a truncated one ({one_line(error)}). {_AGAIN}"
        ) from error
    if not graph_def.node:
        raise InvalidModel(
            f"{path} is not a TensorFlow graph, or a truncated one: it holds no operation. {_AGAIN}"
        )
    return graph_def


def _outputs(graph: Any) -> list[str]:
    """The tensors that nothing reads, of the operations whose results nothing reads."""
    unread = [
        operation
        for operation in graph.get_operations()
        if operation.type not in _SILENT and not any(tensor.consumers() for tensor in operation.outputs)
    ]
    return [tensor.name for operation in unread for tensor in operation.outputs]
