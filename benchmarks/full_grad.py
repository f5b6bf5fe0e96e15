"""Measure FullGrad's cost as ratios in one run: `python -m benchmarks.full_grad [--write docs/benchmarks.md]`.

There are two tables for ResNet-50 and for VGG-16, with medians of alternating calls. The first compares onnxplain with
pytorch-grad-cam: the time of the same map, and the peak memory in separate processes. The second compares FullGrad with
one gradient on ONNX Runtime, with BatchNorm folded and separate.
The relative L2 difference of the maps is rounding: where the input of a ReLU is within rounding of zero, ONNX Runtime
and PyTorch may decide differently. Needs `pip install ".[test]"`.
"""

from __future__ import annotations

import argparse
import functools
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from analyzer import FullGrad, differentiate, full_grad
from benchmarks.gradient import alternate
from benchmarks.peak import growth
from benchmarks.results import Results, machine, write_section
from converters import convert
from tests.peers import grad_cam
from tests.zoo.pytorch_networks import resnet50, vgg16

NETWORKS = {"ResNet-50": resnet50, "VGG-16": vgg16}
OURS, PEER = "onnxplain", "pytorch-grad-cam"
VERSIONS = ("numpy", "onnxruntime", "torch", "grad-cam", "opencv-python-headless")
TARGET = 0


def network(name: str, batch: int, size: int) -> tuple[torch.nn.Module, torch.Tensor]:
    """Return a network and a batch of noise. No weight requires a gradient, which saves time for the peer."""
    net, shape = NETWORKS[name](size=size)
    return net.eval().requires_grad_(False), torch.randn(batch, *shape)


def same_map(net: torch.nn.Module, images: torch.Tensor) -> Callable[[], FullGrad]:
    """Return onnxplain's map in the peer's convention: layer biases, separate BatchNorm, every channel rescaled."""
    fn = differentiate(convert(net, images, fold_batch_norm=False))
    x, options = images.numpy(), {"terms": "explicit", "post_processing": "pytorch-grad-cam"}
    return lambda: full_grad(fn, x, TARGET, **options)


def peer_row(name: str, batch: int, size: int, rounds: int) -> list[str]:
    """Return the seconds of both, their ratio, the difference of their maps, and the memory of both."""
    net, images = network(name, batch, size)
    ours, theirs = same_map(net, images), grad_cam.full_grad(net)
    maps: dict[str, np.ndarray] = {}
    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: maps.update({OURS: ours().map}),
        PEER: lambda: maps.update({PEER: theirs(images, TARGET)}),
    }
    found = alternate(calls, rounds)
    difference = np.linalg.norm(maps[OURS] - maps[PEER]) / np.linalg.norm(maps[PEER])
    memory = {who: peak_memory(name, batch, size, who) for who in calls}
    return [
        f"batch {batch}",
        f"{found[PEER]:.2f} s",
        f"{found[OURS]:.3f} s",
        f"{found[PEER] / found[OURS]:.1f}",
        f"{difference:.0e}",
        f"{memory[PEER]:.2f} GiB",
        f"{memory[OURS]:.2f} GiB",
        f"{memory[PEER] / memory[OURS]:.1f}",
    ]


def gradient_row(name: str, batch: int, size: int, rounds: int, fold: bool) -> list[str]:
    """Return milliseconds of a gradient and of FullGrad with all and with explicit terms, and their ratios."""
    net, images = network(name, batch, size)
    fn = differentiate(convert(net, images, fold_batch_norm=fold))
    x, target = images.numpy(), np.full(batch, TARGET)
    times, ratios = [], []
    for terms in ("all", "explicit"):
        # Two programs at a time: the cache holds no more sessions of a large network.
        calls: dict[str, Callable[[], object]] = {
            "gradient": lambda: fn.gradients(x, target),
            terms: functools.partial(full_grad, fn, x, target, terms=terms),
        }
        found = alternate(calls, rounds)
        times += [found["gradient"], found[terms]]
        ratios.append(f"{found[terms] / found['gradient']:.2f}")
    norm = "folded" if fold else "separate"
    shown = (min(times[0], times[2]), times[1], times[3])
    return [f"batch {batch}, BatchNorm {norm}", *(f"{1e3 * seconds:.0f} ms" for seconds in shown), *ratios]


def peak_memory(name: str, batch: int, size: int, who: str) -> float:
    """Return the GiB that a separate process needs for its first map, in addition to the network."""
    command = [sys.executable, "-m", "benchmarks.full_grad", "--measure", who, "--network", name]
    command += ["--batches", str(batch), "--size", str(size)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def measure_memory(name: str, batch: int, size: int, who: str) -> None:
    """Print the memory as Linux counts it."""
    net, images = network(name, batch, size)
    theirs = grad_cam.full_grad(net) if who == PEER else None
    call = same_map(net, images) if theirs is None else lambda: theirs(images, TARGET)
    print(growth(call) / 2**30)


def peer_table(name: str, batches: list[int], options: argparse.Namespace) -> Results:
    """Return the table of one network compared with the peer."""
    columns = ("", PEER, OURS, "ratio", "difference", f"memory, {PEER}", f"memory, {OURS}", "ratio")
    title = f"The map of {PEER} at {options.size}², median of {options.rounds} alternating rounds"
    return Results(title, columns, [peer_row(name, batch, options.size, options.rounds) for batch in batches])


def gradient_table(name: str, batches: list[int], options: argparse.Namespace) -> Results:
    """Return the table of one network compared with its gradient."""
    columns = ("", "gradient", "all terms", "explicit terms", "all / gradient", "explicit / gradient")
    title = (
        f"FullGrad and one gradient at {options.size}², "
        f"median of {options.gradient_rounds} alternating rounds"
    )
    cases = [
        (batch, options.size, options.gradient_rounds, fold) for batch in batches for fold in (True, False)
    ]
    return Results(title, columns, [gradient_row(name, *case) for case in cases])


def main() -> None:
    """Measure, print, and write the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the comparison with the peer")
    parser.add_argument(
        "--gradient-rounds", type=int, default=7, help="rounds of the comparison with one gradient"
    )
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--network", choices=list(NETWORKS))
    parser.add_argument("--without-peer", action="store_true")
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--measure", choices=(OURS, PEER), help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = [int(batch) for batch in options.batches.split(",")]
    if options.measure:
        measure_memory(options.network, batches[0], options.size, options.measure)
        return
    if not options.without_peer and not grad_cam.INSTALLED:
        parser.error(grad_cam.REASON)
    sections = {"compared with one gradient": gradient_table}
    if not options.without_peer:
        sections = {f"compared with {PEER}": peer_table, **sections}
    for name in [options.network] if options.network else NETWORKS:
        for section, measure in sections.items():
            table = measure(name, batches, options)
            Console(width=160).print(table.rich())
            if options.write:
                command = f"`python -m benchmarks.full_grad --network {name} --write docs/benchmarks.md`"
                text = "\n\n".join([command, machine(VERSIONS), table.markdown()])
                write_section(options.write, f"FullGrad of {name} {section}", text)


if __name__ == "__main__":
    main()
