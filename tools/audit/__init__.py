"""A differential audit of every pass of `converters`: random graphs before and after, in float64."""
