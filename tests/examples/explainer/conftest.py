"""A small network, its explainer files, and the packages of Node, made once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import onnxplain as ox
from tests.examples.explainer.programs import Offline, node_modules

SIZE = (16, 20)
NAMES = ("ant", "bee", "cat", "dog", "eel")


@dataclass(frozen=True)
class Made:
    """The model, inputs (3, 3, 16, 20) of it as x.npy, a photograph, and the folder of all files."""

    folder: Path
    model: Any
    x: np.ndarray
    photograph: np.ndarray


def network() -> nn.Module:
    """Return a network with kinks and curvature."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3), nn.SiLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, len(NAMES)),
    ).eval()  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Export the explainers."""
    folder = tmp_path_factory.mktemp("explainers")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 3, *SIZE)).astype(np.float32)
    preprocessing = ox.Preprocessing(
        size=SIZE, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3), interpolation="bilinear"
    )
    model = ox.convert(network(), x[:2], preprocessing=preprocessing, class_names=NAMES)
    ox.export_explainer(model, folder / "full.onnx")
    ox.export_explainer(model, folder / "full-node.onnx", check_for="node")
    ox.export_explainer(model, folder / "gradient.onnx", "gradient", check_for="node")
    ox.export_explainer(model, folder / "steps.onnx", "integrated-gradients", steps=8, check_for="node")
    for runtime in (None, "web"):
        path = folder / f"photograph{'-web' if runtime else ''}.onnx"
        ox.export_explainer(model, path, with_preprocessing=True, overlay=True, check_for=runtime)
    np.save(folder / "x.npy", x)
    photograph = np.kron(rng.integers(0, 256, (9, 13, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    Image.fromarray(photograph).save(folder / "photograph.png")
    return Made(folder, model, x, photograph)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the packages of Node once for all workers."""
    base = tmp_path_factory.getbasetemp()
    try:
        return node_modules((base.parent if base.name.startswith("popen-") else base) / "npm")
    except Offline as reason:
        pytest.skip(str(reason))
