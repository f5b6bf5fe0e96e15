"""Gradients and attributions of canonical ONNX graphs, on several backends, checked against each other.

Importing this package loads no framework; a backend imports its own when it is made.
"""

from analyzer import targets
from analyzer.backends import Differentiable, Gradients, differentiate
from analyzer.checks import Report, check, compare
from analyzer.errors import AnalysisError
from analyzer.explainer import Explainer, export_explainer
from analyzer.images import image_files, load_images
from analyzer.methods import (
    Attribution,
    BlurIntegratedGradients,
    Conductance,
    Dataset,
    ExpectedGradients,
    FullGrad,
    GuidedIntegratedGradients,
    IntegratedGradients,
    SaliencyMap,
    Xrai,
    blur_integrated_gradients,
    conductance,
    expected_gradients,
    full_grad,
    grad_cam,
    grad_cam_plus_plus,
    gradient,
    guided_integrated_gradients,
    input_x_gradient,
    integrated_gradients,
    layer_cam,
    simple_full_grad,
    smooth_full_grad,
    smooth_grad,
    smooth_grad_squared,
    var_grad,
    xrai,
)
from analyzer.methods.generation import GenerationAttribution, attribute_generation
from analyzer.target.target import Target
from analyzer.texts import Texts, load_texts

__all__ = [
    "AnalysisError",
    "Attribution",
    "BlurIntegratedGradients",
    "Conductance",
    "Dataset",
    "Differentiable",
    "Explainer",
    "ExpectedGradients",
    "FullGrad",
    "GenerationAttribution",
    "Gradients",
    "GuidedIntegratedGradients",
    "IntegratedGradients",
    "Report",
    "SaliencyMap",
    "Target",
    "Texts",
    "Xrai",
    "attribute_generation",
    "blur_integrated_gradients",
    "check",
    "compare",
    "conductance",
    "differentiate",
    "expected_gradients",
    "export_explainer",
    "full_grad",
    "grad_cam",
    "grad_cam_plus_plus",
    "gradient",
    "guided_integrated_gradients",
    "image_files",
    "input_x_gradient",
    "integrated_gradients",
    "layer_cam",
    "load_images",
    "load_texts",
    "simple_full_grad",
    "smooth_full_grad",
    "smooth_grad",
    "smooth_grad_squared",
    "targets",
    "var_grad",
    "xrai",
]


def __getattr__(name: str) -> object:
    """Return a registered method that has no name above, such as one in a new file of analyzer/methods.

    `distances` is now `analyzer.checks.distances`; the old name works for one release and warns.
    """
    if name == "distances":
        import warnings

        from analyzer.checks import distances

        warnings.warn("analyzer.distances is now analyzer.checks.distances", DeprecationWarning, stacklevel=2)
        return distances
    from analyzer.methods import METHODS

    for one in METHODS.values():
        if one.run.__name__ == name:
            return one.run
    from analyzer.methods.names import unknown_attribute

    raise unknown_attribute(__name__, name, __all__)
