"""Find the method that a wrong name means: another spelling, the name of another library, or a typing error."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# Names that other libraries and papers use.
KNOWN_AS = {
    "ig": "integrated-gradients",
    "intgrad": "integrated-gradients",
    "pathintegratedgradients": "integrated-gradients",
    "eg": "expected-gradients",
    "shap": "expected-gradients",
    "gradientshap": "expected-gradients",
    "gradshap": "expected-gradients",
    "gradientexplainer": "expected-gradients",
    "saliency": "gradient",
    "saliencymap": "gradient",
    "vanilla": "gradient",
    "vanillagradient": "gradient",
    "gradients": "gradient",
    "backprop": "gradient",
    "gradientxinput": "input-x-gradient",
    "inputtimesgradient": "input-x-gradient",
    "ixg": "input-x-gradient",
    "cam": "grad-cam",
    "layergradcam": "grad-cam",
    "gradcam++": "grad-cam-plus-plus",
    "gradcampp": "grad-cam-plus-plus",
    "gig": "guided-ig",
    "guidedintegratedgradients": "guided-ig",
    "blurintegratedgradients": "blur-ig",
    "noisetunnel": "smooth-grad",
    "layerconductance": "conductance",
    "fullgradient": "full-grad",
}


def suggested(name: str, methods: Iterable[str]) -> str | None:
    """Return the method that is most likely meant, None where none comes near."""
    known = {_plain(method): method for method in methods}
    plain = _plain(name)
    found = known.get(plain) or known.get(_plain(KNOWN_AS.get(plain, "")))
    if found is None:
        near = difflib.get_close_matches(plain, [*known, *KNOWN_AS], n=1, cutoff=0.75)
        found = known.get(near[0]) or known.get(_plain(KNOWN_AS.get(near[0], ""))) if near else None
    return found


def unknown_attribute(module: str, name: str, public: Iterable[str]) -> AttributeError:
    """Return the error for a name that a module does not have, with the public name that was probably meant."""
    from analyzer.methods.registry import METHODS

    if name.startswith("_"):
        return AttributeError(f"module {module!r} has no attribute {name!r}")
    found = suggested(name, METHODS)
    near = [METHODS[found].run.__name__] if found else difflib.get_close_matches(name, list(public), n=1)
    hint = f". Did you mean {near[0]!r}?" if near else ""
    return AttributeError(f"module {module!r} has no attribute {name!r}{hint}")


def _plain(name: str) -> str:
    """A name without case, hyphens and blanks."""
    return re.sub(r"[^a-z0-9+]", "", name.lower().replace("×", "x").replace("*", "x"))
