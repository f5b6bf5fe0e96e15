"""Data sets: explain many samples in parts, on one machine or on many, and read the results again."""

from analyzer.data.batch_explainer import BatchExplainer

__all__ = ["BatchExplainer"]
