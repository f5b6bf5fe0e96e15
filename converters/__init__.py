"""Any framework's model becomes one canonical ONNX graph, held to its original.

`convert` takes a PyTorch, Keras, TensorFlow or ONNX model and returns a Model; `load` reads an .onnx file.
Importing this package loads no framework.

A public name is imported from its module when it is used first. `__init__.pyi` lists the names and their modules.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
