"""List the ops of the ONNX standard without a class and without a lowering, with the reasons."""

from __future__ import annotations

import onnx

from analyzer.ops import registered
from converters.passes.functions import EXPANDED
from converters.passes.lower import LOWERED

_TEXT = "works on text: only ONNX Runtime has it, and it has no derivative"
_SEQUENCE = "sequences and optionals are resolved, where possible, while a model is loaded; no tensor remains"
_CONTROL = "unrolled if the count is known before running; otherwise an error"

REFUSED: dict[str, str] = {
    **dict.fromkeys(("RegexFullMatch", "StringConcat", "StringNormalizer", "StringSplit"), _TEXT),
    "TfIdfVectorizer": _TEXT,
    **dict.fromkeys(("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty"), _SEQUENCE),
    **dict.fromkeys(("SequenceErase", "SequenceInsert", "SequenceLength", "SplitToSequence"), _SEQUENCE),
    **dict.fromkeys(("Optional", "OptionalGetElement", "OptionalHasElement"), _SEQUENCE),
    "Scan": _CONTROL,
    "BitCast": "opset 23 has no op that reinterprets the bits of a number",
    "ImageDecoder": "decodes the bytes of a file: pass pixels to the model instead",
    "NonMaxSuppression": "selects boxes by comparison, which has no derivative; ONNX Runtime runs it",
}

DOMAINS = {
    "ai.onnx.ml": "scalers, linear models, normalizers and SVM regressors are expanded; trees and other ops "
    "run without a derivative",
    "ai.onnx.preview": "experimental ops of the standard, which may change",
    "ai.onnx.preview.training": "optimizer steps, which are not part of a model in inference",
}


def standard_ops() -> tuple[str, ...]:
    """Return the names of all ops of the standard's default domain in the installed onnx."""
    return tuple(sorted({s.name for s in onnx.defs.get_all_schemas() if not s.domain and not s.deprecated}))


def lowered_ops() -> tuple[str, ...]:
    """Return the names of the ops that are rewritten while a model is loaded."""
    known = {name for domain, name in registered() if not domain}
    return tuple(name for name in standard_ops() if name in (EXPANDED | LOWERED) - known)
