"""Settings that every test shares: quiet frameworks, deterministic hypothesis."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
if "PYTEST_XDIST_WORKER" in os.environ:
    # Workers side by side: threads of their own would only wait for each other.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

from hypothesis import settings

settings.register_profile("onnxplain", deadline=None, derandomize=True, max_examples=25)
# For a search by hand: pytest --hypothesis-profile=search.
settings.register_profile("search", deadline=None, max_examples=1000, print_blob=True)
settings.load_profile("onnxplain")
