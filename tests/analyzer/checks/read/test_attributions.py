"""The attributions that a check keeps for its page: those of the samples at which two sides are furthest apart."""

from __future__ import annotations

import numpy as np
import torch

from analyzer import check
from analyzer.checks.explain.kinks import Side
from analyzer.checks.read import attributions as kept
from analyzer.checks.read.attributions import worst_attributions
from analyzer.checks.read.reading import Reading
from analyzer.methods.completeness import Completeness
from converters import convert


def reading(maps):
    values = {"x": np.zeros((len(maps), 2), np.float32)}
    nothing = np.zeros(len(maps))
    return Reading(Side(values, {}), (), {}, {"map": maps}, Completeness(*[nothing] * 4), 0.0)


def test_the_kept_samples_are_the_furthest_apart_in_maps_or_path():
    maps = np.ones((5, 2))
    other = maps.copy()
    other[1] *= 1.1
    path = [{"x": np.ones((5, 2))}, {"x": np.ones((5, 2)) * np.array([[1], [1], [1], [3], [1]])}]
    found = worst_attributions(["a", "b"], [reading(maps), reading(other)], path, ["x"])
    assert found.samples[:2] == (3, 1) and len(found.samples) == kept.MOST_SAMPLES
    np.testing.assert_array_equal(found.maps["b"]["x"][1], [1.1, 1.1])
    np.testing.assert_array_equal(found.integrated["b"]["x"][0], [3, 3])
    other[4] = np.nan
    assert worst_attributions(["a", "b"], [reading(maps), reading(other)], [], ["x"]).samples[0] == 4


def test_a_check_keeps_the_samples_that_differ_most(monkeypatch):
    images = np.random.default_rng(0).uniform(size=(5, 1, 6, 4)).astype(np.float32)
    images[:, 0, 0, 0] = [0, 0, 0, 5, 0]
    model = convert(
        torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(24, 3)).eval(), torch.tensor(images[:1])
    )
    # The changed weight is that of the first pixel, where one sample alone has anything.
    with torch.no_grad():
        model.source.program.state_dict["1.weight"][:, 0] *= 1.5
    found = check(model, images, target=0, backends=["torch", "source"], referee=False)
    assert not found.passed
    one = found.attributions
    assert one.samples[0] == 3 and len(one.samples) == kept.MOST_SAMPLES
    np.testing.assert_array_equal(*one.inputs.values(), images[list(one.samples)])
    assert one.maps.keys() == one.integrated.keys() == {"torch", "source"}
    assert "attributions" not in found.to_json()
    monkeypatch.setattr(kept, "MOST_BYTES", 10)
    assert check(model, images, target=0, backends=["torch", "source"], referee=False).attributions is None
