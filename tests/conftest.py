"""Settings that every test shares: quiet frameworks, deterministic hypothesis."""

from __future__ import annotations

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

from hypothesis import settings

settings.register_profile("onnxplain", deadline=None, derandomize=True, max_examples=25)
settings.load_profile("onnxplain")
