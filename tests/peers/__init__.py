"""Published packages that the tests and benchmarks compare with."""
