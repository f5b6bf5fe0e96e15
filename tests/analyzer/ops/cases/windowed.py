"""Cases and draws of the ops with windows of one to three spatial axes."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tests.analyzer.ops.drawing import Draw, generators, some_of
from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.values import case, distinct, i64, normal

CONV_ATTRIBUTES: list[dict[str, Any]] = [
    {},
    {"pads": [1, 1, 1, 1]},
    {"pads": [0, 1, 2, 0]},
    {"strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"strides": [2, 2], "pads": [0, 0, 1, 1]},
    {"strides": [3, 3]},
    {"strides": [4, 4]},
    {"strides": [2, 1], "pads": [1, 0, 1, 0]},
    {"dilations": [2, 2], "pads": [2, 2, 2, 2]},
    {"strides": [2, 2], "dilations": [2, 1]},
    {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
    {"auto_pad": "SAME_LOWER", "strides": [3, 3]},
    {"auto_pad": "SAME_UPPER", "dilations": [2, 2]},
    {"auto_pad": "VALID"},
    {"pads": [3, 3, 3, 3]},
    {"strides": [2, 2], "pads": [3, 3, 4, 4]},
]


def _convolutions() -> list[Case]:
    cases = []
    for given in CONV_ATTRIBUTES:
        cases += [
            case("Conv", normal(2, 3, 9, 8), normal(4, 3, 3, 3), normal(4), **given),
            case("Conv", normal(2, 3, 9, 8), normal(4, 3, 3, 3), symbolic=(0,), **given),
            case("Conv", normal(2, 3, 9, 8), normal(4, 3, 3, 3), symbolic=(0, 2, 3), active=(0, 1), **given),
            case(
                "Conv", normal(2, 4, 9, 8), normal(6, 2, 3, 3), normal(6), group=2, active=(0, 1, 2), **given
            ),
            case(
                "Conv",
                normal(2, 3, 9, 8),
                normal(6, 1, 3, 3),
                group=3,
                symbolic=(0, 2),
                active=(0, 1),
                **given,
            ),
        ]
    for given in ({"strides": [2]}, {"strides": [3], "pads": [1, 2]}, {"dilations": [2]}, {"pads": [2, 2]}):
        cases.append(
            case("Conv", normal(2, 4, 9), normal(6, 2, 3), normal(6), group=2, active=(0, 1), **given)
        )
        cases.append(case("Conv", normal(2, 4, 9), normal(4, 1, 4), group=4, **given))
    # Large depthwise kernels: a Conv for each phase of the stride.
    for kernel, given in (
        ((5, 5), {"strides": [2, 2], "pads": [2, 2, 2, 2]}),
        ((5, 5), {"strides": [2, 2], "pads": [0, 1, 1, 0]}),
        ((5, 4), {"strides": [3, 2]}),
        ((7, 5), {"strides": [2, 3], "pads": [3, 0, 2, 1]}),
        ((4, 4), {"strides": [4, 4]}),
        ((5, 5), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
        ((4, 4), {"strides": [3, 3], "pads": [4, 4, 0, 0]}),
    ):
        weight = normal(3, 1, *kernel)
        cases.append(
            case("Conv", normal(2, 3, 11, 12), weight, group=3, active=(0, 1), symbolic=(0,), **given)
        )
    for given in ({"strides": [2, 2, 2]}, {"pads": [1, 1, 1, 1, 1, 1]}, {"dilations": [1, 2, 1]}):
        cases.append(case("Conv", normal(1, 2, 5, 6, 5), normal(3, 2, 3, 2, 3), active=(0, 1), **given))
    for given in ({}, {"strides": [2, 2]}, {"strides": [2, 3]}, {"strides": [2, 2], "pads": [1, 1, 0, 0]}):
        cases.append(case("Conv", normal(2, 3, 7, 8), normal(4, 3, 1, 1), normal(4), **given))
        cases.append(case("Conv", normal(2, 3, 7, 8), normal(4, 3, 1, 1), symbolic=(0, 2, 3), **given))
    cases += [
        case(
            "Conv", normal(1, 3, 11, 11), normal(4, 3, 7, 7), strides=[2, 2], pads=[3, 3, 3, 3], symbolic=(0,)
        ),
        case("Conv", normal(1, 3, 8, 8), normal(4, 3, 2, 2), strides=[2, 2], symbolic=(0,)),
        case("Conv", normal(1, 3, 9, 9), normal(4, 3, 4, 5), strides=[4, 4], pads=[1, 1, 1, 1]),
        case("Conv", normal(1, 3, 9, 9), normal(4, 3, 1, 5), pads=[0, 2, 0, 2]),
        case("Conv", normal(1, 3, 9, 9), normal(3, 1, 1, 5), group=3, strides=[1, 2]),
        case("Conv", normal(1, 2, 5, 5), normal(2, 2, 3, 3), normal(2), active=(2,)),
        case("Conv", normal(1, 2, 5, 5), normal(2, 2, 3, 3), np.zeros(2)),
    ]
    for given in (
        {},
        {"strides": [2, 2]},
        {"strides": [2, 3], "pads": [1, 0, 1, 1]},
        {"dilations": [2, 1]},
        {"strides": [3, 2], "output_padding": [2, 1]},
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        {"auto_pad": "SAME_LOWER", "strides": [2, 2]},
        {"strides": [2, 2], "output_shape": [9, 9]},
        {"dilations": [3, 3], "output_padding": [2, 0], "strides": [2, 1]},
    ):
        cases.append(
            case(
                "ConvTranspose", normal(2, 4, 4, 4), normal(4, 3, 3, 3), normal(3), active=(0, 1, 2), **given
            )
        )
        cases.append(
            case("ConvTranspose", normal(2, 4, 4, 4), normal(4, 2, 3, 3), group=2, active=(0, 1), **given)
        )
    cases.append(
        case(
            "ConvTranspose", normal(2, 4, 4, 4), normal(4, 3, 2, 2), normal(3), strides=[2, 2], symbolic=(0,)
        )
    )
    cases.append(case("ConvTranspose", normal(2, 4, 5), normal(4, 3, 3), strides=[2], active=(0, 1)))
    return cases


def _transposed_known_at_run() -> list[Case]:
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


POOL_ATTRIBUTES: list[dict[str, Any]] = [
    {"kernel_shape": [2, 2], "strides": [2, 2]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]},
    {"kernel_shape": [3, 2], "strides": [1, 2], "pads": [0, 1, 2, 0]},
    {"kernel_shape": [2, 3], "dilations": [2, 1], "pads": [1, 0, 0, 1]},
    {"kernel_shape": [3, 3], "strides": [2, 2], "auto_pad": "SAME_UPPER"},
    {"kernel_shape": [2, 2], "strides": [2, 2], "auto_pad": "SAME_LOWER"},
    {"kernel_shape": [2, 2], "strides": [3, 3]},
]


def _pools() -> list[Case]:
    cases = []
    for given in POOL_ATTRIBUTES:
        cases += [
            case("MaxPool", distinct(2, 3, 7, 8), **given),
            case("MaxPool", distinct(2, 3, 7, 8), symbolic=(0, 2), **given),
            case("AveragePool", normal(2, 3, 7, 8), **given),
            case("AveragePool", normal(2, 3, 7, 8), symbolic=(0,), count_include_pad=1, **given),
            case("AveragePool", normal(2, 3, 7, 8), symbolic=(0, 2, 3), **given),
            case("AveragePool", normal(2, 3, 7, 8), symbolic=(0, 2, 3), count_include_pad=1, **given),
            case("LpPool", normal(2, 3, 7, 8), p=3, **given),
        ]
    cases += [
        case("MaxPool", distinct(2, 3, 7, 8), kernel_shape=[2, 2], outputs=2),
        case("MaxPool", distinct(2, 3, 7, 8), kernel_shape=[2, 2], storage_order=1, outputs=2),
        case("MaxPool", distinct(2, 3, 9), kernel_shape=[3], strides=[2]),
        # Windows that tile the input.
        case("MaxPool", distinct(2, 3, 9), kernel_shape=[3], strides=[3]),
        case("MaxPool", distinct(2, 3, 6, 8), symbolic=(0,), kernel_shape=[3, 2], strides=[3, 2]),
        case("MaxPool", distinct(1, 2, 4, 3, 2), kernel_shape=[2, 3, 1], strides=[2, 3, 1]),
        case("MaxPool", distinct(1, 2, 5, 5, 5), kernel_shape=[2, 3, 2], strides=[2, 1, 1]),
        case("AveragePool", normal(2, 3, 9), kernel_shape=[3], strides=[2], pads=[1, 1]),
        case("AveragePool", normal(1, 2, 5, 5, 5), kernel_shape=[2, 3, 2], strides=[2, 1, 1]),
        case("AveragePool", normal(1, 2, 7, 7), kernel_shape=[7, 7]),
        case("LpPool", normal(2, 3, 7, 8), p=1, kernel_shape=[2, 2]),
        case("GlobalAveragePool", normal(2, 3, 4, 5)),
        case("GlobalAveragePool", normal(2, 3, 4, 5), symbolic=(0, 2)),
        case("GlobalMaxPool", distinct(2, 3, 4, 5), symbolic=(0,)),
    ]
    return cases


def _unpools() -> list[Case]:
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


# Groups, and channels of each group before and behind.
CHANNELS = st.sampled_from([(1, 2, 3), (2, 1, 1), (2, 2, 1), (3, 1, 2), (2, 1, 2)])


def geometry(draw: Draw, most: int = 4) -> tuple[list[int], dict[str, Any]]:
    """The kernel and its strides, dilations and pads, or auto_pad in their place."""
    rank = draw(st.sampled_from([1, 2, 2, 2, 3]))
    kernel = [draw(st.integers(1, most)) for _ in range(rank)]
    strides = [draw(st.integers(1, 3)) for _ in range(rank)]
    if draw(st.booleans()):
        strides = [strides[0]] * rank
    auto_pad = draw(st.sampled_from(["NOTSET", "NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    given: dict[str, Any] = {"strides": strides, "auto_pad": auto_pad}
    # ONNX Runtime takes no dilations with SAME pads.
    if not auto_pad.startswith("SAME"):
        given["dilations"] = [draw(st.sampled_from([1, 1, 1, 2, 3])) for _ in range(rank)]
    if auto_pad == "NOTSET":
        given["pads"] = [draw(st.integers(0, 3)) for _ in range(2 * rank)]
    return kernel, given


def spans(kernel: list[int], given: dict[str, Any]) -> list[int]:
    """What a window covers along each axis."""
    dilations = given.get("dilations", [1] * len(kernel))
    return [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]


def sizes_for(draw: Draw, kernel: list[int], given: dict[str, Any]) -> list[int]:
    """Spatial sizes with at least one window along each axis."""
    rank = len(kernel)
    sizes = [draw(st.integers(1, 9 if rank < 3 else 6)) for _ in kernel]
    pads = given.get("pads", [0] * 2 * rank)
    if not given["auto_pad"].startswith("SAME"):
        room = zip(sizes, pads[:rank], pads[rank:], spans(kernel, given), strict=True)
        assume(all(size + before + after >= span for size, before, after, span in room))
    return sizes


@st.composite
def convolutions(draw: Draw) -> Case:
    rng, (group, inputs, outputs) = draw(generators()), draw(CHANNELS)
    kernel, given = geometry(draw)
    x = normal(2, group * inputs, *sizes_for(draw, kernel, given), rng=rng)
    w = normal(group * outputs, inputs, *kernel, rng=rng)
    parts = [x, w] + ([normal(group * outputs, rng=rng)] if draw(st.booleans()) else [])
    active = some_of(draw, range(len(parts)))
    symbolic = draw(st.sampled_from([(), (0,), tuple(range(2, x.ndim))])) if active[0] == 0 else ()
    return case("Conv", *parts, active=active, symbolic=symbolic, group=group, **given)


@st.composite
def transposed_convolutions(draw: Draw) -> Case:
    rng, (group, inputs, outputs) = draw(generators()), draw(CHANNELS)
    kernel, given = geometry(draw, most=3)
    rank, strides, reach = len(kernel), given["strides"], spans(kernel, given)
    sizes = [draw(st.integers(1, 4)) for _ in kernel]
    # ONNX Runtime pads a SAME output by less than the standard where windows do not reach each other.
    assume(given["auto_pad"][:4] != "SAME" or all(r >= s for r, s in zip(reach, strides, strict=True)))
    full = [(n - 1) * s + r for n, s, r in zip(sizes, strides, reach, strict=True)]
    if given["auto_pad"] == "NOTSET":
        given["pads"] = [min(pad, (f - 1) // 2) for pad, f in zip(given["pads"], full * 2, strict=True)]
        given["output_padding"] = [draw(st.integers(0, s - 1)) for s in strides]
        if draw(st.booleans()):
            # onnx infers no shape that is smaller than the input's.
            given["output_shape"] = [draw(st.integers(n, f)) for n, f in zip(sizes, full, strict=True)]
            given["output_padding"] = [0] * rank
    x = normal(2, group * inputs, *sizes, rng=rng)
    w = normal(group * inputs, outputs, *kernel, rng=rng)
    parts = [x, w] + ([normal(group * outputs, rng=rng)] if draw(st.booleans()) else [])
    active = some_of(draw, range(len(parts)))
    symbolic = draw(st.sampled_from([(), (0,), tuple(range(2, x.ndim))])) if active[0] == 0 else ()
    return case("ConvTranspose", *parts, active=active, symbolic=symbolic, group=group, **given)


def runs_by_the_standard(pool: Case) -> bool:
    """Whether ONNX Runtime does: SAME pads are below 0 there, or refused, where windows do not reach each other."""
    given = pool.attributes
    reach = zip(spans(given["kernel_shape"], given), given["strides"], strict=True)
    return given["auto_pad"][:4] != "SAME" or all(span >= stride for span, stride in reach)


@st.composite
def pools(draw: Draw) -> Case:
    rng, name = draw(generators()), draw(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]))
    kernel, given = geometry(draw)
    if "pads" in given:
        # ONNX Runtime takes no pad as wide as the kernel, and with ceil_mode none that a window could lie in.
        given["pads"] = [min(pad, (k - 1) // 2) for pad, k in zip(given["pads"], kernel * 2, strict=True)]
    shape = (2, 2, *sizes_for(draw, kernel, given))
    given |= {"kernel_shape": kernel, "ceil_mode": draw(st.integers(0, 1))}
    outputs = 1
    if name == "MaxPool" and draw(st.booleans()):
        given["storage_order"], outputs = draw(st.integers(0, 1)), 2
    if name == "AveragePool":
        given["count_include_pad"] = draw(st.integers(0, 1))
    if name == "LpPool":
        given["p"] = draw(st.integers(1, 3))
    x: np.ndarray = distinct(*shape, rng=rng) if name == "MaxPool" else normal(*shape, rng=rng)
    symbolic = draw(st.sampled_from([(), (0,), tuple(range(2, x.ndim))]))
    return case(name, x, symbolic=symbolic, outputs=outputs, **given)


CASES = [*_convolutions(), *_transposed_known_at_run(), *_pools(), *_unpools(), *_folds(), *_deformable()]
