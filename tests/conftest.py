"""Settings that every test shares: deterministic hypothesis. The environment is that of a user."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("onnxplain", deadline=None, derandomize=True, max_examples=25)
# For a search by hand: pytest --hypothesis-profile=search.
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("onnxplain")
