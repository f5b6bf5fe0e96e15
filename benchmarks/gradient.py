"""Measure the cost of a gradient as ratios in one run: `python benchmarks/gradient.py [--batch 2] [--rounds 9]`.

Each ratio uses medians of alternating calls. The first compares the gradient graph on ONNX Runtime with ONNX Runtime's
own forward pass; its lower bound is 2, because the backward pass costs a forward pass. The second compares
torch.autograd with the gradient graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from analyzer import differentiate
from analyzer.demo import load_network
from converters import convert
from tests.zoo.initialize import initialize
from tests.zoo.pytorch_mobile import MobileNetV2
from tests.zoo.pytorch_networks import Shape, resnet50, vgg16

IMAGE: Shape = (3, 224, 224)
NETWORKS: dict[str, Callable[[], tuple[torch.nn.Module, Shape]]] = {
    "ResNet-50": resnet50,
    "VGG-16": vgg16,
    "MobileNetV2": lambda: (initialize(MobileNetV2(), IMAGE), IMAGE),
    "EfficientNet-Lite0": lambda: (load_network(), IMAGE),
}


def alternate(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Return the median seconds of each call, with alternating calls."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - began)
    return {name: statistics.median(values) for name, values in times.items()}


def measure(net: torch.nn.Module, shape: tuple[int, ...], batch: int, rounds: int) -> dict[str, float]:
    """Return the median seconds of the three calls on one network."""
    image = torch.randn(batch, *shape)
    x = image.numpy()
    fn = differentiate(convert(net, image))
    output = fn.graph.outputs[0]

    def autograd() -> None:
        leaf = image.clone().requires_grad_()
        torch.autograd.grad(net(leaf)[:, 0].sum(), leaf)

    return alternate(
        {
            "forward": lambda: fn.forward(x, [output]),
            "gradient": lambda: fn.gradients(x, np.zeros(batch, np.int64)),
            "torch": autograd,
        },
        rounds,
    )


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=list(NETWORKS), action="append", help="default: all")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    table = Table(
        title=f"224², batch {options.batch}, median of {options.rounds} alternating rounds", box=None
    )
    for column in (
        "network",
        "forward",
        "gradient",
        "torch.autograd",
        "gradient / forward",
        "torch / gradient",
    ):
        table.add_column(column, justify="left" if column == "network" else "right")
    for name in options.network or NETWORKS:
        net, shape = NETWORKS[name]()
        for parameter in net.parameters():
            parameter.requires_grad_(False)
        found = measure(net.eval(), shape, options.batch, options.rounds)
        times = [f"{1e3 * found[key]:.0f} ms" for key in ("forward", "gradient", "torch")]
        ratios = [found["gradient"] / found["forward"], found["torch"] / found["gradient"]]
        table.add_row(name, *times, *(f"{ratio:.2f}" for ratio in ratios))
    Console().print(table)


if __name__ == "__main__":
    main()
