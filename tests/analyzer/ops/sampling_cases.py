"""Cases of the ops that read or write images at computed positions, of transforms and of selections."""

from __future__ import annotations

import numpy as np

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, i64, normal


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


def _between(*shape: int) -> np.ndarray:
    """Offsets that put no tap within 0.1 pixels of a whole position."""
    rng = np.random.default_rng(len(shape))
    return rng.integers(-2, 2, shape) + rng.uniform(0.1, 0.9, shape)


def _deformable() -> list[Case]:
    x, w, b = normal(2, 4, 5, 6), normal(6, 4, 3, 2), normal(6)
    offset, mask = _between(2, 12, 3, 5), normal(2, 6, 3, 5)
    strided = {"strides": [2, 1], "pads": [1, 0, 0, 1], "dilations": [1, 2]}
    return [
        case("DeformConv", x, w, offset),
        case("DeformConv", x, w, offset, b, mask, active=(0, 1, 2, 3, 4)),
        case("DeformConv", x, w, offset, b, mask, active=(2, 4)),
        case("DeformConv", x, w, offset, b, None, active=(0, 2), symbolic=(0,)),
        case("DeformConv", x, w, offset, b, active=(0,)),
        case(
            "DeformConv",
            x,
            normal(6, 2, 3, 2),
            _between(2, 24, 2, 5),
            b,
            normal(2, 12, 2, 5),
            active=(0, 1, 2, 4),
            group=2,
            offset_group=2,
            **strided,
        ),
        case(
            "DeformConv", x, normal(4, 1, 2, 2), _between(2, 32, 4, 5), group=4, offset_group=4, active=(0, 2)
        ),
        case("DeformConv", x, normal(4, 2, 2, 2), _between(2, 8, 4, 5), group=2, active=(2,), symbolic=()),
        case(
            "DeformConv",
            normal(1, 2, 3, 4, 3),
            normal(2, 2, 2, 2, 2),
            _between(1, 24, 2, 3, 2),
            active=(0, 1, 2),
        ),
        case(
            "DeformConv", normal(2, 2, 7), normal(3, 2, 3), _between(2, 3, 3), strides=[2], active=(0, 1, 2)
        ),
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


def _pools() -> list[Case]:
    # Where the maxima of windows of two by two were, in planes of 4 by 6.
    inner = np.random.default_rng(3).choice([0, 1, 6, 7], (2, 2, 2, 3))
    corners = np.arange(4)[:, None, None] * 24 + np.arange(2)[:, None] * 12 + np.arange(3) * 2
    places = corners.reshape(2, 2, 2, 3) + inner
    grown = corners.reshape(2, 2, 2, 3) // 24 * 35 + places % 24 // 6 * 7 + places % 6
    windows = {"kernel_shape": [2, 2], "strides": [2, 2]}
    return [
        case("MaxUnpool", normal(2, 2, 2, 3), places, **windows),
        case("MaxUnpool", normal(2, 2, 2, 3), grown, i64(2, 2, 5, 7), **windows),
        case(
            "MaxUnpool",
            normal(1, 1, 3),
            np.asarray([[[0, 3, 5]]]),
            kernel_shape=[3],
            strides=[2],
            pads=[0, 1],
        ),
        case("GlobalLpPool", normal(2, 3, 4, 5)),
        case("GlobalLpPool", normal(2, 3, 4), p=1),
        case("GlobalLpPool", normal(2, 3, 2, 3, 2), p=3, symbolic=(0, 2)),
    ]


def _transforms() -> list[Case]:
    along, count = np.asarray, np.asarray
    # Stated, for ONNX's shape inference takes the default for 0.
    halved = {"onesided": 1}
    cases = []
    for inverse in (0, 1):
        given = {"inverse": inverse}
        cases += [
            case("DFT", normal(2, 6, 3, 2), **given),
            case("DFT", normal(2, 6, 3, 2), None, along(1), symbolic=(0,), **given),
            case("DFT", normal(2, 5, 3, 2), None, along(-3), symbolic=(0, 1, 2), **given),
            case("DFT", normal(2, 6, 1), count(9), along(1), **given),
            case("DFT", normal(2, 6, 2), count(4), along(1), symbolic=(1,), **given),
        ]
    return [
        *cases,
        case("DFT", normal(2, 6, 3, 1), None, along(1), onesided=1),
        case("DFT", normal(2, 7, 1), None, along(1), onesided=1, symbolic=(0, 1)),
        case("DFT", normal(2, 7, 1), count(4), along(1), onesided=1),
        case("DFT", normal(2, 5, 1), count(8), along(1), onesided=1),
        case("DFT", normal(2, 4, 3, 2), None, along(1), onesided=1, inverse=1, symbolic=(0,)),
        case("DFT", normal(2, 4, 2), count(7), along(1), onesided=1, inverse=1),
        case("STFT", normal(2, 20, 1), count(3), normal(6), active=(0, 2), **halved),
        case("STFT", normal(2, 20, 1), count(3), normal(6), symbolic=(0, 1), **halved),
        case("STFT", normal(2, 20, 1), count(4), normal(7), active=(2,), **halved),
        case("STFT", normal(2, 20, 1), count(4), None, count(8), symbolic=(0,), **halved),
        case("STFT", normal(2, 20, 2), count(2), normal(5), count(5), onesided=0, active=(0, 2)),
    ]


def _selections() -> list[Case]:
    flags = np.asarray([True, False, True])
    return [
        case("Compress", normal(3, 4, 2), flags, axis=0, symbolic=(0,)),
        case("Compress", normal(3, 4, 2), flags, axis=-2, symbolic=(0,)),
        case("Compress", normal(3, 4), np.asarray([False, True, True, False, True])),
        case("Unique", distinct(6)),
        case("Unique", distinct(3, 4), sorted=0, outputs=4),
        case("Unique", distinct(4, 3), axis=0, symbolic=(0,)),
        case("Unique", distinct(4, 3), axis=1, sorted=0),
        case("ReverseSequence", normal(4, 3, 2), i64(1, 4, 2), time_axis=0, batch_axis=1),
        case("ReverseSequence", normal(3, 4), i64(1, 4, 2), time_axis=1, batch_axis=0, symbolic=(0, 1)),
    ]


def _folds() -> list[Case]:
    return [
        case("Col2Im", normal(2, 12, 8), i64(5, 3), i64(2, 2)),
        case(
            "Col2Im", normal(2, 12, 6), i64(5, 4), i64(2, 3), strides=[2, 2], pads=[0, 1, 1, 1], symbolic=(0,)
        ),
        case("Col2Im", normal(1, 4, 9), i64(5, 5), i64(2, 2), dilations=[2, 2], symbolic=(0, 1)),
        case("Col2Im", normal(2, 6, 3), i64(5), i64(3)),
        case("Col2Im", normal(1, 16, 4), i64(3, 3, 2), i64(2, 2, 2)),
    ]


def _determinants() -> list[Case]:
    return [
        case("Det", normal(2, 2)),
        case("Det", normal(3, 5, 5), symbolic=(0,)),
        case("Det", normal(2, 2, 3, 3), symbolic=(0, 1)),
        case("Det", normal(4, 1, 1)),
    ]


def sampling() -> list[Case]:
    tables = (_grid_samples, _deformable, _regions, _pools, _transforms, _selections, _folds, _determinants)
    return [entry for table in tables for entry in table()]
