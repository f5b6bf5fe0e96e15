"""Tiny detectors in PyTorch: 8 × 8 anchors on 64 × 64 images, in the output layouts of the known families."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SIZE, CLASSES, ANCHORS = 64, 3, 64


class Detector(nn.Module):
    """One convolution with stride 8 gives each anchor its numbers. layout: of the outputs."""

    def __init__(self, layout: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layout = layout
        self.extra = {"yolov8": 0, "yolov5": 1, "ssd": 1, "detr": 1}[layout]
        self.head = nn.Conv2d(3, 4 + self.extra + CLASSES, 8, stride=8)
        rows, columns = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
        self.register_buffer("centres", torch.stack([columns, rows]).reshape(2, ANCHORS) * 8 + 4)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        y = self.head(x).flatten(2)
        centre = self.centres + 4 * torch.tanh(y[:, :2])
        size = 8 + 8 * torch.sigmoid(y[:, 2:4])
        scores = 4 * y[:, 4:]
        if self.layout == "yolov8":
            return torch.cat([centre, size, scores.sigmoid()], 1)
        if self.layout == "yolov5":
            return torch.cat([centre, size, scores.sigmoid()], 1).transpose(1, 2)
        box = torch.cat([centre, size], 1).transpose(1, 2) / SIZE
        if self.layout == "detr":
            return scores.transpose(1, 2), box
        corners = torch.cat([box[..., :2] - box[..., 2:] / 2, box[..., :2] + box[..., 2:] / 2], 2)
        return scores.transpose(1, 2).softmax(2), corners


def element(layout: str, outputs: Tensor | tuple[Tensor, Tensor], anchor: int, index: int) -> Tensor:
    """The score of a class at an anchor, by the documentation of each layout; index: as the output counts it."""
    if layout == "yolov8":
        assert isinstance(outputs, Tensor)
        return outputs[:, 4 + index, anchor]
    if layout == "yolov5":
        assert isinstance(outputs, Tensor)
        return outputs[:, anchor, 5 + index]
    return outputs[0][:, anchor, index]
