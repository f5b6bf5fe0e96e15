"""Cases and draws of the ops that read images at computed positions."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.analyzer.ops.drawing import Draw, generators, open_axes
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, f32, i64, normal

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


def _resize() -> list[Case]:
    x, half = normal(2, 3, 4, 6), f32([1, 1, 0.5, 0.6])
    double, none = f32([1, 1, 2, 2.5]), None
    cases = []
    for coordinates in COORDINATES:
        given: dict[str, Any] = {"coordinate_transformation_mode": coordinates}
        cases += [
            case("Resize", x, none, double, mode="linear", **given),
            case("Resize", x, none, half, mode="linear", symbolic=(0,), **given),
            case("Resize", x, none, none, i64(2, 3, 7, 5), mode="nearest", **given),
        ]
    return [
        *cases,
        case(
            "Resize",
            x,
            none,
            f32([1, 1, 2.0, 2.0]),
            mode="nearest",
            nearest_mode="floor",
            symbolic=(0,),
        ),
        # Ten times 1.3 is thirteen in single precision alone; there, a neighbour lies at an exact integer.
        case("Resize", normal(2, 2, 10), none, f32([1, 1, 1.3]), mode="nearest", symbolic=(2,)),
        case("Resize", normal(2, 2, 7), none, none, i64(2, 2, 9), mode="nearest", nearest_mode="floor"),
        case(
            "Resize", normal(2, 7), none, none, i64(2, 9), mode="nearest", nearest_mode="floor", symbolic=(1,)
        ),
        case("Resize", x, none, none, i64(5, 9), mode="cubic", axes=[2, 3]),
        case("Resize", x, none, half, mode="cubic", antialias=1, exclude_outside=1),
        case("Resize", x, none, half, mode="linear", antialias=1),
        case("Resize", normal(2, 3, 5), none, f32([1.0, 2.0, 1.0]), mode="linear"),
        case("Resize", normal(2, 3, 5), none, f32([2.0, 1.0, 1.0]), mode="linear"),
        case(
            "Resize",
            x,
            f32([0, 0, 0.2, 0.3, 1, 1, 0.9, 1.4]),
            none,
            i64(2, 3, 3, 5),
            mode="linear",
            coordinate_transformation_mode="tf_crop_and_resize",
            extrapolation_value=0.7,
        ),
    ]


def _resizes_known_at_run() -> list[Case]:
    x, up, down = normal(2, 3, 4, 6), f32([1, 1, 2, 2.5]), f32([1, 1, 0.5, 0.6])
    cases = []
    for coordinates in COORDINATES:
        given: dict[str, Any] = {"coordinate_transformation_mode": coordinates}
        cases += [
            case("Resize", x, None, up, mode="linear", symbolic=(0, 2, 3), **given),
            case("Resize", x, None, down, mode="cubic", symbolic=(2, 3), **given),
            case("Resize", x, None, None, i64(2, 3, 7, 5), mode="nearest", symbolic=(0, 2, 3), **given),
            case("Resize", x, None, up, mode="nearest", fed=(2,), **given),
        ]
    region = f32([0, 0, 0.2, 0.3, 1, 1, 0.9, 1.4])
    crop = {"coordinate_transformation_mode": "tf_crop_and_resize", "extrapolation_value": 0.7}
    smooth = {"antialias": 1, "exclude_outside": 1}
    return [
        *cases,
        case("Resize", x, region, None, i64(2, 3, 3, 5), mode="linear", fed=(1,), **crop),
        case("Resize", x, region, None, i64(2, 3, 3, 5), mode="linear", symbolic=(2, 3), **crop),
        case("Resize", x, None, down, mode="linear", symbolic=(2, 3), **smooth),
        case("Resize", x, None, None, i64(3, 9), axes=[2, 3], mode="cubic", symbolic=(2, 3), **smooth),
        *[
            case(
                "Resize",
                x,
                None,
                None,
                i64(7, 8),
                axes=[3, 2],
                mode="linear",
                keep_aspect_ratio_policy=policy,
                fed=(3,),
            )
            for policy in ("not_larger", "not_smaller")
        ],
    ]


def _off_pixels(sizes: tuple[int, ...], *shape: int, align: int = 0, reach: float = 1.6) -> np.ndarray:
    """A grid some of whose points lie outside, none within 0.05 pixels of a whole or half position."""
    rng = np.random.default_rng(len(sizes) + align)
    spans = np.asarray(sizes[::-1], float)
    at = rng.uniform(-reach, reach, (*shape, len(sizes)))
    pixels = ((at + 1) * (spans - align) - (1 - align)) / 2
    halves = np.round(2 * pixels) / 2
    pixels = halves + np.copysign(np.clip(np.abs(pixels - halves), 0.05, 0.2), pixels - halves)
    return (2 * pixels + (1 - align)) / (spans - align) - 1


def _grid_samples() -> list[Case]:
    cases = []
    for padding in ("zeros", "border", "reflection"):
        for align in (0, 1):
            flat = _off_pixels((4, 5), 2, 3, 4, align=align)
            for mode in ("linear", "nearest", "cubic"):
                given = {"mode": mode, "padding_mode": padding, "align_corners": align}
                cases.append(case("GridSample", normal(2, 3, 4, 5), flat, active=(0, 1), **given))
            deep = _off_pixels((3, 4, 2), 2, 2, 1, 5, align=align)
            given = {"mode": "linear", "padding_mode": padding, "align_corners": align}
            cases.append(case("GridSample", normal(2, 2, 3, 4, 2), deep, active=(0, 1), **given))
    flat = _off_pixels((4, 5), 2, 3, 4)
    return [
        *cases,
        case("GridSample", normal(2, 3, 4, 5), flat, symbolic=(0,)),
        case("GridSample", normal(2, 3, 4, 5), flat, active=(0, 1), symbolic=(0, 1, 2, 3)),
        case("GridSample", normal(2, 3, 4, 5), flat, active=(1,)),
        case("GridSample", normal(2, 2, 3, 4, 2), _off_pixels((3, 4, 2), 2, 2, 1, 5), mode="nearest"),
        case(
            "GridSample",
            normal(2, 2, 3, 4, 2),
            _off_pixels((3, 4, 2), 2, 2, 1, 5),
            mode="cubic",
            active=(0, 1),
        ),
        case("GridSample", normal(2, 2, 6), _off_pixels((6,), 2, 4), mode="cubic", active=(0, 1)),
        case("GridSample", normal(2, 2, 1, 3), flat, padding_mode="reflection"),
    ]


# x₁, y₁, x₂, y₂; the third reaches outside, the last is narrower than a pixel.
REGIONS = [[0.3, 0.4, 4.1, 5.2], [1.2, 2.1, 3.3, 3.9], [-2.3, 1.1, 9.2, 4.6], [2.2, 2.4, 2.9, 2.7]]


def _regions() -> list[Case]:
    x, boxes, batch = normal(2, 3, 7, 8), np.asarray(REGIONS), np.asarray([1, 0, 0, 1])
    numbered = np.concatenate([batch[:, None], np.asarray(REGIONS) * 2], 1)
    cases = []
    for mode in ("avg", "max"):
        for where in ("half_pixel", "output_half_pixel"):
            for ratio in (0, 2):
                given = {"mode": mode, "coordinate_transformation_mode": where, "sampling_ratio": ratio}
                cases.append(
                    case(
                        "RoiAlign",
                        x,
                        boxes,
                        batch,
                        output_height=2,
                        output_width=3,
                        spatial_scale=0.8,
                        **given,
                    )
                )
    return [
        *cases,
        case("RoiAlign", x, boxes, batch, output_height=3, output_width=2, symbolic=(0, 1, 2, 3)),
        case("RoiAlign", x, boxes, batch, mode="max", output_height=3, symbolic=(0, 1, 2, 3)),
        case("MaxRoiPool", x, numbered, pooled_shape=[2, 3], spatial_scale=0.5),
        case("MaxRoiPool", x, numbered, pooled_shape=[4, 3], symbolic=(0, 1, 2, 3)),
    ]


@st.composite
def resizes(draw: Draw) -> Case:
    rng, rank = draw(generators()), draw(st.integers(1, 2))
    x = normal(2, 2, *[draw(st.integers(2, 6)) for _ in range(rank)], rng=rng)
    # ONNX Runtime's cubic kernel takes two axes.
    mode = draw(st.sampled_from(["nearest", "linear", "cubic"] if rank == 2 else ["nearest", "linear"]))
    transform = draw(st.sampled_from([*COORDINATES, "tf_crop_and_resize"]))
    given: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transform}
    factors = [draw(st.sampled_from([0.5, 0.61, 1.0, 1.31, 2.0, 2.5, 3.0])) for _ in range(rank)]
    sizes = [max(1, int(size * f)) for size, f in zip(x.shape[2:], factors, strict=True)]
    roi = None
    if transform == "tf_crop_and_resize":
        starts, ends = ([draw(st.floats(a, b)) for _ in range(rank)] for a, b in ((-0.2, 0.4), (0.6, 1.2)))
        roi = f32([0, 0, *starts, 1, 1, *ends])
        given |= {"extrapolation_value": 0.7, "mode": "linear"}
    elif mode != "nearest":
        smooth = draw(st.booleans())
        given |= {"antialias": int(smooth), "exclude_outside": int(smooth or mode == "cubic")}
    elif mode == "nearest":
        given["nearest_mode"] = draw(
            st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"])
        )
    by_scales = draw(st.booleans())
    inputs = [x, roi, f32([1, 1, *factors])] if by_scales else [x, roi, None, i64(2, 2, *sizes)]
    fed = (len(inputs) - 1,) if draw(st.booleans()) else ()
    return case("Resize", *inputs, symbolic=open_axes(draw, x.ndim), fed=fed, **given)


CASES = [*_resize(), *_resizes_known_at_run(), *_grid_samples(), *_regions()]
