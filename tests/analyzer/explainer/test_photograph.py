"""Preprocessing and drawing inside the file, against the loader of images, Pillow, NumPy and the figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from analyzer import full_grad, load_images
from analyzer.autodiff.request import full_program
from analyzer.backends import differentiate
from analyzer.errors import ExportError
from analyzer.explainer.photograph import with_preprocessing
from analyzer.figures.heat import LUMA, PIXELS, heat_map, scale_of, smoothed
from analyzer.figures.heat import overlay as laid_over
from analyzer.methods.full_gradient.decomposition import Settings, plan
from analyzer.methods.full_gradient.maps import PUBLISHED
from converters import convert
from converters.metadata import INTERPOLATIONS
from converters.model import Preprocessing

SIZES = ((1, 1), (1, 40), (30, 1), (7, 9), (24, 36), (33, 70), (90, 61), (49, 161), (240, 320))
"""Heights and widths of photographs: tiny, odd, portrait, landscape, smaller and larger than the input."""
CASES = [
    (interpolation, *rest)
    for interpolation in INTERPOLATIONS
    for rest in (
        ("crop", "nearest", None, (24, 36), "NCHW"),
        ("crop", "down", 29, (25, 23), "NHWC"),
        ("crop", "torchvision", 31, (24, 24), "NCHW"),
        ("stretch", "torchvision", 33, (30, 24), "NHWC"),
        ("pad", "nearest", None, (26, 33), "NCHW"),
    )
]
STATISTICS: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


def photographs(height: int, width: int, samples: int = 1, seed: int = 0) -> np.ndarray:
    """Noise: every pixel of a filter's reach counts."""
    return np.random.default_rng(seed).integers(0, 256, (samples, height, width, 3), np.uint8)


def explainer(
    preprocessing: Preprocessing,
    opset: int = 21,
    dtype: int = TensorProto.FLOAT,
    name: str = "x",
    channels: int = 3,
) -> onnx.ModelProto:
    """A file that returns its input as `seen`, and the sum over channels as `map` and `complete_map`."""
    height, width = preprocessing.size
    first = preprocessing.layout == "NCHW"
    shape = ["batch", channels, height, width] if first else ["batch", height, width, channels]
    axes = numpy_helper.from_array(np.asarray([1 if first else 3]), "axes")
    nodes = [
        helper.make_node("Identity", [name], ["seen"]),
        helper.make_node("ReduceSum", [name, "axes"], ["map"], keepdims=0),
        helper.make_node("Neg", ["map"], ["complete_map"]),
    ]
    maps = [
        helper.make_tensor_value_info(one, dtype, ["batch", height, width]) for one in ("map", "complete_map")
    ]
    outputs = [helper.make_tensor_value_info("seen", dtype, shape), *maps]
    inputs = [helper.make_tensor_value_info(name, dtype, shape)]
    graph = helper.make_graph(nodes, "explainer", inputs, outputs, [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(proto: onnx.ModelProto, **feeds: np.ndarray) -> Mapping[str, np.ndarray]:
    return running(proto)(**feeds)


def running(proto: onnx.ModelProto) -> Any:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_outputs()]
    return lambda **feeds: dict(zip(names, session.run(None, feeds), strict=True))


@pytest.mark.parametrize("interpolation, fit, rounding, resize, size, layout", CASES)
def test_the_network_reads_what_load_images_gives(
    interpolation: str, fit: str, rounding: str, resize: int | None, size: tuple[int, int], layout: str
) -> None:
    settings = {"resize": resize, "fit": fit, "interpolation": interpolation, "rounding": rounding}
    preprocessing = Preprocessing(size, layout=layout, **STATISTICS, **settings)
    file = with_preprocessing(explainer(preprocessing), preprocessing, input_name="x", maps={"map": True})
    found = running(file)
    for height, width in SIZES:
        images = photographs(height, width, 2)
        expected = load_images(images, preprocessing=preprocessing)
        np.testing.assert_array_equal(found(image=images)["seen"], expected, f"{height} x {width}")
        assert found(image=images)["map"].shape == (2, height, width)


@pytest.mark.parametrize("interpolation", ["box", "bilinear", "hamming", "bicubic", "lanczos"])
@pytest.mark.parametrize("height, width", [(20, 600), (600, 20), (400, 64), (1000, 1000)])
def test_bytes_are_those_of_pillow(interpolation: str, height: int, width: int) -> None:
    preprocessing = Preprocessing((40, 50), layout="NHWC", fit="stretch", interpolation=interpolation)
    file = with_preprocessing(explainer(preprocessing), preprocessing, input_name="x", maps={})
    image = photographs(height, width)
    found = np.round(run(file, image=image)["seen"][0] * 255)
    expected = Image.fromarray(image[0]).resize((50, 40), Image.Resampling[interpolation.upper()])
    np.testing.assert_array_equal(found, np.asarray(expected))


def test_other_types_opsets_and_channels_of_the_input() -> None:
    image = photographs(50, 41, 2)
    for dtype, opset, name, channels in (
        (TensorProto.FLOAT16, 17, "image", 3),
        (TensorProto.DOUBLE, 21, "overlay", 3),
        (TensorProto.FLOAT, 18, "photograph/x", 1),
    ):
        preprocessing = Preprocessing((24, 20), (0.5,), (0.25,))
        plain = explainer(preprocessing, opset, dtype, name, channels)
        if channels == 1:
            # The sizes of the map are not stated.
            for axis in plain.graph.output[1].type.tensor_type.shape.dim:
                axis.Clear()
        file = with_preprocessing(plain, preprocessing, input_name=name, maps={"map": True}, overlay="map")
        onnx.checker.check_model(file, full_check=True)
        onnx.shape_inference.infer_shapes(file, check_type=True, strict_mode=True, data_prop=True)
        assert [one.name for one in file.graph.input] == ["image"]
        expected = load_images(image, preprocessing=preprocessing)
        if channels == 1:
            grey = np.tensordot(expected * 0.25 + 0.5, np.asarray(LUMA, np.float32), (1, 0))
            expected = (grey[:, None] - 0.5) / 0.25
        found = run(file, image=image)
        seen = found["seen"]
        assert seen.dtype == helper.tensor_dtype_to_np_dtype(dtype)
        np.testing.assert_allclose(seen, expected.astype(seen.dtype), atol=1e-6 if channels == 1 else 0)
        assert found["map"].dtype == seen.dtype and found["overlay"].shape == (2, 50, 41, 4)


def along(length: int, resized: int, size: int, start: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the pixels of a photograph lie among the elements of an input, and whether they lie within it."""
    places = (np.arange(length) + 0.5) * resized / length - start
    return places - 0.5, (places >= 0) & (places <= size)


@pytest.mark.parametrize(
    "fit, height, width, resized, start",
    [
        ("crop", 90, 120, (24, 32), (0, 4)),
        ("crop", 130, 65, (48, 24), (12, 0)),
        ("pad", 60, 120, (12, 24), (-6, 0)),
        ("stretch", 77, 54, (24, 24), (0, 0)),
    ],
)
def test_a_map_lies_where_the_network_saw_the_photograph(
    fit: str, height: int, width: int, resized: tuple[int, int], start: tuple[int, int]
) -> None:
    preprocessing = Preprocessing((24, 24), fit=fit)
    file = with_preprocessing(
        explainer(preprocessing), preprocessing, input_name="x", maps={"map": False, "complete_map": True}
    )
    image = photographs(height, width)
    plane = load_images(image, preprocessing=preprocessing)[0].sum(axis=0)
    (rows, high), (columns, wide) = (
        along(length, whole, 24, first)
        for length, whole, first in zip((height, width), resized, start, strict=True)
    )
    tall = np.stack([np.interp(rows, np.arange(24), column) for column in plane.T], axis=1)
    expected = np.stack([np.interp(columns, np.arange(24), row) for row in tall])
    expected *= high[:, None] & wide
    found = run(file, image=image)
    np.testing.assert_allclose(found["map"][0], expected, atol=1e-5)
    np.testing.assert_allclose(found["complete_map"][0], -expected, atol=1e-5)


def test_a_map_of_a_small_photograph_is_shrunk_as_by_pillow() -> None:
    preprocessing = Preprocessing((60, 50), fit="stretch")
    file = with_preprocessing(explainer(preprocessing), preprocessing, input_name="x", maps={"map": True})
    for height, width in ((13, 17), (1, 1), (3, 90)):
        image = photographs(height, width)
        plane = load_images(image, preprocessing=preprocessing)[0].sum(axis=0)
        expected = Image.fromarray(plane).resize((width, height), Image.Resampling.BILINEAR)
        np.testing.assert_allclose(run(file, image=image)["map"][0], np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
def test_the_overlay_over_the_ground_of_the_figures_is_their_picture(signed: bool) -> None:
    preprocessing = Preprocessing((48, 40), (0.5,) * 3, (0.25,) * 3, fit="stretch", interpolation="bilinear")
    file = with_preprocessing(
        explainer(preprocessing), preprocessing, input_name="x", maps={"map": signed}, overlay="map"
    )
    images = photographs(96, 100, 2)
    planes = load_images(images, preprocessing=preprocessing).sum(axis=1)
    found = run(file, image=images)["overlay"]
    for image, plane, picture in zip(images / 255, planes, found, strict=True):
        shown = smoothed(plane, PIXELS) if signed else plane
        grey = image @ np.asarray(LUMA)
        ground = (0.42 + 0.54 * grey)[..., None] if signed else 0.85 * (0.6 * image + 0.4 * grey[..., None])
        opacity = picture[..., 3:] / 255
        laid = (1 - opacity) * ground + opacity * picture[..., :3] / 255
        expected = laid_over(image, shown, signed=signed) / 255
        np.testing.assert_allclose(laid, expected, atol=2.5 / 255)
        assert scale_of(shown, signed=signed).high > 0


def test_the_overlay_is_transparent_beyond_the_crop_and_where_the_map_is_zero() -> None:
    preprocessing = Preprocessing((32, 32))
    file = with_preprocessing(
        explainer(preprocessing), preprocessing, input_name="x", maps={"map": False}, overlay="map"
    )
    image = photographs(64, 128)
    image[:, :, 64:] = 0
    opacity = run(file, image=image)["overlay"][0, ..., 3]
    assert not opacity[:, :32].any() and not opacity[:, 96:].any()
    assert opacity[:, 32:62].all() and not opacity[:, 68:].any()
    assert not run(file, image=np.zeros_like(image))["overlay"][..., 3].any()


def test_a_map_that_is_not_finite_is_drawn_with_zeros() -> None:
    preprocessing = Preprocessing((16, 16), fit="stretch", std=(1e-6,) * 3)
    plain = explainer(preprocessing)
    plain.graph.node[1].output[0] = "sum"
    plain.graph.node.insert(2, helper.make_node("Reciprocal", ["sum"], ["map"]))
    file = with_preprocessing(plain, preprocessing, input_name="x", maps={"map": False}, overlay="map")
    image = photographs(16, 16)
    image[0, 3, 5] = 0
    picture = run(file, image=image)["overlay"][0]
    with np.errstate(divide="ignore"):
        plane = 1 / load_images(image, preprocessing=preprocessing)[0].sum(axis=0)
    assert np.isinf(plane[3, 5]) and picture[3, 5, 3] == 0
    colours = heat_map(np.where(np.isinf(plane), 0, plane)).astype(int)
    assert np.abs(picture[..., :3] - colours).max() <= 4


def test_names_that_the_model_has_get_an_underscore() -> None:
    preprocessing = Preprocessing((16, 16))
    plain = explainer(preprocessing)
    plain.graph.node[0].output[0] = plain.graph.output[0].name = "overlay"
    plain.graph.input.append(helper.make_tensor_value_info("image", TensorProto.FLOAT, ["height"]))
    plain.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, ["height"]))
    plain.graph.node.append(helper.make_node("Identity", ["image"], ["same"]))
    file = with_preprocessing(plain, preprocessing, input_name="x", maps={"map": True}, overlay="map")
    onnx.checker.check_model(file, full_check=True)
    assert [one.name for one in file.graph.input] == ["_image", "image"]
    found = run(file, _image=photographs(20, 30), image=np.ones(3, np.float32))
    assert found["_overlay"].shape == (1, 20, 30, 4) and found["overlay"].shape == (1, 3, 16, 16)
    assert all(info.doc_string for info in file.graph.output if info.name in ("map", "_overlay"))


def test_full_grad_of_a_photograph_is_that_of_the_loaded_image() -> None:
    torch.manual_seed(0)
    layers = torch.nn
    network = layers.Sequential(
        layers.Conv2d(3, 6, 3, padding=1),
        layers.ReLU(),
        layers.Conv2d(6, 8, 3, stride=2),
        layers.SiLU(),
        layers.AdaptiveAvgPool2d(1),
        layers.Flatten(),
        layers.Linear(8, 5),
    ).eval()
    preprocessing = Preprocessing((32, 32), resize=36, **STATISTICS)
    model = convert(network, torch.zeros(2, 3, 32, 32), preprocessing=preprocessing)
    images = photographs(75, 98, 2)
    inputs = load_images(images, model)
    fn = differentiate(model)
    expected = full_grad(fn, inputs, target=3)
    (name,) = fn.graph.inputs
    bound = fn.bind(inputs, 3)
    settings = Settings((bound.seed.output,), (name,), explicit=False, psi=PUBLISHED)
    program = full_program(fn.graph, plan(bound, settings).request, bound.seed.output, weights=False)
    plain = program.returning([program.outputs[f"map/{name}"]])
    plain.graph.output[0].CopyFrom(
        helper.make_tensor_value_info(plain.graph.output[0].name, TensorProto.FLOAT, ["batch", 32, 32])
    )
    map_name = plain.graph.output[0].name
    file = with_preprocessing(plain, preprocessing, input_name=name, maps={map_name: False})
    found = run(file, image=images, target=np.asarray([3, 3]))
    scale = np.abs(expected.map).max()
    (rows, high), (columns, wide) = (along(75, 36, 32, 2), along(98, 47, 32, 7))
    for plane, large in zip(expected.map, found[map_name], strict=True):
        tall = np.stack([np.interp(rows, np.arange(32), one) for one in plane.T], axis=1)
        whole = np.stack([np.interp(columns, np.arange(32), one) for one in tall])
        np.testing.assert_allclose(large, whole * (high[:, None] & wide), atol=1e-5 * scale)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"size": (20, 20)}, "has the shape"),
        ({"layout": "NHWC"}, "has the shape"),
        ({"interpolation": "cubic"}, "interpolation"),
        ({"mean": (0.1, 0.2)}, "mean"),
        ({"mean": (0.1, 0.2, 0.3, 0.4)}, "4 values"),
    ],
)
def test_preprocessing_that_does_not_fit_is_refused(change: dict[str, Any], message: str) -> None:
    file = explainer(Preprocessing((24, 24)))
    with pytest.raises(ExportError, match=message):
        with_preprocessing(
            file, Preprocessing(**{"size": (24, 24), **change}), input_name="x", maps={"map": True}
        )


def test_wrong_names_and_types_are_refused() -> None:
    preprocessing = Preprocessing((24, 24))
    file = explainer(preprocessing)
    for arguments, message in (
        ({"input_name": "y", "maps": {}}, "no input 'y'"),
        ({"input_name": "x", "maps": {"seen": True}}, "'seen' of shape"),
        ({"input_name": "x", "maps": {"map": True}, "overlay": "seen"}, "one of the maps map"),
    ):
        with pytest.raises(ExportError, match=message):
            with_preprocessing(file, preprocessing, **arguments)
    with pytest.raises(ExportError, match="UINT8"):
        with_preprocessing(
            explainer(preprocessing, dtype=TensorProto.UINT8), preprocessing, input_name="x", maps={}
        )
