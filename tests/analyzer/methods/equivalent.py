"""Rewrite an ONNX file into another that computes the same: the forms in which exporters write one network.

`rewrite(proto, name, rng)` gives a new model and how many places it changed; `rewritten` applies several and holds the
result to the original's outputs. Each rewrite takes its places at random, each with probability ¾, one at least.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from tests.analyzer.methods import function_rewrites, layer_rewrites
from tests.analyzer.methods.rewriter import Rewriter, Rule
from tests.converters.helpers import run

RULES: dict[str, Rule] = {
    "Gemm as MatMul and Add": layer_rewrites.gemm,
    "Gemm as convolution": layer_rewrites.gemm_as_convolution,
    "MatMul and Add as Gemm": layer_rewrites.dense,
    "bias as Add": layer_rewrites.bias,
    "padding as Pad": layer_rewrites.pads,
    "BatchNorm as Mul and Add": layer_rewrites.batch_norm("two"),
    "BatchNorm as four": layer_rewrites.batch_norm("four"),
    "what does nothing": layer_rewrites.noise,
    "mean as ReduceMean": layer_rewrites.global_pool("ReduceMean"),
    "mean as GlobalAveragePool": layer_rewrites.global_pool("GlobalAveragePool"),
    "mean as AveragePool": layer_rewrites.global_pool("AveragePool"),
    "Flatten": layer_rewrites.flatten,
    "Split as Slices": layer_rewrites.split,
    "commuted": function_rewrites.commuted,
    "sums": function_rewrites.sums,
    "LayerNorm of TensorFlow": function_rewrites.layer_norm("tensorflow"),
    "LayerNorm by hand": function_rewrites.layer_norm("plain"),
    "Gelu": function_rewrites.gelu,
    "Softmax": function_rewrites.softmax,
    "activations": function_rewrites.activations,
    "Sigmoid": function_rewrites.sigmoid,
}


def rewrite(proto: onnx.ModelProto, name: str, rng: np.random.Generator) -> tuple[onnx.ModelProto, int]:
    """One rewrite, at places drawn at random. Returns the model and how many places were changed."""
    rewriter = Rewriter(proto)
    nodes: list[onnx.NodeProto] = []
    changed = 0
    for node in proto.graph.node:
        made = RULES[name](rewriter, node) if changed == 0 or rng.random() < 0.75 else None
        changed += made is not None
        nodes += [node] if made is None else made
    made_proto = onnx.ModelProto()
    made_proto.CopyFrom(proto)
    del made_proto.graph.node[:], made_proto.graph.initializer[:], made_proto.graph.value_info[:]
    made_proto.graph.node.extend(_used(nodes, rewriter.outputs))
    read = {given for node in made_proto.graph.node for given in node.input}
    made_proto.graph.initializer.extend(
        numpy_helper.from_array(array, given) for given, array in rewriter.constants.items() if given in read
    )
    return made_proto, changed


def _used(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    """The nodes that an output needs, in order: a rewrite leaves those behind that it took up."""
    wanted, kept = set(outputs), []
    for node in reversed(nodes):
        if wanted.intersection(node.output):
            kept.append(node)
            wanted.update(node.input)
    return kept[::-1]


def rewritten(
    proto: onnx.ModelProto, names: list[str], rng: np.random.Generator, feeds: dict[str, np.ndarray]
) -> tuple[onnx.ModelProto, dict[str, int]]:
    """Several rewrites one after the other, each held to the outputs of the original."""
    counts = {}
    expected = run(proto, feeds)
    for name in names:
        proto, counts[name] = rewrite(proto, name, rng)
        for value, truth in zip(run(proto, feeds), expected, strict=True):
            np.testing.assert_allclose(value, truth, rtol=1e-3, atol=1e-4, err_msg=name)
    return proto, counts


def draws(count: int) -> Iterator[tuple[int, list[str]]]:
    """Seeds, each with all rewrites in an order of its own."""
    for seed in range(count):
        yield seed, np.random.default_rng(seed).permutation(list(RULES)).tolist()
