"""Expand the affine ops of ai.onnx.ml into ops of the standard: scalers, linear regressors, joined features."""

from __future__ import annotations

import numpy as np
import onnx

from converters.fused.builder import Builder, Undetermined, expands

CLASSICAL = "ai.onnx.ml"


@expands("Scaler", domain=CLASSICAL)
def scaler(op: Builder, x: str, *, offset: list[float], scale: list[float]) -> str:
    """(x − offset) · scale, per feature."""
    shifted = op.Sub(_floats(op, x), np.asarray(offset, np.float32))
    return str(op.Mul(shifted, np.asarray(scale, np.float32)))


@expands("LinearRegressor", domain=CLASSICAL)
def linear_regressor(
    op: Builder,
    x: str,
    *,
    coefficients: list[float],
    intercepts: list[float] | None = None,
    targets: int = 1,
    post_transform: bytes = b"NONE",
) -> str:
    """x · coefficientsᵀ + intercepts."""
    if post_transform != b"NONE":
        raise Undetermined(f"LinearRegressor with post_transform {post_transform!r}")
    weight = np.asarray(coefficients, np.float32).reshape(targets, -1).T
    product = op.MatMul(_floats(op, x), np.ascontiguousarray(weight))
    return str(product if intercepts is None else op.Add(product, np.asarray(intercepts, np.float32)))


@expands("FeatureVectorizer", domain=CLASSICAL)
def feature_vectorizer(op: Builder, *xs: str, inputdimensions: list[int] | None = None) -> str:
    """The features of several inputs, one after the other."""
    return str(op.Concat(*(_floats(op, x) for x in xs), axis=1))


def _floats(op: Builder, x: str) -> str:
    return x if op.dtype(x) == np.float32 else str(op.Cast(x, to=onnx.TensorProto.FLOAT))
