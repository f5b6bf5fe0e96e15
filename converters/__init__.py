"""Any framework's model becomes one canonical ONNX graph, held to its original.

`convert` takes a PyTorch, Keras, TensorFlow or ONNX model and returns a Model; `load` reads an .onnx file.
Importing this package loads no framework.
"""

import copyreg

from converters.budget import Limits
from converters.canonical import BATCH, CANONICAL_KEY, CANONICAL_OPSET, canonicalise
from converters.conversion import convert, load
from converters.errors import (
    ConversionError,
    InvalidModel,
    LimitExceeded,
    MissingFramework,
    UnsupportedModel,
    UntrustedModel,
    VerificationFailed,
)
from converters.model import Model, Preprocessing, PyTorchSource, TensorFlowSource, Verification, set_metadata
from converters.pickling import reduced

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

# A Model cannot know of the function that loads it again, which is in a layer above.
copyreg.pickle(Model, reduced)
del copyreg, reduced
