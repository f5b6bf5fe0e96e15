"""FullGrad's cost, as ratios measured in one run: `python -m benchmarks.full_grad [--batches 1,8]`.

For each network and batch, alternating and by medians: pytorch-grad-cam's FullGrad over ours with explicit terms (the
map that it draws) and with all terms, and ours over one gradient on ONNX Runtime. Peak memory is that of processes
of their own. Needs `pip install grad-cam`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from analyzer import differentiate, full_grad
from benchmarks.gradient import alternate
from converters import convert
from tests.zoo.pytorch_networks import resnet50, vgg16

NETWORKS = {"ResNet-50": resnet50, "VGG-16": vgg16}
OURS, GRAD_CAM = "onnxplain", "pytorch-grad-cam"


def network(name: str, batch: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """A network without weight gradients, and a batch of noise."""
    net, shape = NETWORKS[name]()
    return net.eval(), torch.randn(batch, *shape)


def ours(net: torch.nn.Module, images: torch.Tensor) -> dict[str, Callable[[], object]]:
    """FullGrad of both kinds, and one gradient, on ONNX Runtime."""
    fn = differentiate(convert(net, images, fold_batch_norm=False))
    x, target = images.numpy(), np.zeros(len(images), np.int64)
    return {
        "explicit": lambda: full_grad(fn, x, target, terms="explicit", post_processing="pytorch-grad-cam"),
        "all": lambda: full_grad(fn, x, target),
        "gradient": lambda: fn.gradients(x, target),
    }


def grad_cam(net: torch.nn.Module, images: torch.Tensor) -> Callable[[], object]:
    """The peer's FullGrad of the same class."""
    from pytorch_grad_cam import FullGrad
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with contextlib.redirect_stdout(io.StringIO()):
        cam = FullGrad(model=net, target_layers=[])
    targets = [ClassifierOutputTarget(0)] * len(images)
    return lambda: cam(input_tensor=images, targets=targets)


def peak_memory(name: str, batch: int, who: str) -> float:
    """GiB that a process of its own needs for one map beyond what it needs for the network."""
    command = [sys.executable, "-m", "benchmarks.full_grad", "--measure", who, "--network", name]
    result = subprocess.run([*command, "--batches", str(batch)], check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def measure_memory(name: str, batch: int, who: str) -> None:
    """Print the growth of the peak, in GiB."""
    net, images = network(name, batch)
    call = ours(net, images)["explicit"] if who == OURS else grad_cam(net, images)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    call()
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--network", choices=list(NETWORKS))
    parser.add_argument("--measure", choices=(OURS, GRAD_CAM), help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = [int(batch) for batch in options.batches.split(",")]
    if options.measure:
        measure_memory(options.network, batches[0], options.measure)
        return
    table = Table(title=f"FullGrad at 224², median of {options.rounds} alternating rounds", box=None)
    for column in ("network", "batch", GRAD_CAM, "explicit", "all", "gradient"):
        table.add_column(column, justify="left" if column == "network" else "right")
    for column in (
        "peer / explicit",
        "peer / all",
        "explicit / gradient",
        "all / gradient",
        "memory, peer / ours",
    ):
        table.add_column(column, justify="right")
    for name in [options.network] if options.network else NETWORKS:
        for batch in batches:
            net, images = network(name, batch)
            found = alternate({**ours(net, images), GRAD_CAM: grad_cam(net, images)}, options.rounds)
            times = [f"{found[key]:.3f} s" for key in (GRAD_CAM, "explicit", "all", "gradient")]
            ratios = [found[GRAD_CAM] / found[key] for key in ("explicit", "all")]
            ratios += [found[key] / found["gradient"] for key in ("explicit", "all")]
            memory = [peak_memory(name, batch, who) for who in (GRAD_CAM, OURS)]
            shown = [f"{ratio:.1f}" for ratio in ratios]
            table.add_row(name, str(batch), *times, *shown, f"{memory[0]:.1f} / {memory[1]:.1f} GiB")
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
