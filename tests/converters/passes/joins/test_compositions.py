"""Functions in primitives, one after the other with small constants between, keep the file's values in float64."""

from __future__ import annotations

import re

import numpy as np
import pytest

from converters import load
from tests.converters.passes.joins.cases import EXACT, network
from tests.converters.passes.joins.test_confirm import points, reference

BODIES = list(EXACT)
STEPS = ("Add", "Sub", "Max", "Mul")
# What follows makes a lost ε large.
ENDS = (
    "a = Abs(x) b = Add(a, {1e-6}) y = Log(b)",
    "a = Abs(x) b = Add(a, {1e-8}) y = Reciprocal(b)",
    "a = Relu(x) b = Add(a, {1e-6}) y = Sqrt(b)",
)
_ASSIGNMENT = re.compile(r"\s+(?=\w+ = )")
_TENSOR = re.compile(r"(?<![\w{.\-])[a-z]\w*(?![\w}])")


def with_epsilon(body: str, rng: np.random.Generator) -> str:
    """Return a body with a small constant after one of its nodes."""
    nodes = _ASSIGNMENT.split(body)
    index = int(rng.integers(len(nodes)))
    name = nodes[index].split(" = ")[0]
    if any(condition in nodes[index] for condition in ("Greater", "Less", "Not(")):
        return body
    step = str(rng.choice(STEPS))
    value = float(rng.choice([1e-3, 1e-5, 1e-6, 1e-8, 1e-12]))
    number = 1 + value if step == "Mul" else value
    nodes[index] = nodes[index].replace(f"{name} = ", f"{name}0 = ", 1)
    nodes.insert(index + 1, f"{name} = {step}({name}0, {{{number!r}}})")
    return " ".join(nodes)


def renamed(body: str, prefix: str, x: str, y: str) -> str:
    """Return a body that reads and writes other tensors."""
    nodes = [node.split(" = ", 1) for node in _ASSIGNMENT.split(body)]
    names = {name: prefix + name for name, _ in nodes} | {"x": x, "y": y}
    found = []
    for name, call in nodes:
        start = call.index("(")
        arguments = _TENSOR.sub(lambda match: names.get(match.group(), match.group()), call[start:])
        found.append(f"{names[name]} = {call[:start]}{arguments}")
    return " ".join(found)


def composition(seed: int) -> str:
    """Return two functions in primitives, each with an ε in half of the cases, and an end."""
    rng = np.random.default_rng(seed)
    drawn = [BODIES[index] for index in rng.integers(len(BODIES), size=2)]
    chain = [with_epsilon(body, rng) if rng.random() < 0.5 else body for body in drawn]
    chain.append(str(rng.choice(ENDS)))
    names = ["x", *(f"z{index}" for index in range(len(chain) - 1)), "y"]
    return " ".join(renamed(body, f"p{i}", names[i], names[i + 1]) for i, body in enumerate(chain))


@pytest.mark.parametrize("seed", range(60))
def test_compositions_keep_their_values(seed: int) -> None:
    file, x = network(composition(seed), "double"), points(np.float64)
    expected, found = reference(file, x), reference(load(file).proto, x)
    finite = np.isfinite(expected)
    # A rounding error of float64 is magnified by the end, 1e8 times at most.
    np.testing.assert_allclose(found[finite], expected[finite], rtol=1e-7, atol=0)
