"""RAMDA and other ways to a smaller net; `python -m benchmarks.alternatives` runs the comparison."""
