from .budget import Limits
from .canonical import BATCH, CANONICAL_KEY, CANONICAL_OPSET, canonicalise
from .conversion import convert, load
from .errors import (
    ConversionError,
    InvalidModel,
    LimitExceeded,
    MissingFramework,
    UnsupportedModel,
    UntrustedModel,
    VerificationFailed,
)
from .model import Model, Preprocessing, PyTorchSource, TensorFlowSource, Verification, set_metadata

__all__ = [
    "BATCH",
    "CANONICAL_KEY",
    "CANONICAL_OPSET",
    "ConversionError",
    "InvalidModel",
    "LimitExceeded",
    "Limits",
    "MissingFramework",
    "Model",
    "Preprocessing",
    "PyTorchSource",
    "TensorFlowSource",
    "UnsupportedModel",
    "UntrustedModel",
    "Verification",
    "VerificationFailed",
    "canonicalise",
    "convert",
    "load",
    "set_metadata",
]
