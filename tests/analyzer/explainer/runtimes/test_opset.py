"""Models at another opset give the same outputs on ONNX Runtime, or an error that names the node."""

from __future__ import annotations

import warnings
from collections import defaultdict
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.backend.test.loader import load_model_tests

from analyzer.autodiff.request import full_program, observe
from analyzer.backends import differentiate
from analyzer.errors import ExportError
from analyzer.explainer.runtimes import at_opset
from analyzer.explainer.runtimes.mutable import all_nodes
from converters import convert
from converters.graph.runtime import RuntimeFailure, run

NEWEST = onnx.defs.onnx_opset_version()
# Draws, and an optional output that the runtime's kernel and the standard's body compute differently.
_INCOMPARABLE = ("bernoulli", "qk_matmul_bias_3d_mask_causal", "qk_matmul_bias_4d_mask_causal")


def _opset(proto: onnx.ModelProto) -> int:
    return next(entry.version for entry in proto.opset_import if entry.domain == "")


@cache
def _cases() -> dict[str, list[Any]]:
    """The standard's node tests of arrays from opset 18 on, by op."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = load_model_tests(kind="node")
    found = defaultdict(list)
    for case in cases:
        if not case.data_sets:
            continue
        arrays = [*case.data_sets[0][0], *case.data_sets[0][1]]
        domains = {entry.domain for entry in case.model.opset_import}
        if domains != {""} or _opset(case.model) < 18 or not all(isinstance(x, np.ndarray) for x in arrays):
            continue
        if len(case.model.graph.node) == 1 and not any(part in case.name for part in _INCOMPARABLE):
            found[case.model.graph.node[0].op_type].append(case)
    return found


def _outputs(proto: onnx.ModelProto, arrays: list[np.ndarray]) -> list[np.ndarray] | None:
    try:
        feeds = {info.name: x for info, x in zip(proto.graph.input, arrays, strict=True)}
        return list(run(proto, feeds, optimise=False))
    except RuntimeFailure:
        return None


def _assert_valid(proto: onnx.ModelProto, opset: int) -> None:
    assert _opset(proto) == opset
    assert proto.ir_version == helper.find_min_ir_version_for(list(proto.opset_import))
    for node in all_nodes(proto.graph):
        assert onnx.defs.get_schema(node.op_type, opset).since_version <= opset
    onnx.checker.check_model(proto, full_check=True)


# All tests take half a minute; the others of an op have the same form.
@pytest.mark.parametrize(("opset", "count"), [(17, 6), (20, 3)])
def test_node_tests_give_the_same_outputs(opset: int, count: int) -> None:
    equal, refused = set(), set()
    for op_type, cases in _cases().items():
        for case in cases[:count]:
            version, (inputs, expected) = _opset(case.model), case.data_sets[0]
            if version <= opset:
                continue
            try:
                lowered = at_opset(case.model, opset)
            except ExportError as error:
                assert "Fix: " in str(error)
                refused.add(op_type)
                continue
            _assert_valid(lowered, opset)
            reference = _outputs(case.model, inputs)
            found = _outputs(lowered, inputs)
            if found is None:
                # The runtime lacks the op, or its type, at either opset.
                assert reference is None, case.name
                continue
            for one, other in zip(found, expected if reference is None else reference, strict=True):
                assert one.dtype == other.dtype and one.shape == other.shape, case.name
                if one.dtype.kind in "fc":
                    # Some expected values of the tests are rounded.
                    tolerance = 1e-2 if one.dtype == np.float16 else 1e-5 if reference else 1e-3
                    np.testing.assert_allclose(
                        one, other, rtol=tolerance, atol=tolerance / 10, err_msg=case.name
                    )
                elif one.dtype.kind in "iub":
                    np.testing.assert_array_equal(one, other, err_msg=case.name)
            equal.add(op_type)
    assert len(equal) > {17: 75, 20: 50}[opset]
    # Ops without an older form are never lowered.
    assert {"BitCast", "TensorScatter"} <= refused - equal


LOWERED = {
    "Gelu": """(float[N, 5] x) => (float[N, 5] y) { y = Gelu <approximate = "tanh"> (x) }""",
    "HardSwish and Mish": """(float[N, 5] x) => (float[N, 5] y) { a = HardSwish (x) y = Mish (a) }""",
    "GroupNormalization": """(float[N, 4, 3] x) => (float[N, 4, 3] y)
        <float[4] s = {1, 2, 3, 4}, float[4] b = {0, 1, 2, 3}> { y = GroupNormalization <num_groups = 2> (x, s, b) }""",
    "reductions": """(float[N, 3, 4] x) => (float[N, 3] y, float[N, 1, 4] z, float w)
        <int64[1] last = {-1}, int64[1] one = {1}> {
            y = ReduceMax <keepdims = 0> (x, last)
            z = ReduceMean (x, one)
            w = ReduceProd <keepdims = 0> (x)
        }""",
    "a reduction of nothing": """(float[N, 3] x) => (float[N, 3] y)
        <int64[0] none = {}> { y = ReduceMax <noop_with_empty_axes = 1> (x, none) }""",
    "parts of a known axis": """(float[N, 7] x) => (float[N, 3] a, float[N, 3] b, float[N, 1] c)
        { a, b, c = Split <axis = -1, num_outputs = 3> (x) }""",
    "parts of a free axis": """(float[N, 2] x) => (float[A, 2] a, float[B, 2] b)
        { a, b = Split <axis = 0, num_outputs = 2> (x) }""",
    "padded axes": """(float[N, 2, 3] x) => (float[N, C, D] y)
        <int64[4] pads = {1, 2, 3, 0}, int64[2] axes = {-1, 1}, float fill = {7}> { y = Pad (x, pads, fill, axes) }""",
    "computed pads": """(float[N, 2, 3] x) => (float[M, 2, 5] y)
        <int64[1] axes = {-1}> { n = Shape <start = 1, end = 2> (x) z = Sub (n, n) p = Concat <axis = 0> (n, z)
        y = Pad (x, p, , axes) }""",
    "resized axes": """(float[N, 1, 3, 4] x) => (float[N, 1, 6, 8] y)
        <float[2] s = {2, 2}> { y = Resize <mode = "linear", axes = [3, 2]> (x, , s) }""",
    "sizes of axes": """(float[N, 1, 3, 4] x) => (float[N, 1, 5, 7] y)
        <int64[2] s = {5, 7}> { y = Resize <mode = "nearest", axes = [2, 3]> (x, , , s) }""",
    "a cropped region": """(float[N, 1, 3, 4] x) => (float[N, 1, 5, 7] y)
        <float[4] r = {0.1, 0.2, 0.8, 0.9}, int64[2] s = {5, 7}> { y = Resize <mode = "linear",
        coordinate_transformation_mode = "tf_crop_and_resize", axes = [2, 3]> (x, r, , s) }""",
    "GridSample": """(float[1, 2, 3, 4] x, float[1, 2, 2, 2] g) => (float[1, 2, 2, 2] y)
        { a = GridSample <mode = "cubic"> (x, g) b = GridSample <mode = "nearest"> (x, g) c = GridSample (x, g)
        d = Add (a, b) y = Add (c, d) }""",
    "a transform along a named axis": """(float[1, 4, 3, 1] x) => (float[1, 4, 3, 2] y)
        <int64 axis = {-3}> { y = DFT (x, , axis) }""",
    "the default axis of a transform": "(float[1, 4, 3, 1] x) => (float[1, 4, 3, 2] y) { y = DFT (x) }",
    "reduced truth values": """(bool[N, 3] x) => (bool[N] y, bool[N] z)
        <int64[1] last = {-1}> { y = ReduceMax <keepdims = 0> (x, last) z = ReduceMin <keepdims = 0> (x, last) }""",
    "quantization without a zero point": """(float[N, 3] x) => (float[N, 3] y)
        <float scale = {0.1}> { q = QuantizeLinear <output_dtype = 3> (x, scale) y = DequantizeLinear (q, scale) }""",
    "casts and shapes": """(float[N, 3] x) => (float[N, 3] y) { h = Cast <to = 10, saturate = 1> (x)
        f = CastLike (h, x) n = Shape (x) c = ConstantOfShape <value = float[1] {2}> (n) y = Mul (f, c) }""",
    "bodies": """(float[N, 3] x, bool c) => (float[N, 3] y, float[N, 1] z) {
        y = If (c) <then_branch = a () => (float[N, 3] t) { t = Gelu (x) },
                    else_branch = b () => (float[N, 3] e) { e = Mish (x) }>
        z = If (c) <then_branch = d () => (float[N, 1] t2) {
                        ax = Constant <value = int64[1] {-1}> () t2 = ReduceMin (x, ax) },
                    else_branch = f () => (float[N, 1] e2) {
                        ax = Constant <value = int64[1] {1}> () e2 = ReduceL2 (x, ax) }>
        }""",
    "a normalization that opset 23 brought": """(float[N, 2, 5] x) => (float[N, 2, 5] y)
        <float[5] s = {1, 2, 3, 4, 5}> { y = RMSNormalization <axis = -1, epsilon = 0.01> (x, s) }""",
    "a normalization of two axes": """(float[N, 2, 3] x) => (float[N, 2, 3] y)
        <float[2, 3] s = {1, 2, 3, 4, 5, 6}> { y = RMSNormalization <axis = 1> (x, s) }""",
}


def _drawn(proto: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng, weights, feeds = np.random.default_rng(3), {t.name for t in proto.graph.initializer}, {}
    for info in proto.graph.input:
        if info.name not in weights:
            shape = [dim.dim_value or 3 for dim in info.type.tensor_type.shape.dim]
            x = rng.normal(size=shape)
            boolean = info.type.tensor_type.elem_type == TensorProto.BOOL
            feeds[info.name] = (x > 0) if boolean else x.astype(np.float32)
    return feeds


@pytest.mark.parametrize("name", LOWERED)
def test_changed_op_keeps_its_values(name: str) -> None:
    version = 23 if "RMSNormalization" in LOWERED[name] else 21
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : {version}]> g {LOWERED[name]}')
    before, feeds = proto.SerializeToString(), _drawn(proto)
    expected = run(proto, feeds, optimise=False)
    for opset in (17, 18, 19, 20, 21, 22, 23):
        lowered = at_opset(proto, opset)
        _assert_valid(lowered, opset)
        if opset > 21:
            # The oldest runtime has no kernels for some ops of these.
            continue
        for one, other in zip(run(lowered, feeds, optimise=False), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6)
    assert proto.SerializeToString() == before
    _assert_valid(at_opset(at_opset(proto, 23), NEWEST), NEWEST)


REFUSED = {
    "computed axes": """(float[2, 3] x, int64[1] a) => (float y) { y = ReduceMax <keepdims = 0> (x, a) }""",
    "scattered maxima": """(float[3] x, int64[2] i, float[2] u) => (float[3] y)
        { y = ScatterElements <reduction = "max"> (x, i, u) }""",
    "wrapped padding": """(float[3] x, int64[2] p) => (float[N] y) { y = Pad <mode = "wrap"> (x, p) }""",
    "smoothing": """(float[1, 1, 4] x, float[3] s) => (float[1, 1, N] y)
        { y = Resize <antialias = 1, mode = "linear"> (x, , s) }""",
    "a volume": """(float[1, 1, 2, 2, 2] x, float[1, 1, 1, 1, 3] g) => (float[1, 1, 1, 1, 1] y)
        { y = GridSample (x, g) }""",
    "dilations": """(float[1, 1, 6] x) => (float[1, 1, 4] y)
        { y = AveragePool <kernel_shape = [2], dilations = [2]> (x) }""",
    "bits": """(int32[3] x) => (int32[3] y) { y = BitwiseNot (x) }""",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_older_form_is_refused(name: str) -> None:
    proto = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 21]> g {REFUSED[name]}')
    with pytest.raises(ExportError, match=rf"node 'y' \({proto.graph.node[0].op_type}\).*Fix: choose opset"):
        at_opset(proto, 17)


def test_an_opset_out_of_range_is_refused() -> None:
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x) => (float[1] y) { y = Relu (x) }'
    )
    for opset in (16, NEWEST + 1):
        with pytest.raises(ExportError, match=f"from 17 to {NEWEST}, got {opset}"):
            at_opset(proto, opset)
    with pytest.raises(ExportError, match="opset 21 or later to raise it to 18, got 17"):
        at_opset(proto, 18)


def test_ranks_are_known_in_the_body_of_a_loop() -> None:
    """Axes and shapes that come from outside a body decide what its GridSample and RMSNormalization are."""
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 23]>
        g (float[N, 3, 4] x, float[1, 2, 2, 2] grid) => (float[1, 1, 2, 2] y, float[K, 1] trace)
        <int64[1] zero = {0}, int64[4] shape = {1, 1, 3, 4}, int64 trips = {3}, float[4] scale = {1, 2, 3, 4},
         float[1, 1, 2, 2] none = {0, 0, 0, 0}, int64[1] flat = {-1}> {
            y, trace = Loop (trips, , none) <body = b (int64 i, bool c, float[1, 1, 2, 2] before)
                => (bool go, float[1, 1, 2, 2] after, float[1] sum) {
                go = Identity (c)
                one = Unsqueeze (x, zero)
                image = Reshape (one, shape)
                normal = RMSNormalization (image, scale)
                step = GridSample (normal, grid)
                after = Add (before, step)
                all = Reshape (after, flat)
                sum = ReduceMean (all, zero)
            }>
        }""")
    rng = np.random.default_rng(2)
    feeds = {"x": rng.normal(size=(1, 3, 4)), "grid": rng.uniform(-1, 1, (1, 2, 2, 2))}
    feeds = {name: array.astype(np.float32) for name, array in feeds.items()}
    expected = run(proto, feeds, optimise=False)
    for opset in (17, 20, 22):
        for one, other in zip(run(at_opset(proto, opset), feeds, optimise=False), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=2e-6, atol=1e-6)


def test_a_gradient_program_is_the_same_at_every_opset() -> None:
    """Forward and backward pass of a recurrent and a convolutional layer, with Scan bodies in the backward pass."""
    rng = np.random.default_rng(9)
    proto = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["" : 21]>
        g (float[N, 2, 6, 4] x) => (float[N, 3] y) <int64[1] width = {3}> {
            c = Conv <pads = [1, 1, 1, 1]> (x, kernel)
            a = Gelu (c)
            p = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
            r = ReduceMax <keepdims = 0> (p, width)
            s = Transpose <perm = [2, 0, 1]> (r)
            h, last = LSTM <hidden_size = 4> (s, w, u)
            m, n = Split <axis = -1, num_outputs = 2> (last)
            k = Mul (m, n)
            z = ReduceMean <keepdims = 0> (k, zeros)
            y = MatMul (z, out)
        }""")
    shapes = {"kernel": (5, 2, 3, 3), "w": (1, 16, 5), "u": (1, 16, 4), "out": (2, 3)}
    for name, shape in shapes.items():
        proto.graph.initializer.append(
            onnx.numpy_helper.from_array((0.3 * rng.normal(size=shape)).astype(np.float32), name)
        )
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(1, np.int64), "zeros"))
    fn = differentiate(convert(proto))
    (x,), (y,) = fn.graph.inputs, fn.graph.outputs
    program = full_program(fn.graph, observe([y], [x]), y, weights=False)
    written = onnx.shape_inference.infer_shapes(program.proto)
    feeds = {
        program.inputs[0]: rng.normal(size=(2, 2, 6, 4)).astype(np.float32),
        program.inputs[1]: np.asarray([2, -1]),
    }
    expected = run(written, feeds, optimise=False)
    _assert_valid(at_opset(written, NEWEST), NEWEST)
    for opset in (17, 18, 20, 21, 23):
        lowered = at_opset(written, opset)
        _assert_valid(lowered, opset)
        for one, other in zip(run(lowered, feeds, optimise=False), expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
