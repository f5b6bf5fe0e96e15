"""Small language models, converted once, and their logits by PyTorch in float64."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch

import onnxplain as ox
from tests.zoo.language import VOCABULARY, Decoder, Encoder

NAMES = ("input_ids", "attention_mask")
FREE = {name: {1: "time"} for name in NAMES}


@cache
def decoder(*, gated: bool = False) -> tuple[Decoder, ox.Model]:
    """A decoder with random weights and its conversion, whose length is free."""
    torch.manual_seed(3)
    net = Decoder(gated=gated).eval()
    return net, ox.convert(net, batch(), free_axes=FREE)


@cache
def encoder() -> tuple[Encoder, ox.Model]:
    """An encoder with random weights and its conversion."""
    torch.manual_seed(4)
    net = Encoder().eval()
    inputs = {**batch(), "token_type_ids": np.zeros_like(batch()["input_ids"])}
    free = {name: {1: "time"} for name in inputs}
    return net, ox.convert(net, inputs, free_axes=free)


def batch() -> dict[str, np.ndarray]:
    """Three sequences: one without padding, one padded on the right, one on the left."""
    ids = np.random.default_rng(0).integers(3, VOCABULARY, (3, 7))
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    mask[2, :2] = 0
    return {"input_ids": ids, "attention_mask": mask}


def logits_of(net: torch.nn.Module, inputs: dict[str, np.ndarray]) -> np.ndarray:
    """The outputs of a network in float64."""
    with torch.no_grad():
        found = net.double()(**{name: torch.tensor(array) for name, array in inputs.items()}).numpy()
    net.float()
    return found


def log_softmax(y: np.ndarray) -> np.ndarray:
    """The logarithm of the probabilities along the last axis."""
    return y - np.log(np.exp(y).sum(axis=-1, keepdims=True))
