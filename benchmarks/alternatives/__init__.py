"""RAMDA, and what else one could do to get a smaller net; `python -m benchmarks.alternatives` runs it."""
