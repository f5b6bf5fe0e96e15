"""Read how images are prepared: preprocessor_config.json of transformers, pretrained_cfg of timm.

From their fields, and the shapes of the model's inputs, to a Preprocessing. Raises Unread, with the field, for what a
Preprocessing does not express: an image that is read in another way gives another number.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from converters.model import Preprocessing
from converters.sources.hub.reading import read_json

Fields = Mapping[str, Any]
InputShapes = Sequence[tuple[int | None, ...]]


class Unread(Exception):
    """A preprocessing that is not read; the message names the field."""


_RESAMPLING = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's filters by their numbers."""
# Processors whose fields mean what they say, and the filter where none is stated.
_KNOWN = {
    **dict.fromkeys(("", "ViT", "ConvNext", "MobileNetV1", "MobileNetV2", "Segformer", "DPT"), "bilinear"),
    **dict.fromkeys(("CLIP", "DeiT", "Beit", "Bit", "Siglip", "Blip", "Pvt", "EfficientFormer"), "bicubic"),
    **dict.fromkeys(("EfficientNet", "Levit"), "bicubic"),
}
# Their `size: 224` is that of the shorter side.
_SHORT_SIDE = frozenset({"Levit", "CLIP", "ConvNext", "Bit", "MobileNetV1", "MobileNetV2"})
_CROPS = frozenset({"CLIP"})
_READ = frozenset(
    {
        *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale", "rescale_factor"),
        *("do_normalize", "image_mean", "image_std", "crop_pct", "default_to_square"),
        *("image_processor_type", "feature_extractor_type"),
    }
)
# They say nothing of the pixels of one RGB image.
_BENIGN = frozenset(
    {
        *(
            "processor_class",
            "_processor_class",
            "auto_map",
            "do_convert_rgb",
            "data_format",
            "input_data_format",
        ),
        *("return_tensors", "device", "disable_grouping", "_valid_processor_keys", "model_input_names"),
        *("transformers_version", "use_fast", "do_reduce_labels", "reduce_labels", "do_reduce_zero_label"),
        *(
            "num_labels",
            "_name_or_path",
            "_commit_hash",
            "ensure_multiple_of",
            "image_seq_length",
            "num_channels",
        ),
    }
)


def preprocessing_of(folder: Path, config: Fields, shapes: InputShapes) -> Preprocessing | None:
    """Return the preprocessing that a folder states for the one input of images; None where it states none.

    config: its config.json. shapes: of the model's inputs. Raises Unread.
    """
    images = [shape for shape in shapes if len(shape) == 4]
    if len(images) != 1:
        return None
    own = read_json(folder, "preprocessor_config.json")
    if own is None:
        joint = read_json(folder, "processor_config.json") or {}
        own = joint.get("image_processor") if isinstance(joint.get("image_processor"), dict) else None
    timm = config.get("pretrained_cfg")
    if isinstance(timm, Mapping) and (own is None or "Timm" in str(own.get("image_processor_type"))):
        return _named("pretrained_cfg", _of_timm, timm, images[0])
    return None if own is None else _named("preprocessor_config.json", _of_transformers, own, images[0])


def _named(source: str, read: Any, fields: Fields, shape: tuple[int | None, ...]) -> Preprocessing:
    try:
        return _checked(read(fields, shape), shape)
    except Unread as error:
        raise Unread(f"{source} is not followed: {error}") from error


def _checked(found: Preprocessing, shape: tuple[int | None, ...]) -> Preprocessing:
    """The preprocessing in the layout of the input, of whose size it must be."""
    last = shape[1] not in (1, 3) and shape[3] in (1, 3)
    sides = shape[1:3] if last else shape[2:]
    if any(side is not None and side != own for side, own in zip(sides, found.size, strict=True)):
        raise Unread(
            f"it gives images of {found.size[0]} x {found.size[1]}, the model takes {sides[0]} x {sides[1]}"
        )
    return Preprocessing(**{**vars(found), "layout": "NHWC" if last else "NCHW"})


def _of_transformers(fields: Fields, shape: tuple[int | None, ...]) -> Preprocessing:
    kind = str(fields.get("image_processor_type") or fields.get("feature_extractor_type") or "")
    family = re.sub(r"(ImageProcessor|FeatureExtractor)(Fast|Pil)?$", "", kind)
    if family not in _KNOWN:
        raise Unread(f"the processor {kind!r} is not known")
    for key, value in fields.items():
        known = key in _READ or key in _BENIGN or (key == "include_top" and family == "EfficientNet")
        if not known and value not in (None, False):
            raise Unread(f"its field {key!r} is not supported")
    if not fields.get("do_resize", True):
        raise Unread("it does not resize images")
    size, resize, fit = _sizes(fields, family)
    mean, std = _normalisation(fields)
    if family == "EfficientNet" and fields.get("include_top", True):
        # Divided by the std once more.
        own = _channels(fields.get("image_std"), "image_std")
        std = tuple(one * again for one, again in zip(std, own, strict=True))
    number = fields.get("resample")
    if number is not None and (type(number) is not int or not 0 <= number < len(_RESAMPLING)):
        raise Unread(f"its resample {number!r} is not known")
    how = _KNOWN[family] if number is None else _RESAMPLING[number]
    return Preprocessing(size, mean, std, resize=resize, fit=fit, interpolation=how, rounding="down")


def _sizes(fields: Fields, family: str) -> tuple[tuple[int, int], int | None, str]:
    """The size of the input, the resized side, and how the image is fitted."""
    size, crop = fields.get("size"), fields.get("crop_size")
    if type(size) is int:
        short = not fields.get("default_to_square", family not in _SHORT_SIDE)
        size = {"shortest_edge": size} if short else {"height": size, "width": size}
    cropped = _pair(crop, "crop_size") if fields.get("do_center_crop", family in _CROPS) else None
    if isinstance(size, Mapping) and set(size) == {"height", "width"}:
        height, width = _pair(size, "size")
        if cropped in (None, (height, width)):
            return (height, width), None, "stretch"
        assert cropped is not None
        if height != width or max(cropped) > height:
            raise Unread(f"it crops {cropped} from {(height, width)}")
        return cropped, height, "stretch"
    if not isinstance(size, Mapping) or set(size) != {"shortest_edge"}:
        raise Unread(f"its size {str(size)[:60]} is not supported")
    side = _side(size["shortest_edge"], "size")
    if family == "ConvNext":
        if side >= 384:
            return (side, side), None, "stretch"
        share = fields.get("crop_pct", 224 / 256)
        if not isinstance(share, (int, float)) or not 0.1 <= share <= 1:
            raise Unread(f"its crop_pct {share!r} is not supported")
        return (side, side), int(side / share), "crop"
    side = int(256 / 224 * side) if family == "Levit" else side
    if cropped is None:
        raise Unread("it keeps the aspect of images and does not crop them")
    if max(cropped) > side:
        raise Unread(f"it pads images of {side} to {cropped}")
    return cropped, side, "crop"


def _pair(size: object, name: str) -> tuple[int, int]:
    """(height, width) of an int, a list or a dict."""
    if type(size) is int:
        size = {"height": size, "width": size}
    if isinstance(size, (list, tuple)) and len(size) == 2:
        size = {"height": size[0], "width": size[1]}
    if not isinstance(size, Mapping) or set(size) != {"height", "width"}:
        raise Unread(f"its {name} {str(size)[:60]} is not supported")
    return _side(size["height"], name), _side(size["width"], name)


def _side(value: object, name: str) -> int:
    if type(value) is not int or value < 1:
        raise Unread(f"its {name} {str(value)[:60]} is not a number of pixels")
    return value


def _normalisation(fields: Fields) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of pixels in [0, 1]."""
    factor = fields.get("rescale_factor", 1 / 255) if fields.get("do_rescale", True) else 1.0
    if (
        not isinstance(factor, (int, float))
        or isinstance(factor, bool)
        or not math.isfinite(factor)
        or factor <= 0
    ):
        raise Unread(f"its rescale_factor {str(factor)[:60]} is not supported")
    scale = 255 * factor
    if not fields.get("do_normalize", True):
        return (0.0,) * 3, (1 / scale,) * 3
    mean, std = (_channels(fields.get(name), name) for name in ("image_mean", "image_std"))
    return tuple(one / scale for one in mean), tuple(one / scale for one in std)


def _channels(value: object, name: str) -> tuple[float, ...]:
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value] * 3
    if len(values) not in (1, 3) or not all(
        type(one) in (int, float) and math.isfinite(one) for one in values
    ):
        raise Unread(f"its {name} {str(value)[:60]} is not supported")
    return tuple(float(one) for one in values)


def _of_timm(fields: Fields, shape: tuple[int | None, ...]) -> Preprocessing:
    """Of timm: the shorter side is resized to size / crop_pct, and the centre cropped."""
    size, share = fields.get("input_size"), fields.get("crop_pct", 0.875)
    # Networks are tested at another size than they are trained at; the exported graph says which it is.
    tested = fields.get("test_input_size")
    if isinstance(tested, (list, tuple)) and list(tested[1:]) == [*shape[2:]]:
        size, share = tested, fields.get("test_crop_pct") or share
    if not isinstance(size, (list, tuple)) or len(size) != 3:
        raise Unread(f"its input_size {str(size)[:60]} is not supported")
    height, width = (_side(one, "input_size") for one in size[1:])
    mode, how = fields.get("crop_mode") or "center", fields.get("interpolation") or "bilinear"
    if mode not in ("center", "squash") or how not in _RESAMPLING:
        raise Unread(f"its crop_mode {mode!r} or interpolation {how!r} is not supported")
    if not isinstance(share, (int, float)) or not 0.1 <= share <= 1 or height != width:
        raise Unread(f"its crop_pct {share!r} of {height} x {width} is not supported")
    mean, std = (_channels(fields.get(name), name) for name in ("mean", "std"))
    fit = "crop" if mode == "center" else "stretch"
    side = math.floor(height / share)
    return Preprocessing(
        (height, width), mean, std, resize=side, fit=fit, interpolation=how, rounding="torchvision"
    )
