"""Name the attributes and weights that differ at the node where two models part.

From an Origin and the Twin to phrases such as "pads 1,1,1,1 against 0,0,1,1", the value of the first model first. The
nodes of both models between the tensor at fault and the next paired tensors are compared as units (units.py). An axis
is compared only where the order of the axes is known on both sides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from analyzer.backends.source.matching import Match
from analyzer.checks.explain.localize import Origin
from analyzer.checks.explain.units import LINEAR, SCALED, Unit, units_of
from analyzer.checks.explain.weights import listed, number, relation
from analyzer.checks.match.layers import moves
from analyzer.checks.read.twin import Twin
from analyzer.graph.graph import Graph, Node

# A number that is stored as float32 and was written as a decimal.
SAME_NUMBER = 1e-6
# Constants and attributes that name axes, or hold one number for each axis.
AXES, BY_AXIS = ("axis", "axes"), ("pads", "scales", "sizes", "repeats", "roi")
NORM, COMMUTES = "BatchNormalization", frozenset({"Add", "Mul", "Max", "Min", "Sum", "And", "Or"})
FOLDED = ", as by a folded BatchNorm: --no-fold (fold_batch_norm=False) compares it apart"


def differences(origin: Origin, twin: Twin, names: tuple[str, str]) -> tuple[str, ...]:
    """Return what differs between the nodes of both models at an origin; empty where nothing is found.

    names: of the models, for phrases such as "bias missing in port".
    """
    if origin.tensor not in twin.tensors:
        return ()
    paired, graphs = twin.tensors, (twin.graph, twin.fn.graph)
    # {tensor: the tensor of a that it holds}, of both graphs.
    held = (
        _forms(graphs[0], {name: name for name in paired}, graphs[0]),
        _forms(graphs[1], {one.name: name for name, one in paired.items()}, graphs[0]),
    )
    ends = (origin.tensor, paired[origin.tensor].name)
    walk = _ahead if origin.backward else _behind
    nodes = [walk(graph, end, stop) for graph, end, stop in zip(graphs, ends, held, strict=True)]
    if not origin.backward:
        # A pair may be one of a layer's output with a product before its bias is added.
        nodes = [[*found, *_rest(graph, end)] for graph, end, found in zip(graphs, ends, nodes, strict=True)]
    a, b = (units_of(graph, found) for graph, found in zip(graphs, nodes, strict=True))
    for units, known in zip((a, b), held, strict=True):
        for unit in units:
            unit.reads = tuple(known.get(name, "") for name in unit.reads)
    moved = any(not _plain(paired[name]) for unit in a for name in unit.reads if name in paired)
    return tuple(dict.fromkeys(_Sides(paired[origin.tensor], moved, names).compared(a, b)))


@dataclass(frozen=True)
class _Sides:
    """What is known of both sides. match: of the tensor at fault; moved: whether an input has its axes in another order
    on the other side; names: of the models.
    """

    match: Match
    moved: bool
    names: tuple[str, str]

    def compared(self, a: Sequence[Unit], b: Sequence[Unit]) -> Iterator[str]:
        """The phrases of all units; those of one kind are paired in their order."""
        rest, lost = list(b), list[Unit]()
        for unit in a:
            other = next((one for one in rest if one.kind == unit.kind), None)
            if other is None:
                lost.append(unit)
            else:
                rest.remove(other)
                yield from self._of_units(unit, other)
        for unit in list(lost):
            other = next((one for one in rest if {unit.kind, one.kind} == {NORM, SCALED}), None)
            if other is not None:
                lost.remove(unit)
                rest.remove(other)
                yield from _of_scales(unit, other)
        yield from self._of_ops(lost, rest)

    def _of_units(self, a: Unit, b: Unit) -> Iterator[str]:
        yield from _of_operands(a, b)
        for name in dict.fromkeys([*a.properties, *b.properties]):
            yield from self._of_property(name, a.properties.get(name), b.properties.get(name), a.kind)
        for name in dict.fromkeys([*a.constants, *b.constants]):
            left, right = a.constants.get(name), b.constants.get(name)
            if left is None or right is None or np.any(left) != np.any(right):
                yield from self._lacking(name, left, right)
            elif left.dtype.kind in "iub":
                yield from self._of_property(name, left.tolist(), right.tolist(), a.kind)
            elif (found := relation(left, right)) is not None and not self._expected(found, a):
                folds = a.kind in ("Conv", "ConvTranspose", LINEAR) and found.startswith("scaled along axis")
                yield f"{_with_verb(name, found)}{FOLDED if folds else ''}"

    def _lacking(self, name: str, left: np.ndarray | None, right: np.ndarray | None) -> Iterator[str]:
        """A constant that one side does not have, or has as zeros."""
        place = 0 if left is None or (right is not None and not np.any(left)) else 1
        given = (right, left)[place]
        if given is not None and np.any(given):
            zeros = "" if left is None or right is None else ": all are zeros"
            yield f"{name} missing in {self.names[place]}{zeros}"

    def _expected(self, found: str, unit: Unit) -> bool:
        """Whether another layout of the input accounts for weights in another order."""
        return found.startswith("of the same values") or (
            self.moved and unit.kind == LINEAR and "another order" in found
        )

    def _of_property(self, name: str, a: Any, b: Any, kind: str) -> Iterator[str]:
        if name in AXES or (name in BY_AXIS and kind in ("Pad", "Resize", "Tile")):
            if not _plain(self.match):
                return
            if name in AXES:
                a, b = (_positive(value, len(self.match.order)) for value in (a, b))
        if not _same(a, b):
            yield f"{name} {_text(a)} against {_text(b)}"

    def _of_ops(self, a: Sequence[Unit], b: Sequence[Unit]) -> Iterator[str]:
        """Ops that only one side has."""
        left, right = (", ".join(unit.op_type for unit in units) for units in (a, b))
        if left and right:
            yield f"{left} against {right}"
        elif left or right:
            yield f"{left or right} missing in {self.names[1 if left else 0]}"


def _of_operands(a: Unit, b: Unit) -> Iterator[str]:
    """The same operands in another order, or other ones, where all of them are known on both sides."""
    left, right = a.reads, b.reads
    if a.op_type in COMMUTES:
        left, right = tuple(sorted(left)), tuple(sorted(right))
    if left == right or not all((*left, *right)):
        return
    if sorted(left) == sorted(right):
        yield "operands in another order"
    else:
        yield f"operands {', '.join(left)} against {', '.join(right)}"


def _with_verb(name: str, found: str) -> str:
    """Return a phrase about a constant. Names in the plural, such as weights, take "differ"."""
    plural = name.endswith("s") and name != "bias"
    return f"{name} {found if plural else found.replace('differ ', 'differs ', 1)}"


def _positive(value: Any, rank: int) -> Any:
    if isinstance(value, (list, tuple)):
        return [_positive(one, rank) for one in value]
    return value + rank if isinstance(value, int) and value < 0 else value


def _of_scales(a: Unit, b: Unit) -> Iterator[str]:
    """A BatchNorm against a product and a sum: the epsilon that the factors imply, else the factors."""
    norm, plain, first = (a, b, True) if a.kind == NORM else (b, a, False)
    scale, bias, mean, variance = (norm.constants.get(name) for name in ("scale", "bias", "mean", "variance"))
    if scale is None or bias is None or mean is None or variance is None:
        return
    epsilon = float(norm.properties.get("epsilon", 1e-5))
    factors, wanted = plain.constants["scale"], scale / np.sqrt(variance + epsilon)
    if factors.shape == wanted.shape and relation(wanted, factors) is not None and np.all(factors != 0):
        implied = np.square(scale / factors.astype(np.float64)) - variance
        middle = float(np.median(implied))
        if middle > 0 and np.all(np.abs(implied - middle) < 0.02 * middle + 1e-6 * np.abs(variance)):
            pair = (number(epsilon), f"{middle:.1g}") if first else (f"{middle:.1g}", number(epsilon))
            yield f"epsilon {pair[0]} against {pair[1]}"
            return
    for name, left, right in (
        ("scale", wanted, factors),
        ("shift", bias - mean * wanted, plain.constants["shift"]),
    ):
        if (found := relation(left, right) if first else relation(right, left)) is not None:
            yield _with_verb(name, found)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, (float, np.floating)) and isinstance(b, (float, int, np.floating)):
        return abs(float(a) - float(b)) <= SAME_NUMBER * max(abs(float(a)), abs(float(b)))
    if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b))
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def _text(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, (list, tuple, np.ndarray)):
        if all(isinstance(one, (int, float)) for one in value):
            return listed(np.asarray(value)) or "none"
        return ",".join(map(str, value))
    return number(value) if isinstance(value, float) else str(value)


def _plain(match: Match) -> bool:
    """Whether a pair of tensors has its axes in one order."""
    return not match.split and match.order == tuple(range(len(match.order)))


def _forms(graph: Graph, names: Mapping[str, str], first: Graph) -> dict[str, str]:
    """{tensor: tensor of a} of paired tensors, of those that they were moved from, and of those they are moved into.

    names: {paired tensor: tensor of a}. first: the graph of a; a tensor of it that was moved is given as its origin.
    """
    found = {name: [*_moved_from(first, mine)][-1] for name, mine in names.items()}
    for name in names:
        for form in _moved_from(graph, name):
            found.setdefault(form, found[name])
    for node in graph.nodes:
        source = next((name for name in node.inputs if name in found), None)
        if source is not None and moves(graph, node):
            for name in node.outputs:
                found.setdefault(name, found[source])
    return found


def _behind(graph: Graph, end: str, stop: Collection[str]) -> list[Node]:
    """The nodes that compute a tensor from tensors that are known."""
    found: set[str] = set()
    own = set(_moved_from(graph, end))
    stack = [end]
    while stack:
        node = graph.producer.get(stack.pop())
        if node is not None and node.name not in found:
            found.add(node.name)
            stack += [name for name in node.reads if name and (name not in stop or name in own)]
    return [node for node in graph.nodes if node.name in found]


def _rest(graph: Graph, end: str) -> list[Node]:
    """The nodes that add a constant to a product, where nothing else reads it."""
    found: list[Node] = []
    node = graph.producer.get(end)
    if node is None or node.op_type not in ("MatMul", "Gemm", "Conv", "ConvTranspose", "Mul"):
        return found
    while len(readers := graph.consumers.get(end, ())) == 1 and end not in graph.outputs:
        found.append(readers[0])
        if readers[0].op_type in ("Add", "Sub"):
            return (
                found if any(graph.tensors[name].constant is not None for name in readers[0].inputs) else []
            )
        if not moves(graph, readers[0]):
            break
        end = readers[0].outputs[0]
    return []


def _ahead(graph: Graph, end: str, stop: Collection[str]) -> list[Node]:
    """The nodes that read a tensor, up to tensors that are known."""
    found: set[str] = set()
    stack, seen = [end], {end}
    while stack:
        name = stack.pop()
        for node in graph.consumers.get(name, ()):
            found.add(node.name)
            after = [one for one in node.outputs if one and one not in seen]
            seen.update(after)
            stack += [one for one in after if one not in stop or moves(graph, node)]
    return [node for node in graph.nodes if node.name in found]


def _moved_from(graph: Graph, name: str) -> Iterator[str]:
    """A tensor, and those that it was moved from."""
    yield name
    while (node := graph.producer.get(name)) is not None and moves(graph, node):
        name = next((one for one in node.inputs if one and graph.tensors[one].constant is None), "")
        yield name
