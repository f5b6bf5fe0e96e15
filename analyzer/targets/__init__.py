"""Targets of detectors, segmentations and language models, the short way: what `onnxplain.targets` gives."""

from analyzer.targets.detection import candidates, detection
from analyzer.targets.detector import Candidate
from analyzer.targets.next_token import next_token
from analyzer.targets.segmentation import segmentation
from analyzer.targets.sequence import sequence_log_probability
from analyzer.targets.token_difference import token_difference

__all__ = [
    "Candidate",
    "candidates",
    "detection",
    "next_token",
    "segmentation",
    "sequence_log_probability",
    "token_difference",
]
