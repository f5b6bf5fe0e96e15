# ruff: noqa: F403
from analyzer import *
from converters import *

from . import ray as ray

__version__: str
