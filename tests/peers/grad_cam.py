"""pytorch-grad-cam, the installed package: FullGrad and class activation maps of a PyTorch network, as NumPy.

The package imports torchvision for image transforms and box overlaps, which these methods never call. A torchvision
built for another torch than the installed one does not load; empty stand-ins then take the place of its names
while the package is imported, and are removed again.
"""

from __future__ import annotations

import contextlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import nn

INSTALLED = importlib.util.find_spec("pytorch_grad_cam") is not None
REASON = "pytorch-grad-cam is not installed: pip install grad-cam"
needs_grad_cam = pytest.mark.skipif(not INSTALLED, reason=REASON)

# What the package imports of torchvision, by module.
_NAMES = {
    "torchvision": ("ops",),
    "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
    "torchvision.transforms.functional": ("resize",),
}


def full_grad(net: nn.Module) -> Callable[[torch.Tensor, int], np.ndarray]:
    """A function of images (N, C, H, W) and a class that gives maps (N, H, W). Hooks stay on `net` while it lives."""
    with _torchvision():
        from pytorch_grad_cam import FullGrad
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    cam = FullGrad(model=net, target_layers=[])

    def maps(images: torch.Tensor, target: int) -> np.ndarray:
        return cam(input_tensor=images, targets=[ClassifierOutputTarget(target)] * len(images))

    return maps


def class_activation(
    method: str,
    net: nn.Module,
    layer: nn.Module,
    images: torch.Tensor,
    target: int,
    tokens: Callable[[torch.Tensor], torch.Tensor] | None = None,
) -> np.ndarray:
    """Maps (N, H, W) in [0, 1] of "GradCAM", "GradCAMPlusPlus" or "LayerCAM" at a layer.

    tokens: brings the layer's tokens to (N, C, H, W).
    """
    with _torchvision():
        import pytorch_grad_cam
        from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    with getattr(pytorch_grad_cam, method)(net, [layer], reshape_transform=tokens) as cam:
        return cam(input_tensor=images, targets=[ClassifierOutputTarget(target)] * len(images))


def import_package() -> None:
    """Import the package, so that later imports of its names need no torchvision."""
    with _torchvision():
        importlib.import_module("pytorch_grad_cam.utils.model_targets")


@contextlib.contextmanager
def _torchvision() -> Iterator[None]:
    """torchvision, or stand-ins where it is missing or does not load."""
    stand_ins: list[str] = []
    try:
        importlib.import_module("torchvision")
    # A torchvision without its compiled operators raises RuntimeError on import.
    except (ImportError, RuntimeError):
        stand_ins = [*_NAMES]
        sys.modules.update({module: _stand_in(module, names) for module, names in _NAMES.items()})
    try:
        yield
    finally:
        for module in stand_ins:
            del sys.modules[module]


def _stand_in(module: str, names: tuple[str, ...]) -> ModuleType:
    found = ModuleType(module)
    for name in names:
        setattr(found, name, None)
    return found
