"""Names of layers as they are displayed: those folded into others are found and suggested."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import onnxplain as ox
from analyzer.errors import Note, UnknownTensor
from analyzer.graph.names import find_tensors, near_names


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self._conv_stem, self._bn0 = nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)
        self._conv_head, self._bn1 = nn.Conv2d(2, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x):
        return self._bn1(self._conv_head(self._bn0(self._conv_stem(x)).relu())).relu().mean((2, 3))


def test_a_displayed_layer_is_found_and_a_near_name_suggests_it():
    fn = ox.differentiate(Net().eval(), example=torch.randn(2, 3, 8, 8))
    with pytest.warns(Note, match=r"'_conv_head' was folded together with '_bn1'.*--no-fold-batch-norm"):
        (tensor,) = find_tensors(fn.graph, "_conv_head")
    assert (tensor,) == find_tensors(fn.graph, "_bn1")
    with pytest.warns(Note):
        by_name = ox.grad_cam(fn, np.ones((1, 3, 8, 8), np.float32), 0, layer="_conv_head").map
    np.testing.assert_array_equal(
        by_name, ox.grad_cam(fn, np.ones((1, 3, 8, 8), np.float32), 0, layer=tensor).map
    )
    for near in ("_conv_hea", "conv_head", "Conv_Head", "_conv-head"):
        with pytest.raises(UnknownTensor, match=r"Fix: try '_conv_head'"):
            find_tensors(fn.graph, near)
    with pytest.raises(UnknownTensor, match="onnxplain inspect"):
        find_tensors(fn.graph, "zzz")
    with pytest.raises(UnknownTensor, match=f"try '{tensor}'"):
        fn.forward(np.ones((1, 3, 8, 8), np.float32), tensor.upper())


def test_names_of_the_same_letters_go_first():
    assert near_names("layer-1.0", ["layer_10", "layer2.0", "other"])[0] == "layer_10"
    assert near_names("q", ["layer", "block"]) == []
