"""Compare several classes over one forward pass with one call per class: `python -m benchmarks.top_classes`.

The script measures `Target(top=5)` and five calls for each backend on ResNet-50, with medians of alternating calls. It
also prints the ratio that sharing the forward pass can give: 5 · (forward + backward) / (forward + 5 · backward).
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from analyzer import Target, differentiate
from benchmarks.gradient import alternate
from converters import Model, convert
from tests.zoo.pytorch_networks import resnet50

CLASSES = 5


def measure(model: Model, backend: str, image: np.ndarray, rounds: int) -> tuple[float, float]:
    """Return the speedup of one call for all classes, and the possible speedup by sharing the forward pass."""
    fn = differentiate(model, backend)
    classes = fn.gradients(image, Target(top=CLASSES)).target
    assert classes is not None
    seconds = alternate(
        {
            "forward": lambda: fn.forward(image),
            "together": lambda: fn.gradients(image, Target(top=CLASSES)),
            "apart": lambda: [fn.gradients(image, classes[:, rank]) for rank in range(CLASSES)],
        },
        rounds,
    )
    backward = seconds["apart"] / CLASSES - seconds["forward"]
    shared = seconds["apart"] / (seconds["forward"] + CLASSES * backward)
    return seconds["apart"] / seconds["together"], shared


def main() -> None:
    """Measure and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--backends", default="onnxruntime,torch")
    options = parser.parse_args()
    net, shape = resnet50()
    image = torch.randn(options.batch, *shape)
    model = convert(net, image)
    table = Table("backend", "five calls over one", "by sharing the forward pass")
    for backend in options.backends.split(","):
        ratio, shared = measure(model, backend, image.numpy(), options.rounds)
        table.add_row(backend, f"{ratio:.2f}", f"{shared:.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
