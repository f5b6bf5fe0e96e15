"""Read a folder of Hugging Face as a model: its .onnx file, and class names and preprocessing from its JSON files.

A folder on this machine, or "hf://organisation/name", which the package huggingface_hub downloads. Nothing outside the
folder is read, and no file of unlimited size.
"""

from converters.sources.hub.folder import HubFolder, open_folder

__all__ = ["HubFolder", "open_folder"]
