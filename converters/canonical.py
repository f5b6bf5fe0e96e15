"""Bring any ONNX model to the canonical form that the analyzer reads.

Reads an `onnx.ModelProto`, returns a new one: one opset, functions inlined, fused ops and the standard's own
functions expanded, constants folded into initializers, no dead, Identity or inference Dropout nodes, a
symbolic batch where the graph allows one, functions in primitives as one op, BatchNorm folded and packed layers
taken apart unless told otherwise, every shape that can be inferred. Names of intermediate tensors are kept. Refuses
models with ops that are newer than the canonical opset and that its ops cannot express.
"""

from __future__ import annotations

import onnx

from converters.budget import preparing
from converters.errors import InvalidModel, one_line
from converters.graph.expansion import MICROSOFT
from converters.graph.fixed_point import settle, state_of
from converters.graph.mutable import MutableGraph
from converters.graph.opset import (
    CANONICAL_OPSET,
    all_nodes,
    inline_functions,
    refuse_newer,
    runnable_opset,
    set_opset,
)
from converters.graph.runtime import without_trailing_blanks
from converters.graph.unique import UniqueNames
from converters.passes.affine import merge_affine
from converters.passes.axes import state_axes
from converters.passes.branches import are_settled, decided_by_data, settle_branches
from converters.passes.constants import fold_constants
from converters.passes.fold import drop_zero_biases, fold_batch_norms
from converters.passes.functions import expand_functions, inline_calls
from converters.passes.fused import (
    LAYOUTS,
    expand_fused,
    name_domains,
    refuse_foreign,
    refuse_undetermined,
)
from converters.passes.lower import lower_ops
from converters.passes.masking import guard_masked_rows
from converters.passes.outputs import refuse_inputs
from converters.passes.packed import split_packed
from converters.passes.rebatch import BATCH, free_batch, name_batch
from converters.passes.simplify import simplify
from converters.passes.stated_shapes import fill_in, forget_in_bodies, set_aside
from converters.passes.unroll import explain_control_flow, unroll_loops
from converters.validation.fields import validate
from converters.validation.tensor_axes import refuse_axes

CANONICAL_KEY = "onnxplain.canonical"
_VERSION = "2"

__all__ = ["BATCH", "CANONICAL_KEY", "CANONICAL_OPSET", "canonicalise", "check", "is_canonical"]


def canonicalise(
    proto: onnx.ModelProto, *, fold_batch_norm: bool = True, dynamic_batch: bool = True
) -> onnx.ModelProto:
    """Return the canonical form of a model; the model itself is left as it is.

    fold_batch_norm: merge BatchNorm, and per-channel constants, into the linear layer before it, and take packed
    layers apart; without it the layers are those of the file.
    dynamic_batch: make a fixed batch symbolic where a run shows that samples stay independent.
    Raises InvalidModel for a damaged model, UnsupportedModel where no canonical form exists, LimitExceeded where the
    preparation takes more than its limits (budget.py).
    """
    if not isinstance(proto, onnx.ModelProto):
        raise InvalidModel(
            f"expected an onnx.ModelProto, got {type(proto).__name__}. Fix: give onnx.load(path), or use onnxplain.load"
        )
    with preparing(proto):
        return _canonicalised(proto, fold_batch_norm, dynamic_batch)


def _canonicalised(proto: onnx.ModelProto, fold_batch_norm: bool, dynamic_batch: bool) -> onnx.ModelProto:
    working = onnx.ModelProto()
    working.CopyFrom(proto)
    working = without_trailing_blanks(name_domains(inline_functions(working)))
    if proto.functions:
        # A call gives the nodes of a function their attributes.
        validate(working)
    forget_in_bodies(working)
    graph = MutableGraph(working)
    claims = set_aside(graph)
    refuse_foreign(graph)
    if graph.opsets.get("", 0) > CANONICAL_OPSET:
        # Newer ops are expanded, and loops around them unrolled, before the graph can be relabelled.
        _settle(graph)
    set_opset(graph)
    inline_calls(graph, working.functions)
    _settle(graph)
    fill_in(graph, claims)
    _settle(graph)
    # Branches and loops that were opened may have held such ops too.
    refuse_foreign(graph)
    refuse_undetermined(graph)
    name_batch(graph)
    # Runs prove nothing of a branch that their inputs do not take.
    if dynamic_batch and not decided_by_data(graph):
        graph = free_batch(graph)
    _settle(graph)
    drop_zero_biases(graph)
    if fold_batch_norm:
        fold_batch_norms(graph)
        merge_affine(graph)
        split_packed(graph)
        graph.remove_unused()
    guard_masked_rows(graph)
    graph.infer_types()
    explain_control_flow(graph)
    settle_branches(graph, _settle)
    _settle(graph)
    _name_nodes(graph)
    _strip_metadata(graph)
    graph.infer_types()
    # The checker copies what it is given; of large constants it reads type and shape alone.
    check(graph.light_proto())
    result = graph.to_proto()
    _mark(result, fold_batch_norm)
    return result


def is_canonical(proto: onnx.ModelProto) -> bool:
    """Whether a model is marked canonical and has the form that the mark promises."""
    marks = {entry.key: entry.value for entry in proto.metadata_props}
    if not marks.get(CANONICAL_KEY, "").startswith(f"{_VERSION};"):
        return False
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    graph = proto.graph
    constants = {tensor.name for tensor in graph.initializer}
    names = [node.name for node in graph.node]
    typed = {info.name for info in (*graph.value_info, *graph.output)}
    return (
        opsets.get("") == runnable_opset(all_nodes(list(graph.node)))
        and not proto.functions
        and all(names)
        and len(set(names)) == len(names)
        and not any(info.name in constants for info in graph.input)
        and not any(node.op_type in ("Constant", "Identity") for node in graph.node)
        # Optimizers fuse nodes of a canonical file and keep its mark.
        and not any(node.domain in (MICROSOFT, *LAYOUTS) for node in graph.node)
        and all(name in typed for node in graph.node for name in node.output if name)
        and are_settled(graph.node)
    )


def keeps_batch_norm(proto: onnx.ModelProto) -> bool:
    """Whether a canonical model was converted with its BatchNorm layers kept apart."""
    return any(e.key == CANONICAL_KEY and "batch_norm=kept" in e.value for e in proto.metadata_props)


def check(proto: onnx.ModelProto, *, shapes: bool = True) -> None:
    """Run ONNX's checker, with shape inference or without.

    Raises InvalidModel with its finding on one line, UnsupportedModel for a model that is newer than the
    installed onnx.
    """
    validate(proto)
    refuse_newer(proto)
    refuse_inputs(proto)
    proto = name_domains(proto)
    try:
        if any(_is_open_ended(info) for info in proto.graph.output):
            # The checker asks for a shape where runtimes do without one.
            onnx.checker.check_model(_with_output_shapes(proto))
            if shapes:
                onnx.shape_inference.infer_shapes(proto, strict_mode=True)
        else:
            onnx.checker.check_model(proto, full_check=shapes)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise InvalidModel(
            f"the model breaks a rule of ONNX ({one_line(error)}). Fix: export it again until "
            "onnx.checker.check_model takes it"
        ) from error


def _is_open_ended(info: onnx.ValueInfoProto) -> bool:
    return info.type.HasField("tensor_type") and not info.type.tensor_type.HasField("shape")


def _with_output_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for info in copy.graph.output:
        if _is_open_ended(info):
            info.type.tensor_type.shape.SetInParent()
    return copy


def _settle(graph: MutableGraph) -> None:
    """Expand, unroll, simplify and fold constants until nothing changes."""
    graph.remove_unused()
    if graph.settled == state_of(graph):
        return

    def rewrite() -> bool:
        graph.infer_types()
        refuse_axes(graph)
        changed = state_axes(graph)
        changed |= expand_fused(graph)
        if lower_ops(graph) | expand_functions(graph):
            changed = True
            graph.infer_types()
        changed |= unroll_loops(graph)
        changed |= simplify(graph)
        changed |= fold_constants(graph)
        graph.remove_unused()
        return changed

    settle(rewrite)
    if graph.opsets.get("", 0) <= CANONICAL_OPSET:
        graph.opsets[""] = runnable_opset(all_nodes(graph.nodes))
    graph.settled = state_of(graph)


def _name_nodes(graph: MutableGraph) -> None:
    """Give every node a name of its own, after its output where it has none."""
    names = UniqueNames()
    for node in graph.nodes:
        node.name = names.fresh(node.name or f"{node.op_type}_{next(name for name in node.output if name)}")


def _strip_metadata(graph: MutableGraph) -> None:
    """Keep what says where a node comes from; drop stack traces, which hold paths of the author's machine."""
    for node in graph.nodes:
        kept = [entry for entry in node.metadata_props if "stack_trace" not in entry.key]
        if len(kept) != len(node.metadata_props):
            copies = [(entry.key, entry.value) for entry in kept]
            del node.metadata_props[:]
            for key, value in copies:
                node.metadata_props.add(key=key, value=value)


def _mark(proto: onnx.ModelProto, fold_batch_norm: bool) -> None:
    entries = {entry.key: entry.value for entry in proto.metadata_props}
    entries[CANONICAL_KEY] = f"{_VERSION};batch_norm={'folded' if fold_batch_norm else 'kept'}"
    onnx.helper.set_model_props(proto, entries)
