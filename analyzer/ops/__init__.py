"""Everything known of each op, a file per family. Importing this package fills the registry."""

from analyzer.ops import activation, elementwise
from analyzer.ops.registry import Kind, Op, find, register, registered

__all__ = ["Kind", "Op", "activation", "elementwise", "find", "register", "registered"]
