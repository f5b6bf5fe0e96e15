"""Wrong arguments and attributes: the error names the function, and the name that was probably meant."""

from __future__ import annotations

import inspect

import pytest

import analyzer
import onnxplain as ox
from analyzer.methods import METHODS


@pytest.mark.parametrize("function", [one.run for one in METHODS.values()], ids=METHODS)
def test_a_method_names_itself_and_the_keyword_that_was_meant(function):
    name = function.__name__
    with pytest.raises(
        TypeError,
        match=rf"^{name}\(\) got an unexpected argument 'targt'. Did you mean 'target'\? Fix: write target=…$",
    ):
        function(None, None, targt=1)
    with pytest.raises(
        TypeError, match=rf"^{name}\(\) got wrong arguments: missing .*'inputs'. Fix: call {name}\("
    ):
        function(None)


@pytest.mark.parametrize(
    ("function", "wrong", "meant"),
    [
        (ox.integrated_gradients, "tolerence", "tolerance"),
        (ox.convert, "class_name", "class_names"),
        (ox.load, "verfy", "verify"),
        (ox.differentiate, "devise", "device"),
        (ox.check, "backend", "backends"),
        (ox.compare, "straight_trough", "straight_through"),
        (ox.load_images, "preprocesing", "preprocessing"),
    ],
)
def test_a_wrong_keyword_is_answered_with_the_near_one(function, wrong, meant):
    assert meant in inspect.signature(function).parameters
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) .*{wrong!r}. Did you mean {meant!r}\?"):
        function(None, **{wrong: 1})


def test_a_keyword_that_is_near_to_none_is_answered_with_all():
    with pytest.raises(TypeError, match=r"'zzz'. Fix: choose from model, inputs, target"):
        ox.gradient(None, None, zzz=1)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("fullgrad", "full_grad"),
        ("ig", "integrated_gradients"),
        ("GradCAM", "grad_cam"),
        ("Preprocesing", "Preproc"),
    ],
)
def test_a_wrong_attribute_is_answered_with_the_near_one(wrong, meant):
    with pytest.raises(
        AttributeError, match=f"^module 'onnxplain' has no attribute '{wrong}'. Did you mean '{meant}"
    ):
        getattr(ox, wrong)


def test_an_attribute_that_is_near_to_none_is_named():
    for module in (ox, analyzer):
        with pytest.raises(AttributeError, match=f"^module '{module.__name__}' has no attribute 'qqqq'$"):
            getattr(module, "qqqq".lower())
        assert not hasattr(module, "__wrapped__")
