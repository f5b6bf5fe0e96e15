"""Old names of arguments, which work for one release and warn."""

from analyzer.errors import AnalysisError
from converters.system.deprecation import renaming

renamed = renaming(AnalysisError)
"""Decorate a function some of whose keyword arguments had other names: `@renamed(old="new")`."""
