"""Random healthy networks of many op families, each made by a seed as an ONNX file.

`random_network(seed)` draws a chain of blocks from an image, a signal, a sequence, a text or a table to logits; some
networks take a second input. Weights are scaled to what they give, and a signal that strays is brought back to order
one: nothing dies or explodes. The blocks stand in random_blocks.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from tests.zoo import random_image_blocks, random_sequence_blocks  # noqa: F401 -- they register their blocks
from tests.zoo.draft import SAMPLES, Draft, Value
from tests.zoo.random_blocks import BLOCKS, HEADS, Block, Kind, dense

CLASSES, WORDS = 5, 11
FEWEST, MOST = 3, 8
LIVELY = 0.05


@dataclass(frozen=True)
class RandomNetwork:
    """A model with a free batch, a batch of two for it, and what to attribute where its inputs are integers."""

    proto: onnx.ModelProto
    feeds: dict[str, np.ndarray]
    wrt: tuple[str, ...] | None
    blocks: tuple[str, ...]


def random_network(seed: int) -> RandomNetwork:
    """The network of a seed."""
    draft = Draft(np.random.default_rng(seed))
    kind = draft.pick([Kind.IMAGE, Kind.IMAGE, Kind.IMAGE, Kind.SIGNAL, Kind.TOKENS, Kind.TOKENS, Kind.TABLE])
    wrt = None
    if kind is Kind.TOKENS and draft.chance(0.3):
        x = _embedded(draft)
        wrt = (x.name,)
    else:
        x = draft.input(_sample(draft, kind))
    told = [kind.value]
    if wrt is None and draft.chance(0.25):
        x = _joined(draft, x)
        told.append("second input")
    for _ in range(int(draft.rng.integers(FEWEST, MOST + 1))):
        x, kind = _extended(draft, x, BLOCKS[kind], told)
    if kind is not Kind.TABLE:
        x, kind = _extended(draft, x, HEADS[kind], told)
        for _ in range(int(draft.rng.integers(3))):
            x, kind = _extended(draft, x, BLOCKS[kind], told)
    return RandomNetwork(draft.model(dense(draft, x, CLASSES)), draft.feeds, wrt, tuple(told))


def _extended(draft: Draft, x: Value, blocks: Sequence[Block], told: list[str]) -> tuple[Value, Kind]:
    """x behind one of the blocks, and its kind. A block that no longer tells the samples apart is left out."""
    while True:
        block = draft.pick(blocks)
        y = draft.steadied(block.write(draft, x))
        if np.abs(y.array[0] - y.array[1]).max() > LIVELY * y.scale:
            told.append(block.write.__name__)
            return y, block.gives


def _sample(draft: Draft, kind: Kind) -> np.ndarray:
    size = int(draft.rng.integers(5, 11))
    shapes = {
        Kind.IMAGE: (3, size, size if draft.chance(0.7) else size + 2),
        Kind.SIGNAL: (2, size + 4),
        Kind.TOKENS: (max(3, size // 2), 6),
        Kind.TABLE: (size,),
    }
    return draft.normal(SAMPLES, *shapes[kind])


def _embedded(draft: Draft) -> Value:
    words = draft.input(draft.rng.integers(0, WORDS, (SAMPLES, 5)))
    return draft.op("Gather", draft.normal(WORDS, 6), words)


def _joined(draft: Draft, x: Value) -> Value:
    """x and a second input: of its shape, added or joined, or a row of features that scales and shifts it."""
    if draft.chance():
        other = draft.input(draft.normal(*x.shape))
        axis = 2 if x.array.ndim == 3 and draft.chance() else 1
        return draft.op("Sub", x, other) if draft.chance() else draft.op("Concat", x, other, axis=axis)
    row = draft.input(draft.normal(SAMPLES, 4))
    ones = (1,) * (x.array.ndim - 2)
    scale, shift = (draft.reshape(dense(draft, row, x.width), x.width, *ones) for _ in range(2))
    return draft.op("Add", draft.op("Mul", x, scale), shift)
