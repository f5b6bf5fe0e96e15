"""Find the functions of `converters` that rewrite a graph and that no row of the audit shows.

Reads the sources: every public function whose first parameter is a MutableGraph or a ModelProto, and every function
that `canonicalise` calls. Each must be in `covers` of a row, or in UNTOUCHED with the reason.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import converters
from tools.audit.passes import PASSES

UNTOUCHED = {
    "all_nodes": "reads",
    "adopt_constants": "gives constants names, for those that instantiate bodies (unroll, simplify, calls)",
    "check": "reads",
    "complete": "copies weights into the model",
    "computed": "reads",
    "copied": "copies",
    "count_trips": "reads",
    "crashing_optimizers": "reads",
    "decided_by_data": "reads",
    "draws": "reads",
    "expand": "expands one node, for expand_fused, expand_functions and lower_ops",
    "explain_control_flow": "reads, and raises",
    "first_difference": "reads",
    "fix_inputs": "makes constants of inputs, and changes no node",
    "following": "reads",
    "forget_in_bodies": "removes stated shapes, before the first pass; the values are those of the nodes",
    "free_inputs": "reads",
    "graph_hash": "reads",
    "hoist_constants": "moves initializers of bodies to the graph, within unroll",
    "instantiate": "copies the nodes of a body, for unroll_loops, simplify and inline_calls",
    "is_canonical": "reads",
    "keep_numbers": "chooses the outputs",
    "keeps_batch_norm": "reads",
    "left_out": "reads",
    "lifted": "moves weights out of the model, whose nodes stay",
    "load_session": "makes a session, and changes no graph",
    "name_domains": "corrects the domain of nodes",
    "normalization": "finds one region, for join_primitives",
    "of_file": "reads",
    "precision_of": "reads",
    "quantizes": "reads",
    "refuse_axes": "reads, and raises",
    "refuse_foreign": "reads, and raises",
    "refuse_inputs": "reads, and raises",
    "refuse_newer": "reads, and raises",
    "refuse_text": "reads, and raises",
    "refuse_undetermined": "reads, and raises",
    "returning": "adds outputs",
    "run": "runs",
    "runnable_opset": "reads",
    "size_of": "reads",
    "switches": "reads",
    "tolerance_of": "reads",
    "types_at": "reads",
    "validate": "reads, and raises",
    "validate_texts": "reads, and raises",
    "refuse_oversized": "reads, and raises",
    "verify": "reads",
    "weights_of": "reads",
    "with_data_file": "moves weights to a file",
    "with_weights_fed": "makes inputs of weights for a session, and changes no node",
    "without_caches": "makes constants of empty caches, and leaves their outputs out",
    "without_initializers": "leaves weights out, for what reads the nodes alone",
    "without_trailing_blanks": "shortens lists of omitted inputs",
    "without_axes_of_one": "makes the file canonical at the sizes of the inputs, and compares it with the file",
    "inferred_of": "infers types and shapes",
    "is_number": "reads",
    "moved": "reads",
    "preparing": "counts what a preparation takes",
    "state_constants": "writes metadata",
    "state_of": "reads",
}
"""Functions that take a graph and change no node of it, with the reason."""

_GRAPHS = ("MutableGraph", "onnx.ModelProto")
_PLACE = Path(converters.__file__).parent


def rewriters() -> set[str]:
    """Return the names of all functions that may rewrite a graph."""
    files = sorted(_PLACE.rglob("*.py"))
    return {
        name for path in files for name in _takers(ast.parse(path.read_text(encoding="utf-8")))
    } | called()


def called() -> set[str]:
    """Return the public functions that `canonicalise` and the rounds of `_settle` call with a graph or a model."""
    tree = ast.parse((_PLACE / "canonical.py").read_text(encoding="utf-8"))
    wanted = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    bodies = [node for node in wanted if node.name in ("_canonicalised", "_settle")]
    assert len(bodies) == 2
    return {
        call.func.id
        for body in bodies
        for call in ast.walk(body)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and _is_given_a_graph(call)
        if not call.func.id.startswith("_") and call.func.id != "MutableGraph"
    }


def uncovered() -> list[str]:
    """Return the functions that neither a row nor UNTOUCHED names."""
    shown = {function.__name__ for one in PASSES.values() for function in one.covers}
    return sorted(rewriters() - shown - UNTOUCHED.keys())


def _is_given_a_graph(call: ast.Call) -> bool:
    names = {node.id for given in call.args for node in ast.walk(given) if isinstance(node, ast.Name)}
    return not names.isdisjoint({"graph", "working", "proto", "result"})


def _takers(tree: ast.Module) -> Iterator[str]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.args.args and not node.name.startswith("_"):
            annotation = node.args.args[0].annotation
            if annotation is not None and ast.unparse(annotation) in _GRAPHS:
                yield node.name
