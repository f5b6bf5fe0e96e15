"""Build the documentation site: the parts of it that are generated. `mkdocs build --strict` runs hooks.py."""
