"""Raw pixels given to a model that stores a normalisation are refused, other ranges are remarked on."""

from __future__ import annotations

import warnings

import numpy as np
import onnx
import pytest
from onnx import helper
from PIL import Image

import onnxplain as ox
from analyzer.cli import main
from analyzer.errors import InputError, InputWarning
from tests.converters.helpers import make_model, normal
from tests.refusals.setting import CONV

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def model(mean=IMAGENET[0], std=IMAGENET[1]) -> ox.Model:
    return ox.convert(CONV, preprocessing=ox.Preprocessing((8, 8), mean, std))


def before_convolution(op: str) -> onnx.ModelProto:
    """A convolution of an image that is scaled, shifted or transposed before it."""
    nodes = [
        helper.make_node(op, ["x"], ["z"], perm=[0, 3, 1, 2])
        if op == "Transpose"
        else helper.make_node(op, ["x", "s"], ["z"]),
        helper.make_node("Conv", ["z", "w"], ["c"]),
        helper.make_node("Flatten", ["c"], ["y"]),
    ]
    shape = ("n", 8, 8, 3) if op == "Transpose" else ("n", 3, 8, 8)
    return make_model(nodes, {"x": shape}, ["y"], {"s": np.float32([0.01]), "w": normal(2, 3, 3, 3)})


NORMALISED, IN_BYTES, UNIT = model(), model((0.0,), (1 / 255,)), model((0.0,), (1.0,))
PIXELS = np.random.default_rng(0).integers(0, 256, (2, 3, 8, 8))
CALLS = {
    "a method": lambda one, x: ox.full_grad(one, x, 1),
    "forward": lambda one, x: ox.differentiate(one).forward(x),
    "check": lambda one, x: ox.check(one, x, 1, backends=["onnxruntime", "torch"]),
    "compare": lambda one, x: ox.compare(one, CONV, x, 1),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("kind", ["uint8", "int64", "float32"])
def test_pixels_of_8_bits_are_refused_where_a_normalisation_is_stored(call, kind):
    with pytest.raises(InputError, match=r"from 0 to 255, as pixels of 8 bits.*Fix: .*load_images"):
        call(NORMALISED, PIXELS.astype(kind))


@pytest.mark.parametrize(
    ("one", "x", "said"),
    [
        (NORMALISED, PIXELS * 0.99, InputError),
        (NORMALISED, PIXELS // 8, InputError),
        (UNIT, PIXELS, InputError),
        (NORMALISED, PIXELS - 120.0, InputWarning),
        (NORMALISED, PIXELS / 255, InputWarning),
        (IN_BYTES, PIXELS / 255, InputWarning),
        (NORMALISED, (PIXELS / 255 - 0.45) / 0.225, None),
        (NORMALISED, np.random.default_rng(0).standard_normal((2, 3, 8, 8)), None),
        (UNIT, np.random.default_rng(0).standard_normal((2, 3, 8, 8)), None),
        (NORMALISED, np.zeros((2, 3, 8, 8)), None),
        (UNIT, PIXELS / 255, None),
        (IN_BYTES, PIXELS, None),
        (CONV, PIXELS, InputWarning),
        (CONV, PIXELS // 16, None),
        (CONV, PIXELS / 255, None),
        (CONV, PIXELS - 0.5, None),
        (before_convolution("Transpose"), PIXELS.transpose(0, 2, 3, 1), InputWarning),
        (before_convolution("Mul"), PIXELS, None),
        (before_convolution("Sub"), PIXELS, None),
    ],
)
def test_a_range_that_normalisation_does_not_give_is_said(one, x, said):
    with warnings.catch_warnings():
        warnings.simplefilter("error", InputWarning)
        if said is None:
            ox.differentiate(one).forward(x)
            return
        with pytest.raises(said, match=r"from .* to .*load_images"):
            ox.differentiate(one).forward(x)


def test_pictures_of_pillow_are_read_by_the_preprocessing():
    pictures = [Image.fromarray(one.transpose(1, 2, 0).astype(np.uint8)) for one in PIXELS]
    truth = ox.full_grad(NORMALISED, ox.load_images(pictures, NORMALISED), 1).map
    np.testing.assert_allclose(ox.full_grad(NORMALISED, pictures, 1).map, truth)
    np.testing.assert_allclose(ox.full_grad(NORMALISED, {"x": pictures[0]}, 1).map("x"), truth[:1], rtol=1e-5)
    assert ox.check(NORMALISED, pictures, 1, backends=["onnxruntime", "torch"]).passed
    with pytest.raises(InputError, match="stores no preprocessing"):
        ox.full_grad(CONV, pictures[0], 1)


@pytest.mark.parametrize(
    "command", ["analyze {0} {1}", "check {0} {1} --backends onnxruntime,torch", "compare {0} {0} {1}"]
)
def test_commands_refuse_raw_pixels_and_take_folders_and_patterns(command, tmp_path, capsys):
    NORMALISED.save(tmp_path / "net.onnx")
    (tmp_path / "photos").mkdir()
    for index, one in enumerate(PIXELS):
        Image.fromarray(one.transpose(1, 2, 0).astype(np.uint8)).save(tmp_path / "photos" / f"p{index}.png")
    np.save(tmp_path / "raw.npy", PIXELS)

    def run(inputs) -> int:
        return main(
            [
                str(tmp_path / part) if part == "net.onnx" else part
                for part in command.format("net.onnx", inputs).split()
            ]
        )

    assert run(tmp_path / "raw.npy") == 2
    assert "as pixels of 8 bits" in capsys.readouterr().err
    assert run(tmp_path / "photos") == 0
    assert run(tmp_path / "photos" / "*.png") == 0
