"""Checks across frameworks: what is claimed of a model is shown by independent backends."""

from analyzer.checks.agreement import available_backends, check
from analyzer.checks.invariance import compare
from analyzer.checks.report import Report

__all__ = ["Report", "available_backends", "check", "compare"]
