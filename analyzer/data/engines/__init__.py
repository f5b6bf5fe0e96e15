"""Engines: where the batches of a data set are explained."""

from __future__ import annotations

from analyzer.data.engines.local import LocalEngine
from analyzer.data.engines.processes import ProcessEngine
from analyzer.data.engines.protocol import Engine, WorkerLost
from analyzer.errors import AnalysisError

KINDS = ("local", "ray")


def engine_of(workers: int = 0, kind: str = "local", address: str | None = None) -> Engine:
    """Return an engine: this process for workers=0, else so many processes, or actors on a Ray cluster.

    kind: "local" or "ray". address: of a Ray cluster. Default: the one of this process or of this machine, else a new
    one.
    Raises AnalysisError for an unknown kind, MissingDependency where Ray is not installed.
    """
    if kind not in KINDS:
        raise AnalysisError(f"unknown engine {kind!r}. Fix: choose from {', '.join(KINDS)}")
    if kind == "ray":
        from analyzer.data.engines.ray import RayEngine

        return RayEngine(workers or None, address)
    if address is not None:
        raise AnalysisError(
            'an address is one of a Ray cluster. Fix: engine="ray" (--engine ray), or omit it'
        )
    return ProcessEngine(workers) if workers else LocalEngine()


__all__ = ["KINDS", "Engine", "LocalEngine", "ProcessEngine", "WorkerLost", "engine_of"]
