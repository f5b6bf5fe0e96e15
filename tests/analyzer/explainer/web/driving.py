"""Open a page in the browser, act on it, and wait for what it finds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image

from tests.analyzer.explainer.web.chrome import Chrome, Page

# What the page found, as it tells other scripts of the page.
LISTEN = """
window.told = 0;
document.addEventListener("onnxplain:explained", ({ detail }) => {
  const maps = Object.fromEntries(Object.entries(detail.maps).map(([name, map]) => [name, Array.from(map)]));
  const { milliseconds, target, explained, error, delta, total, tokens, width, height, frame } = detail;
  const scores = Array.from(detail.scores);
  window.found = { scores, maps, milliseconds, target, explained, error, delta, total, tokens, width, height, frame };
  window.told += 1;
});
"""
# A model that takes its time.
SLOW = """
const post = Worker.prototype.postMessage;
Worker.prototype.postMessage = function (...message) { setTimeout(() => post.apply(this, message), 400); };
"""
SETTLED = "window.told && !document.body.hasAttribute('aria-busy')"


def opened(chrome: Chrome, address: str, *, more: str = "") -> Page:
    """A tab with the page, after its first sample is explained. more: a script that runs before the page's own."""
    page = chrome.page()
    page.call("Page.addScriptToEvaluateOnNewDocument", {"source": LISTEN + more})
    page.open(address)
    page.until(SETTLED)
    return page


def after(page: Page, action: Any, *arguments: Any) -> dict[str, Any]:
    """What is found after an action."""
    before = page.run("window.told")
    action(*arguments)
    page.until(f"window.told > {before} && {SETTLED}")
    return page.run("window.found")


def python(path: Path, feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, feeds), strict=True))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def assert_equal(found: dict[str, Any], expected: dict[str, np.ndarray]) -> None:
    """The scores and both maps, to a relative L2 of 1e-4; the class and the completeness."""
    pairs = {"scores": (found["scores"], expected["logits"])}
    pairs |= {name: (found["maps"][name], expected[name]) for name in ("map", "complete_map")}
    for name, (own, truth) in pairs.items():
        flat = np.ravel(truth)[: len(own)] if name != "scores" else np.ravel(truth)
        assert len(own) == len(flat), name
        assert np.linalg.norm(own - flat) <= 1e-4 * np.linalg.norm(flat), name
    assert found["target"] == expected["explained_target"][0]
    np.testing.assert_allclose(found["explained"], expected["explained"][0], rtol=1e-4)
    assert found["error"] <= 1e-4 and expected["completeness_error"][0] <= 1e-4
