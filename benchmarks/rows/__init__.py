"""One file a row or two; the list of all of them is in `benchmarks.registry`."""
