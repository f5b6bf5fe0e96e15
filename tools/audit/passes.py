"""The passes that are audited: what draws graphs for each, how it is applied, and how its result is compared."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import onnx
from onnx import helper

from converters.canonical import canonicalise
from converters.graph.kernels import exact
from converters.graph.mutable import MutableGraph
from converters.graph.opset import inline_functions, set_opset
from converters.graph.order import in_order
from converters.model import Model
from converters.passes import simplify as simplify_module
from converters.passes.affine import merge_affine
from converters.passes.axes import state_axes
from converters.passes.branches import settle_branches
from converters.passes.constants import fold_constants
from converters.passes.fold import drop_zero_biases, fold_batch_norms
from converters.passes.functions import expand_functions, inline_calls
from converters.passes.fused import expand_fused
from converters.passes.input_axes import normalise_axes
from converters.passes.joins import join_primitives
from converters.passes.joins.pools import name_global_pools
from converters.passes.lower import lower_ops
from converters.passes.masking import guard_masked_rows
from converters.passes.packed import split_packed
from converters.passes.rebatch import free_batch, name_batch
from converters.passes.sequences import lower_sequences
from converters.passes.shapes import fix_shapes, join_reshapes
from converters.passes.sizes import at_sizes
from converters.passes.stated_shapes import fill_in, set_aside
from converters.passes.unroll import unroll_loops
from converters.specialise import specialised
from converters.straight_through import straight_through
from tools.audit.draws import (
    attention,
    control,
    fused,
    interfaces,
    linear,
    lowered,
    moves,
    opsets,
    primitives,
    sequences,
    shapes,
    whole,
)
from tools.audit.links import assert_linked
from tools.audit.sketch import Sketch

F64, F32, F16 = np.float64, np.float32, np.float16


@dataclass(frozen=True)
class Pass:
    """One row of the audit.

    draw: fills a Sketch. apply: gives the model after the pass. bitwise: the pass moves data and computes nothing.
    rounds: it stores new constants in the graph's own type. runtime: both sides run on ONNX Runtime.
    covers: the functions of `converters` that it shows.
    """

    name: str
    draw: Callable[[Sketch], None]
    apply: Callable[[onnx.ModelProto], onnx.ModelProto]
    bitwise: bool = False
    rounds: bool = False
    runtime: bool = False
    dtypes: tuple[Any, ...] = (F64, F32)
    opset: int = 23
    covers: tuple[Callable[..., Any], ...] = ()


def _on_graph(
    *passes: Callable[[MutableGraph], Any], infers: bool = True
) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """Return what applies passes to a graph of a model, as `canonicalise` does."""

    def apply(proto: onnx.ModelProto) -> onnx.ModelProto:
        working = onnx.ModelProto()
        working.CopyFrom(proto)
        graph = MutableGraph(working)
        for one in passes:
            if infers:
                graph.infer_types()
            one(graph)
            assert_linked(graph)
        graph.remove_unused()
        assert_linked(graph)
        graph.infer_types()
        return graph.to_proto()

    return apply


def _simplify_alone(graph: MutableGraph) -> None:
    """Two rounds of the rules of `simplify`, without the joins and pools, which have rows of their own."""
    with (
        mock.patch.object(simplify_module, "join_primitives", lambda graph: False),
        mock.patch.object(simplify_module, "name_global_pools", lambda graph: False),
    ):
        for _ in range(2):
            simplify_module.simplify(graph)
            graph.remove_unused()
            graph.infer_types()


def _with_claims(proto: onnx.ModelProto) -> onnx.ModelProto:
    """What reads shapes, after the stated ones were set aside and filled in."""

    def fill(graph: MutableGraph) -> None:
        claims = set_aside(graph)
        graph.infer_types()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fill_in(graph, claims)

    return _on_graph(fill, _simplify_alone, fix_shapes, join_reshapes, infers=False)(proto)


def _freed(proto: onnx.ModelProto) -> onnx.ModelProto:
    working = onnx.ModelProto()
    working.CopyFrom(proto)
    graph = MutableGraph(working)
    graph.infer_types()
    name_batch(graph)
    return free_batch(graph).to_proto()


def _called(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Calls inlined by ONNX; those of a model with an odd number of nodes by `inline_calls`."""
    if len(proto.graph.node) % 2:
        return _on_graph(lambda graph: inline_calls(graph, proto.functions), infers=False)(proto)
    return inline_functions(proto)


def _shapes_of(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    return {
        info.name: tuple(
            axis.dim_value or interfaces.FIXED[axis.dim_param] for axis in info.type.tensor_type.shape.dim
        )
        for info in proto.graph.input
    }


def _sized(proto: onnx.ModelProto) -> onnx.ModelProto:
    return at_sizes(proto, _shapes_of(proto))


def _specialised(proto: onnx.ModelProto) -> onnx.ModelProto:
    (info,) = proto.graph.input
    dtype = helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type)
    feeds = {name: np.ones(shape, dtype) for name, shape in _shapes_of(proto).items()}
    found = specialised(canonicalise(proto), feeds)
    assert found is not None
    return found.proto


def _shuffled(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model in order again after its nodes were turned round."""
    turned = onnx.ModelProto()
    turned.CopyFrom(proto)
    del turned.graph.node[:]
    turned.graph.node.extend(reversed(proto.graph.node))
    return in_order(turned)


def _in_floats(proto: onnx.ModelProto) -> onnx.ModelProto:
    return straight_through(Model(canonicalise(proto, fold_batch_norm=False, dynamic_batch=False))).proto


PASSES: dict[str, Pass] = {
    one.name: one
    for one in (
        Pass(
            "simplify",
            moves.draw,
            _on_graph(_simplify_alone),
            bitwise=True,
            dtypes=(F64, F32, F16),
            covers=(simplify_module.simplify,),
        ),
        Pass(
            "shapes",
            shapes.draw,
            _on_graph(fix_shapes, join_reshapes),
            bitwise=True,
            covers=(fix_shapes, join_reshapes),
        ),
        Pass(
            "sequences", sequences.draw, _on_graph(lower_sequences), bitwise=True, covers=(lower_sequences,)
        ),
        Pass(
            "branches",
            moves.draw_branches,
            _on_graph(lambda graph: settle_branches(graph, _simplify_alone)),
            bitwise=True,
            covers=(settle_branches,),
        ),
        Pass("unroll", control.draw, _on_graph(unroll_loops), bitwise=True, covers=(unroll_loops,)),
        Pass(
            "fold",
            linear.draw_folds,
            _on_graph(fold_batch_norms),
            rounds=True,
            dtypes=(F64, F32, F16),
            covers=(fold_batch_norms,),
        ),
        Pass("zero biases", linear.draw_biases, _on_graph(drop_zero_biases), covers=(drop_zero_biases,)),
        Pass(
            "affine",
            linear.draw_affine,
            _on_graph(merge_affine),
            rounds=True,
            dtypes=(F64, F32, F16),
            covers=(merge_affine,),
        ),
        Pass("packed", linear.draw_packed, _on_graph(split_packed), covers=(split_packed,)),
        Pass(
            "constants",
            primitives.draw_constants,
            _on_graph(fold_constants),
            rounds=True,
            covers=(fold_constants,),
        ),
        Pass("pools", primitives.draw_pools, _on_graph(name_global_pools), covers=(name_global_pools,)),
        Pass("masking", attention.draw_masked, _on_graph(guard_masked_rows), covers=(guard_masked_rows,)),
        Pass("fused", fused.draw, _on_graph(expand_fused), covers=(expand_fused,)),
        Pass("functions", fused.draw_functions, _on_graph(expand_functions), covers=(expand_functions,)),
        Pass("calls", lowered.draw_calls, _called, covers=(inline_functions, inline_calls)),
        Pass("lower", lowered.draw_lowered, _on_graph(lower_ops), covers=(lower_ops,)),
        Pass("opset", opsets.draw, _on_graph(set_opset), runtime=True, dtypes=(F64,), covers=(set_opset,)),
        Pass("axes", interfaces.draw_axes, _on_graph(state_axes), covers=(state_axes,)),
        Pass("batch", interfaces.draw_batches, _freed, covers=(name_batch, free_batch)),
        Pass("claims", interfaces.draw_claims, _with_claims, bitwise=True, covers=(set_aside, fill_in)),
        Pass(
            "input axes",
            interfaces.draw_inputs,
            lambda proto: canonicalise(normalise_axes(proto)),
            covers=(normalise_axes,),
        ),
        Pass("order", moves.draw, _shuffled, bitwise=True, covers=(in_order,)),
        Pass("sizes", interfaces.draw_sizes, _sized, bitwise=True, covers=(at_sizes,)),
        Pass("specialise", lowered.draw_sized_loops, _specialised, bitwise=True, covers=(specialised,)),
        Pass("kernels", lowered.draw_gates, exact, dtypes=(F32,), covers=(exact,)),
        Pass(
            "straight through",
            lowered.draw_codes,
            _in_floats,
            dtypes=(F32,),
            covers=(straight_through,),
        ),
        Pass(
            "joins",
            primitives.draw_joins,
            _on_graph(join_primitives),
            rounds=True,
            dtypes=(F64, F32, F16),
            covers=(join_primitives,),
        ),
        Pass("canonical", whole.draw, canonicalise, rounds=True, covers=(canonicalise,)),
    )
}
"""Every pass, by name."""
