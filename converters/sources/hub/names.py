"""Read class names from a config.json: of transformers (id2label) and of timm (label_names, label_descriptions)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What transformers writes where nobody named the classes.
_PLACEHOLDER = re.compile(r"LABEL_\d+")


def class_names_of(config: Mapping[str, Any]) -> list[str] | None:
    """Return the names in the order of the classes; None where there are none, or not one for each class."""
    timm = config.get("pretrained_cfg")
    for source in (config, timm if isinstance(timm, Mapping) else {}):
        if (names := _in_order(source.get("id2label"))) and not all(map(_PLACEHOLDER.fullmatch, names)):
            return names
        listed = source.get("label_names")
        if isinstance(listed, list) and listed and all(isinstance(name, str) for name in listed):
            told = source.get("label_descriptions")
            described = told if isinstance(told, Mapping) else {}
            return [_text(described.get(name, name)) for name in listed]
    return None


def _in_order(names: object) -> list[str] | None:
    """The values of {index: name}, where the indices are 0, 1, 2, …"""
    if not isinstance(names, Mapping) or not names:
        return None
    found = [names.get(str(index), names.get(index)) for index in range(len(names))]
    return (
        None
        if any(name is None or isinstance(name, (dict, list)) for name in found)
        else list(map(_text, found))
    )


def _text(name: object) -> str:
    return name.strip() if isinstance(name, str) else str(name)
