"""Import pyarrow where it is used, with an error that names the extra where it is not installed."""

from __future__ import annotations

from typing import Any

from analyzer.errors import MissingDependency
from converters.system.extras import install


def arrow() -> Any:
    """Return the module pyarrow, with its parts `parquet`, `ipc` and `compute`. Raises MissingDependency."""
    try:
        import pyarrow
        import pyarrow.compute
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependency(
            f"data sets and their results need pyarrow, which is not installed. Fix: {install('data')}"
        ) from error
    return pyarrow
