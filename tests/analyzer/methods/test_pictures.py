"""Pictures of results: every image input has its own, maps are drawn where they are, and sums are told."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from analyzer.methods import Contribution, FullGrad
from analyzer.methods.completeness import Completeness
from analyzer.methods.pictures import complete_sum, layer_chart, result_bars, sample_pictures


@pytest.fixture
def result():
    """Two images of different size as inputs, one sample; the complete maps sum to 3 and −1, the head adds 2."""
    shapes = {"left": (1, 3, 32, 32), "right": (1, 3, 48, 48)}
    sums = {"left": 3.0, "right": -1.0}
    flat = {
        name: np.full((1, *shape[2:]), sums[name] / shape[2] / shape[3]) for name, shape in shapes.items()
    }
    # A spot, so that the map has a range.
    for found in flat.values():
        found[0, 0, 0] += 0.5
        found[0, 0, 1] -= 0.5
    return FullGrad(
        method="full-grad",
        terms="all",
        attributions={name: np.ones(shape) for name, shape in shapes.items()},
        maps={name: np.abs(found) for name, found in flat.items()},
        complete_map=flat,
        output=np.array([4.0]),
        completeness=Completeness(*(np.array([value]) for value in (4.0, 4.0, 0.0, 0.0))),
        signed=False,
        wrt=("left", "right"),
        seconds=0.0,
        bias_terms={},
        unplaced=("logits",),
        unplaced_total=np.array([2.0]),
        input_totals={"left": np.array([1.5]), "right": np.array([-0.5])},
        contributions=(Contribution("logits", "n", "Gemm", "explicit", "head", np.array([3.0])),),
    )


def test_every_image_input_has_its_own_pictures(result):
    inputs = {name: np.zeros(array.shape, np.float32) for name, array in result.attributions.items()}
    (found,) = sample_pictures([result], inputs, None)
    keys = ("photograph", "input-term", "full-grad", "full-grad-complete")
    assert list(found) == [f"{name}-{key}" for name in ("left", "right") for key in keys]
    for name, side in (("left", 192), ("right", 192)):
        with Image.open(io.BytesIO(found[f"{name}-full-grad-complete"].png)) as picture:
            assert picture.size == (side, side)
        assert found[f"{name}-full-grad"].caption.endswith(f", {name}")


def test_one_input_with_pictures_needs_no_name(result):
    inputs = {"left": np.zeros((1, 3, 32, 32), np.float32), "right": np.zeros((1,), np.int64)}
    (found,) = sample_pictures([result], inputs, None)
    assert list(found) == ["photograph", "input-term", "full-grad", "full-grad-complete"]
    assert found["full-grad"].caption == "FullGrad"


@pytest.mark.parametrize(
    ("shape", "spatial"), [((1, 7), (7,)), ((1, 2, 40), (40,)), ((1, 1, 6, 8, 8), (6, 8, 8))]
)
def test_tables_signals_and_volumes_have_their_maps(result, shape, spatial):
    plane = np.random.default_rng(0).standard_normal((1, *spatial))
    maps = {"x": np.abs(plane)}
    changed = replace(result, maps=maps, complete_map={"x": plane}, attributions={"x": np.ones(shape)})
    (found,) = sample_pictures([changed], {"x": np.zeros(shape, np.float32)}, None)
    assert list(found) == ["full-grad", "full-grad-complete"]
    for picture in found.values():
        with Image.open(io.BytesIO(picture.png)) as drawn:
            assert min(drawn.size) > 100


def test_the_sum_of_each_map_and_what_has_no_place_are_told(result):
    assert complete_sum(result, 0) == (
        "the maps sum to 3 and −1; 2 more belongs to no place in the image: it comes from logits"
    )


def test_bars_are_the_inputs_and_the_layers(result):
    assert [(bar.label, bar.value, bar.kind) for bar in result_bars(result, 0)] == [
        ("left × gradient", 1.5, "input"),
        ("right × gradient", -0.5, "input"),
        ("head", 3.0, "explicit"),
    ]
    with Image.open(io.BytesIO(layer_chart(result, 0, "pair"))) as picture:
        assert picture.format == "PNG" and picture.size[0] > 600
