"""`load_images` feeds what Pillow and NumPy give by the model's own preprocessing, in the order of the files."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from PIL import Image

import onnxplain as ox
from analyzer.errors import InputError, Note, ShapeError
from tests.refusals.setting import CONV, KERNEL, model_of

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
BYTES = model_of(
    "g (uint8[N,3,8,8] x) => (float[N,3] y) { f = Cast<to=1>(x) p = GlobalAveragePool(f) y = Flatten(p) }"
)
LAST = model_of(
    "g (float[N,8,8,3] x) => (float[N,2] y) "
    "{ t = Transpose<perm=[0,3,1,2]>(x) c = Conv(t, k) p = GlobalAveragePool(c) y = Flatten(p) }",
    k=KERNEL,
)


def stored(proto=CONV, **fields) -> ox.Model:
    """The model with a preprocessing of 8 x 8 pixels."""
    how = {"size": (8, 8), "mean": MEAN, "std": STD, **fields}
    return ox.convert(proto, preprocessing=ox.Preprocessing(**how))


MODEL = stored()


@pytest.fixture
def photos(tmp_path):
    """A folder with img1, img2 and img10 of 8 x 8 pixels, and files that are not images."""
    rng = np.random.default_rng(0)
    for name in ("img10.png", "img2.PNG", "img1.png"):
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).save(tmp_path / name)
    for name in ("notes.txt", "Thumbs.db", ".hidden.png"):
        (tmp_path / name).write_text("x")
    return tmp_path


def normalised(pixels: np.ndarray) -> np.ndarray:
    """The formula: (pixels / 255 - mean) / std, the channels first."""
    return ((pixels / 255 - MEAN) / STD).transpose(2, 0, 1).astype(np.float32)


def test_every_way_to_name_images_gives_the_same_batch(photos):
    files = [photos / name for name in ("img1.png", "img2.PNG", "img10.png")]
    pixels = [np.asarray(Image.open(file)) for file in files]
    truth = np.stack([normalised(one) for one in pixels])
    ways = [
        files,
        [str(file) for file in files],
        [files[0], pixels[1], Image.open(files[2])],
        [str(photos / "img[12].*"), photos / "img10.png"],
        np.stack(pixels),
        np.stack(pixels).transpose(0, 3, 1, 2),
        [one / np.float64(255) for one in pixels],
        (file for file in files),
    ]
    for way in ways:
        found = ox.load_images(way, MODEL)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, truth, atol=1e-5)
    with pytest.warns(Note, match=r"took the images, and skipped notes\.txt$"):
        np.testing.assert_allclose(ox.load_images(photos, ox.differentiate(MODEL)), truth, atol=1e-5)
    with pytest.warns(Note):
        assert ox.image_files(photos) == files
    np.testing.assert_allclose(ox.load_images(files[0], MODEL), truth[:1], atol=1e-5)
    np.testing.assert_allclose(ox.full_grad(MODEL, ox.load_images(files, MODEL), 1).map.shape, (3, 8, 8))


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(photos):
    (photos / "img1.png").rename(photos / "img[2].png")
    assert ox.image_files(photos / "img[2].png") == [photos / "img[2].png"]


def test_layout_channels_type_and_size_are_those_of_the_model(photos):
    file = photos / "img1.png"
    pixels = np.asarray(Image.open(file))
    last = ox.load_images(file, stored(LAST, layout="NHWC"))
    np.testing.assert_allclose(last[0], (pixels / 255 - MEAN) / STD, rtol=1e-4, atol=1e-5)
    whole = ox.load_images(file, stored(BYTES, mean=(0.0,), std=(1 / 255,)))
    assert whole.dtype == np.uint8
    np.testing.assert_array_equal(whole[0], pixels.transpose(2, 0, 1))
    with pytest.raises(InputError, match=r"--std 1/255"):
        ox.load_images(file, stored(BYTES, mean=(0.0,), std=(1.0,)))
    with pytest.raises(ShapeError, match=r"gives images \(3, 4, 4\)"):
        ox.load_images(file, stored(size=(4, 4)))
    np.testing.assert_array_equal(
        ox.load_images(file, preprocessing=ox.Preprocessing((4, 6))).shape, (1, 3, 4, 6)
    )


@pytest.mark.parametrize("resampling", ["nearest", "bilinear", "lanczos"])
def test_stretching_is_pillows_resize_to_both_sides(resampling):
    rng = np.random.default_rng(1)
    picture = Image.fromarray(rng.integers(0, 256, (30, 50, 3), np.uint8))
    how = ox.Preprocessing((8, 8), fit="stretch", interpolation=resampling)
    truth = np.asarray(picture.resize((8, 8), Image.Resampling[resampling.upper()])) / 255
    np.testing.assert_allclose(
        ox.load_images(picture, preprocessing=how)[0], truth.transpose(2, 0, 1), atol=1e-6
    )
    cropped = ox.load_images(picture, preprocessing=ox.Preprocessing((8, 8), fit="stretch", resize=12))
    truth = np.asarray(picture.resize((12, 12), Image.Resampling.BICUBIC))[2:10, 2:10] / 255
    np.testing.assert_allclose(cropped[0], truth.transpose(2, 0, 1), atol=1e-6)


def test_padding_keeps_the_whole_image_on_grey():
    picture = np.full((20, 39, 3), 255, np.uint8)
    sample = ox.load_images(picture, preprocessing=ox.Preprocessing((16, 16), fit="pad"))[0]
    # 20 x 39 at the scale 16 / 39 is 8 x 16: 4 rows of grey above and below.
    np.testing.assert_allclose(sample[:, 4:12], 1)
    np.testing.assert_allclose(sample[:, [0, 3, 12, 15]], 114 / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("images", "model", "words"),
    [
        ("nowhere.png", MODEL, "nowhere.png: no such file"),
        ("nothing/*.png", MODEL, "it matches no file"),
        ([], MODEL, "at least one image"),
        (None, MODEL, "got NoneType"),
        (3, MODEL, "got int"),
        ({"x": 1}, MODEL, "got dict"),
        (np.zeros((8, 8, 7), np.uint8), MODEL, r"an array \(8, 8, 7\)"),
        (np.full((8, 8, 3), 200.0), MODEL, "from 200 to 200"),
        (np.full((8, 8, 3), 200), MODEL, r"astype\('uint8'\)"),
        (np.zeros((8, 8, 3), np.uint8), CONV, "stores no preprocessing"),
        (np.zeros((8, 8, 3), np.uint8), None, "got None"),
        (np.zeros((8, 8, 3), np.uint8), lambda x: x, "onnxplain.convert"),
        (np.zeros((8, 8, 3), np.uint8), 3, "got int"),
    ],
)
def test_what_is_no_image_or_no_model_is_refused_with_a_fix(images, model, words):
    with pytest.raises(InputError, match=words) as caught:
        ox.load_images(images, model)
    assert "Fix: " in str(caught.value) and "\n" not in str(caught.value)


def test_folders_without_images_say_what_they_hold(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"found only folders, empty\. Fix: .*\*\*"):
        ox.load_images(tmp_path, MODEL)
    with pytest.raises(InputError, match="the folder is empty"):
        ox.load_images(tmp_path / "empty", MODEL)
    (tmp_path / "cat.png").write_text("not an image")
    (tmp_path / "empty" / "cat.heic").write_text("x")
    with pytest.raises(InputError, match=r"cat\.png: not a readable image"):
        ox.load_images(tmp_path, MODEL)
    with pytest.raises(InputError, match=r"found cat\.heic"):
        ox.load_images(tmp_path / "empty", MODEL)


def test_nothing_is_said_of_a_folder_of_images_alone(photos):
    (photos / "notes.txt").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(ox.image_files(photos)) == 3
