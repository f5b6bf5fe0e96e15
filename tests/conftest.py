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
    """Give PyTorch one thread where workers share the processor: more would wait for one another."""
    if hasattr(session.config, "workerinput") and (torch := sys.modules.get("torch")):
        torch.set_num_threads(1)
