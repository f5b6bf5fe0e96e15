"""The passes that are audited: what draws graphs for each, how it is applied, and how its result is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import onnx

from converters import simplify as simplify_module
from converters.affine import merge_affine
from converters.canonical import canonicalise
from converters.constants import fold_constants
from converters.draft import Draft
from converters.fold import drop_zero_biases, fold_batch_norms
from converters.functions import expand_functions
from converters.fused import expand_fused
from converters.joins import join_primitives
from converters.joins.pools import name_global_pools
from converters.masking import guard_masked_rows
from converters.opset import set_opset
from converters.packed import split_packed
from converters.sequences import lower_sequences
from converters.shapes import fix_shapes, join_reshapes
from converters.unroll import unroll_loops
from tests.audit.draws import (
    attention,
    control,
    fused,
    linear,
    moves,
    opsets,
    primitives,
    sequences,
    shapes,
    whole,
)
from tests.audit.sketch import Sketch

F64, F32, F16 = np.float64, np.float32, np.float16


@dataclass(frozen=True)
class Pass:
    """One row of the audit.

    draw: fills a Sketch. apply: gives the model after the pass. bitwise: the pass moves data and computes nothing.
    rounds: it stores new constants in the graph's own type. runtime: both sides run on ONNX Runtime.
    """

    name: str
    draw: Callable[[Sketch], None]
    apply: Callable[[onnx.ModelProto], onnx.ModelProto]
    bitwise: bool = False
    rounds: bool = False
    runtime: bool = False
    dtypes: tuple[Any, ...] = (F64, F32)
    opset: int = 23


def _on_draft(
    *passes: Callable[[Draft], Any], infers: bool = True
) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    """Return what applies passes to a draft of a model, as `canonicalise` does."""

    def apply(proto: onnx.ModelProto) -> onnx.ModelProto:
        working = onnx.ModelProto()
        working.CopyFrom(proto)
        draft = Draft(working)
        for one in passes:
            if infers:
                draft.infer_types()
            one(draft)
        draft.remove_unused()
        draft.infer_types()
        return draft.to_proto()

    return apply


def _simplify_alone(draft: Draft) -> None:
    """Two rounds of the rules of `simplify`, without the joins and pools, which have rows of their own."""
    with (
        mock.patch.object(simplify_module, "join_primitives", lambda draft: False),
        mock.patch.object(simplify_module, "name_global_pools", lambda draft: False),
    ):
        for _ in range(2):
            simplify_module.simplify(draft)
            draft.remove_unused()
            draft.infer_types()


PASSES: dict[str, Pass] = {
    one.name: one
    for one in (
        Pass("simplify", moves.draw, _on_draft(_simplify_alone), bitwise=True, dtypes=(F64, F32, F16)),
        Pass("shapes", shapes.draw, _on_draft(fix_shapes, join_reshapes), bitwise=True),
        Pass("sequences", sequences.draw, _on_draft(lower_sequences), bitwise=True),
        Pass("unroll", control.draw, _on_draft(unroll_loops), bitwise=True),
        Pass("fold", linear.draw_folds, _on_draft(fold_batch_norms), rounds=True, dtypes=(F64, F32, F16)),
        Pass("zero biases", linear.draw_biases, _on_draft(drop_zero_biases)),
        Pass("affine", linear.draw_affine, _on_draft(merge_affine), rounds=True, dtypes=(F64, F32, F16)),
        Pass("packed", linear.draw_packed, _on_draft(split_packed)),
        Pass("constants", primitives.draw_constants, _on_draft(fold_constants), rounds=True),
        Pass("pools", primitives.draw_pools, _on_draft(name_global_pools)),
        Pass("masking", attention.draw_masked, _on_draft(guard_masked_rows)),
        Pass("fused", fused.draw, _on_draft(expand_fused)),
        Pass("functions", fused.draw_functions, _on_draft(expand_functions)),
        Pass("opset", opsets.draw, _on_draft(set_opset), runtime=True, dtypes=(F64,)),
        Pass("canonical", whole.draw, canonicalise, rounds=True),
        Pass("joins", primitives.draw_joins, _on_draft(join_primitives), rounds=True, dtypes=(F64, F32, F16)),
    )
}
"""Every pass, by name."""
