"""Ops of the ONNX standard that have neither a class nor a lowering, with the reason: the other half of the page."""

from __future__ import annotations

import onnx

from analyzer.ops import registered
from converters.passes.functions import EXPANDED
from converters.passes.lower import LOWERED

_TEXT = "works on text, which no backend but ONNX Runtime has and no derivative passes"
_SEQUENCE = (
    "sequences and optionals are resolved while a model is loaded, where that can be done; no tensor remains"
)
_CONTROL = (
    "unrolled or folded where its count or condition is known before running, otherwise refused by name"
)

REFUSED: dict[str, str] = {
    **dict.fromkeys(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"), _TEXT),
    "TfIdfVectorizer": _TEXT,
    **dict.fromkeys(("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty"), _SEQUENCE),
    **dict.fromkeys(("SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence"), _SEQUENCE),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _SEQUENCE),
    **dict.fromkeys(("If", "Loop", "Scan"), _CONTROL),
    "BitCast": "reads the bits of a number as another number, for which opset 23 has no op",
    "ImageDecoder": "decodes the bytes of a file: give the model the pixels",
    "NonMaxSuppression": "chooses boxes by comparing them, so that no derivative passes; ONNX Runtime runs it",
}

DOMAINS = {
    "ai.onnx.ml": "scalers, linear models, norms and SVM regressors are expanded; trees and other ops run without a "
    "derivative",
    "ai.onnx.preview": "ops that the standard may still change",
    "ai.onnx.preview.training": "steps of optimizers, which are no part of a model in inference",
}


def standard_ops() -> tuple[str, ...]:
    """The names of all ops of the standard's own domain in the installed onnx."""
    return tuple(sorted({s.name for s in onnx.defs.get_all_schemas() if not s.domain and not s.deprecated}))


def lowered_ops() -> tuple[str, ...]:
    """Those that are rewritten while a model is loaded."""
    known = {name for domain, name in registered() if not domain}
    return tuple(name for name in standard_ops() if name in (EXPANDED | LOWERED) - known)
