"""Photographs in, maps of photographs out: preprocessing and drawing as nodes of an explainer."""

from analyzer.explainer.photograph.assembly import with_preprocessing

__all__ = ["with_preprocessing"]
