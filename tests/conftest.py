"""Settings of the whole test suite."""

from __future__ import annotations

import sys

import pytest
from hypothesis import settings

settings.register_profile("onnxplain", deadline=None, derandomize=True, max_examples=25)
# For a search by hand: pytest --hypothesis-profile=search.
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("onnxplain")


def pytest_collection_finish(session: pytest.Session) -> None:
    """Give each framework one thread where workers share the processor: more would wait for one another."""
    if not hasattr(session.config, "workerinput"):
        return
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
    if tensorflow := sys.modules.get("tensorflow"):
        tensorflow.config.threading.set_intra_op_parallelism_threads(1)
        tensorflow.config.threading.set_inter_op_parallelism_threads(1)
