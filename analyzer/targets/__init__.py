"""Targets of detectors and segmentations, the short way: what `onnxplain.targets` gives."""

from analyzer.targets.detection import candidates, detection
from analyzer.targets.detector import Candidate
from analyzer.targets.segmentation import segmentation

__all__ = ["Candidate", "candidates", "detection", "segmentation"]
