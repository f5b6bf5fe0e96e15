"""Evaluate what a PyTorch program computes from its weights alone, and store the results as buffers.

Rewrites an ExportedProgram, in place. A parametrized weight, or the determinant of a weight, is a constant of
inference; the ops that compute it, such as matrix_exp, may have no ONNX form. Leaves programs alone that draw at random
or write into a tensor while they compute from weights.
"""

from __future__ import annotations

import operator
from typing import Any

_STORED = "folded_weight"


def fold_weights(torch: Any, program: Any) -> bool:
    """Replace the tensors that depend on weights alone by buffers. Returns whether there was any."""
    graph = program.graph_module.graph
    known = _stored(program)
    weighted = dict.fromkeys(known)
    with torch.no_grad():
        for node in graph.nodes:
            reads = node.all_input_nodes
            if node.op != "call_function" or not all(one in known for one in reads):
                continue
            if not _is_pure(torch, node.target):
                if reads:
                    return False
                continue
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
            if any(one in weighted for one in reads):
                weighted[node] = None
    results = [
        node
        for node in weighted
        if node.op == "call_function"
        and isinstance(known[node], torch.Tensor)
        and any(user not in weighted for user in node.users)
    ]
    for index, node in enumerate(results):
        _store(program, node, known[node], f"{_STORED}_{index}")
    graph.eliminate_dead_code()
    program.graph_module.recompile()
    return bool(results)


def _stored(program: Any) -> dict[Any, Any]:
    """Return the value of every placeholder that holds a parameter, a buffer or a constant."""
    signature = program.graph_signature
    targets = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    known = {**program.constants, **program.state_dict}
    return {
        node: known[targets[node.name]]
        for node in program.graph_module.graph.nodes
        if node.op == "placeholder" and node.name in targets
    }


def _is_pure(torch: Any, target: Any) -> bool:
    """Return whether two calls of an op give the same, and write nothing."""
    if target is operator.getitem:
        return True
    schema = getattr(target, "_schema", None)
    return (
        schema is not None and not schema.is_mutable and torch.Tag.nondeterministic_seeded not in target.tags
    )


def _store(program: Any, node: Any, value: Any, name: str) -> None:
    """Put a buffer in the place of a node."""
    from torch.export.graph_signature import InputKind, InputSpec, TensorArgument

    graph, specs = program.graph_module.graph, program.graph_signature.input_specs
    placeholders = [one for one in graph.nodes if one.op == "placeholder"]
    first = next((i for i, spec in enumerate(specs) if spec.kind is InputKind.USER_INPUT), len(specs))
    with graph.inserting_before(placeholders[first]):
        stored = graph.placeholder(name)
    stored.meta = dict(node.meta)
    specs.insert(
        first, InputSpec(InputKind.BUFFER, TensorArgument(name=stored.name), stored.name, persistent=True)
    )
    program.state_dict[stored.name] = value.detach().contiguous()
    node.replace_all_uses_with(stored)
