"""The public names: users' scripts import them, so that one more or one less is a decision."""

from __future__ import annotations

import pytest

import analyzer
import converters
import onnxplain
from analyzer import methods

ANALYZER = [
    "AnalysisError",
    "Attribution",
    "BatchExplainer",
    "BlurIntegratedGradients",
    "Conductance",
    "Dataset",
    "Differentiable",
    "ExpectedGradients",
    "Explainer",
    "FullGrad",
    "GenerationAttribution",
    "Gradients",
    "GuidedIntegratedGradients",
    "IntegratedGradients",
    "Report",
    "Results",
    "SaliencyMap",
    "SetReport",
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
    "explain_dataset",
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
    "open_results",
    "report_results",
    "simple_full_grad",
    "smooth_full_grad",
    "smooth_grad",
    "smooth_grad_squared",
    "targets",
    "var_grad",
    "xrai",
]
CONVERTERS = [
    "BATCH",
    "CANONICAL_KEY",
    "CANONICAL_OPSET",
    "ConversionError",
    "InvalidModel",
    "LimitExceeded",
    "Limits",
    "MissingFramework",
    "Model",
    "Preprocessing",
    "PyTorchSource",
    "TensorFlowSource",
    "UnsupportedModel",
    "UntrustedModel",
    "Verification",
    "VerificationFailed",
    "canonicalise",
    "convert",
    "load",
    "set_metadata",
]


def test_the_packages_export_these_names():
    assert sorted(analyzer.__all__) == ANALYZER
    assert sorted(converters.__all__) == CONVERTERS
    assert sorted(onnxplain.__all__) == sorted([*ANALYZER, *CONVERTERS, "__version__", "ray"])


def test_every_exported_name_exists_and_says_what_it_is():
    for package in (analyzer, converters):
        for name in package.__all__:
            assert (getattr(package, name).__doc__ or "").strip(), name


def test_a_registered_method_needs_no_export():
    for method in methods.METHODS.values():
        assert getattr(analyzer, method.run.__name__).__wrapped__ is not None

    def doubled(model, inputs, target=None):
        """Return nothing."""

    run = methods.method("doubled", caption="Doubled", note="", source="a test")(doubled)
    try:
        assert onnxplain.doubled is run
    finally:
        del methods.METHODS["doubled"]
    with pytest.raises(AttributeError, match="doubled"):
        _ = onnxplain.doubled


def test_the_module_that_moved_has_its_old_name_for_one_release():
    with pytest.warns(DeprecationWarning, match=r"analyzer\.checks\.distances"):
        from analyzer import distances
    assert distances is analyzer.checks.distances
