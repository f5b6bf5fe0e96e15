"""Networks that sample, pool regions, deform and transform: backends agree, FullGrad is complete."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper, parser
from torch import nn
from torch.nn import functional

from analyzer import check, differentiate, full_grad
from converters import convert, load

_RNG = np.random.default_rng(5)


def _weights(**shapes: tuple[int, ...]) -> dict[str, np.ndarray]:
    return {name: 0.5 * _RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def _network(opset: int, body: str, constants: dict[str, np.ndarray]) -> onnx.ModelProto:
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}]> g {body}')
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return model


SPATIAL_TRANSFORMER = _network(
    20,
    """(float[n, 2, 8, 8] x) => (float[n, 3] y) {
        a = Conv <strides = [2, 2]> (x, w_a, b_a)
        b = Tanh(a)
        c = Flatten(b)
        d = Gemm(c, w_d, b_d)
        theta = Reshape(d, matrices)
        shape = Shape(x)
        grid = AffineGrid(theta, shape)
        moved = GridSample <mode = "linear", padding_mode = "reflection"> (x, grid)
        e = Conv(moved, w_e, b_e)
        f = Relu(e)
        h = GlobalAveragePool(f)
        y = Flatten(h)
    }""",
    {
        **_weights(w_a=(2, 2, 3, 3), b_a=(2,), w_d=(18, 6), b_d=(6,), w_e=(3, 2, 3, 3), b_e=(3,)),
        "matrices": np.asarray([-1, 2, 3]),
    },
)
DEFORMABLE = _network(
    19,
    """(float[n, 2, 7, 7] x) => (float[n, 4] y) {
        offset = Conv(x, w_o, b_o)
        m = Conv(x, w_m, b_m)
        mask = Sigmoid(m)
        a = DeformConv(x, w, offset, b, mask)
        c = Relu(a)
        h = GlobalLpPool <p = 3> (c)
        y = Flatten(h)
    }""",
    _weights(w_o=(8, 2, 2, 2), b_o=(8,), w_m=(4, 2, 2, 2), b_m=(4,), w=(4, 2, 2, 2), b=(4,)),
)
REGIONS = _network(
    16,
    """(float[1, 2, 8, 8] x) => (float[1, 3] y) {
        a = Conv <pads = [1, 1, 1, 1]> (x, w_a, b_a)
        b = Softplus(a)
        means = RoiAlign <output_height = 2, output_width = 3, sampling_ratio = 0> (b, boxes, images)
        c = MaxRoiPool <pooled_shape = [2, 3]> (b, numbered)
        d = Mul(means, c)
        e = Reshape(d, row)
        y = Gemm(e, w_y, b_y)
    }""",
    {
        **_weights(w_a=(3, 2, 3, 3), b_a=(3,), w_y=(36, 3), b_y=(3,)),
        "boxes": np.float32([[0.4, 1.1, 5.2, 6.3], [2, 2, 7, 5]]),
        "numbered": np.float32([[0, 1, 1, 5, 6], [0, 2, 0, 7, 4]]),
        "images": np.asarray([0, 0]),
        "row": np.asarray([1, 36]),
    },
)
UNPOOLING = _network(
    11,
    """(float[n, 2, 9, 8] x) => (float[n, 2] y) {
        a = Conv(x, w_a, b_a)
        small, places = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (a)
        shape = Shape(a)
        wide = MaxUnpool <kernel_shape = [2, 2], strides = [2, 2]> (small, places, shape)
        c = Conv(wide, w_c, b_c)
        d = Relu(c)
        h = GlobalAveragePool(d)
        y = Flatten(h)
    }""",
    _weights(w_a=(3, 2, 3, 2), b_a=(3,), w_c=(2, 3, 2, 2), b_c=(2,)),
)
SPECTRUM = _network(
    17,
    """(float[n, 80] x) => (float[n, 3] y) {
        signal = Unsqueeze(x, last)
        window = HannWindow(points)
        spectrum = STFT(signal, step, window)
        power = ReduceSumSquare <axes = [-1], keepdims = 0> (spectrum)
        filters = MelWeightMatrix(bins, points, rate, low, high)
        mel = MatMul(power, filters)
        above = Add(mel, floor)
        loud = Log(above)
        mean = ReduceMean <axes = [1], keepdims = 0> (loud)
        y = Gemm(mean, w_y, b_y)
    }""",
    {
        **_weights(w_y=(5, 3), b_y=(3,)),
        "last": np.asarray([-1]),
        "points": np.asarray(32),
        "step": np.asarray(12),
        "bins": np.asarray(5),
        "rate": np.asarray(8000),
        "low": np.float32(100),
        "high": np.float32(3500),
        "floor": np.float32(0.1),
    },
)
NETWORKS = {
    "spatial transformer": (SPATIAL_TRANSFORMER, (3, 2, 8, 8)),
    "deformable": (DEFORMABLE, (3, 2, 7, 7)),
    "regions": (REGIONS, (1, 2, 8, 8)),
    "unpooling": (UNPOOLING, (3, 2, 9, 8)),
    "spectrum": (SPECTRUM, (3, 80)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_backends_agree_and_full_grad_is_complete(name):
    proto, shape = NETWORKS[name]
    model = load(proto)
    x = np.random.default_rng(1).normal(size=shape).astype(np.float32)
    gradients = []
    for backend in ("torch", "onnxruntime", "tensorflow"):
        fn = differentiate(model, backend)
        gradients.append(fn.gradients(x, 1).gradients["x"])
        assert np.max(full_grad(fn, x, 1).completeness.error) <= 1e-4
    scale = np.max(np.abs(gradients[0]))
    assert scale > 1e-4
    for gradient in gradients[1:]:
        np.testing.assert_allclose(gradient, gradients[0], rtol=0, atol=1e-4 * scale)


class Cropping(nn.Module):
    """Looks where its own convolution tells it to."""

    def __init__(self) -> None:
        super().__init__()
        self.where = nn.Sequential(
            nn.Conv2d(2, 4, 3, 2), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 6)
        )
        self.what = nn.Conv2d(2, 5, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        theta = 0.3 * self.where(x).view(-1, 2, 3) + torch.eye(2, 3)
        grid = functional.affine_grid(theta, x.shape, align_corners=False)
        seen = functional.grid_sample(x, grid, mode="bicubic", padding_mode="border", align_corners=False)
        return self.what(seen).relu().mean((2, 3))


class Filtering(nn.Module):
    """A filter in the frequencies, as Fourier neural operators have it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.randn(9))
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.fft.irfft(torch.fft.rfft(x) * self.gain, n=16).relu())


class Folding(nn.Module):
    """Overlapping patches, and the volumes of small matrices of them."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(2, 12, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        patches = functional.unfold(self.features(x).tanh(), 2)
        image = functional.fold(patches, (6, 6), 2)
        return torch.linalg.det(image.reshape(-1, 4, 3, 6, 6)[..., :3, :3]).mean(2)


@pytest.mark.parametrize(
    ("network", "shape"), [(Cropping, (2, 2, 8, 8)), (Filtering, (2, 16)), (Folding, (2, 2, 8, 8))]
)
def test_pytorch_networks_agree_on_four_backends(network, shape):
    torch.manual_seed(0)
    x = torch.randn(shape)
    model = convert(network().eval(), x)
    report = check(model, x.numpy(), target=1, backends=["onnxruntime", "torch", "tensorflow", "source"])
    assert report.passed
    assert np.max(full_grad(model, x.numpy(), 1).completeness.error) <= 1e-4
