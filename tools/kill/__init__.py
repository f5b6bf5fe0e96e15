"""Commands that are killed while they write: every file must be whole, and nothing else may be left."""
