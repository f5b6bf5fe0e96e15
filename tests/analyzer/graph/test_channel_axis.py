"""Which axis holds the channels, where layers tell."""

from __future__ import annotations

import numpy as np
from onnx import parser

from analyzer import full_grad
from analyzer.graph.channel_axis import channel_axes
from analyzer.graph.graph import Graph
from converters import load

ONE_CHANNEL_LAST = (
    '<ir_version: 10, opset_import: ["": 23]> g (float[n,5,7,1] x) => (float[n,2] y)'
    " <int64[4] first = {-1,1,5,7}, float[2,1,3,3] w ="
    f" {{{','.join(map(str, range(18)))}}}> {{"
    " c = Reshape(x, first) h = Conv(c, w) p = GlobalAveragePool(h) y = Flatten(p) }"
)


def test_one_channel_is_moved_by_a_reshape():
    model = load(parser.parse_model(ONE_CHANNEL_LAST))
    axes = channel_axes(Graph.from_proto(model.proto))
    assert axes["x"] == 3
    images = np.random.default_rng(0).standard_normal((2, 5, 7, 1)).astype(np.float32)
    assert full_grad(model, images, target=1).map.shape == (2, 5, 7)
