"""The example in C# is compiled and gives Python's numbers, where there is a compiler."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import onnxplain as ox
from tests.examples.explainer.programs import copied, run

DOTNET = shutil.which("dotnet")


@pytest.mark.skipif(DOTNET is None, reason="dotnet is not installed: the example in C# is untested")
def test_the_map_and_the_class_are_those_of_the_api(made, tmp_path):
    folder = copied("csharp", tmp_path)
    files = (made.folder / "full.onnx", made.folder / "x.npy")
    told = run(str(DOTNET), "run", "--", *files, "--target", "3", "--out", "out", folder=folder)
    full = ox.full_grad(made.model, made.x, 3)
    assert told.count(": class 3, output ") == 3
    np.testing.assert_allclose(np.load(folder / "out" / "map.npy"), full.map, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        np.load(folder / "out" / "complete_map.npy"), full.complete_map, rtol=1e-3, atol=1e-6
    )
