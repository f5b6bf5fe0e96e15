"""Show that one network in PyTorch and in Keras gives the same answer for the same reasons.

    python examples/01_twin.py

The script converts both twins. It explains each by its own framework and by ONNX Runtime: outputs, input gradients, the
gradient of every bias, FullGrad and Integrated Gradients. It compares everything with the PyTorch original, at a
relative L2 distance of 1e-5. The exit status is 1 if they disagree.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from twin import build_twins, example_images, to_nchw

from onnxplain import Model, convert, differentiate, full_grad, integrated_gradients

TOLERANCE = 1e-5
TARGET = 3

# The layers that have a bias, in the order of the network. BatchNorm is folded into its convolution.
LAYERS = ("conv1 + bn1", "conv2 + bn2", "dense1", "dense2")


@dataclass(frozen=True)
class Explanation:
    """Hold the explanation of one route in PyTorch's layout. Lists have one entry per layer with a bias."""

    output: np.ndarray
    input_gradient: np.ndarray
    layer_gradients: list[np.ndarray]
    bias_terms: list[np.ndarray]
    full_grad: np.ndarray
    integrated_gradients: np.ndarray


def explain(model: Model, backend: str, images: np.ndarray) -> Explanation:
    """Explain logit TARGET of the images on one backend. The images have the layout of the model."""
    fn = differentiate(model, backend=backend)
    decomposition = full_grad(fn, images, target=TARGET)
    # The terms of a ReLU network are its biases. Nodes that add nothing, such as a zero pad, have no term.
    terms = {tensor: term for tensor, term in decomposition.bias_terms.items() if term.any()}
    at_layers = fn.gradients(images, target=TARGET, wrt=[*fn.graph.inputs, *terms])
    attributions = integrated_gradients(fn, images, target=TARGET, steps=32).attributions
    channels_first = images.shape[1] == 3
    return Explanation(
        output=at_layers.output,
        input_gradient=_nchw(at_layers.gradients[fn.graph.inputs[0]], channels_first),
        layer_gradients=[at_layers.gradients[tensor] for tensor in terms],
        bias_terms=list(terms.values()),
        full_grad=decomposition.map,
        integrated_gradients=_nchw(attributions, channels_first),
    )


def _nchw(images: np.ndarray, channels_first: bool) -> np.ndarray:
    return images if channels_first else to_nchw(images)


def align(array: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Permute the feature axes of the array so that its values are closest to the reference."""
    orders = itertools.permutations(range(1, array.ndim))
    candidates = [array.transpose(0, *order) for order in orders]
    fitting = [candidate for candidate in candidates if candidate.shape == reference.shape]
    assert fitting, f"no permutation of the axes turns {array.shape} into {reference.shape}"
    return min(fitting, key=lambda candidate: distance(candidate, reference))


def bias_gradient(layer_gradient: np.ndarray) -> np.ndarray:
    """Return the gradient of a layer's bias, (N, channels): a bias is added at every position of (N, C, H, W)."""
    return layer_gradient.sum(axis=tuple(range(2, layer_gradient.ndim)))


def distance(array: np.ndarray, reference: np.ndarray) -> float:
    """Return the relative L2 distance."""
    return float(np.linalg.norm(array - reference) / np.linalg.norm(reference))


def distances(found: Explanation, truth: Explanation) -> Iterator[tuple[str, float]]:
    """Yield (quantity, relative L2 distance) for every quantity of two routes."""
    assert len(found.bias_terms) == len(truth.bias_terms) == len(LAYERS)
    yield "output", distance(found.output, truth.output)
    yield "input gradient", distance(found.input_gradient, truth.input_gradient)
    for layer, array, reference in zip(LAYERS, found.layer_gradients, truth.layer_gradients, strict=True):
        aligned = align(array, reference)
        yield f"bias gradient, {layer}", distance(bias_gradient(aligned), bias_gradient(reference))
    for layer, array, reference in zip(LAYERS, found.bias_terms, truth.bias_terms, strict=True):
        yield f"bias term, {layer}", distance(align(array, reference), reference)
    yield "FullGrad map", distance(found.full_grad, truth.full_grad)
    yield "Integrated Gradients", distance(found.integrated_gradients, truth.integrated_gradients)


def explanations(seed: int = 0) -> dict[str, Explanation]:
    """Return the explanations of the four routes; the first is that of PyTorch itself."""
    torch_twin, keras_twin = build_twins(seed)
    nchw, nhwc = example_images(4, seed)
    networks: list[tuple[str, Any, np.ndarray]] = [("PyTorch", torch_twin, nchw), ("Keras", keras_twin, nhwc)]
    found = {}
    for framework, network, images in networks:
        model = convert(network, images[:1])
        for backend in ("source", "onnxruntime"):
            route = f"{framework} itself" if backend == "source" else f"{framework} to ONNX Runtime"
            found[route] = explain(model, backend, images)
    return found


def main() -> int:
    """Print the distances of every route to the PyTorch original. Return 1 if one is too large."""
    found = explanations()
    truth = found.pop("PyTorch itself")
    columns = {route: dict(distances(explanation, truth)) for route, explanation in found.items()}
    table = Table(title=f"Relative L2 distance to PyTorch itself, target {TARGET}")
    table.add_column("quantity", no_wrap=True)
    for route in columns:
        table.add_column(route, justify="right")
    for quantity in next(iter(columns.values())):
        table.add_row(quantity, *(f"{column[quantity]:.1e}" for column in columns.values()))
    console = Console()
    console.print(table)
    worst = max(value for column in columns.values() for value in column.values())
    agrees = worst <= TOLERANCE
    verdict = "agree" if agrees else "do NOT agree"
    console.print(f"The twins {verdict}: the largest distance is {worst:.1e}, the tolerance {TOLERANCE:.0e}.")
    return 0 if agrees else 1


if __name__ == "__main__":
    sys.exit(main())
