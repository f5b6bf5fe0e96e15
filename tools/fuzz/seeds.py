"""The models that are damaged: the node tests of the standard, with their inputs, and networks of the zoo."""

from __future__ import annotations

import os
import tempfile
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx.backend.test.loader import load_model_tests

NETWORKS = 60


@dataclass(frozen=True)
class NodeTest:
    """A model of the standard's tests, and the arrays of its inputs by name."""

    model: onnx.ModelProto
    inputs: dict[str, np.ndarray]


@cache
def node_tests() -> tuple[NodeTest, ...]:
    """The node tests of the standard."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    return tuple(NodeTest(case.model, _arrays(case)) for case in cases if case.model is not None)


def _arrays(case: onnx.backend.test.loader.TestCase) -> dict[str, np.ndarray]:
    given = case.data_sets[0][0] if case.data_sets else []
    named = zip((info.name for info in case.model.graph.input), given, strict=False)
    return {
        name: array for name, array in named if isinstance(array, np.ndarray) and array.dtype.kind in "fiub"
    }


@cache
def networks() -> tuple[onnx.ModelProto, ...]:
    """Random networks of the zoo. A child makes them: it runs them, and the runtime starts threads."""
    with tempfile.TemporaryDirectory() as folder:
        child = os.fork()
        if not child:
            _write_networks(Path(folder))
        os.waitpid(child, 0)
        found = tuple(onnx.load_model(path) for path in sorted(Path(folder).glob("*.onnx")))
    if len(found) != NETWORKS:
        raise RuntimeError(f"expected {NETWORKS} networks of the zoo, found {len(found)}")
    return found


def _write_networks(folder: Path) -> None:
    try:
        from tests.zoo.random_networks import random_network

        for seed in range(NETWORKS):
            onnx.save_model(random_network(seed).proto, folder / f"{seed:03}.onnx")
    finally:
        os._exit(0)
