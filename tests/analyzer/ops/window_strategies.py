"""hypothesis strategies of convolutions and pools of one to three spatial axes: each draws a Case."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from tests.analyzer.ops.harness import Case
from tests.analyzer.ops.strategies import Draw, generators, some_of
from tests.analyzer.ops.values import case, distinct, normal

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
