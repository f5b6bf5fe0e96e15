"""Explain batches in this process. A thread reads, decodes and normalises the next ones meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from analyzer.data.batch_explainer import BatchExplainer
from analyzer.data.engines.reading import reading
from analyzer.types import Arrays

# Batches that are read and not explained yet.
_AHEAD = 2


class LocalEngine:
    """The engine of one process. See `Engine`."""

    def __init__(self) -> None:
        self._stopped = threading.Event()

    def map(
        self, explainer: BatchExplainer, batches: Iterable[Mapping[str, Any]]
    ) -> Iterator[tuple[int, Arrays]]:
        """Yield the index and the columns of every batch, in order."""
        with reading(batches, explainer.prepare, _AHEAD, self._stopped) as samples:
            index = 0
            while (read := samples.next()) is not None:
                yield index, explainer.explain(read)
                index += 1

    def stop(self) -> None:
        """Begin no further batch."""
        self._stopped.set()
