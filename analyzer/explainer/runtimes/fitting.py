"""Find the ops of a model that a runtime has no kernels for, and replace those that have a plain form.

Reads a ModelProto and the name of a runtime. `missing` lists, `fit` rewrites. An op that the runtime cannot run at all
is refused; one that it runs on the CPU, with copies, stays where it has no plain form.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import TensorProto

from analyzer.errors import ExportError
from analyzer.explainer.runtimes.forms import FORMS, PlainForm, folded
from analyzer.explainer.runtimes.kernels import Missing, Runtime, lacking, lacks, runtime_of
from analyzer.explainer.runtimes.mutable import MutableModel, Writer, opset_of
from analyzer.explainer.runtimes.opset import at_opset, checked
from analyzer.explainer.runtimes.traps import TRAP_FORMS, trap

# A plain form in other types would run on the CPU, too.
_ON_GPU = frozenset(
    (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT32, TensorProto.UINT32, TensorProto.BOOL)
)
_ROUNDS = 8


def missing(proto: onnx.ModelProto, runtime: str) -> list[Missing]:
    """Return the ops of a model that a runtime has no kernel for, each with its nodes and the reason.

    runtime: "node", "web", "webgpu", "webgpu-jsep" or "mobile". Raises ExportError for another one.
    """
    chosen = runtime_of(runtime)
    return lacks(proto, chosen, lambda op, node: _form(op, node, chosen) is not None)


def fit(proto: onnx.ModelProto, runtime: str) -> onnx.ModelProto:
    """Return a model with the same values whose ops a runtime has kernels for, as far as they have a plain form.

    The opset comes down where the runtime, or its WebGPU provider, knows only an older one. Raises ExportError, with
    op, count, first node and the runtime's version, for ops that the runtime cannot run; the model is not changed.
    """
    chosen = runtime_of(runtime)
    model = MutableModel(_at_known_opset(proto, chosen))

    def rule(op: Writer, node: onnx.NodeProto) -> str | Sequence[str] | None:
        if chosen.accelerated:
            constant = folded(op)
            if constant is not None:
                return constant
        form = _form(op, node, chosen)
        return form(op) if form is not None else None

    changed = False
    for _ in range(_ROUNDS):
        model.infer()
        if not model.rewrite(rule):
            break
        changed = True
    fitted = model.finished()
    if changed:
        checked(fitted)
    _refuse_unknown(fitted, chosen)
    return fitted


def _form(op: Writer, node: onnx.NodeProto, runtime: Runtime) -> PlainForm | None:
    """Return the form of a node that the runtime has kernels for, None where it needs or has none."""
    if node.domain not in ("", "ai.onnx") or lacking(op, node, runtime) is None:
        return None
    if not runtime.accelerated:
        return FORMS.get(node.op_type)
    if op.element(node.input[0] if node.input else "") not in _ON_GPU:
        return None
    return (TRAP_FORMS if trap(op, node, runtime.accelerated) else FORMS).get(node.op_type)


def _at_known_opset(proto: onnx.ModelProto, runtime: Runtime) -> onnx.ModelProto:
    version = opset_of(proto)
    if runtime.preferred is not None and version > runtime.preferred:
        try:
            return at_opset(proto, runtime.preferred)
        except ExportError:
            # The ops that need the newer opset run on the CPU.
            pass
    return at_opset(proto, runtime.opset) if version > runtime.opset else proto


def _refuse_unknown(proto: onnx.ModelProto, runtime: Runtime) -> None:
    found = [one for one in missing(proto, runtime.name) if not one.runs]
    if found:
        listed = "; ".join(
            f"{one.op} ({one.count} node{'s' * (one.count > 1)}, first {one.nodes[0]!r}): {one.why}"
            for one in found
        )
        raise ExportError(
            f"{runtime.label} cannot run the explainer: {listed}. Fix: export the model without these ops, or for "
            "another runtime"
        )
