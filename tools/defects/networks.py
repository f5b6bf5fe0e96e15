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
from tests.zoo.draft import SAMPLES, Draft, Value
from tests.zoo.random_blocks import BLOCKS, Kind, dense
from tests.zoo.random_modules import random_module
from tests.zoo.random_networks import CLASSES, random_network


@dataclass(frozen=True)
class Tie:
    """A node that reads values on its kink: the tensor it gives, and the kink; None where it takes one of equals."""

    tensor: str
    at: float | None


@dataclass(frozen=True)
class Network:
    """A model, one with a source where it was converted from PyTorch. wrt: as for `check`; tie: where there is one."""

    name: str
    model: Model
    feeds: dict[str, np.ndarray]
    wrt: tuple[str, ...] | None
    target: int
    tie: Tie | None = None

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


# Pointwise ops with a kink at a whole number, their constants, and the kink.
TIES: tuple[tuple[str, tuple[float, ...], dict[str, float], float], ...] = (
    ("Relu", (), {}, 0.0),
    ("LeakyRelu", (), {"alpha": 0.2}, 0.0),
    ("PRelu", (0.3,), {}, 0.0),
    ("Abs", (), {}, 0.0),
    ("Clip", (-1.0, 2.0), {}, 2.0),
    ("Selu", (), {}, 0.0),
    ("ThresholdedRelu", (), {"alpha": 1.0}, 1.0),
    ("Shrink", (), {"lambd": 1.0, "bias": 0.0}, 1.0),
    ("HardSigmoid", (), {"alpha": 0.25, "beta": 0.5}, 2.0),
    ("HardSwish", (), {}, 3.0),
    ("Max", (1.0,), {}, 1.0),
)


@functools.lru_cache(maxsize=16)
def tied(seed: int) -> Network:
    """A random network that is fed whole numbers, which its first op has kinks at, or is to take the largest of."""
    draft = Draft(np.random.default_rng(seed))
    first, at = _extremum(draft) if draft.chance(0.4) else _kink(draft)
    y = draft.op("Flatten", first) if first.array.ndim > 2 else first
    for _ in range(int(draft.rng.integers(1, 4))):
        y = draft.steadied(draft.pick(BLOCKS[Kind.TABLE]).write(draft, y))
    model = Model(canonicalise(draft.model(dense(draft, y, CLASSES))))
    return Network(f"tied {seed}", model, draft.feeds, None, seed % CLASSES, Tie(first.name, at))


def _kink(draft: Draft) -> tuple[Value, float]:
    """A pointwise op on a table, and its kink."""
    x = draft.input(_whole(draft, int(draft.rng.integers(6, 10))))
    op_type, constants, attributes, at = draft.pick(TIES)
    return draft.op(op_type, x, *constants, **attributes), at


def _extremum(draft: Draft) -> tuple[Value, None]:
    """A maximum over windows, planes or an axis of an image with equals in most of them."""
    x = draft.input(_whole(draft, 3, 5, 6))
    op_type = draft.pick(["MaxPool", "MaxPool", "GlobalMaxPool", "ReduceMax"])
    if op_type == "ReduceMax":
        return draft.op(op_type, x, draft.pick([[1], [2], [3], [2, 3]]), keepdims=int(draft.chance())), None
    if op_type == "GlobalMaxPool":
        return draft.op(op_type, x), None
    size, pad = draft.pick([(2, 0), (3, 0), (3, 1)])
    return draft.op(
        op_type, x, kernel_shape=[size] * 2, strides=[draft.pick([1, 2])] * 2, pads=[pad] * 4
    ), None


def _whole(draft: Draft, *shape: int) -> np.ndarray:
    return draft.rng.integers(-3, 4, (SAMPLES, *shape)).astype(np.float32)
