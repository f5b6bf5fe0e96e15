"""Engines: where the batches of a data set are explained."""

from analyzer.data.engines.protocol import Engine, WorkerLost

__all__ = ["Engine", "WorkerLost"]
