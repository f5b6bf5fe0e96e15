"""Decide whether loading a model file can run code of the file, or read and write other files.

An .onnx file is data: it needs no trust. A .pt2 file can always run code. Keras files and TensorFlow graphs are read
here first, without their loader, and refused where they hold more than layers and ops that only compute.
"package.module:factory" names code that the user chose, and needs no trust.
"""

from converters.sources.trust.keras_config import refuse_keras_code
from converters.sources.trust.refusal import untrusted
from converters.sources.trust.tensorflow_graph import refuse_graph, refuse_saved_model


def refuse_program(path: str) -> None:
    """Raise UntrustedModel for a .pt2 file: its weights, example inputs and constants are pickles.

    Its sizes are Python expressions, which torch.export.load evaluates. A filter of pickles would leave these.
    """
    raise untrusted(
        path,
        "is a PyTorch program, and torch.export.load unpickles and evaluates parts of it, which can run code",
    )


__all__ = ["refuse_graph", "refuse_keras_code", "refuse_program", "refuse_saved_model", "untrusted"]
