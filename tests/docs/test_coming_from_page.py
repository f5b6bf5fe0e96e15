"""The page on Captum, pytorch-grad-cam and SHAP: both expressions of a row of its tables give the same numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from tests.docs.page import Page
from tests.docs.test_full_grad_page import classifier
from tests.peers import grad_cam as peer

PAGE = Page("coming_from.md")
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \|$", re.MULTILINE)
RANDOM = ("NoiseTunnel", "GradientShap")


def rows(section: str) -> list[tuple[str, str]]:
    """The rows of the tables with two expressions under a heading."""
    part = PAGE.text.split(f"\n## {section}\n")[1].split("\n## ")[0]
    tables = re.split(r"\n\n", part)
    compared = [table for table in tables if table.startswith(f"| {section} | onnxplain |")]
    return [row for table in compared for row in ROW.findall(table)]


CAPTUM = [row for row in rows("Captum") if not row[0].startswith(RANDOM)]
NOISY = [row for row in rows("Captum") if row[0].startswith(RANDOM)]
GRAD_CAM = rows("pytorch-grad-cam")


@pytest.fixture(scope="module")
def names():
    """What the page says its blocks are given, after its blocks."""
    net = classifier()
    with torch.no_grad():
        net[7].weight *= 1e4  # pytorch-grad-cam adds 1e-6 to squares of gradients
    given = {
        "net": net,
        "images": np.random.default_rng(0).standard_normal((2, 3, 16, 16)).astype(np.float32),
    }
    peer.import_package()
    assert PAGE.run(given) == 4
    return given


def values(found) -> np.ndarray:
    array = found.detach().numpy() if isinstance(found, torch.Tensor) else np.asarray(found)
    return array.reshape(len(array), -1)


@pytest.mark.parametrize(("theirs", "ours"), CAPTUM + GRAD_CAM)
def test_both_expressions_of_a_row_give_the_same_numbers(theirs, ours, names):
    a, b = values(eval(theirs, names)), values(eval(ours, names))
    assert np.linalg.norm(a) > 0 and a.shape == b.shape
    assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(a)


@pytest.mark.parametrize(("theirs", "ours"), NOISY)
def test_random_methods_agree_within_the_standard_error(theirs, ours, names):
    torch.manual_seed(0)
    one, another = values(eval(theirs, names)), values(eval(theirs, names))
    result = eval(ours, names)
    ours, error = values(result.attributions), np.linalg.norm(values(result.standard_error))
    # Two runs of the peer show its own error, which is that of their mean.
    its_error = np.linalg.norm(one - another) / 2
    assert max(error, its_error) <= 0.2 * np.linalg.norm(ours)
    assert np.linalg.norm((one + another) / 2 - ours) <= 3 * (error + its_error)


def test_the_tables_have_their_rows_and_every_name_of_onnxplain_exists():
    import onnxplain

    assert (len(CAPTUM), len(NOISY), len(GRAD_CAM)) == (10, 2, 4)
    named = set(re.findall(r"\box\.(\w+)", PAGE.text))
    assert len(named) >= 12 and [name for name in named if not hasattr(onnxplain, name)] == []
    assert PAGE.missing() == []
