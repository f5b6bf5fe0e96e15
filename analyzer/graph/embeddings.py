"""Find where integer tokens become vectors: the rows of constant tables that the inputs of a graph look up.

From a Graph to names of float tensors. A lookup is a Gather of a constant by an input, or the product of an input's
one-hot rows with a constant; what is added behind it, such as positions, is not part of it.
"""

from __future__ import annotations

from analyzer.graph.graph import Graph, Node

# What hands on tokens: moved, shifted into one joint table, picked column by column, or clipped to the table. A choice
# between two is written as a sum of products with a mask and its opposite, too.
_MOVES = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"})
_TOKENS = _MOVES | {
    "Add",
    "Sub",
    "Mul",
    "Mod",
    "Clip",
    "Max",
    "Min",
    "Where",
    "Slice",
    "Split",
    "Concat",
    "Gather",
}
# What makes numbers of the rows of an integer table.
_ROWS = _MOVES | {"DequantizeLinear"}
_PRODUCTS = frozenset({"MatMul", "Gemm", "Einsum"})


def embedded_tokens(graph: Graph) -> tuple[str, ...]:
    """The vectors that the inputs look up in constant tables, in graph order."""
    computed = graph.descendants(graph.inputs)
    tokens, hot, rows = set(graph.inputs), set[str](), set[str]()
    found = []
    for node in graph.nodes:
        outputs = {name for name in node.outputs if name}
        moved = node.op_type in _ROWS and node.inputs[0] in rows
        if moved or _looks_up(node, tokens, computed) or _multiplies(node, hot, computed):
            rows |= outputs
        elif _is_one_hot(graph, node, tokens) or (node.op_type in _MOVES and node.inputs[0] in hot):
            hot |= outputs
        elif node.op_type in _TOKENS and _moves_tokens(node, tokens):
            tokens |= outputs
        if outputs & rows and graph.tensors[node.outputs[0]].is_float:
            found.append(node.outputs[0])
            rows -= outputs
    return tuple(found)


def _looks_up(node: Node, tokens: set[str], computed: frozenset[str]) -> bool:
    """A row of a table that no input has a part in, by a token."""
    return node.op_type == "Gather" and node.inputs[1] in tokens and node.inputs[0] not in computed


def _multiplies(node: Node, hot: set[str], computed: frozenset[str]) -> bool:
    """The same as a product: one-hot rows with a table."""
    if node.op_type not in _PRODUCTS or not hot.intersection(node.inputs):
        return False
    return all(name in hot or name not in computed for name in node.inputs)


def _is_one_hot(graph: Graph, node: Node, tokens: set[str]) -> bool:
    if node.op_type == "OneHot":
        return node.inputs[0] in tokens
    # A token is compared with every number of the table; with one alone it is a mask.
    if node.op_type != "Equal" or not tokens.intersection(node.inputs):
        return False
    constants = [graph.tensors[name].constant for name in node.inputs]
    return any(constant is not None and constant.size > 1 for constant in constants)


def _moves_tokens(node: Node, tokens: set[str]) -> bool:
    """Whether a node hands on tokens, by its data; a mask or an index that is made of them is none."""
    data = {"Where": node.inputs[1:], "Gather": node.inputs[:1], "Concat": node.inputs}
    arithmetic = node.inputs if node.op_type in ("Add", "Sub", "Mul", "Max", "Min") else node.inputs[:1]
    return bool(tokens.intersection(data.get(node.op_type, arithmetic)))
