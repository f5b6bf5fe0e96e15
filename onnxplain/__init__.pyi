# ruff: noqa: F403
from analyzer import *
from converters import *

__version__: str
