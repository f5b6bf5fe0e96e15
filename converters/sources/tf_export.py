"""Convert a frozen concrete function with tf2onnx.

Reads a tf ConcreteFunction without variables (tf_freeze.py); returns its ONNX graph. Refuses graphs in which
tf2onnx left a TensorFlow op or an input that nothing computes: it only logs these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from converters.errors import UnsupportedModel, one_line
from converters.graph.nodes import reads, subgraphs
from converters.passes.rebatch import BATCH
from converters.system.quiet import quiet

# Later opsets are refused (19) or turn global pooling into means and transposes (18).
_EXPORT_OPSET = 17


def to_onnx(tf: Any, frozen: Any, inputs: Sequence[str], outputs: Sequence[str]) -> onnx.ModelProto:
    """tf2onnx's graph of a frozen function, with its inputs and outputs under the given names."""
    _refuse_tables(tf, frozen)
    graph_def = frozen.graph.as_graph_def(add_shapes=True)
    renamed = {tensor.name: name for tensor, name in zip(frozen.inputs, inputs, strict=True)}
    renamed |= {tensor.name: name for tensor, name in zip(frozen.outputs, outputs, strict=True)}
    try:
        with quiet("tensorflow", "tf2onnx", "absl", native=True):
            proto = _run_tf2onnx(tf, graph_def, frozen, renamed)
    except Exception as error:  # tf2onnx raises ValueErrors, AssertionErrors and its own kinds
        raise UnsupportedModel(
            f"an op of the model has no ONNX form in tf2onnx ({one_line(error)}). Fix: write that part with other "
            "TensorFlow ops, or convert the model before or after it"
        ) from error
    _refuse_leftovers(proto)
    for info in proto.graph.input:
        axes = info.type.tensor_type.shape.dim
        if axes and not axes[0].HasField("dim_value"):
            axes[0].dim_param = BATCH
    return proto


def _refuse_tables(tf: Any, frozen: Any) -> None:
    """Raise UnsupportedModel where a function reads a table of keys, which freezing leaves outside."""
    if any(tensor.dtype == tf.resource for tensor in frozen.inputs):
        lookups = [op.name for op in frozen.graph.get_operations() if op.type.startswith("LookupTableFind")]
        raise UnsupportedModel(
            f"{lookups[0] if lookups else 'the model'!r} looks keys up in a table, which has no ONNX form. Fix: "
            "convert the model that follows, keras.Model(model.get_layer(NAME).output, model.outputs), NAME being "
            "that of the lookup layer, and apply this layer yourself"
        )


def _run_tf2onnx(tf: Any, graph_def: Any, frozen: Any, renamed: dict[str, str]) -> onnx.ModelProto:
    from tf2onnx import optimizer

    converted = _tf2onnx_graph(tf, graph_def, frozen, renamed)
    own = {f"{node.name}:{index}" for node in graph_def.node for index in range(8)}
    stands_for = {
        node.input[0]: node.output[0]
        for node in converted.get_nodes()
        if node.type == "Transpose" and node.output[0] in own and node.input[0] not in own
    }
    try:
        optimised = optimizer.optimize_graph(converted, catch_errors=False, optimizers=_optimisers())
    except Exception:  # with copies of every weight at every step, tf2onnx can leave out the step that failed
        converted = _tf2onnx_graph(tf, graph_def, frozen, renamed)
        optimised = optimizer.optimize_graph(converted, catch_errors=True, optimizers=_optimisers())
    proto: onnx.ModelProto = optimised.make_model("model")
    _restore_names(proto, stands_for)
    return proto


def _tf2onnx_graph(tf: Any, graph_def: Any, frozen: Any, renamed: dict[str, str]) -> Any:
    from tf2onnx.tfonnx import process_tf_graph

    with tf.Graph().as_default() as graph:
        tf.import_graph_def(graph_def, name="")
        return process_tf_graph(
            graph,
            opset=_EXPORT_OPSET,
            input_names=[tensor.name for tensor in frozen.inputs],
            output_names=[tensor.name for tensor in frozen.outputs],
            tensors_to_rename=renamed,
            custom_op_handlers={"Erfc": (_erfc, []), "Expm1": (_expm1, []), "Log1p": (_log1p, [])},
        )


def _optimisers() -> dict[str, Any]:
    """tf2onnx's optimisers without those that fold layers or take them apart: that is for the canonical form."""
    from tf2onnx import optimizer
    from tf2onnx.optimizer.transpose_optimizer import TransposeOptimizer

    class LayoutOptimizer(TransposeOptimizer):  # type: ignore[misc]
        """Moves Transposes only. The original merges constants into a Conv, even into shared weights."""

        def _add_handler(self, trans: Any, node: Any) -> Any:
            return self._handle_node_having_branches(trans, node)

        def _mul_handler(self, trans: Any, node: Any) -> Any:
            if any(given.is_const() for given in node.inputs):
                return self._handle_node_having_branches(trans, node)
            return super()._mul_handler(trans, node)

    chosen = dict(optimizer._get_optimizers(), optimize_transpose=LayoutOptimizer)
    del chosen["remove_back_to_back"]
    # An Einsum is one op of the standard; taken apart, its shapes would be computed at run time.
    del chosen["einsum_optimizer"]
    return chosen


def _restore_names(proto: onnx.ModelProto, stands_for: dict[str, str]) -> None:
    """A layer's value whose Transpose moved on takes the TensorFlow name that the Transpose had."""
    fixed = {info.name for info in (*proto.graph.input, *proto.graph.output)}
    written = {name for node in proto.graph.node for name in node.output} | fixed
    names = {old: new for old, new in stands_for.items() if old in written - fixed and new not in written}
    for node in proto.graph.node:
        for field in (node.input, node.output):
            for index, name in enumerate(field):
                field[index] = names.get(name, name)
    for info in proto.graph.value_info:
        info.name = names.get(info.name, info.name)


def _erfc(context: Any, node: Any, name: str, arguments: Any) -> None:
    """erfc(x) = 1 − erf(x), under the node's own name."""
    erf = _inserted(context, node, "Erf", node.input[0])
    one = _one(context, node)
    node.type = "Sub"
    context.replace_inputs(node, [one, erf])


def _expm1(context: Any, node: Any, name: str, arguments: Any) -> None:
    """expm1(x) = exp(x) − 1, under the node's own name."""
    exp = _inserted(context, node, "Exp", node.input[0])
    one = _one(context, node)
    node.type = "Sub"
    context.replace_inputs(node, [exp, one])


def _log1p(context: Any, node: Any, name: str, arguments: Any) -> None:
    """log1p(x) = log(x + 1), under the node's own name."""
    grown = _inserted(context, node, "Add", node.input[0], _one(context, node))
    node.type = "Log"
    context.replace_inputs(node, [grown])


def _inserted(context: Any, node: Any, op_type: str, *inputs: str) -> str:
    """The output of a new node that is shaped and typed like the input of `node`."""
    dtype, shape = context.get_dtype(node.input[0]), context.get_shape(node.input[0])
    name: str = context.make_node(op_type, list(inputs), dtypes=[dtype], shapes=[shape]).output[0]
    return name


def _one(context: Any, node: Any) -> str:
    import numpy as np

    dtype = onnx.helper.tensor_dtype_to_np_dtype(context.get_dtype(node.input[0]))
    name: str = context.make_const(f"{node.name}/one", np.asarray(1, dtype)).output[0]
    return name


def _refuse_leftovers(proto: onnx.ModelProto) -> None:
    """Raise where tf2onnx kept an op of TensorFlow, or an input that nothing computes."""
    known = {info.name for info in proto.graph.input} | {t.name for t in proto.graph.initializer}
    known |= {name for node in proto.graph.node for name in node.output}
    foreign = sorted({node.op_type for node in _nodes(proto.graph) if not _is_onnx(node)})
    if foreign:
        first = next(node for node in _nodes(proto.graph) if not _is_onnx(node))
        raise UnsupportedModel(
            f"tf2onnx has no ONNX form for the TensorFlow ops {', '.join(foreign)}; the first is {first.name!r}. "
            "Fix: convert a model that starts after it, or write it with other ops"
        )
    dangling = sorted({name for node in proto.graph.node for name in reads(node)} - known)
    if dangling:
        raise UnsupportedModel(
            f"tf2onnx left inputs that nothing computes: {', '.join(dangling[:5])}. Fix: give a model without the "
            "layers that make them, or export it to ONNX yourself and give the .onnx file"
        )


def _nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    return [
        *graph.node,
        *(inner for node in graph.node for body in subgraphs(node) for inner in _nodes(body)),
    ]


def _is_onnx(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx") and onnx.defs.has(node.op_type)
