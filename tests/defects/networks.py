"""The healthy networks that defects are planted in: random ones, written as ONNX or converted from PyTorch.

A Network is a Model in canonical form with a batch to run on it. A half of them keeps its normalizations by recorded
statistics apart, so that these, too, can go wrong.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import onnx

from converters import Model, convert
from converters.canonical import canonicalise
from tests.zoo.random_modules import random_module
from tests.zoo.random_networks import CLASSES, random_network


@dataclass(frozen=True)
class Network:
    """A model, one with a source where it was converted from PyTorch. wrt: as for `check`."""

    name: str
    model: Model
    feeds: dict[str, np.ndarray]
    wrt: tuple[str, ...] | None
    target: int

    @property
    def proto(self) -> onnx.ModelProto:
        """The canonical graph."""
        return self.model.proto


@functools.lru_cache(maxsize=16)
def written(seed: int) -> Network:
    """A random ONNX network."""
    made = random_network(seed)
    model = Model(canonicalise(made.proto, fold_batch_norm=bool(seed % 2)))
    return Network(f"onnx {seed}", model, made.feeds, made.wrt, seed % CLASSES)


@functools.lru_cache(maxsize=16)
def converted(seed: int) -> Network:
    """A random PyTorch module with its source."""
    module, example = random_module(seed)
    model = convert(module, example, batches=1, fold_batch_norm=bool(seed % 2))
    names = [info.name for info in model.proto.graph.input]
    feeds = {name: x.numpy() for name, x in zip(names, example, strict=True)}
    return Network(f"pytorch {seed}", model, feeds, None, seed % CLASSES)
