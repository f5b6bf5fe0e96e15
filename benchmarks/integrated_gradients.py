"""Compare Integrated Gradients with Captum: `python -m benchmarks.integrated_gradients [--write docs/benchmarks.md]`.

Two tables have ratios that are measured in one run, with alternating calls. The first is at equal steps: seconds and
peak memory (in separate processes) of the Gauss–Legendre rule on three networks. The second is on a trained network,
for ten photographs from black: gradients and seconds until the sum is within 1 % of f(x) − f(x′). onnxplain stops by
itself. Captum gets the smallest number of steps from which it *stays* within 1 %, searched downwards from --most. The
table also has the error of the map for as many gradients as onnxplain took: relative L2 to 1,024 midpoints. Needs
`pip install ".[test,demo]"`.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from captum.attr import IntegratedGradients
from rich.console import Console
from rich.progress import track
from torch import nn

from analyzer import Differentiable, differentiate, integrated_gradients
from analyzer import IntegratedGradients as IntegratedResult
from analyzer.demo import PREPROCESSING, load_network
from analyzer.figures.images import preprocess, read_image
from benchmarks.gradient import alternate
from benchmarks.peak import growth
from benchmarks.results import Results, machine, write_section
from converters import convert
from tests.zoo.pytorch_networks import resnet50
from tests.zoo.pytorch_transformers import VisionTransformer

OURS, PEER = "onnxplain", "Captum"
VERSIONS = ("numpy", "onnxruntime", "torch", "captum")
NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "ResNet-50, random": lambda: resnet50()[0],
    "EfficientNet-Lite0, trained": load_network,
    "ViT, random": lambda: VisionTransformer(size=224, patch=16, width=192),
}
PHOTOGRAPHS = (
    "chelsea.png",
    "coffee.png",
    "astronaut.png",
    "motorcycle_left.png",
    "rocket.jpg",
    "camera.png",
    "coins.png",
    "horse.png",
    "retina.jpg",
    "ihc.png",
)
TOLERANCE, BATCH, REFERENCE = 0.01, 16, 1024


def network(name: str) -> tuple[nn.Module, Differentiable, torch.Tensor]:
    """Return a network, its Differentiable, and an image of noise."""
    torch.manual_seed(0)
    net, image = NETWORKS[name]().eval().requires_grad_(False), torch.randn(1, 3, 224, 224)
    return net, differentiate(convert(net, image)), image


def captum(net: nn.Module, image: torch.Tensor, start: torch.Tensor, target: int, steps: int) -> np.ndarray:
    """Return Captum's attributions by the Gauss–Legendre rule."""
    found: torch.Tensor = IntegratedGradients(net).attribute(
        image, start, target=target, n_steps=steps, method="gausslegendre", internal_batch_size=BATCH
    )
    return found.detach().numpy()


def equal_steps_row(name: str, steps: int, rounds: int) -> list[str]:
    """Return the seconds of both, their ratio, the difference of their maps, and the memory of both."""
    net, fn, image = network(name)
    maps: dict[str, np.ndarray] = {}
    calls: dict[str, Callable[[], object]] = {
        OURS: lambda: maps.update(
            {OURS: integrated_gradients(fn, image.numpy(), 0, steps=steps, batch_size=BATCH).attributions}
        ),
        PEER: lambda: maps.update({PEER: captum(net, image, torch.zeros_like(image), 0, steps)}),
    }
    found = alternate(calls, rounds)
    memory = {who: peak_memory(name, steps, who) for who in calls}
    return [
        name,
        *(f"{found[who]:.2f} s" for who in (PEER, OURS)),
        f"{found[PEER] / found[OURS]:.2f}",
        f"{relative(maps[OURS], maps[PEER]):.0e}",
        *(f"{memory[who]:.2f} GiB" for who in (PEER, OURS)),
    ]


def peak_memory(name: str, steps: int, who: str) -> float:
    """Return the GiB that a separate process needs for its first map, in addition to the network."""
    command = [sys.executable, "-m", "benchmarks.integrated_gradients", "--measure", who]
    command += ["--network", name, "--steps", str(steps)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(result.stdout.split()[-1])


def measure_memory(name: str, steps: int, who: str) -> None:
    """Print the memory in GiB."""
    net, fn, image = network(name)
    if who == PEER:
        del fn
        taken = growth(lambda: captum(net, image, torch.zeros_like(image), 0, steps))
    else:
        del net
        taken = growth(lambda: integrated_gradients(fn, image.numpy(), 0, steps=steps, batch_size=BATCH))
    print(taken / 2**30)


def tolerance_rows(most: int, stride: int) -> list[list[str]]:
    """Return a row for each photograph, and a row with the medians of the ratios."""
    net = load_network().requires_grad_(False)
    folder = Path(skimage.__file__).parent / "data"
    images = [preprocess(read_image(folder / name), PREPROCESSING)[None] for name in PHOTOGRAPHS]
    fn = differentiate(convert(net, torch.from_numpy(images[0]), preprocessing=PREPROCESSING))
    rows, ratios = [], []
    for name, image in zip(track(PHOTOGRAPHS, "photographs"), images, strict=True):
        row, ratio = tolerance_row(net, fn, image, most, stride)
        rows.append([name, *row])
        ratios.append(ratio)
    fewer, faster = (statistics.median(column) for column in zip(*ratios, strict=True))
    return [*rows, ["median", "", "", f"{fewer:.1f}", "", "", f"{faster:.1f}", "", "", ""]]


def tolerance_row(
    net: nn.Module, fn: Differentiable, image: np.ndarray, most: int, stride: int
) -> tuple[list[str], tuple[float, float]]:
    """Return gradients and seconds of both with their ratios, and the errors of the sum and of the map."""
    target = int(fn.forward(image)[fn.graph.outputs[0]].argmax())

    def ours(**options: Any) -> IntegratedResult:
        return integrated_gradients(fn, image, target, baseline="black", batch_size=BATCH, **options)

    ours(steps=1)  # Create the session before the measurement.
    steps = most
    while steps > stride and within(ours(steps=steps)):
        steps -= stride
    failed = steps == most
    steps = min(steps + stride, most)
    reference = ours(steps=REFERENCE, rule="midpoint").attributions
    start = torch.from_numpy(np.array(ours(steps=1).baseline))
    tensor = torch.from_numpy(image)
    began = time.perf_counter()
    refined = ours(tolerance=TOLERANCE)
    between = time.perf_counter()
    captum(net, tensor, start, target, steps)
    seconds = between - began, time.perf_counter() - between
    same = captum(net, tensor, start, target, refined.evaluations)
    difference = refined.completeness.output[0]
    theirs = abs(same.sum(dtype=np.float64) - difference) / abs(difference)
    fewer, faster = steps / refined.evaluations, seconds[1] / seconds[0]
    row = [
        f"{'> ' * failed}{steps}",
        f"{refined.evaluations}{'' if refined.converged[0] else ' (not converged)'}",
        f"{fewer:.1f}",
        f"{seconds[1]:.1f} s",
        f"{seconds[0]:.1f} s",
        f"{faster:.1f}",
        f"{100 * theirs:.1f} % / {100 * abs(refined.delta[0] / difference):.1f} %",
        f"{relative(same, reference):.3f} / {relative(refined.attributions, reference):.3f}",
        f"{refined.map_error[0]:.3f}",
    ]
    return row, (fewer, faster)


def within(found: IntegratedResult) -> bool:
    """Return whether the sum is within the tolerance."""
    return bool(abs(found.delta[0]) <= TOLERANCE * abs(found.completeness.output[0]))


def relative(a: np.ndarray, b: np.ndarray) -> float:
    """Return the relative L2 distance of a to b."""
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


def main() -> None:
    """Measure, print, and write the sections."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=50, help="steps of the first table")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of the first table")
    parser.add_argument(
        "--most", type=int, default=600, help="largest number of Captum's steps in the second table"
    )
    parser.add_argument(
        "--stride", type=int, default=100, help="difference between the numbers of steps that are tried"
    )
    parser.add_argument("--table", choices=("steps", "tolerance"), help="only one of the two tables")
    parser.add_argument("--network", choices=list(NETWORKS), help=argparse.SUPPRESS)
    parser.add_argument("--write", type=Path, metavar="PAGE")
    parser.add_argument("--measure", choices=(OURS, PEER), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure_memory(options.network, options.steps, options.measure)
        return
    tables = {}
    if options.table != "tolerance":
        columns = ("", PEER, OURS, "ratio", "difference", f"memory, {PEER}", f"memory, {OURS}")
        title = f"{options.steps} steps at 224², median of {options.rounds} alternating rounds"
        rows = [equal_steps_row(name, options.steps, options.rounds) for name in NETWORKS]
        tables["Integrated Gradients at equal steps"] = Results(title, columns, rows)
    if options.table != "steps":
        columns = (
            "", f"gradients, {PEER}", f"gradients, {OURS}", "ratio", f"time, {PEER}", f"time, {OURS}", "ratio",
            "error of the sum", "error of the map", f"stated error of the map, {OURS}",
        )  # fmt: skip
        searched = f"{PEER} in steps of {options.stride}"
        title = (
            f"Until the sum is within 1 %, EfficientNet-Lite0, {searched}; "
            f"errors are {PEER} / {OURS}, for as many gradients as {OURS} takes"
        )
        rows = tolerance_rows(options.most, options.stride)
        tables["Integrated Gradients to 1 %"] = Results(title, columns, rows)
    for section, table in tables.items():
        Console(width=200).print(table.rich())
        if options.write:
            command = "`python -m benchmarks.integrated_gradients --write docs/benchmarks.md`"
            write_section(options.write, section, "\n\n".join([command, machine(VERSIONS), table.markdown()]))


if __name__ == "__main__":
    main()
