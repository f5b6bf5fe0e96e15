"""Expand ops of ai.onnx.ml into ops of the standard: scalers, linear models, norms, encoders, support vectors.

Where ONNX Runtime and the text of the standard differ, as for a post transform of one score, the op is refused or
follows the runtime, which runs the user's file. Labels of text are outputs that the conversion leaves out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from converters.graph.expansion import Expander, expands

CLASSICAL = "ai.onnx.ml"


@expands("Scaler", domain=CLASSICAL)
def scaler(op: Expander, x: str, *, offset: list[float], scale: list[float]) -> str:
    """(x − offset) · scale, per feature."""
    shifted = op.Sub(_floats(op, x), np.asarray(offset, np.float32))
    return str(op.Mul(shifted, np.asarray(scale, np.float32)))


@expands("LinearRegressor", domain=CLASSICAL)
def linear_regressor(
    op: Expander,
    x: str,
    *,
    coefficients: list[float],
    intercepts: list[float] | None = None,
    targets: int = 1,
    post_transform: str = "NONE",
) -> str:
    """x · coefficientsᵀ + intercepts."""
    scores = _linear(op, _floats(op, x), coefficients, intercepts, targets)
    return _transformed(op, scores, post_transform, targets)


@expands("LinearClassifier", domain=CLASSICAL)
def linear_classifier(
    op: Expander,
    x: str,
    *,
    coefficients: list[float],
    intercepts: list[float] | None = None,
    classlabels_ints: list[int] | None = None,
    classlabels_strings: list[bytes] | None = None,
    multi_class: int = 0,
    post_transform: str = "NONE",
) -> tuple[str | None, str]:
    """The label of the largest score, and the scores. One row of coefficients scores the second of two classes."""
    classes = len(classlabels_ints or classlabels_strings or ())
    rows = len(intercepts) if intercepts else max(classes, 1)
    scores = _linear(op, _floats(op, x), coefficients, intercepts, rows)
    if rows == 1 and classes == 2:
        chosen = op.Cast(op.Greater(scores, 0.0), to=onnx.TensorProto.INT64)
        label = _label(op, op.Squeeze(chosen, [1]), classlabels_ints)
        return label, _two_scores(op, scores, post_transform)
    label = _label(op, op.ArgMax(scores, axis=1, keepdims=0), classlabels_ints)
    return label, _transformed(op, scores, post_transform, rows)


@expands("Normalizer", domain=CLASSICAL)
def normalizer(op: Expander, x: str, *, norm: str = "MAX") -> str:
    """Each row over its largest element, the sum of its sizes, or its length; rows of zeros stay."""
    x = _floats(op, x)
    if norm == "MAX":
        size = op.ReduceMax(x, [-1])
    elif norm == "L1":
        size = op.ReduceSum(op.Abs(x), [-1])
    elif norm == "L2":
        squares = op.ReduceSum(op.Mul(x, x), [-1])
        # The root has no derivative at zero: a row of zeros is divided by one instead.
        size = op.Sqrt(op.Where(op.Equal(squares, 0.0), _one(), squares))
    else:
        raise op.refuse(f"has the norm {norm!r}, which has no standard form")
    return str(op.Div(x, op.Where(op.Equal(size, 0.0), _one(), size)))


@expands("Imputer", domain=CLASSICAL)
def imputer(
    op: Expander,
    x: str,
    *,
    imputed_value_floats: list[float] | None = None,
    imputed_value_int64s: list[int] | None = None,
    replaced_value_float: float = 0.0,
    replaced_value_int64: int = 0,
) -> str:
    """x, with one value replaced per feature."""
    dtype = op.dtype(x)
    integers = dtype.kind == "i"
    values = imputed_value_int64s if integers else imputed_value_floats
    replaced = replaced_value_int64 if integers else replaced_value_float
    if not values:
        raise op.refuse(f"has no imputed value for its input of {dtype}")
    missing = op.IsNaN(x) if math.isnan(replaced) else op.Equal(x, np.asarray(replaced, dtype))
    return str(op.Where(missing, np.asarray(values, dtype), x))


@expands("Binarizer", domain=CLASSICAL)
def binarizer(op: Expander, x: str, *, threshold: float = 0.0) -> str:
    """One where x is above the threshold, else zero."""
    dtype = op.dtype(x)
    return str(op.CastLike(op.Greater(x, np.asarray(threshold, dtype)), x))


@expands("FeatureVectorizer", domain=CLASSICAL)
def feature_vectorizer(op: Expander, *xs: str, inputdimensions: list[int] | None = None) -> str:
    """The features of several inputs, one after the other."""
    return str(op.Concat(*(_floats(op, x) for x in xs), axis=1))


@expands("ArrayFeatureExtractor", domain=CLASSICAL)
def array_feature_extractor(op: Expander, x: str, indices: str) -> str:
    """The elements of the last axis at the indices."""
    if op.rank(x) < 2:
        x = op.Unsqueeze(x, [0])
    return str(op.Gather(x, op.Reshape(indices, [-1]), axis=-1))


@expands("OneHotEncoder", domain=CLASSICAL)
def one_hot_encoder(op: Expander, x: str, *, cats_int64s: list[int] | None = None, zeros: int = 1) -> str:
    """Ones where an integer equals a category, on a new last axis."""
    if not cats_int64s or not zeros:
        raise op.refuse(
            "encodes text, or fails at unknown categories. Fix: give the encoded numbers as the input"
        )
    whole = op.Cast(x, to=onnx.TensorProto.INT64)
    return str(
        op.Cast(op.Equal(op.Unsqueeze(whole, [-1]), np.asarray(cats_int64s)), to=onnx.TensorProto.FLOAT)
    )


@expands("SVMRegressor", domain=CLASSICAL)
def svm_regressor(
    op: Expander,
    x: str,
    *,
    coefficients: list[float],
    rho: list[float],
    support_vectors: list[float] | None = None,
    n_supports: int = 0,
    kernel_type: str = "LINEAR",
    kernel_params: list[float] | None = None,
    one_class: int = 0,
    post_transform: str = "NONE",
) -> str:
    """The kernel of x and each support vector, weighted and summed; the sign of it for one class."""
    features = _floats(op, x)
    if n_supports > 0:
        vectors = np.asarray(support_vectors, np.float32).reshape(n_supports, -1)
        features = _kernel(op, features, vectors, kernel_type, kernel_params or [0.0, 0.0, 0.0])
    score = _linear(op, features, coefficients, rho, 1)
    if one_class:
        return str(op.Where(op.Greater(score, 0.0), _one(), np.asarray(-1, np.float32)))
    return _transformed(op, score, post_transform, 1)


def _kernel(op: Expander, x: str, vectors: np.ndarray, kernel: str, parameters: Sequence[float]) -> str:
    """Return the kernel of every row of x (N, F) and every support vector (S, F), (N, S)."""
    gamma, offset, degree = parameters
    if kernel == "RBF":
        apart = op.Sub(op.Unsqueeze(x, [1]), vectors)
        return str(op.Exp(op.Mul(op.ReduceSum(op.Mul(apart, apart), [2], keepdims=0), -gamma)))
    product = op.MatMul(x, np.ascontiguousarray(vectors.T))
    if kernel == "LINEAR":
        return str(product)
    affine = op.Add(op.Mul(product, gamma), offset)
    if kernel == "POLY":
        return str(op.Pow(affine, degree))
    if kernel == "SIGMOID":
        return str(op.Tanh(affine))
    raise op.refuse(f"has the kernel {kernel!r}, which has no standard form")


def _linear(
    op: Expander, x: str, coefficients: list[float], intercepts: list[float] | None, rows: int
) -> str:
    """Return x · coefficientsᵀ + intercepts."""
    weight = np.asarray(coefficients, np.float32).reshape(rows, -1).T
    product = op.MatMul(x, np.ascontiguousarray(weight))
    return str(product if not intercepts else op.Add(product, np.asarray(intercepts, np.float32)))


def _two_scores(op: Expander, score: str, transform: str) -> str:
    """Return the scores of two classes from that of the second, (N, 1) to (N, 2), as ONNX Runtime has them."""
    if transform == "LOGISTIC":
        return str(op.Sigmoid(op.Concat(op.Neg(score), score, axis=1)))
    if transform == "NONE":
        return str(op.Concat(op.Sub(_one(), score), score, axis=1))
    raise _refuse_transform(op, transform)


def _transformed(op: Expander, scores: str, transform: str, count: int) -> str:
    """Return (N, count) scores after the post transform."""
    if transform == "NONE":
        return scores
    if count > 1 and transform == "LOGISTIC":
        return str(op.Sigmoid(scores))
    if count > 1 and transform == "SOFTMAX":
        return str(op.Softmax(scores, axis=1))
    if count > 1 and transform == "SOFTMAX_ZERO":
        # Scores of zero stay zero, and count for nothing.
        zero = op.LessOrEqual(op.Abs(scores), 1e-7)
        raised = op.Exp(op.Sub(scores, op.ReduceMax(scores, [1])))
        kept = op.Where(zero, np.zeros((), np.float32), raised)
        return str(op.Div(kept, op.ReduceSum(kept, [1])))
    raise _refuse_transform(op, transform)


def _refuse_transform(op: Expander, transform: str) -> Exception:
    return op.refuse(
        f"has the post_transform {transform!r}, on which ONNX Runtime and the standard differ, or without a standard "
        'form. Fix: set the attribute post_transform of the node to "NONE", and explain the scores'
    )


def _label(op: Expander, chosen: str, labels: list[int] | None) -> str | None:
    return None if not labels else str(op.Gather(np.asarray(labels, np.int64), chosen))


def _one() -> np.ndarray:
    return np.ones((), np.float32)


def _floats(op: Expander, x: str) -> str:
    return x if op.dtype(x) == np.float32 else str(op.Cast(x, to=onnx.TensorProto.FLOAT))
