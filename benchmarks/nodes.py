"""Measure the cost of a graph by its number of nodes: `python benchmarks/nodes.py [--largest 10000] [--rounds 3]`.

Networks with 1/8, 1/4, 1/2 and all of the nodes are canonicalised. They are differentiated at the input, and at the
tensor of every FullGrad term. The times are medians of alternating runs. Each column ends with the exponent of its
growth: 1 is linear. Two columns have the time that ONNX Runtime takes to load the model and its gradient graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from rich.console import Console
from rich.progress import track
from rich.table import Table

from analyzer.autodiff.biases import find_biases
from analyzer.autodiff.request import full_program, observe
from analyzer.backends.onnxruntime import make_session
from analyzer.graph.graph import Graph
from converters.canonical import canonicalise

CHANNELS = 8
Weights = dict[str, np.ndarray]
Block = Callable[[str, int, np.random.Generator], tuple[list[onnx.NodeProto], Weights]]


def folding(x: str, i: int, rng: np.random.Generator) -> tuple[list[onnx.NodeProto], Weights]:
    """Return a residual block of ten nodes as exporters write them; six of the nodes can be folded."""
    weights = {f"w{i}": rng.normal(0, 1 / 9, (CHANNELS, CHANNELS, 3, 3))}
    weights |= {f"{statistic}{i}": rng.uniform(0.5, 1, CHANNELS) for statistic in ("s", "b", "m", "v")}
    nodes = [
        helper.make_node("Conv", [x, f"w{i}"], [f"conv{i}"], pads=[1, 1, 1, 1]),
        helper.make_node(
            "BatchNormalization", [f"conv{i}", f"s{i}", f"b{i}", f"m{i}", f"v{i}"], [f"norm{i}"]
        ),
        helper.make_node("Identity", [f"norm{i}"], [f"same{i}"]),
        helper.make_node("Relu", [f"same{i}"], [f"relu{i}"]),
        helper.make_node("Dropout", [f"relu{i}"], [f"drop{i}"]),
        helper.make_node("Shape", [f"drop{i}"], [f"shape{i}"]),
        helper.make_node("Reshape", [f"drop{i}", f"shape{i}"], [f"view{i}"]),
        helper.make_node("Constant", [], [f"half{i}"], value_float=0.5),
        helper.make_node("Mul", [f"view{i}", f"half{i}"], [f"scaled{i}"]),
        helper.make_node("Add", [f"scaled{i}", x], [f"y{i}"]),
    ]
    return nodes, weights


def gated(x: str, i: int, rng: np.random.Generator) -> tuple[list[onnx.NodeProto], Weights]:
    """Return a gated block of five nodes; each of them is differentiated."""
    weights = {f"w{i}": rng.normal(0, 1 / 3, (CHANNELS, CHANNELS)), f"b{i}": rng.normal(size=CHANNELS)}
    nodes = [
        helper.make_node("MatMul", [x, f"w{i}"], [f"product{i}"]),
        helper.make_node("Add", [f"product{i}", f"b{i}"], [f"sum{i}"]),
        helper.make_node("Sigmoid", [f"sum{i}"], [f"gate{i}"]),
        helper.make_node("Mul", [f"sum{i}", f"gate{i}"], [f"gated{i}"]),
        helper.make_node("Add", [f"gated{i}", x], [f"y{i}"]),
    ]
    return nodes, weights


def network(block: Block, size: int, features: tuple[int, ...]) -> onnx.ModelProto:
    """Return a model of consecutive blocks with at least `size` nodes."""
    rng = np.random.default_rng(0)
    nodes: list[onnx.NodeProto] = []
    weights: Weights = {}
    x, count = "x", 0
    while len(nodes) < size:
        more, more_weights = block(x, count, rng)
        nodes += more
        weights.update(more_weights)
        x, count = f"y{count}", count + 1
    shape: list[Any] = ["N", *features]
    graph = helper.make_graph(
        nodes,
        block.__name__,
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(x, onnx.TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def measure(proto: onnx.ModelProto) -> dict[str, float]:
    """Return the seconds of each step on one model."""
    taken: dict[str, float] = {}

    def timed(step: str, call: Callable[[], Any]) -> Any:
        began = time.perf_counter()
        result = call()
        taken[step] = time.perf_counter() - began
        return result

    canonical = timed("canonicalise", lambda: canonicalise(proto))
    graph = timed("read", lambda: Graph.from_proto(canonical))
    output, x = graph.outputs[0], graph.inputs[0]
    gradient = timed("gradient", lambda: full_program(graph, observe([], [x]), output, weights=True))
    biases = timed("bias terms", lambda: find_biases(graph, (output,), [x]))
    everywhere = observe([], (x, *(bias.tensor for bias in biases)))
    timed("gradient at every term", lambda: full_program(graph, everywhere, output, weights=True))
    timed("ORT loads model", lambda: make_session(canonical, ["CPUExecutionProvider"]))
    timed("ORT loads gradient", lambda: make_session(gradient.proto, ["CPUExecutionProvider"]))
    return taken


def growth(sizes: list[int], seconds: list[float]) -> float:
    """Return the slope of log seconds over log nodes: 1 is linear, 2 is quadratic."""
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def table_of(title: str, medians: dict[int, dict[str, float]]) -> Table:
    """Return a table with a row per size, and the growth."""
    sizes = list(medians)
    steps = list(medians[sizes[0]])
    table = Table("nodes", *steps, title=title, box=None)
    for size in sizes:
        table.add_row(f"{size:,}", *(f"{medians[size][step]:.2f} s" for step in steps))
    exponents = [growth(sizes, [medians[size][step] for size in sizes]) for step in steps]
    table.add_row("growth", *(f"n^{value:.2f}" for value in exponents), style="bold")
    return table


def main() -> None:
    """Measure and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--largest", type=int, default=10_000, help="nodes of the largest network")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    console = Console()
    sizes = [options.largest // part for part in (8, 4, 2, 1)]
    for block, features in ((folding, (CHANNELS, 5, 5)), (gated, (CHANNELS,))):
        models = {size: network(block, size, features) for size in sizes}
        runs: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
        measure(models[sizes[0]])  # imports and warm-up
        for _ in track(range(options.rounds), block.__name__, console=console, transient=True):
            for size in sizes:
                runs[size].append(measure(models[size]))
        medians = {
            size: {step: statistics.median(run[step] for run in found) for step in found[0]}
            for size, found in runs.items()
        }
        console.print(table_of(f"{block.__name__} blocks, median of {options.rounds}", medians))


if __name__ == "__main__":
    main()
