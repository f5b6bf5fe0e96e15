"""Attributions of generated text: every generated token in turn, over the tokens before it."""

from analyzer.methods.generation.attribution import attribute_generation
from analyzer.methods.generation.result import GenerationAttribution

__all__ = ["GenerationAttribution", "attribute_generation"]
