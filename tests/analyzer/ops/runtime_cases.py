"""Cases whose axes, sizes, repeats, pads or scales only the running model knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, f32, i64, normal, scalar

COORDINATES = ("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric")


def known_at_run() -> list[Case]:
    return [*_reductions(), *_shapes(), *_pads(), *_resizes(), *_transposed()]


def _reductions() -> list[Case]:
    cases = []
    x, none = distinct(2, 3, 4) + 4, np.zeros(0, np.int64)
    for name in ["Sum", "Mean", "Max", "Min", "L1", "L2", "SumSquare", "Prod", "LogSumExp", "LogSum"]:
        cases += [
            case(f"Reduce{name}", x, i64(1), keepdims=0, fed=(1,)),
            case(f"Reduce{name}", x, i64(-1, 0), fed=(1,), symbolic=(0,)),
            case(f"Reduce{name}", x, none, keepdims=0, fed=(1,)),
            case(f"Reduce{name}", x, none, noop_with_empty_axes=1, fed=(1,)),
        ]
    return cases


def _shapes() -> list[Case]:
    x = normal(2, 3, 4)
    return [
        case("Tile", x, i64(2, 1, 3), fed=(1,)),
        case("Tile", x, i64(2, 1, 3), fed=(1,), symbolic=(0, 1)),
        case("Expand", normal(3, 1), i64(2, 3, 4), fed=(1,)),
        case("Expand", normal(3, 1), i64(1, 1), fed=(1,), symbolic=(0,)),
        case("Unsqueeze", x, i64(0, -1), fed=(1,)),
        case("Squeeze", normal(2, 1, 3, 1), i64(1, -1), fed=(1,)),
        case("Reshape", x, i64(0, -1), fed=(1,), symbolic=(0,)),
        case("Slice", x, i64(3, -1), i64(0, -99), i64(2, 1), i64(-2, -1), fed=(1, 2, 3, 4)),
        case("Slice", x, i64(1), i64(3), i64(-1), fed=(1, 2)),
        *_slices(),
        case("Split", x, i64(1, 3), axis=2, outputs=2, fed=(1,), target=1),
        case("CumSum", x, np.asarray(-1), exclusive=1, fed=(1,)),
        case("Trilu", x, np.asarray(-1), upper=0, fed=(1,)),
        case("TopK", distinct(3, 5), i64(2), outputs=2, fed=(1,)),
        case("Gather", x, i64(1, -1, 1), axis=1, fed=(1,)),
        case("GatherElements", normal(3, 4), np.asarray([[0, 1], [-1, 3], [2, 2]]), axis=1, fed=(1,)),
        case("GatherND", x, np.asarray([[1], [-1]]), batch_dims=1, fed=(1,)),
        case("OneHot", i64(1, -1, 7), np.asarray(4), np.asarray([0.2, 0.9]), active=(2,), fed=(0, 1)),
        case("Where", np.asarray([[True, False, True]]), normal(2, 1), normal(3), active=(1, 2), fed=(0,)),
        case("Pow", normal(3, 4), i64(2), fed=(1,)),
        case("Clip", normal(3, 4), scalar(-0.51), scalar(0.61), fed=(1, 2)),
    ]


def _slices() -> list[Case]:
    """Starts and ends that only the running model knows, along axes and by steps that are known."""
    x, narrow = normal(2, 5, 7), np.asarray([-3, 1], np.int32)
    bounds: list[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]] = [
        ((-4, 9), (99, -99), (1, -2)),
        ((1, -99), (-1, 99), (2, 3)),
        ((3, 2), (0, -9), (-1, -3)),
        # Nothing is taken.
        ((3, 0), (3, 7), (1, 1)),
        ((1, 0), (4, 7), (-2, 1)),
    ]
    cases = []
    for starts, ends, steps in bounds:
        given = (i64(*starts), i64(*ends), i64(1, 2), i64(*steps))
        cases += [
            case("Slice", x, *given, fed=(1, 2)),
            case("Slice", x, *given, fed=(1,), symbolic=(0, 1, 2)),
            case("Slice", x, *given, symbolic=(1, 2)),
        ]
    return [*cases, case("Slice", x, narrow, narrow + 9, np.asarray([1, 2], np.int32), fed=(1, 2))]


def _pads() -> list[Case]:
    cases = [case("Pad", normal(3, 4), i64(1, 2, 2, 1), scalar(0.7), fed=(1,), active=(0, 2))]
    for mode in ("constant", "reflect", "edge", "wrap"):
        cases += [
            case("Pad", normal(3, 4), i64(1, 2, 2, 1), fed=(1,), mode=mode),
            case("Pad", normal(3, 3, 4), i64(1, -1, 2, 1), None, i64(-1, 0), fed=(1, 3), mode=mode),
        ]
    return cases


def _resizes() -> list[Case]:
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


def _transposed() -> list[Case]:
    cases = []
    for auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        given: dict[str, Any] = {"auto_pad": auto_pad, "strides": [2, 2], "active": (0, 1)}
        x, w = normal(2, 4, 4, 4), normal(4, 3, 3, 3)
        cases += [
            case("ConvTranspose", x, w, symbolic=(0, 2, 3), **given),
            case("ConvTranspose", x, w, symbolic=(2, 3), output_shape=[8, 7], output_padding=[1, 0], **given),
            case("ConvTranspose", x, w, symbolic=(2, 3), output_shape=[9, 8], **given),
        ]
    return cases
