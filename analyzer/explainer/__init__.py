"""The explanation as one ONNX file that any ONNX Runtime runs, and a web page around it."""

from analyzer.explainer.export import Explainer, export_explainer

__all__ = ["Explainer", "export_explainer"]
