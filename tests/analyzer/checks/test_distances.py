"""Distances of maps: values by hand, invariances, and SciPy's and scikit-image's own."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from skimage.metrics import structural_similarity

from analyzer.checks import distances
from analyzer.errors import ShapeError

A = np.array([[3.0, -4.0, 0.0], [0.0, 0.0, 0.0]])
B = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
SIMILARITIES = (distances.cosine, distances.rank_correlation, distances.top_overlap)


def test_norms_by_hand():
    np.testing.assert_allclose(distances.l1(A), [7, 0])
    np.testing.assert_allclose(distances.l2(A), [5, 0])
    np.testing.assert_allclose(distances.l_infinity(A), [4, 0])
    np.testing.assert_allclose(distances.l2(A, A[::-1]), [5, 5])
    np.testing.assert_allclose(distances.relative_l2(A, B), [1, 0])
    np.testing.assert_allclose(distances.relative_l2(A, -A), [2, 0])
    np.testing.assert_allclose(distances.cosine(A, B), [0, 1])


def test_squares_stay_in_range():
    for scale in (1e-200, 1e200):
        np.testing.assert_allclose(distances.l2(scale * A), [5 * scale, 0])
        np.testing.assert_allclose(distances.relative_l2(scale * A, 2 * scale * A), [0.5, 0])
        np.testing.assert_allclose(distances.cosine(scale * A, scale * A[:, ::-1]), [0 + 16 / 25, 1])


def test_cosine_of_orthogonal_and_opposite_vectors():
    x = np.array([[1.0, 0.0], [1.0, 2.0]])
    np.testing.assert_allclose(distances.cosine(x, np.array([[0.0, 5.0], [-3.0, -6.0]])), [0, -1], atol=1e-15)


def test_rank_correlation_of_hand_solved_vectors():
    x = np.array([[1.0, 2, 3], [1.0, 2, 3], [1.0, 1, 2]])
    y = np.array([[10.0, 20, 90], [3.0, 2, 1], [1.0, 2, 3]])
    np.testing.assert_allclose(distances.rank_correlation(x, y), [1, -1, np.sqrt(3) / 2])


def test_rank_correlation_equals_scipys():
    rng = np.random.default_rng(0)
    # Ties among small integers.
    x, y = rng.integers(0, 6, (2, 4, 5, 7))
    expected = [spearmanr(p.reshape(-1), q.reshape(-1)).statistic for p, q in zip(x, y, strict=True)]
    np.testing.assert_allclose(distances.rank_correlation(x, y), expected, rtol=1e-12)
    constant = np.ones((1, 3))
    assert distances.rank_correlation(constant, 5 * constant) == 1
    assert distances.rank_correlation(constant, np.arange(3.0)[None]) == 0


def test_top_overlap_by_hand():
    x = np.array([[9.0, -8, 1, 2, 0, 3, 4, 5, 6, 7]])
    y = np.array([[1.0, 9, 0, 0, 0, 0, 0, 0, 0, 8]])
    # The two largest by size: 0 and 1; 1 and 9.
    assert distances.top_overlap(x, y, 0.2) == 0.5
    # Of the five largest of x (0, 1, 9, 8 and 7) three are y's; y's seven zeros share the two places that are left.
    np.testing.assert_allclose(distances.top_overlap(x, y, 0.5), (3 + 2 * 2 / 7) / 5)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_a_sample_is_similar_to_itself_and_samples_are_apart(similarity):
    x = np.random.default_rng(1).standard_normal((3, 4, 6))
    np.testing.assert_allclose(similarity(x, x), 1)
    y = np.concatenate([x[:1], -x[1:]])
    both = similarity(x, y)
    np.testing.assert_allclose(both, [similarity(x[k : k + 1], y[k : k + 1])[0] for k in range(3)])


@pytest.mark.parametrize("sizes", [(30,), (17, 24), (12, 11, 14)])
def test_ssim_equals_scikit_images(sizes):
    rng = np.random.default_rng(2)
    x = rng.random((3, *sizes)).cumsum(axis=1)
    y = x + rng.normal(0, [[0.01], [0.3], [3]], (3, x[0].size)).reshape(x.shape)
    expected = [
        structural_similarity(
            p,
            q,
            gaussian_weights=True,
            use_sample_covariance=False,
            data_range=max(p.max(), q.max()) - min(p.min(), q.min()),
        )
        for p, q in zip(x, y, strict=True)
    ]
    np.testing.assert_allclose(distances.ssim(x, y), expected, rtol=1e-9)
    assert expected[0] > 0.98 > 0.9 > expected[2]


def test_ssim_is_free_of_the_unit_and_takes_small_and_constant_maps():
    x, y = np.random.default_rng(3).random((2, 2, 5, 4))
    np.testing.assert_allclose(distances.ssim(1e6 * x, 1e6 * y), distances.ssim(x, y))
    np.testing.assert_allclose(distances.ssim(x, x), 1)
    np.testing.assert_allclose(distances.ssim(0 * x, 0 * x), 1)
    assert (distances.ssim(x, y) < 0.9).all()


@pytest.mark.parametrize("measure", [distances.l2, distances.ssim, *SIMILARITIES])
def test_arrays_of_different_shapes_are_refused(measure):
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 4\)"):
        measure(np.zeros((2, 3)), np.zeros((2, 4)))
