"""Draw a random graph: choices come from hypothesis, numbers from a generator with a drawn seed.

A Sketch collects inputs, constants and nodes and gives a Drawn: the model, and the type and shape of each input.
Hypothesis can shrink every choice, so a failing graph shrinks to a small one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies
from onnx import helper, numpy_helper

BATCH = "batch"
Size = int | str
Draw = Callable[[Any], Any]

FLAVOURS = (
    "ordinary",
    "ordinary",
    "ordinary",
    "zero",
    "negative zero",
    "one",
    "tiny",
    "huge",
    "mixed",
    "rare",
)
"""Kinds of constants. "mixed" spans 16 decades, "saturated" −40 to 40; "rare" has a NaN or an infinity in one place."""


@dataclass(frozen=True)
class Drawn:
    """A model, the dtype and shape of each input (a symbol is a free size), its float type, its numbers' seed."""

    model: onnx.ModelProto
    inputs: dict[str, tuple[np.dtype[Any], tuple[Size, ...]]]
    dtype: np.dtype[Any]
    seed: int
    notes: dict[str, Any] = field(default_factory=dict)


class Sketch:
    """A graph in the making. `dtype` is the type of its floats."""

    def __init__(self, draw: Draw, dtypes: Sequence[Any] = (np.float64,), opset: int = 23) -> None:
        self._draw = draw
        self.seed = int(draw(strategies.integers(0, 2**32 - 1)))
        self.rng = np.random.default_rng(self.seed)
        self.dtype = np.dtype(self.choose(*dtypes))
        self.opsets = {"": opset}
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, np.ndarray] = {}
        self.inputs: dict[str, tuple[np.dtype[Any], tuple[Size, ...]]] = {}
        self.outputs: list[str] = []
        self.notes: dict[str, Any] = {}
        self.stated: dict[str, tuple[Size | None, ...]] = {}
        """The shapes that the model states of tensors in place of the right ones."""
        self.functions: list[onnx.FunctionProto] = []
        self._count = 0

    def choose(self, *options: Any) -> Any:
        """Draw one of the options; the first is the simplest."""
        return options[0] if len(options) == 1 else self._draw(strategies.sampled_from(options))

    def number(self, low: int, high: int) -> int:
        """Draw an integer from low to high, both included."""
        return int(self._draw(strategies.integers(low, high)))

    def chance(self, percent: int) -> bool:
        """Draw True in about `percent` of all cases."""
        return self.number(0, 99) >= 100 - percent

    def shuffled(self, items: Sequence[Any]) -> list[Any]:
        """Draw an order of the items."""
        return list(self._draw(strategies.permutations(list(items))))

    def shape(self, rank: int, most: int = 4) -> tuple[int, ...]:
        """Draw a shape."""
        return tuple(self.number(1, most) for _ in range(rank))

    def name(self, stem: str = "t") -> str:
        """Return a name that no other tensor has."""
        self._count += 1
        return f"{stem}{self._count}"

    def input(self, *shape: Size, dtype: Any = None) -> str:
        """Add an input."""
        name = self.name("x")
        self.inputs[name] = (np.dtype(self.dtype if dtype is None else dtype), shape)
        return name

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Add an initializer."""
        name = self.name("c")
        self.constants[name] = np.asarray(value, dtype)
        return name

    def floats(self, value: Any) -> str:
        """Add an initializer of the graph's float type."""
        return self.constant(np.asarray(value, np.float64).astype(self.dtype))

    def integers(self, *values: int) -> str:
        """Add a vector of int64."""
        return self.constant(np.asarray(values, np.int64))

    def array(self, shape: Sequence[int], flavour: str | None = None) -> np.ndarray:
        """Draw an array of the graph's float type, of one of the FLAVOURS."""
        flavour = flavour or self.choose(*FLAVOURS)
        values = self.rng.standard_normal(tuple(shape))
        tiny, huge = (1e-4, 1e3) if self.dtype == np.float16 else (1e-28, 1e28)
        if flavour == "mixed":
            values = values * 10.0 ** (
                self.rng.integers(-8, 8, shape)
                if self.dtype != np.float16
                else self.rng.integers(-3, 2, shape)
            )
        elif flavour == "saturated":
            values = values * 12
        elif flavour == "rare" and values.size:
            values.flat[int(self.rng.integers(values.size))] = self.rng.choice([np.nan, np.inf, -np.inf])
        else:
            values = {
                "zero": 0 * np.abs(values),
                "negative zero": -0.0 * np.abs(values),
                "one": values**0,
            }.get(flavour, values * {"tiny": tiny, "huge": huge}.get(flavour, 1.0))
        return np.asarray(values, self.dtype)

    def weight(self, *shape: int, flavour: str | None = None) -> str:
        """Draw a constant."""
        return self.constant(self.array(shape, flavour))

    def add(
        self, op_type: str, *inputs: str, outputs: int = 1, domain: str = "", **attributes: Any
    ) -> str | tuple[str, ...]:
        """Add a node; returns the name of its output, a tuple of names where there are several."""
        names = [self.name() for _ in range(outputs)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(op_type, list(inputs), names, domain=domain, **given))
        return names[0] if outputs == 1 else tuple(names)

    def output(self, *names: str) -> None:
        """Make tensors outputs of the graph; one that no node computes is copied first."""
        computed = {name for node in self.nodes for name in node.output}
        for name in names:
            name = name if name in computed else str(self.add("Identity", name))
            if name not in self.outputs:
                self.outputs.append(name)

    def leak(self, *names: str, percent: int = 12) -> None:
        """Let some tensors be read elsewhere: as an output of the graph, or by a node that is one."""
        for name in names:
            if self.chance(percent):
                self.output(name if self.chance(50) else str(self.add("Neg", name)))

    def drawn(self) -> Drawn:
        """Return the finished graph."""
        kind = helper.np_dtype_to_tensor_dtype
        graph = helper.make_graph(
            self.nodes,
            "drawn",
            [
                helper.make_tensor_value_info(n, kind(d), self.stated.get(n, s))
                for n, (d, s) in self.inputs.items()
            ],
            [self._stated(name) for name in self.outputs],
            [numpy_helper.from_array(array, name) for name, array in self.constants.items()],
        )
        inner = self.stated.keys() - self.inputs.keys() - set(self.outputs)
        graph.value_info.extend(self._stated(name) for name in sorted(inner))
        imports = [helper.make_opsetid(domain, version) for domain, version in self.opsets.items()]
        model = helper.make_model(graph, opset_imports=imports, ir_version=11, functions=self.functions)
        return Drawn(model, self.inputs, self.dtype, self.seed, self.notes)

    def _stated(self, name: str) -> onnx.ValueInfoProto:
        if name not in self.stated:
            return helper.make_empty_tensor_value_info(name)
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        return helper.make_tensor_value_info(name, kind, self.stated[name])
