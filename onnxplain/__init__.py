"""Attribution of neural networks that is framework-neutral, exact and everywhere.

`import onnxplain as ox` gives the public names of two packages: `converters`, which makes one canonical ONNX graph of a
PyTorch, Keras, TensorFlow or ONNX model, and `analyzer`, which computes gradients and attributions and checks them.
Importing it loads no framework.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

import analyzer as _analyzer
import converters as _converters
from analyzer import *  # noqa: F403
from converters import *  # noqa: F403

try:
    __version__ = version("onnxplain")
except PackageNotFoundError:  # A source tree that is not installed.
    __version__ = "unknown"


def __getattr__(name: str) -> object:
    """Return `onnxplain.ray`, or a registered attribution method that `analyzer` does not list."""
    if name == "ray":
        return import_module("onnxplain.ray")
    try:
        return getattr(_analyzer, name)
    except AttributeError:
        from analyzer.methods.names import unknown_attribute

        raise unknown_attribute(__name__, name, __all__) from None


__all__ = sorted({*_analyzer.__all__, *_converters.__all__, "__version__", "ray"})
