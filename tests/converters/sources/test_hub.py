"""Folders of Hugging Face: the model, its class names and its preprocessing, against the formulas of their fields."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import onnx
import pytest
from PIL import Image

import onnxplain as ox
from analyzer.cli import main
from analyzer.errors import InputError, Note
from converters import ConversionError, InvalidModel
from converters.sources.hub import open_folder
from converters.sources.hub.tokens import tokens_of
from tests.refusals.setting import CONV, IDS, TOKENS, W, X, model_of

FREE = model_of(
    "g (float[N,3,H,W] pixel_values) => (float[N,3] logits) { p = GlobalAveragePool(pixel_values) logits = Flatten(p) }"
)
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]
CONFIG = {"model_type": "resnet", "id2label": {"1": "dog", "0": "tabby cat", "2": "owl"}}
VIT = {
    "image_processor_type": "ViTImageProcessor", "size": {"height": 20, "width": 24}, "resample": 2,
    "image_mean": MEAN, "image_std": STD, "do_normalize": True, "do_rescale": True, "rescale_factor": 1 / 255,
    "do_convert_rgb": None,
}  # fmt: skip
CLIP = {**VIT, "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "resample": 3}
CLIP |= {"crop_size": {"height": 16, "width": 12}, "do_center_crop": True}
PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (31, 46, 3), np.uint8))


def folder(path, proto=FREE, config=CONFIG, place="onnx/model.onnx", **files):
    """Write a folder of Hugging Face."""
    path.mkdir(exist_ok=True)
    (path / place).parent.mkdir(exist_ok=True)
    onnx.save(proto, path / place)
    for name, content in {"config": config, **files}.items():
        if content is not None:
            (path / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def resized(size: tuple[int, int], resample: int) -> np.ndarray:
    """The picture at (height, width), pixels from 0 to 255."""
    return np.asarray(PICTURE.resize(size[::-1], resample), np.float64)


def batch(pixels: np.ndarray, mean=MEAN, std=STD) -> np.ndarray:
    return ((pixels - mean) / std).transpose(2, 0, 1)[None]


# Fields, and the input that they state.
PROCESSORS = {
    "both sides": (VIT, batch(resized((20, 24), 2) / 255)),
    "a number": ({**VIT, "size": 20}, batch(resized((20, 20), 2) / 255)),
    "a shorter side, cropped": (CLIP, batch(resized((20, 29), 3)[2:18, 8:20] / 255)),
    "numbers, cropped": (
        {**CLIP, "size": 20, "crop_size": 16},
        batch(resized((20, 29), 3)[2:18, 6:22] / 255),
    ),
    "both sides, cropped": (
        {**VIT, "size": {"height": 20, "width": 20}, "crop_size": 16, "do_center_crop": True, "resample": 0},
        batch(resized((20, 20), 0)[2:18, 2:18] / 255),
    ),
    "a share": (
        {
            **VIT,
            "image_processor_type": "ConvNextFeatureExtractor",
            "size": {"shortest_edge": 21},
            "crop_pct": 0.875,
        },
        batch(resized((24, 35), 2)[1:22, 7:28] / 255),
    ),
    "no normalisation": ({**VIT, "do_normalize": False}, batch(resized((20, 24), 2) / 255, 0, 1)),
    "mean and std in bytes": ({**VIT, "do_rescale": False}, batch(resized((20, 24), 2))),
    "another factor": ({**VIT, "rescale_factor": 1 / 127.5}, batch(resized((20, 24), 2) / 127.5)),
}


@pytest.mark.parametrize(("fields", "truth"), PROCESSORS.values(), ids=PROCESSORS)
def test_images_are_read_as_the_processor_says(tmp_path, fields, truth):
    model = ox.load(folder(tmp_path / "net", preprocessor_config=fields))
    assert model.class_names == ("tabby cat", "dog", "owl")
    np.testing.assert_allclose(ox.load_images(PICTURE, model), truth, rtol=1e-5, atol=1e-5)


TIMM = {"input_size": [3, 16, 16], "crop_pct": 0.8, "mean": MEAN, "std": STD, "interpolation": "bicubic"}


def test_timm_states_names_and_preprocessing(tmp_path):
    config = {"architecture": "resnet18", "pretrained_cfg": TIMM, "label_names": ["n01", "n02", "n03"]}
    config["label_descriptions"] = {"n01": "cat", "n03": "owl"}
    model = ox.convert(folder(tmp_path / "net", config=config))
    assert model.class_names == ("cat", "n02", "owl")
    # 16 / 0.8 is 20: the longer side is 29, whose odd rest of 13 begins at the even pixel 6.
    truth = batch(resized((20, 29), 3)[2:18, 6:22] / 255)
    np.testing.assert_allclose(ox.load_images(PICTURE, model), truth, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(
        ox.full_grad(model, truth.astype("f"), "owl").output, truth[:, 2].mean(), rtol=1e-4
    )


UNREAD = {
    "a flipped order of channels": ({**VIT, "do_flip_channel_order": True}, "do_flip_channel_order"),
    "an unknown processor": ({**VIT, "image_processor_type": "DetrImageProcessor"}, "DetrImageProcessor"),
    "a longest edge": ({**VIT, "size": {"shortest_edge": 8, "longest_edge": 9}}, "size"),
    "no crop": ({**VIT, "size": {"shortest_edge": 8}}, "keeps the aspect"),
    "a larger crop": ({**CLIP, "crop_size": 99}, "pads"),
    "no resizing": ({**VIT, "do_resize": False}, "resize"),
    "a filter": ({**VIT, "resample": 9}, "resample 9"),
    "no mean": ({**VIT, "image_mean": None}, "image_mean"),
    "a std of zero": ({**VIT, "image_std": [0, 0, 0]}, "std"),
    "a huge size": ({**VIT, "size": 10**9}, "size"),
    "a size of text": ({**VIT, "size": "big"}, "size"),
    "a factor of text": ({**VIT, "rescale_factor": "x"}, "rescale_factor"),
}


@pytest.mark.parametrize(("fields", "words"), UNREAD.values(), ids=UNREAD)
def test_a_preprocessing_that_is_not_followed_is_said_and_images_are_refused(tmp_path, fields, words):
    with pytest.warns(Note, match=words):
        model = ox.load(folder(tmp_path / "net", preprocessor_config=fields))
    assert model.preprocessing is None and model.class_names is not None
    with pytest.raises(InputError, match=rf"{words}.*Fix: "):
        ox.load_images(PICTURE, model)
    how = ox.Preprocessing((8, 8))
    assert ox.load_images(PICTURE, model, preprocessing=how).shape == (1, 3, 8, 8)


def test_a_size_that_the_model_does_not_take_is_said(tmp_path):
    with pytest.warns(Note, match=r"gives images of 20 x 24, the model takes 8 x 8"):
        ox.load(folder(tmp_path / "net", CONV, preprocessor_config=VIT))


def test_what_the_user_states_goes_first(tmp_path):
    path = folder(tmp_path / "net", preprocessor_config=VIT)
    model = ox.convert(path, class_names=["a", "b", "c"], preprocessing=ox.Preprocessing((4, 4)))
    assert model.class_names == ("a", "b", "c") and model.preprocessing.size == (4, 4)


def test_the_file_is_model_onnx_or_the_only_one_or_the_one_named(tmp_path):
    path = folder(tmp_path / "net")
    onnx.save(FREE, path / "onnx" / "model_quantized.onnx")
    assert ox.load(path).class_names
    named = path / "onnx" / "model_quantized.onnx"
    assert ox.load(str(named)).class_names == ox.load(named).class_names == ("tabby cat", "dog", "owl")
    (path / "onnx" / "model.onnx").unlink()
    with pytest.raises(
        InvalidModel, match=r"other precisions, onnx/model_quantized\.onnx\. Fix: give the path"
    ):
        ox.load(path)
    for name in ("encoder.onnx", "decoder.onnx"):
        onnx.save(FREE, path / name)
    with pytest.raises(InvalidModel, match=r"several \.onnx files, decoder\.onnx, encoder\.onnx"):
        ox.load(path)
    for name in ("decoder_model.onnx", "decoder_with_past_model.onnx"):
        onnx.save(FREE, path / name)
    assert open_folder(path).model.name == "decoder_model.onnx"
    onnx.save(FREE, path / "encoder_model.onnx")
    with pytest.raises(InvalidModel, match="several"):
        ox.load(path)
    for name in ("decoder_model.onnx", "decoder_with_past_model.onnx", "encoder_model.onnx"):
        (path / name).unlink()
    (path / "decoder.onnx").unlink()
    assert ox.full_grad(path, np.ones((1, 3, 4, 4), np.float32), "owl").output == 1


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("config", "{", "expected JSON"),
        ("config", "[" * 100_000, "expected JSON"),
        ("config", "[1]", "expected an object, found list"),
        ("preprocessor_config", "nothing", "expected JSON"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path, name, content, words):
    with pytest.raises(InvalidModel, match=rf"{name}\.json: {words}.*Fix: "):
        ox.load(folder(tmp_path / "net", **{name: content}))


@pytest.mark.parametrize(
    "config", [{"id2label": {"0": "a", "5": "b"}}, {"id2label": 3}, {"id2label": {"0": [1]}}, {}]
)
def test_names_that_are_not_one_for_each_class_are_left_out(tmp_path, config):
    assert ox.load(folder(tmp_path / "net", config=config)).class_names is None


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("x")
    for call in (ox.load, ox.convert):
        with pytest.raises(InvalidModel, match=r"holds no \.onnx file\. Fix: export it, optimum-cli"):
            call(tmp_path)


def test_nothing_outside_of_the_folder_is_read(tmp_path):
    secret = folder(tmp_path / "secret", config={"id2label": {"0": "a", "1": "b", "2": "secret"}})
    path = folder(tmp_path / "net", config=None)
    (path / "config.json").symlink_to(secret / "config.json")
    with pytest.raises(InvalidModel, match="points outside"):
        ox.load(path)
    (path / "config.json").unlink()
    (path / "onnx" / "model.onnx").unlink()
    (path / "onnx" / "model.onnx").symlink_to(secret / "onnx" / "model.onnx")
    with pytest.raises(InvalidModel, match="points outside"):
        ox.load(path)


def test_a_repository_is_downloaded_into_a_cache_of_links(tmp_path, monkeypatch):
    """As huggingface_hub keeps it: files in `blobs`, and links to them in `snapshots`. The download is not run here."""
    net = model_of("g (float[N,4] x) => (float[N,3] y) { y = MatMul(x, w) }", w=W)
    source = folder(tmp_path / "source", net)
    onnx.save_model(
        net,
        source / "onnx" / "model.onnx",
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )
    cache = tmp_path / "models--org--name"
    snapshot = cache / "snapshots" / "abc"
    (snapshot / "onnx").mkdir(parents=True)
    (cache / "blobs").mkdir()
    for name in ("config.json", "onnx/model.onnx", "onnx/model.onnx_data"):
        blob = cache / "blobs" / name.replace("/", "-")
        blob.write_bytes((source / name).read_bytes())
        (snapshot / name).symlink_to(blob)
    asked = {}

    def snapshot_download(repository, revision=None, allow_patterns=None):
        asked.update(repository=repository, revision=revision, patterns=allow_patterns)
        if repository == "org/missing":
            raise OSError("404")
        return str(snapshot)

    monkeypatch.setitem(
        sys.modules, "huggingface_hub", types.SimpleNamespace(snapshot_download=snapshot_download)
    )
    model = ox.load("hf://org/name@v1")
    np.testing.assert_allclose(ox.differentiate(model).forward(X)["y"], X @ W)
    assert model.class_names == ("tabby cat", "dog", "owl")
    assert (asked["repository"], asked["revision"]) == ("org/name", "v1") and "*.json" in asked["patterns"]
    assert ox.convert("hf://org/name/onnx/model.onnx").class_names
    np.save(tmp_path / "x.npy", X)
    assert main(["analyze", "hf://org/name", str(tmp_path / "x.npy"), "--target", "owl"]) == 0
    for address, words in {
        "hf://org/missing": "404",
        "hf://org": "organisation/name",
        "hf://a/b/../../c.onnx": "hf://",
    }.items():
        with pytest.raises(ConversionError, match=rf"{words}.*Fix: "):
            ox.load(address)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ConversionError, match="pip install huggingface_hub"):
        ox.load("hf://org/name")


def test_commands_take_a_folder(tmp_path, capsys):
    path = folder(tmp_path / "net", preprocessor_config=CLIP)
    PICTURE.save(tmp_path / "cat.png")
    assert main(["analyze", str(path), str(tmp_path / "cat.png"), "--target", "Tabby-Cat", "--json"]) == 0
    assert (
        json.loads(capsys.readouterr().out)["samples"][0]["methods"]["full-grad"]["target_name"]
        == "tabby cat"
    )
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert (
        "3 class names" in shown and "16 x 12, the shorter side resized to 20 (bicubic), the centre" in shown
    )
    assert main(["compare", str(path), str(path / "onnx" / "model.onnx"), str(tmp_path / "cat.png")]) == 0
    assert main(["convert", str(path), "-o", str(tmp_path / "out.onnx")]) == 0
    assert ox.load(tmp_path / "out.onnx").preprocessing == ox.load(path).preprocessing
    (path / "preprocessor_config.json").write_text(json.dumps({**CLIP, "do_pad": True}))
    capsys.readouterr()
    assert main(["analyze", str(path), str(tmp_path / "cat.png")]) == 2
    assert "'do_pad' is not supported" in capsys.readouterr().err
    assert main(["inspect", str(path)]) == 0 and "Images are not read" in capsys.readouterr().out
    assert main(["analyze", str(path), str(tmp_path / "cat.png"), "--size", "16", "--mean", "0.5"]) == 0


def test_tokens_are_those_of_the_tokenizer(tmp_path, capsys):
    tokenizer = {
        "model": {"vocab": {"a": 0, "b": 1, "c": 2, "d": 3, "e": 4}},
        "added_tokens": [{"id": 5, "content": "[SEP]"}],
    }
    path = folder(tmp_path / "net", TOKENS, tokenizer=tokenizer)
    assert tokens_of(path) == ["a", "b", "c", "d", "e", "[SEP]"]
    np.save(tmp_path / "ids.npy", IDS)
    assert main(["analyze", str(path), str(tmp_path / "ids.npy"), "--wrt", "embedding"]) == 0
    assert "[SEP]" in capsys.readouterr().out
    unigram = folder(tmp_path / "unigram", TOKENS, tokenizer={"model": {"vocab": [["x", -1.0], ["y", -2.0]]}})
    assert tokens_of(unigram) == ["x", "y"]
    for damaged in ({"model": {"vocab": {"a": 10**12}}}, {"model": {"vocab": {"a": "b"}}}, {}):
        with pytest.raises(InvalidModel, match="Fix: "):
            tokens_of(folder(tmp_path / "damaged", TOKENS, tokenizer=damaged))
