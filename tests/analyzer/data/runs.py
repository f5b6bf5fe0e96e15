"""An undisturbed run to compare with, and the fixtures of tests of runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

import onnxplain as ox
from tests.analyzer.data.networks import table_network

SIZES = {"batch_size": 2, "part_size": 4}


def rows_of(folder):
    """All columns of all parts, as bytes of their arrays."""
    table = ox.open_results(folder).table().combine_chunks()
    return {name: table.column(name).to_pylist() for name in table.schema.names}


@pytest.fixture(scope="module")
def undisturbed(model_file, photos, tmp_path_factory):
    """The results of a run that nothing ended, and their folder."""
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    counts = []
    results = ox.explain_dataset(
        model_file, photos, out, attributions=True, progress=lambda *one: counts.append(one), **SIZES
    )
    assert counts == [(0, 9), (2, 9), (4, 9), (6, 9), (8, 9), (9, 9)]
    return results, out


@pytest.fixture(scope="module")
def table_rows():
    rng = np.random.default_rng(5)
    return {name: rng.standard_normal((11, size)).astype(np.float32) for name, size in (("a", 4), ("b", 2))}


@pytest.fixture(scope="module")
def table_truth(table_rows):
    """x·∂p/∂x of p = sigmoid(a·w + b·v), by hand."""
    weights = {
        name: onnx.numpy_helper.to_array(one)[:, 0].astype(np.float64)
        for name, one in zip(
            "ab", sorted(table_network().graph.initializer, key=lambda one: -one.dims[0]), strict=True
        )
    }
    logit = sum(table_rows[name] @ weights[name] for name in "ab")
    chance = 1 / (1 + np.exp(-logit))
    return {name: (chance * (1 - chance))[:, None] * table_rows[name] * weights[name] for name in "ab"}
