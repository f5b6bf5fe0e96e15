"""Find derivatives that sums take away, as in x + (Round(x) − x): what is left of the input is a step.

From a Graph, an input and outputs to whether every term of the derivative cancels. A tensor's derivative is a sum of
terms, {tensor: factor}: sums add the factors up, constants multiply them, any other op makes a term. A remainder
x mod b moves as x does, but for steps.
"""

from __future__ import annotations

from collections.abc import Iterable

from analyzer.graph.graph import Graph, Node
from analyzer.ops.chain_rule import active_tensors, carries_gradient

_MOST_TERMS = 64
_ROUNDING = 1e-6
_SIGNS = {"Add": (1, 1), "Sub": (1, -1), "Neg": (-1,), "Identity": (1,), "Sum": (1,), "Mod": (1,)}
"""The sign with which a sum takes each of its inputs; the last one repeats."""

Coefficients = dict[str, float]


def remainders(graph: Graph, roots: Iterable[str], outputs: Iterable[str]) -> tuple[Node, ...]:
    """The nodes on the way that take a remainder of what depends on one of the roots."""
    nodes = [node for node in graph.nodes if node.op_type == "Mod"]
    if not nodes:
        return ()
    active, leading = active_tensors(graph, roots), graph.ancestors(outputs)
    return tuple(node for node in nodes if node.inputs[0] in active and not leading.isdisjoint(node.outputs))


def cancels(graph: Graph, root: str, outputs: Iterable[str]) -> bool:
    """Whether sums on the path take away all that depends differentiably on the root."""
    active = active_tensors(graph, [root])
    terms: dict[str, Coefficients] = {root: {root: 1.0}}
    same: dict[object, str] = {}
    for node in graph.nodes:
        read = {
            i: terms[u] for i, u in enumerate(node.reads) if u in terms and carries_gradient(graph, node, i)
        }
        if not any(read.values()):
            continue
        factors = _factors(graph, node, read)
        for place, name in enumerate(node.outputs):
            if name not in active or name == root:
                continue
            found = {} if factors is None else _summed(read, factors)
            # A sum of many terms becomes one: a cancellation across it is not found.
            whole = factors is not None and len(found) <= _MOST_TERMS
            # The same op of the same tensors is the same term.
            key = (node.op_type, node.domain, node.reads, repr(sorted(node.attributes.items())), place)
            terms[name] = found if whole else {same.setdefault(key, name): 1.0}
    return not any(terms.get(name) for name in outputs)


def _summed(read: dict[int, Coefficients], factors: dict[int, float]) -> Coefficients:
    """The terms of a sum, without those that cancel but for rounding."""
    found: Coefficients = {}
    sizes: Coefficients = {}
    for index, given in read.items():
        for term, count in given.items():
            found[term] = found.get(term, 0.0) + factors[index] * count
            sizes[term] = sizes.get(term, 0.0) + abs(factors[index] * count)
    return {term: count for term, count in found.items() if abs(count) > _ROUNDING * sizes[term]}


def _factors(graph: Graph, node: Node, read: dict[int, Coefficients]) -> dict[int, float] | None:
    """What a node multiplies the derivative of each of its inputs by; None where that is not a known number."""
    if node.domain:
        return None
    signs = _SIGNS.get(node.op_type)
    if signs is not None:
        return {index: signs[min(index, len(signs) - 1)] for index in read}
    if node.op_type not in ("Mul", "Div") or len(read) != 1:
        return None
    (index,) = read
    other = graph.tensors[node.inputs[1 - index]].constant
    if other is None or other.size != 1 or (node.op_type == "Div" and index == 1):
        return None
    number = float(other.reshape(-1)[0])
    if node.op_type == "Mul":
        return {index: number}
    return {index: 1 / number} if number else None
