"""Explain a Ray Dataset on a cluster: `onnxplain.ray.explain`. Needs the extra "ray", which is imported when used."""

from analyzer.data.engines.ray import RayEngine, explain

__all__ = ["RayEngine", "explain"]
